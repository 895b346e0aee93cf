"""Time at work: what the page measured, held against the clock, and summed up by day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.db import transaction
from django.db.models import Count, F, Max
from django.db.models.functions import TruncDate
from django.utils import timezone

from annotation.models import Annotator, Assignment, AssignmentState, Preference, Project, WorkDay

ENDED = (AssignmentState.ANSWERED, AssignmentState.SKIPPED)


@dataclass(frozen=True)
class Day:
    """A line of the timesheet."""

    day: date
    annotator: Annotator
    answers: int
    """First answers; a later change of one is none."""
    skips: int
    active_seconds: float


@transaction.atomic
def note_activity(
    *, assignment: Assignment, active_seconds: float, now: datetime | None = None
) -> float:
    """Take in what the page measured on a lease so far, and give back what of it is believed.

    active_seconds: a sum that grows. Nobody is at work for longer than the clock says has passed
    since the lease was taken or since they last reported, on whatever comparison. What lies before
    a midnight counts for that day.
    """
    now = now or timezone.now()
    # the lease first, then the day, as a skip takes them
    assignment.refresh_from_db(
        fields=["active_seconds", "leased_at", "state"],
        from_queryset=Assignment.objects.select_for_update(no_key=True),
    )
    before = assignment.active_seconds
    if assignment.state in ENDED:
        return before
    reported_at = WorkDay.objects.filter(annotator=assignment.annotator_id).aggregate(
        last=Max("reported_at")
    )["last"]
    since = max(filter(None, [assignment.leased_at, reported_at]))
    gained = min(active_seconds - before, (now - since).total_seconds())
    if not gained > 0:  # also of what is no number
        return before
    believed = sum(
        _add(assignment.annotator_id, piece, since) for piece in _by_day(since, now, gained)
    )
    if believed:
        Assignment.objects.filter(pk=assignment.pk).update(active_seconds=before + believed)
        assignment.active_seconds = before + believed
    return assignment.active_seconds


def count_skip(*, annotator_id: int, now: datetime | None = None) -> None:
    """One more comparison was given back with a reason."""
    row = day_of(annotator_id, now or timezone.now())
    WorkDay.objects.filter(pk=row.pk).update(skips=F("skips") + 1)


@dataclass(frozen=True)
class _Piece:
    """Seconds of one day, the last of them at `end`."""

    end: datetime
    seconds: float


def _by_day(since: datetime, now: datetime, seconds: float) -> list[_Piece]:
    """Time at work between two moments, by day, the oldest first. Somebody who reports has just
    been at work, so these are the last seconds before the report."""
    pieces = []
    while seconds > 0 and now > since:
        midnight = _midnight(timezone.localdate(now)).astimezone(UTC)
        if midnight == now:  # which ends the day before
            midnight = _midnight(timezone.localdate(now) - timedelta(days=1)).astimezone(UTC)
        in_day = min(seconds, (now - max(since, midnight)).total_seconds())
        pieces.append(_Piece(now, in_day))
        seconds, now = seconds - in_day, midnight
    return pieces[::-1]


def _add(annotator_id: int, piece: _Piece, since: datetime) -> float:
    """The seconds, or 0: of two tabs that report at once, one's time is the other's too."""
    row = day_of(annotator_id, piece.end - timedelta(microseconds=1))
    free = WorkDay.objects.filter(pk=row.pk, reported_at__lte=max(since, _midnight(row.day)))
    taken = free.update(active_seconds=F("active_seconds") + piece.seconds, reported_at=piece.end)
    return piece.seconds if taken else 0.0


def day_of(annotator_id: int, now: datetime) -> WorkDay:
    """The annotator's row of the day, made at the first call."""
    day = timezone.localdate(now)
    row, _ = WorkDay.objects.get_or_create(
        annotator_id=annotator_id,
        day=day,
        defaults={"reported_at": _midnight(day)},
    )
    return row


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time()))


def timesheet(
    project: Project, first: date, last: date, annotators: Sequence[Annotator] | None = None
) -> list[Day]:
    """Days with anything on them, newest first; of these annotators, None = of all people."""
    if annotators is None:
        annotators = list(project.annotators.filter(user__isnull=False).select_related("user"))
    by_id = {one.pk: one for one in annotators}
    midnight, after = _midnight(first), _midnight(last + timedelta(days=1))
    answers = {
        (annotator, day): number
        for annotator, day, number in Preference.objects.filter(
            annotator__in=by_id,
            created_at__gte=midnight,
            created_at__lt=after,
            revision=1,
            source=None,
        )
        .annotate(day=TruncDate("created_at"))
        .values_list("annotator_id", "day")
        .annotate(number=Count("pk"))
    }
    worked = {
        (row.annotator_id, row.day): row
        for row in WorkDay.objects.filter(annotator__in=by_id, day__range=(first, last))
    }
    days = [
        Day(
            day=day,
            annotator=by_id[annotator],
            answers=answers.get((annotator, day), 0),
            skips=row.skips if row else 0,
            active_seconds=row.active_seconds if row else 0.0,
        )
        for annotator, day in answers.keys() | worked.keys()
        for row in [worked.get((annotator, day))]
    ]
    return sorted(days, key=lambda one: (-one.day.toordinal(), one.annotator.pseudonym))
