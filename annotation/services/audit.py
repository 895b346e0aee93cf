"""Write down who did what."""

from typing import Any

from django.db.models import Model

from annotation.models import AuditEntry, Project, User


def record(
    *,
    action: str,
    target: Model | str = "",
    project: Project | None = None,
    actor: User | None = None,
    **data: Any,
) -> AuditEntry:
    """Append one entry; call it inside the transaction of the write that it tells of.

    action: verb after object, e.g. "preference.void". target: a row, or text such as
    "preference:812". actor: None for a worker or a command. data: what must be JSON.
    """
    return AuditEntry.objects.create(
        action=action,
        target=target if isinstance(target, str) else name_of(target),
        project=project,
        actor=actor,
        data=data,
    )


def name_of(row: Model) -> str:
    """How the log names a row: preference:812."""
    return f"{row._meta.model_name}:{row.pk}"
