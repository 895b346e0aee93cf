"""The state of a project's ledger in a few numbers: what is computed from it is the same until they
change. A position (services/positions.py) waits for whoever writes; this asks and goes on.
"""

from typing import Any

from django.db.models import Count, Max, QuerySet, Sum

from annotation.models import AuditEntry, Preference, Project

MAY_COME_LATE = 10_000
"""Rows that others add while one transaction is open."""

State = tuple[object, ...]


def votes_and_voids(project: Project) -> State:
    """Of all answers, and of what was done to them: by the audit log, which voids and deletions of
    a person's data are in."""
    votes = Preference.objects.filter(project=project)
    return end_of(votes), end_of(AuditEntry.objects.filter(project=project))


def end_of(rows: QuerySet[Any]) -> State:
    """The newest id, and the sum of the last MAY_COME_LATE: PostgreSQL gives an id out before its
    row is committed, so a row may come in below the newest, and it raises the sum."""
    last = rows.order_by("-pk")[:MAY_COME_LATE]
    return tuple(last.aggregate(newest=Max("pk"), ids=Sum("pk"), count=Count("pk")).values())
