"""Positions of the ledger: votes by their id, voids by that of their audit entry, and so on.

What came after a position is not seen by whoever reads up to it, however often it is read.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from django.db import connection, transaction
from django.db.models import Max, Model, QuerySet

from annotation.errors import BadInput
from annotation.models import (
    AuditEntry,
    Decision,
    Forgotten,
    Generation,
    Preference,
    Project,
)
from annotation.services.audit import name_of

PAGE_ROWS = 100
"""Of nine completions each at most: SQLite follows no more than 1,000 rows of a page to another
table at once."""
VOID, VOID_DECISION = "preference.void", "decision.void"
VOIDS = (VOID, VOID_DECISION)

Position = dict[str, int]
M = TypeVar("M", bound=Model)


def pages(queryset: QuerySet[M]) -> Iterator[M]:
    """Rows by ascending id, a page at a time: bounded memory, and no transaction held open."""
    last = 0
    while page := list(queryset.filter(pk__gt=last).order_by("pk")[:PAGE_ROWS]):
        yield from page
        last = page[-1].pk


def newest(queryset: QuerySet[M]) -> int:
    """The highest id, once nobody is writing to the table.

    PostgreSQL gives ids out before they are committed: a vote with a lower id than the newest may
    still be under way. SHARE waits for whoever writes, and lets nobody begin until the id is read.
    One table at a time, so that it can't deadlock with a writer of two. SQLite has one writer.
    """
    if connection.vendor != "postgresql":
        return _highest(queryset)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f'LOCK TABLE "{queryset.model._meta.db_table}" IN SHARE MODE')
        return _highest(queryset)


def _highest(queryset: QuerySet[M]) -> int:
    return int(queryset.aggregate(newest=Max("pk"))["newest"] or 0)


def position_at(up_to: Any, now: Mapping[str, Callable[[], int]]) -> Position:
    """The position asked for; a part that isn't given is where the ledger stands now.

    Raises BadInput for a part beyond that: what will stand there is not known yet.
    """
    if isinstance(up_to, Mapping):  # which with_forgotten sets, whatever a snapshot of before says
        up_to = {name: value for name, value in up_to.items() if name != "forgotten"}
    if not isinstance(up_to, Mapping) or not set(up_to) <= set(now):
        raise BadInput(f"up_to must be an object with {', '.join(now)}: {up_to!r:.80}.")
    for name, value in up_to.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadInput(f"up_to.{name} must be a whole number of 0 or more: {value!r:.80}.")
        if value > (highest := now[name]()):
            raise BadInput(
                f"up_to.{name} is beyond where the ledger stands, {highest}: {value!r:.80}."
            )
    found = {name: int(up_to[name]) if name in up_to else stands() for name, stands in now.items()}
    return dict(sorted(found.items()))


def ledger_parts(project: Project) -> dict[str, Callable[[], int]]:
    """The parts of a position that votes and what came of them depend on."""
    return {
        # votes first: whoever wrote what they are about is there by then
        "preference": lambda: newest(Preference.objects.filter(project=project)),
        "generation": lambda: newest(Generation.objects.all()),
        "audit": lambda: newest(AuditEntry.objects.filter(project=project, action__in=VOIDS)),
    }


def with_forgotten(project: Project, position: Position) -> Position:
    """The position with the newest deletion of a person's data, where there was any: no dataset
    holds them again, whatever position it is frozen at."""
    newest_one = _highest(Forgotten.objects.filter(project=project))
    return dict(sorted((position | {"forgotten": newest_one}).items())) if newest_one else position


def is_forgotten_since(project: Project, position: Position) -> bool:
    """Whether somebody's data was deleted after the position was read."""
    newest_one = _highest(Forgotten.objects.filter(project=project))
    return newest_one != position.get("forgotten", 0)


def forgotten_at(project: Project | int, position: Position) -> frozenset[int]:
    """Annotators whose data was deleted by then; asks nothing where nobody's was."""
    if "forgotten" not in position:
        return frozenset()
    rows = Forgotten.objects.filter(project=project, pk__lte=position["forgotten"])
    return frozenset(rows.values_list("annotator", flat=True))


def votes_at(project: Project, position: Position) -> QuerySet[Preference]:
    """Every vote of a project up to a position."""
    return Preference.objects.filter(project=project, pk__lte=position["preference"])


def voids_at(project: Project, position: Position) -> QuerySet[AuditEntry]:
    """The voids up to a position. They decide, not the vote's column: that knows of later ones."""
    return AuditEntry.objects.filter(project=project, pk__lte=position["audit"], action__in=VOIDS)


def in_force(
    decisions: Iterable[Decision],
    voided: Container[str],
    forgotten: Container[int] = frozenset(),
) -> Decision | None:
    """Of a comparison's decisions up to a position the newest, unless that was void by then, or
    its author's data deleted: what it overruled doesn't come back."""
    newest = max(decisions, key=lambda one: one.number, default=None)
    if newest is None or name_of(newest) in voided or newest.by_id in forgotten:
        return None
    return newest
