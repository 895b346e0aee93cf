"""Sensitive batches: who wants none of them, and how many of them a day may bring.

A batch that a lead marks as sensitive is handed out like any other, but not to an annotator who
refuses these, nor to one who was given as many today as the project allows. The walk passes over
such batches by their ids, as it does over paused ones. What counts is what was handed out, answered
or not: a comparison that was skipped had been read, too. The number stands in the annotator's
WorkDay and is raised by the transaction that takes the lease, so two tabs cannot get around it.
"""

from datetime import datetime
from typing import Any, Literal

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from annotation.errors import BadInput
from annotation.models import Annotator, Assignment, Project, User, WorkDay
from annotation.services.audit import record
from annotation.services.worktime import day_of

MOST_PER_DAY = 10_000


def why_none(annotator: Annotator, now: datetime | None = None) -> Literal["", "refused", "capped"]:
    """Why the annotator is given nothing sensitive now; empty where they are."""
    if annotator.refuses_sensitive:
        return "refused"
    most = annotator.project.sensitive_per_day
    return "capped" if most is not None and given_today(annotator, now) >= most else ""


def given_today(annotator: Annotator, now: datetime | None = None) -> int:
    """How many comparisons of sensitive batches the annotator was given since midnight."""
    today = timezone.localdate(now)
    rows = WorkDay.objects.filter(annotator=annotator, day=today)
    return rows.values_list("sensitive", flat=True).first() or 0


def count_one(annotator: Annotator, now: datetime) -> bool:
    """Count one more that is handed out; False where that would be one too many.

    Call it in the transaction that takes the lease, with the comparison's row held.
    """
    rows = WorkDay.objects.filter(pk=day_of(annotator.pk, now).pk)
    most = annotator.project.sensitive_per_day
    if most is not None:
        rows = rows.filter(sensitive__lt=most)
    return bool(rows.update(sensitive=F("sensitive") + 1))


@transaction.atomic
def set_wish(*, annotator: Annotator, refuses: bool) -> list[Assignment]:
    """Note whether the annotator wants sensitive comparisons; the leases on such that they hold and
    are to give back, each in a transaction of its own (queue.release_lease)."""
    if not isinstance(refuses, bool):
        raise BadInput(f"Sensitive comparisons are refused or not: {refuses!r}.")
    changed = Annotator.objects.filter(pk=annotator.pk, refuses_sensitive=not refuses).update(
        refuses_sensitive=refuses
    )
    annotator.refuses_sensitive = refuses
    if changed:
        record(
            action="annotator.sensitive",
            target=annotator,
            project=annotator.project,
            actor=annotator.user,
            refuses=refuses,
        )
    if not refuses:
        return []
    held = Assignment.objects.filter(annotator=annotator, holds_slot=True)
    held = held.select_related("comparison__batch", "stands_in_for")
    return [lease for lease in held if lease.shown_batch.sensitive]


@transaction.atomic
def set_cap(*, project: Project, per_day: Any, by: User | None) -> Project:
    """How many an annotator is given in a day; None = any number. Raises BadInput."""
    whole = isinstance(per_day, int) and not isinstance(per_day, bool)
    if per_day is not None and not (whole and 1 <= per_day <= MOST_PER_DAY):
        raise BadInput(
            f"A day brings 1 to {MOST_PER_DAY} sensitive comparisons, or any number: {per_day!r}."
        )
    locked = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    before = locked.sensitive_per_day
    locked.sensitive_per_day = project.sensitive_per_day = per_day
    locked.save(update_fields=["sensitive_per_day"])
    record(
        action="project.sensitive",
        target=locked,
        project=locked,
        actor=by,
        before=before,
        after=per_day,
    )
    return locked
