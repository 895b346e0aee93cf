"""Exports on their way: ordered, written by whoever comes first, done or refused.

The row is the message: of a small project an order is done before the page comes back, of a large
one by the workers. Nothing is half written: a folder appears by its rename (exporters/folder.py),
and an order whose writer vanished is written anew.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotation.errors import BadInput, Conflict
from annotation.exporters.files import FILES
from annotation.exporters.folder import export_folder, kind_of, make_export, require_known
from annotation.models import (
    ExportOrder,
    Generation,
    OrderState,
    Origin,
    Preference,
    Project,
    Prompt,
    User,
)
from annotation.services import claims, snapshots
from annotation.services.hints import wake_workers_on_commit
from annotation.services.jobs import Pulse
from annotation.services.projects import lock_project

SMALL = 2000
"""No more votes, ideal answers or prompts are written out while their reader waits: a second."""
SAME_SECONDS = 60
"""What is asked again within this is the same order: a second click, a page sent anew."""
PROMPTS = "prompts"
MOST_ATTEMPTS = 3
PULSE_SECONDS = 1.0
KeepAlive = Callable[[Callable[..., Pulse]], AbstractContextManager[object]]
"""Calls a heartbeat now and then while its block runs."""
log = logging.getLogger(__name__)
VANISHED = "Its worker vanished %s times; it is not tried again."


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

    The same asked again at once is the same order. Raises BadInput for a format, files or a query
    that cannot be. Of what is counted only, `prompts` is a format too.
    """
    if not (counts_only and format == PROMPTS):
        require_known(format, files)
    wish, kind = dict(query or {}), kind_of(format)
    position = snapshots.position_now(project=project, kind=kind, query=wish)
    asked = {"format": format, "files": files, "query": wish, "counts_only": counts_only, "by": by}
    with transaction.atomic():
        lock_project(project)  # a double click finds the first
        if found := _same(project, asked, position):
            return found
        order = ExportOrder.objects.create(project=project, position=position, **asked)
    if _is_small(project, kind):
        write_order(order.pk)
        order.refresh_from_db()
    else:
        wake_workers_on_commit()
    return order


def _same(
    project: Project, asked: Mapping[str, Any], position: Mapping[str, int]
) -> ExportOrder | None:
    """An order of a moment ago that waits, or has written what would be written now."""
    since = timezone.now() - timedelta(seconds=SAME_SECONDS)
    found = ExportOrder.objects.filter(project=project, created_at__gt=since, **asked)
    for order in found.order_by("-pk"):
        if order.state == OrderState.WAITING:
            return order
        stands = order.state == OrderState.DONE and order.position == position
        if stands and (order.counts_only or export_folder(project, order.export)):
            return order
    return None


def waiting_orders() -> QuerySet[ExportOrder]:
    """What somebody should write: nobody does, or whoever did fell silent."""
    return ExportOrder.objects.filter(claims.is_unattended(), state=OrderState.WAITING).order_by(
        "pk"
    )


def write_order(pk: int, *, keep_alive: KeepAlive = lambda heartbeat: nullcontext()) -> None:
    """Write what was ordered. Safe to run twice at once.

    keep_alive: for a long one, whose weights alone may take minutes between two rows.
    """
    order = waiting_orders().select_related("project", "by").filter(pk=pk).first()
    if order is None or not claims.claim(order, rows_done=0):
        return
    try:
        if order.attempt > MOST_ATTEMPTS:
            raise BadInput(VANISHED % MOST_ATTEMPTS)
        with keep_alive(partial(_heartbeat, order)):
            _write(order)
    except (BadInput, Conflict) as error:
        _end(order, OrderState.FAILED, error=error.detail)
    except claims.Lost:
        return
    except Exception as error:  # a full disk ...: said on the page, and not tried again
        log.exception("Export order %s", order.pk)
        said = f"{type(error).__name__}: {error}"
        _end(order, OrderState.FAILED, error=f"It could not be written: {said:.300}")


def _write(order: ExportOrder) -> None:
    query = order.query | {"up_to": order.position}
    wish: dict[str, Any] = {"project": order.project, "query": query, "on_row": _Rows(order)}
    if order.counts_only:
        rows, funnel = snapshots.count(kind=kind_of(order.format), **wish)
        _end(order, OrderState.DONE, account={"rows": rows, "funnel": funnel})
        return
    folder = make_export(format=order.format, files=order.files, by=order.by, **wish)
    _end(order, OrderState.DONE, export=folder.name)


def _is_small(project: Project, kind: str) -> bool:
    """Whether no more than SMALL rows are looked at."""
    looked_at: QuerySet[Any] = {
        "comparisons": Preference.objects.filter(project=project),
        "demonstrations": Generation.objects.filter(
            origin=Origin.DEMONSTRATION, completion__prompt__project=project
        ),
        "prompts": Prompt.objects.filter(project=project),
    }[kind]
    return not looked_at.order_by("pk").values("pk")[SMALL : SMALL + 1]


def _heartbeat(order: ExportOrder, **_told: Any) -> Pulse:
    return Pulse.GO_ON if claims.lives(order) else Pulse.FENCED_OFF


class _Rows:
    """Called for every row; once a second it tells how many there were. Raises claims.Lost."""

    def __init__(self, order: ExportOrder) -> None:
        self.order, self.rows, self.told = order, 0, time.monotonic()

    def __call__(self) -> None:
        self.rows += 1
        if time.monotonic() - self.told >= PULSE_SECONDS:
            self.told = time.monotonic()
            claims.pulse(self.order, rows_done=self.rows)


def _end(order: ExportOrder, state: OrderState, **more: Any) -> None:
    claims.let_go(order, state, finished_at=timezone.now(), **more)
