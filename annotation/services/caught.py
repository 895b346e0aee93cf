"""How often an answer was caught before display: by the version that wrote it, by source."""

from collections import defaultdict
from dataclasses import dataclass

from annotation.models import AuditEntry, JobKind, Project, Source, TrainingJob

MOST_JOBS = 500
"""The newest that are summed."""


@dataclass(slots=True)
class Caught:
    """One line of the account."""

    name: str
    kept: bool = False
    """Imported with its votes: counted, and never shown."""
    leaks: int = 0
    alike: int = 0


def caught_in(project: Project) -> list[Caught]:
    """Versions first, then sources; those without a find are left out."""
    versions: dict[str, Caught] = {}
    jobs = TrainingJob.objects.filter(project=project, kind=JobKind.SAMPLE, init__isnull=False)
    for name, result in jobs.order_by("-pk").values_list("init__name", "result")[:MOST_JOBS]:
        line = versions.setdefault(name, Caught(name))
        line.leaks += (result or {}).get("leaks_caught", 0)
        line.alike += (result or {}).get("alike_caught", 0)
    found = [*versions.values(), *_imported(project)]
    return [line for line in found if line.leaks or line.alike]


def _imported(project: Project) -> list[Caught]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    entries = AuditEntry.objects.filter(project=project, action="file.import")
    for target, data in entries.order_by("-pk").values_list("target", "data")[:MOST_JOBS]:
        counts[target][0] += data.get("leaks", 0)
        counts[target][1] += data.get("alike", 0)
    sources = {f"source:{one.pk}": one.name for one in Source.objects.filter(project=project)}
    return [
        Caught(sources.get(target, target), True, leaks, alike)
        for target, (leaks, alike) in counts.items()
    ]
