"""What a lead decides about a batch while it is at work, and about one comparison of it.

A batch's priority, due date and overlap stand in its comparisons too, where the queue's walk reads
them. They are brought in line a few at a time, each group in a transaction of its own, so that
nobody waits long for a slot; a change that was cut off half-way is finished by saving it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Any

from django.db import transaction
from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput, ChangedMeanwhile, Conflict
from annotation.models import Batch, Comparison, Purpose, Scheme, SkipMode, Strategy, User
from annotation.models.projects import BY_MODEL
from annotation.overlap import FIRST, FULL_BELOW
from annotation.services.audit import record
from annotation.services.ledger import as_it_stands
from annotation.services.reasons import said_why

ROWS_AT_ONCE = 500
"""Comparisons changed in one transaction."""
MOST_ANSWERS = 1000
HIGHEST_PRIORITY = 32_767
MOST_SKIPS = 100
CHANGEABLE = (
    "priority",
    "due_on",
    "scheme",
    "overlap",
    "adaptive",
    "sensitive",
    "skip_mode",
    "skips_to_retire",
    "strategy",
)
IN_LINE = ("priority", "due_on", "overlap", "adaptive", "strategy")
"""Of these, what stands in the comparisons too."""
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True)
class Progress:
    """How far a batch is. Surplus and imported answers hold no place and are not in it."""

    comparisons: int = 0
    retired: int = 0
    wanted: int = 0
    """Answers, of comparisons that are not retired."""
    free: int = 0
    """Places nobody works on."""
    languages: set[str] = field(default_factory=set)

    @property
    def taken(self) -> int:
        """Answers that count and leases that are out."""
        return self.wanted - self.free


def progress_of(batches: list[Batch]) -> dict[int, Progress]:
    """Batch -> progress, in one grouped query over their comparisons."""
    found = {batch.pk: Progress() for batch in batches}
    alive = Q(retired_at__isnull=True)
    groups = (
        Comparison.objects.filter(batch__in=list(found), repeat_of=None)
        .order_by()
        .values_list("batch_id", "language")
        .annotate(
            comparisons=Count("pk"),
            retired=Count("pk", filter=~alive),
            wanted=Coalesce(Sum("answers_wanted", filter=alive), 0),
            free=Coalesce(Sum("open_slots", filter=alive), 0),
        )
    )
    for batch, language, comparisons, retired, wanted, free in groups:
        one = found[batch]
        one.comparisons += comparisons
        one.retired += retired
        one.wanted += wanted
        one.free += free
        one.languages.add(language)
    return found


def change_batch(
    *,
    batch: Batch,
    changes: Mapping[str, Any],
    by: User | None,
    seen: Mapping[str, Any] = NOTHING,
) -> Batch:
    """Set some of CHANGEABLE and bring the batch's comparisons in line (ledger.pause_batch pauses).

    A newer scheme is what leases to come follow; those that are out keep theirs. The overlap can
    be raised alone: a slot opens on every comparison that is not retired and has fewer. Adaptive
    overlap begins with comparisons that nobody has taken yet; those in work get all their answers,
    and so do all once it ends. Raises BadInput with the value seen.

    seen: what stood there when the caller decided. Where others have set one of these otherwise
    meanwhile, nothing changes: ChangedMeanwhile. What isn't in it is set whatever stands there.
    """
    if unknown := sorted({*changes, *seen} - set(CHANGEABLE)):
        raise BadInput(f"A batch has {', '.join(CHANGEABLE)} to change: not {unknown[0]!r}.")
    with transaction.atomic():
        # the batch's row alone: whoever opens comparisons may hold the project's and wait for it
        batch = (
            Batch.objects.select_for_update(no_key=True, of=("self",))
            .select_related("project")
            .get(pk=batch.pk)
        )
        _require_seen(batch, changes, seen)
        _require_sense(batch, changes)
        before = {name: _named(getattr(batch, name)) for name in changes}
        after = {name: _named(value) for name, value in changes.items()}
        if before != after:
            for name, value in changes.items():
                setattr(batch, name, value)
            _require_fit(batch)
            batch.save(update_fields=list(changes))
            record(
                action="batch.change",
                target=batch,
                project=batch.project,
                actor=by,
                before={name: was for name, was in before.items() if was != after[name]},
                after={name: now for name, now in after.items() if now != before[name]},
            )
    bring_in_line(batch)
    return batch


def bring_in_line(batch: Batch) -> int:
    """Give the batch's comparisons what IN_LINE names; returns how many changed.

    Those that were imported with their answers (answers_wanted 0) stay as they are, and so do
    retired ones and hidden repeats. Where somebody changes the batch again meanwhile, it ends, and
    theirs does all.
    """
    alive = Comparison.objects.filter(
        batch=batch, retired_at__isnull=True, answers_wanted__gt=0, repeat_of=None
    )
    changed = _in_groups(batch, alive.exclude(priority=batch.priority), priority=batch.priority)
    changed += _in_groups(batch, alive.exclude(due_day=batch.due_day), due_day=batch.due_day)
    asked = alive.exclude(strategy=batch.strategy)
    if batch.strategy in BY_MODEL:
        asked = asked.filter(purpose=Purpose.PRODUCTION)
    changed += _in_groups(batch, asked, strategy=batch.strategy)
    if not batch.adaptive:
        changed += _in_groups(
            batch,
            alive.filter(full_overlap__isnull=False),
            open_slots=F("open_slots") + F("full_overlap") - F("answers_wanted"),
            answers_wanted=F("full_overlap"),
            full_overlap=None,
        )
    if batch.overlap:
        at_two = Q(full_overlap__isnull=False, answers_wanted=FIRST)
        changed += _in_groups(
            batch,
            alive.exclude(at_two).filter(answers_wanted__lt=batch.overlap),
            open_slots=F("open_slots") + batch.overlap - F("answers_wanted"),
            answers_wanted=batch.overlap,
        )
        changed += _in_groups(
            batch, alive.filter(full_overlap__lt=batch.overlap), full_overlap=batch.overlap
        )
    if batch.adaptive:
        changed += _in_groups(
            batch,
            alive.filter(
                full_overlap__isnull=True,
                answers_wanted__gt=FIRST,
                open_slots=F("answers_wanted"),
                content_hash__gte=FULL_BELOW,
            ),
            full_overlap=F("answers_wanted"),
            answers_wanted=FIRST,
            open_slots=FIRST,
        )
    return changed


@transaction.atomic
def retire_comparison(*, comparison: Comparison, by: User | None, reason: str) -> Comparison:
    """Take a comparison out of the queue; its answers stay, and a lease that is out stays good.

    Raises Conflict for one that is retired already.
    """
    reason = said_why(reason, gettext("Retiring needs a reason"))
    comparison = _locked(comparison)
    if comparison.retired_at is not None:
        raise Conflict(
            gettext("Comparison %(number)s is retired already.") % {"number": comparison.pk}
        )
    comparison.retired_at = timezone.now()
    comparison.save(update_fields=["retired_at"])
    record(
        action="comparison.retire",
        target=comparison,
        project=comparison.project,
        actor=by,
        reason=reason,
    )
    return comparison


@transaction.atomic
def reopen_comparison(*, comparison: Comparison, by: User | None) -> Comparison:
    """Put a retired comparison back; it goes on with the slots that it had, at the priority and
    due date that its batch has by now. Raises Conflict.

    The batch is held first, as by whoever brings its comparisons in line, so that a change of it
    waits and finds this one open, or is seen here.
    """
    batch = as_it_stands(comparison.batch)
    comparison = _locked(comparison)
    if comparison.retired_at is None:
        raise Conflict(gettext("Comparison %(number)s is not retired.") % {"number": comparison.pk})
    comparison.retired_at = None
    comparison.priority, comparison.due_day = batch.priority, batch.due_day
    comparison.save(update_fields=["retired_at", "priority", "due_day"])
    record(action="comparison.reopen", target=comparison, project=comparison.project, actor=by)
    return comparison


def _locked(comparison: Comparison) -> Comparison:
    """The comparison's row, held until the transaction ends; no other is held beside it."""
    return Comparison.objects.select_for_update(no_key=True).get(pk=comparison.pk)


