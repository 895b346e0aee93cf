"""Void all answers of one annotator in a range of time.

An order is written down first, then carried out answer by answer, each in a transaction of its own
with its audit entry: no answer is ever half void, and an order that was cut off goes on where it
stopped. Small ones are done before the page comes back, the rest by the workers' next ticks.
"""

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Count, F, Q
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict
from annotation.models import (
    Annotator,
    DatasetSnapshot,
    ModelVersion,
    Preference,
    RangeVoid,
    User,
)
from annotation.models.comparisons import PreferenceQuerySet
from annotation.services.audit import record
from annotation.services.lineage import trained_on
from annotation.services.reasons import said_why
from annotation.services.review import void_preference

AT_ONCE = 100
"""Answers voided while the reviewer waits."""
PER_TICK = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What an order would do, counted now."""

    answers: int
    reopened: int
    """Slots that would open again."""
    snapshots: list[DatasetSnapshot]
    """Those that hold one of the answers."""
    trained: list[ModelVersion]
    """Versions trained on these."""


def answers_in(annotator: Annotator, since: datetime, until: datetime) -> PreferenceQuerySet:
    """Answers that stand and were given in [since, until); a revised one was given anew."""
    return Preference.objects.valid().filter(
        project=annotator.project_id,
        annotator=annotator,
        created_at__gte=since,
        created_at__lt=until,
    )


def preview(annotator: Annotator, since: datetime, until: datetime) -> Preview:
    """Raises BadInput where the range is empty."""
    _require_range(since, until)
    found = answers_in(annotator, since, until)
    snapshots, trained = trained_on(found)
    counts = found.aggregate(answers=Count("pk"), reopened=Count("pk", filter=Q(counted=True)))
    return Preview(
        **counts,
        snapshots=snapshots,
        trained=trained,
    )


def order_range_void(
    *, annotator: Annotator, since: datetime, until: datetime, reason: str, by: User
) -> RangeVoid:
    """Write the order down and begin with it. Raises BadInput for an empty range or no reason."""
    order = write_order(annotator=annotator, since=since, until=until, reason=reason, by=by)
    carry_on(order, most=AT_ONCE)
    order.refresh_from_db()
    return order


@transaction.atomic
def write_order(
    *, annotator: Annotator, since: datetime, until: datetime, reason: str, by: User
) -> RangeVoid:
    """The order alone; the workers' next tick begins with it. Raises as order_range_void does."""
    _require_range(since, until)
    reason = said_why(reason, gettext("A void needs a reason"))
    order = RangeVoid.objects.create(
        project=annotator.project,
        annotator=annotator,
        since=since,
        until=until,
        reason=reason,
        by=by,
    )
    record(
        action="range_void.order",
        target=order,
        project=annotator.project,
        actor=by,
        annotator=annotator.pseudonym,
        since=since.isoformat(),
        until=until.isoformat(),
        reason=reason,
    )
    return order


def carry_on(order: RangeVoid, *, most: int = PER_TICK) -> int:
    """Void what is left of an order, `most` answers of it; returns how many. Safe to run twice."""
    # in the order of preference_of_day: by their ids, a database might read the whole ledger
    left = answers_in(order.annotator, order.since, order.until).order_by("created_at")
    done = 0
    for preference in list(left.select_related("project")[:most]):
        try:
            done += _void(preference, order)
        except Conflict:
            continue  # it was voided or revised since the look
    if not left.exists():
        _finish(order)
    return done


def carry_on_all() -> int:
    """Go on with every order that is not finished; returns how many answers were voided."""
    unfinished = RangeVoid.objects.filter(finished_at__isnull=True).order_by("pk")
    return sum(carry_on(order) for order in unfinished.select_related("annotator", "by"))


@transaction.atomic
def _void(preference: Preference, order: RangeVoid) -> int:
    counted = Preference.objects.filter(pk=preference.pk, counted=True).exists()
    void_preference(preference=preference, by=order.by, reason=order.reason)
    RangeVoid.objects.filter(pk=order.pk).update(
        num_voided=F("num_voided") + 1, num_reopened=F("num_reopened") + int(counted)
    )
    return 1


@transaction.atomic
def _finish(order: RangeVoid) -> None:
    """Close an order once, with what it did."""
    now = timezone.now()
    if RangeVoid.objects.filter(pk=order.pk, finished_at=None).update(finished_at=now):
        order.refresh_from_db()
        record(
            action="range_void.done",
            target=order,
            project=order.project,
            actor=order.by,
            voided=order.num_voided,
            reopened=order.num_reopened,
        )


def _require_range(since: datetime, until: datetime) -> None:
    if since >= until:
        raise BadInput(
            gettext("A range begins before it ends: %(since)s to %(until)s.")
            % {"since": f"{since:%Y-%m-%d %H:%M}", "until": f"{until:%Y-%m-%d %H:%M}"}
        )
