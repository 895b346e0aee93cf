"""Looks at the test split: each is written down, for what is looked at often is test no more."""

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Count, Max

from annotation.models import AuditEntry, Project, User
from annotation.services import audit


@dataclass(frozen=True, slots=True)
class Looks:
    """How often somebody looked, and when last."""

    count: int
    last: datetime | None


def looks_at_test(project: Project) -> Looks:
    """The project's so far."""
    entries = AuditEntry.objects.filter(project=project, action="test.look")
    found = entries.aggregate(count=Count("pk"), last=Max("created_at"))
    return Looks(found["count"], found["last"])


@transaction.atomic
def look_at_test(*, project: Project, by: User, what: str) -> Looks:
    """Record a look before it is had. what: which figures are shown."""
    audit.record(action="test.look", target=project, project=project, actor=by, what=what)
    return looks_at_test(project)
