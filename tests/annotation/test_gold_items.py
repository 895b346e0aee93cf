"""Gold items: made from comparisons, live by two experts, retired."""

import pytest

from annotation.errors import BadInput, BadRanking, Conflict
from annotation.models import AuditEntry, GoldItem, Preference, Project
from annotation.services.gold import (
    completion_ids,
    constraints_of,
    make_gold,
    retire_gold,
    vote_on_gold,
)
from annotation.services.queue import claim_comparison
from annotation.services.rankings import AxisRanking
from tests.annotation.golden import in_order, make_experts, make_item, make_items
from tests.annotation.making import make_annotator, make_comparisons, make_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def experts(project):
    return make_experts(project)


def test_gold_is_a_copy_that_the_walk_never_meets(project, experts):
    [origin] = make_comparisons(project, k=3)
    item = make_gold(comparison=origin, use="hidden", by=experts[0])
    assert item.comparison_id != origin.pk
    assert completion_ids(item.comparison) == completion_ids(origin)
    assert (item.comparison.purpose, item.comparison.answers_wanted) == ("gold", 0)
    assert item.state == "draft"
    assert make_gold(comparison=origin, use="hidden", by=experts[1]) == item
    assert make_gold(comparison=origin, use="practice", by=experts[1]) != item
    assert claim_comparison(annotator=make_annotator(project)).comparison == origin


def test_gold_is_not_made_of_gold_nor_for_another_use(project, experts):
    [origin] = make_comparisons(project)
    item = make_gold(comparison=origin, use="qualification", by=experts[0])
    assert item.comparison.purpose == "qualification"
    with pytest.raises(BadInput, match="is qualification already"):
        make_gold(comparison=item.comparison, use="hidden", by=experts[0])
    with pytest.raises(BadInput, match="'honey'"):
        make_gold(comparison=origin, use="honey", by=experts[0])


def test_two_experts_make_an_item_live_and_one_does_not(project, experts):
    [origin] = make_comparisons(project)
    item = make_gold(comparison=origin, use="hidden", by=experts[0])
    ids = completion_ids(origin)
    item = vote_on_gold(item=item, by=experts[0], rankings=in_order(ids))
    assert (item.state, item.constraints) == ("draft", [])
    item = vote_on_gold(item=item, by=experts[0], rankings=in_order(ids))
    assert item.state == "draft"  # the same expert twice is one expert
    item = vote_on_gold(item=item, by=experts[1], rankings=in_order(ids))
    assert item.state == "live"
    assert [(one.better, one.worse) for one in constraints_of(item)] == [tuple(ids)]


def test_experts_who_differ_leave_a_draft_until_one_thinks_again(project, experts):
    [origin] = make_comparisons(project)
    item, ids = make_gold(comparison=origin, use="hidden", by=experts[0]), completion_ids(origin)
    vote_on_gold(item=item, by=experts[0], rankings=in_order(ids))
    assert vote_on_gold(item=item, by=experts[1], rankings=in_order(ids[::-1])).state == "draft"
    assert vote_on_gold(item=item, by=experts[1], rankings=in_order(ids)).state == "live"
    third = make_experts(project)[0]
    assert vote_on_gold(item=item, by=third, rankings=in_order(ids[::-1])).state == "draft"
    assert GoldItem.objects.get().votes.count() == 3


def test_axes_get_constraints_of_their_own(experts):
    project = make_project(axes=("helpful", "safe"))
    experts = make_experts(project)
    [origin] = make_comparisons(project)
    first, second = ids = completion_ids(origin)
    item = make_gold(comparison=origin, use="hidden", by=experts[0])
    for expert, safe in zip(experts, (ids, ids[::-1]), strict=True):
        rankings = [
            AxisRanking(axis="helpful", groups=[[first], [second]]),
            AxisRanking(axis="safe", groups=[[one] for one in safe]),
        ]
        item = vote_on_gold(item=item, by=expert, rankings=rankings)
    assert [one.axis for one in constraints_of(item)] == ["helpful"]


def test_an_experts_answer_is_checked_like_anybodys(project, experts):
    [origin] = make_comparisons(project)
    item = make_gold(comparison=origin, use="hidden", by=experts[0])
    with pytest.raises(BadRanking, match="was not shown"):
        vote_on_gold(item=item, by=experts[0], rankings=in_order([1, 999_999]))
    with pytest.raises(BadInput, match="at most 4000"):
        vote_on_gold(
            item=item,
            by=experts[0],
            rankings=in_order(completion_ids(origin)),
            explanation="x" * 4001,
        )


def test_a_retired_item_stays_retired(project, experts):
    [item] = make_items(experts, project, 1)
    with pytest.raises(BadInput, match="reason of 1 to 200"):
        retire_gold(item=item, by=experts[0], reason=" ", is_wrong=False)
    retire_gold(item=item, by=experts[0], reason="too easy", is_wrong=False)
    with pytest.raises(Conflict, match="is retired"):
        vote_on_gold(item=item, by=experts[0], rankings=in_order(completion_ids(item.comparison)))
    with pytest.raises(Conflict, match="is retired"):
        retire_gold(item=item, by=experts[0], reason="again", is_wrong=True)


def test_the_project_knows_how_many_practice_items_are_live(project, experts):
    [one, _] = make_items(experts, project, 2, "practice")
    make_items(experts, project, 1, "hidden")
    assert Project.objects.get(pk=project.pk).num_practice == 2
    retire_gold(item=one, by=experts[0], reason="too easy", is_wrong=False)
    assert Project.objects.get(pk=project.pk).num_practice == 1


def test_batches_of_gold_keep_sources_schemes_and_skills_apart(project, experts):
    from_batches = [
        *make_comparisons(project, batch="plain"),
        *make_comparisons(project, batch="skilled", skill="law"),
    ]
    items = [make_item(experts, one) for one in from_batches]
    assert [one.comparison.skill for one in items] == ["", "law"]
    assert len({one.comparison.batch_id for one in items}) == 2


def test_what_experts_do_is_audited_and_no_vote_is_stored(project, experts):
    [item] = make_items(experts, project, 1)
    retire_gold(item=item, by=experts[1], reason="too easy", is_wrong=False)
    actions = AuditEntry.objects.filter(target=f"golditem:{item.pk}").order_by("pk")
    assert list(actions.values_list("action", "actor")) == [
        ("gold.make", experts[0].pk),
        ("gold.vote", experts[0].pk),
        ("gold.vote", experts[1].pk),
        ("gold.retire", experts[1].pk),
    ]
    assert not Preference.objects.exists()
