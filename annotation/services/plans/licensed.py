"""Under which licences a project's sources stood at a position of the ledger.

A licence that is noted for a source which had none is told by the audit log with what it was
before: nothing. Of a change by hand the log tells that it was made, not from what; a query at an
earlier position is then refused.
"""

from collections.abc import Callable, Iterable, Mapping

from annotation.errors import BadInput
from annotation.models import AuditEntry, Project, Source
from annotation.services.audit import name_of
from annotation.services.positions import Position, newest

NOTED, CHANGED = "source.licence", "source.change"


def licence_parts(project: Project) -> dict[str, Callable[[], int]]:
    """The part of a position that a query by licences depends on."""
    log = AuditEntry.objects.filter(project=project, action__in=(NOTED, CHANGED))
    return {"licence": lambda: newest(log)}


def licences_at(
    project: Project | int, position: Position, *, changed_is_refused: bool = True
) -> dict[int, str]:
    """Source -> its licence at a position; as it is now where the position says nothing of it.

    Raises BadInput where one was changed by hand since.
    """
    sources = list(Source.objects.filter(project=project))
    found = {source.pk: source.licence for source in sources}
    if "licence" not in position:
        return found
    later = AuditEntry.objects.filter(
        project=project, action__in=(NOTED, CHANGED), pk__gt=position["licence"]
    )
    since: dict[str, set[str]] = {}
    for action, target, data in later.values_list("action", "target", "data"):
        if action == NOTED or "licence" in data["fields"]:
            since.setdefault(target, set()).add(action)
    for source in sources:
        acts = since.get(name_of(source), set())
        if CHANGED in acts and changed_is_refused:
            raise BadInput(
                f"The licence of source {source.name!r} was changed since that position: what it "
                "was by then can't be told again. Freeze at the position of now."
            )
        if NOTED in acts:
            found[source.pk] = ""
    return found


def stated(
    prompt: int, others: Iterable[int | None], licences: Mapping[int, str]
) -> frozenset[str]:
    """What a row is under: its prompt's licence, and those of its other texts and of its vote
    where one is stated. All by their sources."""
    more = {licences[pk] for pk in others if pk is not None}
    return frozenset({licences[prompt]} | (more - {""}))
