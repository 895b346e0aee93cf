"""Gold items: made from a comparison, answered by experts, taken out again.

An item is live while at least two experts agree on something; what they agree on is kept with it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import transaction
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict
from annotation.gold import Answered, Constraint, Said, agreed, verdict_of
from annotation.models import (
    Batch,
    Comparison,
    GoldCheck,
    GoldItem,
    GoldState,
    GoldUse,
    GoldVote,
    Project,
    Purpose,
    Ranking,
    User,
)
from annotation.services import rankings as ranking_rules
from annotation.services.audit import record
from annotation.services.ledger import batch_for, open_comparison
from annotation.services.rankings import AxisRanking
from annotation.services.reasons import said_why
from annotation.storable import require_storable

MAX_EXPLANATION = 4000
PURPOSES = {
    GoldUse.HIDDEN: Purpose.GOLD,
    GoldUse.PRACTICE: Purpose.GOLD,
    GoldUse.QUALIFICATION: Purpose.QUALIFICATION,
}
CHECKED = (Purpose.GOLD, Purpose.QUALIFICATION)


@transaction.atomic
def make_gold(*, comparison: Comparison, use: str, by: User) -> GoldItem:
    """The gold item of this use that is a copy of a comparison, made at the first call.

    A draft until two experts agree. Raises BadInput for what is gold itself.
    """
    if use not in GoldUse.values:
        raise BadInput(f"Gold is used as {', '.join(GoldUse.values)}: not {use!r:.40}.")
    if comparison.purpose in CHECKED:
        raise BadInput(
            gettext("Comparison %(number)s is %(purpose)s already.")
            % {"number": comparison.pk, "purpose": comparison.purpose}
        )
    entries = comparison.entries.select_related("completion").order_by("position")
    copy, _ = open_comparison(
        batch=_batch(comparison, GoldUse(use)),
        prompt=comparison.prompt,
        completions=[entry.completion for entry in entries],
        answers_wanted=0,
    )
    item, created = GoldItem.objects.get_or_create(
        comparison=copy,
        defaults={
            "project_id": comparison.project_id,
            "origin": comparison,
            "use": use,
            "created_by": by,
        },
    )
    if created:
        _note(item, "gold.make", by, use=use, origin=comparison.pk)
    return item


@transaction.atomic
def vote_on_gold(
    *, item: GoldItem, by: User, rankings: Sequence[AxisRanking], explanation: str = ""
) -> GoldItem:
    """An expert's answer; a second one of the same expert replaces the first.

    The item becomes live, or a draft again, by what all experts agree on; answers that were scored
    are scored anew. Raises BadRanking, or Conflict for an item that is retired.
    """
    explanation = explanation.strip()
    if len(explanation) > MAX_EXPLANATION:
        raise BadInput(
            gettext("An explanation has at most %(most)s characters, not %(seen)s.")
            % {"most": MAX_EXPLANATION, "seen": len(explanation)}
        )
    require_storable(explanation)
    locked = _locked(item)
    checked = ranking_rules.checked(
        rankings,
        scheme=locked.comparison.batch.scheme,
        presented_order=completion_ids(locked.comparison),
    )
    GoldVote.objects.update_or_create(
        item=locked,
        expert=by,
        defaults={"rankings": as_json(checked), "explanation": explanation},
    )
    votes = locked.votes.order_by("pk").values_list("rankings", flat=True)
    locked.constraints = [one.as_json() for one in agreed([said_in(vote) for vote in votes])]
    locked.state = GoldState.LIVE if locked.constraints else GoldState.DRAFT
    locked.save(update_fields=["constraints", "state"])
    _score_anew(locked)
    count_practice(locked.project)
    _note(locked, "gold.vote", by, rankings=as_json(checked), state=locked.state)
    return locked


@transaction.atomic
def retire_gold(*, item: GoldItem, by: User | None, reason: str, is_wrong: bool) -> GoldItem:
    """Never hand it out again. is_wrong: nor count the answers that were scored by it."""
    reason = said_why(reason, gettext("Retiring needs a reason"))
    locked = _locked(item)
    locked.state, locked.retire_reason = GoldState.RETIRED, reason
    locked.save(update_fields=["state", "retire_reason"])
    if is_wrong:
        locked.checks.update(counts=False)
    count_practice(locked.project)
    _note(locked, "gold.retire", by, reason=reason, is_wrong=is_wrong)
    return locked


@transaction.atomic
def start_over(*, item: GoldItem, by: User, reason: str) -> GoldItem:
    """A draft again, without the experts' answers; what was scored by them counts only once new
    ones agree. The old ones stay in the audit log."""
    reason = said_why(reason, gettext("Starting over needs a reason"))
    locked = _locked(item)
    locked.votes.all().delete()
    locked.state, locked.constraints = GoldState.DRAFT, []
    locked.save(update_fields=["state", "constraints"])
    _score_anew(locked)
    count_practice(locked.project)
    _note(locked, "gold.start_over", by, reason=reason)
    return locked


def constraints_of(item: GoldItem) -> list[Constraint]:
    """What an answer to the item must say."""
    return [Constraint(**one) for one in item.constraints]


def as_json(rankings: Iterable[AxisRanking]) -> list[dict[str, Any]]:
    """Rankings as gold votes and practice answers keep them."""
    return [
        {
            "axis": one.axis,
            "outcome": str(one.outcome),
            "groups": one.groups,
            "acceptable": one.acceptable,
        }
        for one in rankings
    ]


def said_in(stored: Iterable[dict[str, Any]]) -> Answered:
    """What as_json kept, for annotation.gold."""
    return {
        one["axis"]: Said(
            outcome=one["outcome"], groups=one["groups"], acceptable=one["acceptable"]
        )
        for one in stored
    }


def said_by(rankings: Iterable[Ranking]) -> Answered:
    """Stored rankings of a preference, for annotation.gold."""
    return {
        one.axis: Said(outcome=one.outcome, groups=one.groups, acceptable=one.acceptable)
        for one in rankings
    }


def completion_ids(comparison: Comparison) -> list[int]:
    """In their stored places."""
    entries = comparison.entries.order_by("position")
    return list(entries.values_list("completion_id", flat=True))


def count_practice(project: Project) -> None:
    """Keep Project.num_practice true after a change of its items."""
    live = project.gold_items.filter(use=GoldUse.PRACTICE, state=GoldState.LIVE)
    Project.objects.filter(pk=project.pk).update(num_practice=live.count())


def _batch(comparison: Comparison, use: GoldUse) -> Batch:
    """Where the copies lie that share source, scheme and skill."""
    of = comparison.batch
    name = f"gold, {use}, source {comparison.prompt.source_id}, scheme {of.scheme.version}"
    return batch_for(
        project=comparison.project,
        name=f"{name}, {of.skill}" if of.skill else name,
        source=comparison.prompt.source,
        purpose=PURPOSES[use],
        scheme=of.scheme,
        skill=of.skill,
    )


def _score_anew(item: GoldItem) -> None:
    """After its constraints changed; void answers stay out."""
    constraints, changed = constraints_of(item), []
    checks = item.checks.select_related("preference").prefetch_related("preference__rankings")
    for check in checks:
        check.counts = bool(constraints) and check.preference.voided_at is None
        if constraints:
            check.verdict = verdict_of(constraints, said_by(check.preference.rankings.all()))
        changed.append(check)
    GoldCheck.objects.bulk_update(changed, ["counts", "verdict"], batch_size=500)


def _locked(item: GoldItem) -> GoldItem:
    """The item's row, held until the transaction ends. Raises Conflict for a retired one."""
    found = (
        GoldItem.objects.select_for_update(of=("self",), no_key=True)
        .select_related("project", "comparison__batch__scheme")
        .get(pk=item.pk)
    )
    if found.state == GoldState.RETIRED:
        raise Conflict(gettext("Gold item %(number)s is retired.") % {"number": found.pk})
    return found


def _note(item: GoldItem, action: str, by: User | None, **data: Any) -> None:
    record(action=action, target=item, project=item.project, actor=by, **data)
