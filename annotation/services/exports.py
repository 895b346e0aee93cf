"""Exports on their way: ordered, written by whoever comes first, done or refused.

The row is the message: of a small project an order is done before the page comes back, of a large
one by the workers. Nothing is half written: a folder appears by its rename (exporters/folder.py),
and an order whose writer vanished is written anew.
"""

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from annotation.errors import BadInput, Conflict
from annotation.exporters.files import FILES
from annotation.exporters.folder import kind_of, make_export, require_known
from annotation.models import ExportOrder, OrderState, Preference, Project, User
from annotation.services import snapshots
from annotation.services.hints import wake_workers_on_commit
from annotation.services.projects import lock_project

SMALL_VOTES = 2000
"""A project with no more is written out while its reader waits: half a second."""
MOST_ATTEMPTS = 3
PULSE_SECONDS = 1.0
VANISHED = "Its worker vanished %s times; it is not tried again."


class _Lost(Exception):
    """Another writes it now."""


def order_export(
    *,
    project: Project,
    format: str,
    files: str = FILES[0],
    query: Mapping[str, Any] | None = None,
    by: User | None = None,
    counts_only: bool = False,
) -> ExportOrder:
    """An export, or its counts, as snapshots.freeze and exporters.folder have them; see its state.

    The same asked again while it waits is the same order. Raises BadInput for a format, files or a
    query that cannot be.
    """
    require_known(format, files)
    wish = dict(query or {})
    position = snapshots.position_now(project=project, kind=kind_of(format), query=wish)
    asked = {"format": format, "files": files, "query": wish, "counts_only": counts_only, "by": by}
    with transaction.atomic():
        lock_project(project)  # a double click finds the first
        same = ExportOrder.objects.filter(project=project, state=OrderState.WAITING, **asked)
        if found := same.first():
            return found
        order = ExportOrder.objects.create(project=project, position=position, **asked)
    if _is_small(project):
        write_order(order.pk)
        order.refresh_from_db()
    else:
        wake_workers_on_commit()
    return order


def waiting_orders() -> QuerySet[ExportOrder]:
    """What somebody should write: nobody does, or whoever did fell silent."""
    silent = timezone.now() - timedelta(seconds=settings.STALE_SECONDS)
    return ExportOrder.objects.filter(
        Q(heartbeat_at=None) | Q(heartbeat_at__lt=silent), state=OrderState.WAITING
    ).order_by("pk")


def write_order(pk: int) -> None:
    """Write what was ordered. Safe to run twice at once."""
    order = waiting_orders().select_related("project", "by").filter(pk=pk).first()
    if order is None or not _claim(order):
        return
    pulse = _Pulse(order)
    try:
        if order.attempt > MOST_ATTEMPTS:
            raise BadInput(VANISHED % MOST_ATTEMPTS)
        query = order.query | {"up_to": order.position}
        wish: dict[str, Any] = {"project": order.project, "query": query, "on_row": pulse}
        if order.counts_only:
            rows, funnel = snapshots.count(kind=kind_of(order.format), **wish)
            _end(order, OrderState.DONE, account={"rows": rows, "funnel": funnel})
            return
        folder = make_export(format=order.format, files=order.files, by=order.by, **wish)
        _end(order, OrderState.DONE, export=folder.name)
    except (BadInput, Conflict) as error:
        _end(order, OrderState.FAILED, error=error.detail)
    except _Lost:
        return


def _is_small(project: Project) -> bool:
    beyond = Preference.objects.filter(project=project).order_by("pk")[SMALL_VOTES:]
    return not beyond.values("pk")[:1]


def _claim(order: ExportOrder) -> bool:
    """Take it, if nobody took it since it was read."""
    held = ExportOrder.objects.filter(
        pk=order.pk, state=OrderState.WAITING, attempt=order.attempt
    ).update(attempt=F("attempt") + 1, heartbeat_at=timezone.now(), rows_done=0)
    order.attempt += 1
    return bool(held)


class _Pulse:
    """Called for every row; once a second it says that somebody is at it. Raises _Lost."""

    def __init__(self, order: ExportOrder) -> None:
        self.order, self.rows, self.told = order, 0, time.monotonic()

    def __call__(self) -> None:
        self.rows += 1
        if time.monotonic() - self.told >= PULSE_SECONDS:
            self.told = time.monotonic()
            if not _held(self.order).update(heartbeat_at=timezone.now(), rows_done=self.rows):
                raise _Lost


def _held(order: ExportOrder) -> QuerySet[ExportOrder]:
    return ExportOrder.objects.filter(pk=order.pk, state=OrderState.WAITING, attempt=order.attempt)


def _end(order: ExportOrder, state: OrderState, **more: Any) -> None:
    _held(order).update(state=state, heartbeat_at=None, finished_at=timezone.now(), **more)
