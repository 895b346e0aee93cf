"""Leases: a slot of a comparison held for one annotator, until an answer or its end.

Whoever writes here takes the comparison's row first (a conditional update or SELECT ... FOR UPDATE)
and touches no second one, so that nothing can deadlock; the invariant is services.queue's.
"""

import hashlib
import random
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Count, F, QuerySet, Subquery

from annotation.models import (
    Annotator,
    Assignment,
    AssignmentState,
    Batch,
    Comparison,
    LeaseKind,
    Project,
)
from annotation.orders import order_of
from annotation.services.projects import current_guideline

PREFETCH_SECONDS = 120
"""A prefetched lease is short: it only bridges the reading of the one before."""
MAY_COME_AGAIN = (AssignmentState.RELEASED, AssignmentState.EXPIRED, AssignmentState.LATER)
"""Ends of a lease after which its annotator may be given the comparison again."""


def draw_order(comparison: Comparison) -> list[int]:
    """The completion ids as the next annotator is to see them (annotation/orders.py).

    Call it with the comparison's row held, so that no two annotators have the same number. The sort
    key is the seed: it is random and never shown.
    """
    drawn = (
        Assignment.objects.filter(comparison=comparison.pk)
        .order_by()
        .values("comparison")
        .annotate(number=Count("pk"))
        .values("number")
    )
    entries = comparison.entries.order_by("position").annotate(drawn=Subquery(drawn))
    rows = list(entries.values_list("completion_id", "drawn"))
    seed = f"{comparison.pk} {comparison.sort_key!r}"
    return order_of([completion for completion, _ in rows], seed=seed, number=rows[0][1] or 0)


def shown_order(comparison: Comparison, annotator: Annotator) -> list[int]:
    """The completion ids as a reviewer sees them, who has no lease: a shuffle seeded by both."""
    ids = list(comparison.entries.order_by("position").values_list("completion_id", flat=True))
    seed = f"order {comparison.pk} {annotator.pk}"
    random.Random(hashlib.sha256(seed.encode()).digest()).shuffle(ids)
    return ids


def lease_at_hand(annotator: Annotator, kind: str, now: datetime) -> Assignment | None:
    """The live lease of this kind, or the prefetched one made active."""
    live = Assignment.objects.filter(
        annotator=annotator, holds_slot=True, expires_at__gt=now
    ).select_related("comparison__batch")
    leases = {lease.kind: lease for lease in live}
    if kind in leases or kind != LeaseKind.ACTIVE or not leases:
        return leases.get(kind)
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
    """Take one slot and write the lease; None where the last slot has just gone.

    stands_in_for: the batch it is to look like, None = its own. Raises IntegrityError where the
    annotator holds another lease of this kind.
    """
    # no join in this WHERE: PostgreSQL checks it again on the row that another claim has changed
    taken = Comparison.objects.filter(
        pk=comparison.pk, open_slots__gt=0, retired_at__isnull=True
    ).update(open_slots=F("open_slots") - 1)
    if not taken:
        return None
    guideline = current_guideline(annotator.project)
    lease = {
        "kind": kind,
        "state": AssignmentState.LEASED,
        "holds_slot": True,
        "scheme_id": (stands_in_for or comparison.batch).scheme_id,
        "stands_in_for": stands_in_for,
        "guideline": guideline,
        "leased_at": now,
        "expires_at": now + lease_length(annotator.project, kind),
        "skip_reason": "",
    }
    before = Assignment.objects.filter(comparison=comparison, annotator=annotator)
    if before.filter(state__in=MAY_COME_AGAIN).update(**lease):
        return before.get()
    return Assignment.objects.create(
        project_id=annotator.project_id,
        comparison=comparison,
        annotator=annotator,
        presented_order=draw_order(comparison),
        **lease,
    )


def release_expired(leases: QuerySet[Assignment], now: datetime, most: int | None = None) -> int:
    """Release expired leases one by one, each in a transaction of its own."""
    expired = leases.filter(holds_slot=True, expires_at__lte=now).order_by("expires_at", "pk")
    released = 0
    for pk, comparison_id in list(expired.values_list("pk", "comparison_id")[:most]):
        with transaction.atomic():
            lock_comparison(comparison_id)
            still = Assignment.objects.filter(pk=pk, expires_at__lte=now)
            released += give_back(still, AssignmentState.EXPIRED)
    return released


def give_back(lease: QuerySet[Assignment], state: str) -> int:
    """End a lease that holds a slot and re-open it; 0 where it held none. Lock first."""
    comparison_ids = list(lease.values_list("comparison_id", flat=True))
    given = lease.filter(holds_slot=True).update(holds_slot=False, state=state)
    if given:
        Comparison.objects.filter(pk__in=comparison_ids).update(open_slots=F("open_slots") + 1)
    return given


def lock_comparison(comparison_id: int) -> Comparison:
    """The comparison's row, held until the transaction ends (SQLite holds the whole file)."""
    return Comparison.objects.select_for_update(no_key=True).get(pk=comparison_id)


def lease_length(project: Project, kind: str) -> timedelta:
    seconds = project.lease_seconds
    if kind == LeaseKind.PREFETCHED:
        seconds = min(seconds, PREFETCH_SECONDS)
    return timedelta(seconds=seconds)
