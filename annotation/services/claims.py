"""Rows that are their own message: a file to import, an export to write, a study to make.

Whoever works on one claims it by a conditional update and is fenced by `attempt`: one that holds an
older number writes nothing more. The heartbeat is null while nobody works on it.
"""

from datetime import timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from annotation.models import ExportOrder, FileImport, Study

Row = TypeVar("Row", FileImport, ExportOrder, Study)


class Lost(Exception):
    """Another works on it now."""


def is_unattended() -> Q:
    """Nobody works on it, or whoever did fell silent."""
    silent = timezone.now() - timedelta(seconds=settings.STALE_SECONDS)
    return Q(heartbeat_at=None) | Q(heartbeat_at__lt=silent)


def held(row: Row) -> QuerySet[Row]:
    """The row while it stands as this attempt left it, else nothing: the fence."""
    rows: QuerySet[Row] = type(row)._default_manager.all()
    return rows.filter(pk=row.pk, state=row.state, attempt=row.attempt)


def claim(row: Row, **first: Any) -> bool:
    """Take it, if nobody took it since it was read. first: what the attempt begins with."""
    taken = (
        held(row)
        .filter(is_unattended())
        .update(attempt=F("attempt") + 1, heartbeat_at=timezone.now(), **first)
    )
    row.attempt += 1
    for name, value in first.items():
        setattr(row, name, value)
    return bool(taken)


def lives(row: Row, **progress: Any) -> bool:
    """Say that its worker lives, and how far it is. False where another has taken it."""
    return bool(held(row).update(heartbeat_at=timezone.now(), **progress))


def pulse(row: Row, **progress: Any) -> None:
    """The same; raises Lost where another has taken it."""
    if not lives(row, **progress):
        raise Lost


def let_go(row: Row, state: str, **more: Any) -> bool:
    """What came of it. False, and nothing changed, where another has taken it."""
    return bool(held(row).update(state=state, heartbeat_at=None, **more))
