"""Gold as the tests need it: items that two experts made live, and answers right or wrong."""

from annotation.models import Assignment, Comparison, GoldItem, GoldUse, Project, Role, User
from annotation.services.gold import completion_ids, make_gold, vote_on_gold
from annotation.services.queue import submit_preference
from annotation.services.rankings import AxisRanking
from tests.annotation.making import make_comparisons, make_member


def make_experts(project: Project) -> list[User]:
    """Two reviewers."""
    return [make_member(project, Role.REVIEWER) for _ in range(2)]


def in_order(ids: list[int], axes=("overall",)) -> list[AxisRanking]:
    """The first is the best."""
    return [AxisRanking(axis=axis, groups=[[one] for one in ids]) for axis in axes]


def make_item(experts, comparison: Comparison, use: str = GoldUse.HIDDEN) -> GoldItem:
    """A live item: its stored order, best first."""
    item = make_gold(comparison=comparison, use=use, by=experts[0])
    ids = completion_ids(item.comparison)
    for expert in experts:
        item = vote_on_gold(
            item=item, by=expert, rankings=in_order(ids), explanation="The first says how."
        )
    return item


def make_items(experts, project, number, use: str = GoldUse.HIDDEN, **more) -> list[GoldItem]:
    """Live items on imported comparisons, which nobody is asked about."""
    more = {"answers_wanted": 0, "batch": f"origins {use}"} | more
    return [make_item(experts, one, use) for one in make_comparisons(project, number, **more)]


def answer(lease: Assignment, *, right: bool = True, **more):
    """Submit the stored order, or its reverse."""
    ids = completion_ids(lease.comparison)
    return submit_preference(
        assignment=lease,
        rankings=in_order(ids if right else ids[::-1], lease.scheme.axes),
        key=f"key {lease.pk}",
        **more,
    )
