"""Leases: a slot of a comparison held for one annotator, until an answer or its end.

Whoever writes here takes the comparison's row first (a conditional update or SELECT ... FOR UPDATE)
and touches no second one, so that nothing can deadlock; the invariant is services.queue's.
"""

import hashlib
import random
from datetime import UTC, datetime, timedelta

from django.db import IntegrityError, connection, transaction
from django.db.models import Count, F, QuerySet, Subquery
from django.utils import timezone

from annotation.models import (
    Annotator,
    Assignment,
    AssignmentState,
    Batch,
    Comparison,
    ComparisonCompletion,
    LeaseKind,
    Project,
)
from annotation.orders import order_of
from annotation.prepared import Prepared, insert
from annotation.services.overlap import settle
from annotation.services.projects import current_guideline
from annotation.services.sensitive import count_one

PREFETCH_SECONDS = 120
"""A prefetched lease is short: it only bridges the reading of the one before."""
MAY_COME_AGAIN = (AssignmentState.RELEASED, AssignmentState.EXPIRED, AssignmentState.LATER)
"""Ends of a lease after which its annotator may be given the comparison again."""
RELEASED_AT_ONCE = 20
"""A claim clears away this many expired leases of others before it looks around."""


def _entries_and_draws(comparison: int) -> QuerySet[ComparisonCompletion, tuple[int, int | None]]:
    drawn = (
        Assignment.objects.filter(comparison=comparison)
        .order_by()
        .values("comparison")
        .annotate(number=Count("pk"))
        .values("number")
    )
    entries = ComparisonCompletion.objects.filter(comparison=comparison).order_by("position")
    return entries.annotate(drawn=Subquery(drawn)).values_list("completion_id", "drawn")


_ENTRIES = Prepared(_entries_and_draws, comparison=1)
_HELD = Prepared(
    lambda annotator: Assignment.objects.filter(
        annotator=annotator, holds_slot=True
    ).select_related("comparison__batch"),
    annotator=1,
)
_ENDED = Prepared(
    lambda comparison, annotator: Assignment.objects.filter(
        comparison=comparison, annotator=annotator, state__in=MAY_COME_AGAIN
    ).values_list("pk", "leased_at"),
    comparison=1,
    annotator=1,
)
_EXPIRED = Prepared(
    lambda project, now: (
        Assignment.objects.filter(project=project, holds_slot=True, expires_at__lte=now)
        .order_by("expires_at", "pk")
        .values_list("pk", "comparison_id")[:RELEASED_AT_ONCE]
    ),
    project=1,
    now=datetime(2026, 1, 1, tzinfo=UTC),
)
_LOCKED = Prepared(
    lambda comparison: Comparison.objects.select_for_update(no_key=True).filter(pk=comparison),
    comparison=1,
)


def draw_order(comparison: Comparison) -> list[int]:
    """The completion ids as the next annotator is to see them (annotation/orders.py).

    Call it with the comparison's row held, so that no two annotators have the same number. The sort
    key is the seed: it is random and never shown.
    """
    rows = _ENTRIES(comparison=comparison.pk)
    seed = f"{comparison.pk} {comparison.sort_key!r}"
    return order_of([completion for completion, _ in rows], seed=seed, number=rows[0][1] or 0)


def shown_order(comparison: Comparison, annotator: Annotator) -> list[int]:
    """The completion ids as a reviewer sees them, who has no lease: a shuffle seeded by both."""
    ids = list(comparison.entries.order_by("position").values_list("completion_id", flat=True))
    seed = f"order {comparison.pk} {annotator.pk}"
    random.Random(hashlib.sha256(seed.encode()).digest()).shuffle(ids)
    return ids


def lease_at_hand(annotator: Annotator, kind: str, now: datetime) -> Assignment | None:
    """The live lease of this kind, or the prefetched one made active. Releases expired ones."""
    leases = {}
    for lease in _HELD(annotator=annotator.pk):
        if lease.expires_at > now:
            leases[lease.kind] = lease
        else:
            _release_if_expired(lease.pk, lease.comparison_id, now)
    if kind in leases or kind != LeaseKind.ACTIVE or not leases:
        return leases.get(kind)
    live = Assignment.objects.filter(
        annotator=annotator, holds_slot=True, expires_at__gt=now
    ).select_related("comparison__batch")
    try:
        with transaction.atomic():
            live.filter(kind=LeaseKind.PREFETCHED).update(
                kind=LeaseKind.ACTIVE,
                leased_at=now,
                expires_at=now + lease_length(annotator.project, LeaseKind.ACTIVE),
            )
    except IntegrityError:
        pass  # another tab has just got an active one, which is then this one's too
    return live.filter(kind=kind).first()