def _in_groups(batch: Batch, rows: QuerySet[Comparison], **values: Any) -> int:
    """Update the rows, a few at a time, in the order of their ids, while the batch stays so."""
    as_it_was = Batch.objects.filter(
        pk=batch.pk, **{name: getattr(batch, name) for name in IN_LINE}
    ).select_for_update(no_key=True)
    changed, last = 0, 0
    while ids := list(
        rows.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:ROWS_AT_ONCE]
    ):
        with transaction.atomic():
            if as_it_was.first() is None:
                break
            # the condition once more: a row may have changed since the look
            changed += rows.filter(pk__in=ids).update(**values)
        last = ids[-1]
    return changed


def _require_seen(batch: Batch, changes: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
    """Two who set a field to the same agree; one who sets it to what it was leaves it alone."""
    stands = {name: getattr(batch, name) for name in changes if name in seen}
    now = {
        name: value
        for name, value in stands.items()
        if _named(value) not in (_named(seen[name]), _named(changes[name]))
    }
    if now:
        words = ", ".join(f"{name} {_named(value)}" for name, value in now.items())
        raise ChangedMeanwhile(
            gettext("Somebody else changed this batch meanwhile: %(now)s.") % {"now": words}, now
        )


def _require_sense(batch: Batch, changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        _CHECKS[name](batch, value)


def _require_fit(batch: Batch) -> None:
    if batch.strategy in BY_MODEL and batch.purpose != Purpose.PRODUCTION:
        raise BadInput(
            gettext("A model picks production comparisons alone; batch %(batch)r is %(purpose)s.")
            % {"batch": batch.name, "purpose": batch.purpose}
        )
    if batch.adaptive and (batch.overlap or 0) <= FIRST:
        raise BadInput(
            gettext(
                "Adaptive overlap asks for %(first)s answers first, so a comparison must want "
                "more than that: %(seen)s."
            )
            % {"first": FIRST, "seen": batch.overlap}
        )


def _check_priority(batch: Batch, value: Any) -> None:
    if not _is_whole(value) or abs(value) > HIGHEST_PRIORITY:
        raise BadInput(
            f"A priority is a whole number from {-HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}: "
            f"{value!r}."
        )


def _check_due_on(batch: Batch, value: Any) -> None:
    if value is not None and not isinstance(value, date):
        raise BadInput(f"A due date is a date or none: {value!r}.")


def _check_scheme(batch: Batch, value: Any) -> None:
    if not isinstance(value, Scheme) or value.project_id != batch.project_id:
        raise BadInput(f"The project of batch {batch.name!r} has no such scheme: {value!r}.")


def _check_overlap(batch: Batch, value: Any) -> None:
    if value is None and batch.overlap is None:
        return
    if not _is_whole(value) or not 1 <= value <= MOST_ANSWERS:
        raise BadInput(
            gettext("A comparison wants 1 to %(most)s answers: %(seen)r.")
            % {"most": MOST_ANSWERS, "seen": value}
        )
    if batch.purpose == Purpose.LIVE and value > 1:
        raise BadInput(
            gettext("A turn of a chat has one answer, its writer's: %(seen)s.") % {"seen": value}
        )
    if value < (batch.overlap or 1):
        raise BadInput(
            gettext(
                "The overlap of batch %(batch)r is %(stands)s and can only be raised: %(seen)s."
            )
            % {"batch": batch.name, "stands": batch.overlap, "seen": value}
        )


def _check_adaptive(batch: Batch, value: Any) -> None:
    if not isinstance(value, bool):
        raise BadInput(f"An overlap is adaptive or not: {value!r}.")


def _check_sensitive(batch: Batch, value: Any) -> None:
    if not isinstance(value, bool):
        raise BadInput(f"A batch is sensitive or not: {value!r}.")


def _check_skip_mode(batch: Batch, value: Any) -> None:
    if value not in SkipMode.values:
        raise BadInput(f"A skip mode is one of {', '.join(SkipMode.values)}: {value!r}.")


def _check_skips_to_retire(batch: Batch, value: Any) -> None:
    if not _is_whole(value) or not 1 <= value <= MOST_SKIPS:
        raise BadInput(f"1 to {MOST_SKIPS} skips retire a comparison: {value!r}.")


def _check_strategy(batch: Batch, value: Any) -> None:
    if value not in Strategy.values:
        raise BadInput(f"A strategy is one of {', '.join(Strategy.values)}: {value!r}.")


_CHECKS = {
    "priority": _check_priority,
    "due_on": _check_due_on,
    "scheme": _check_scheme,
    "overlap": _check_overlap,
    "adaptive": _check_adaptive,
    "sensitive": _check_sensitive,
    "skip_mode": _check_skip_mode,
    "strategy": _check_strategy,
    "skips_to_retire": _check_skips_to_retire,
}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _named(value: Any) -> Any:
    """As the audit log keeps it."""
    if isinstance(value, Scheme):
        return value.version
    return value.isoformat() if isinstance(value, date) else value