@transaction.atomic
def take(
    comparison: Comparison,
    annotator: Annotator,
    kind: str,
    now: datetime,
    stands_in_for: Batch | None = None,
) -> Assignment | None:
    """Take one slot and write the lease; None where the last slot has just gone, or the annotator
    was given as many sensitive comparisons today as the project allows.

    stands_in_for: the batch it is to look like, None = its own. Raises IntegrityError where the
    annotator holds another lease of this kind.
    """
    with connection.cursor() as cursor:
        # no join in this WHERE: PostgreSQL checks it again on the row another claim has changed
        cursor.execute(
            "UPDATE annotation_comparison SET open_slots = open_slots - 1 "
            "WHERE id = %s AND open_slots > 0 AND retired_at IS NULL",
            [comparison.pk],
        )
        if not cursor.rowcount:
            return None
    lease = {
        "kind": kind,
        "state": AssignmentState.LEASED,
        "holds_slot": True,
        "scheme": (stands_in_for or comparison.batch).scheme,
        "stands_in_for": stands_in_for,
        "guideline": current_guideline(annotator.project),
        "leased_at": now,
        "expires_at": now + lease_length(annotator.project, kind),
        "skip_reason": "",
    }
    lease["selector"], lease["propensity"] = comparison.handed_out_by
    ended = _ENDED(comparison=comparison.pk, annotator=annotator.pk)
    if (stands_in_for or comparison.batch).sensitive:
        had_today = ended and timezone.localdate(ended[0][1]) == timezone.localdate(now)
        if not had_today and not count_one(annotator, now):
            transaction.set_rollback(True)  # the slot goes back
            return None
    if ended:
        again = Assignment.objects.filter(pk=ended[0][0])
        again.update(**lease)
        return again.get()
    assignment = Assignment(
        project=annotator.project,
        comparison=comparison,
        annotator=annotator,
        presented_order=draw_order(comparison),
        **lease,
    )
    insert(assignment)
    return assignment


def release_some_expired(project_id: int, now: datetime) -> int:
    """Release a project's oldest expired leases, RELEASED_AT_ONCE at most; returns how many."""
    return sum(_release_if_expired(*one, now) for one in _EXPIRED(project=project_id, now=now))


def release_all_expired(now: datetime) -> int:
    """Release every expired lease, of all projects; returns how many."""
    expired = Assignment.objects.filter(holds_slot=True, expires_at__lte=now)
    leases = list(expired.order_by("expires_at", "pk").values_list("pk", "comparison_id"))
    return sum(_release_if_expired(*one, now) for one in leases)


@transaction.atomic
def _release_if_expired(pk: int, comparison_id: int, now: datetime) -> int:
    lock_comparison(comparison_id)
    still = Assignment.objects.filter(pk=pk, expires_at__lte=now)
    return give_back(still, AssignmentState.EXPIRED)


def give_back(lease: QuerySet[Assignment], state: str) -> int:
    """End a lease that holds a slot and re-open it; 0 where it held none. Lock first.

    The slot of an adaptive comparison opens only if another answer is wanted by now.
    """
    comparison_ids = list(lease.values_list("comparison_id", flat=True))
    given = lease.filter(holds_slot=True).update(holds_slot=False, state=state)
    if given:
        Comparison.objects.filter(pk__in=comparison_ids).update(open_slots=F("open_slots") + 1)
        for comparison_id in comparison_ids:
            settle(comparison_id)
    return given


def lock_comparison(comparison_id: int) -> Comparison:
    """The comparison's row, held until the transaction ends (SQLite holds the whole file)."""
    return _LOCKED(comparison=comparison_id)[0]


def lease_length(project: Project, kind: str) -> timedelta:
    seconds = project.lease_seconds
    if kind == LeaseKind.PREFETCHED:
        seconds = min(seconds, PREFETCH_SECONDS)
    return timedelta(seconds=seconds)
