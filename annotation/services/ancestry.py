"""How a version came about, from the text it all began with: each start on the way, with what its
run read.

A version's row names its start, its job and its snapshot; the hashes of the files that a run read
stand beside its weights, in the run.json that the laboratories write (policy/run.py).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from annotation.models import DatasetSnapshot, ModelVersion
from annotation.services.versions import directory_of

MOST_STEPS = 200
"""Of a way: rounds of PPO begin where the round before ended."""
LARGEST_BYTES = 5_000_000
"""Of a run.json: its settings and hashes; one beyond this is not ours."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that a run read."""

    name: str
    sha256: str
    """Empty where the run's record is gone."""


@dataclass(frozen=True, slots=True)
class Step:
    """One version on the way, and what it learned from."""

    version: ModelVersion
    files: tuple[File, ...]
    snapshot: DatasetSnapshot | None
    """Of the ledger's rows; None where it read files."""


def way_to(version: ModelVersion) -> list[Step]:
    """From the version that began with random weights, or came from outside, to this one."""
    chain = _chain(version)
    loaded = ModelVersion.objects.select_related(
        "job", "snapshot", "reward__job", "reward__snapshot"
    ).in_bulk(chain)
    return [_step(loaded[pk]) for pk in chain]


def _chain(version: ModelVersion) -> list[int]:
    """Ids along the starts, the oldest first. Read in a few queries: the rows of one project are
    asked for at once, and a start of another project's brings that project's."""
    starts: dict[int, int | None] = {version.pk: version.init_id}
    chain, at = [version.pk], version.init_id
    while at is not None and at not in chain and len(chain) < MOST_STEPS:
        if at not in starts:
            starts |= _starts_beside(at)
        chain.append(at)
        at = starts[at]
    return chain[::-1]


def _starts_beside(pk: int) -> Mapping[int, int | None]:
    """(version, its start) of all versions that the same project made."""
    own = ModelVersion.objects.filter(pk=pk)
    project = own.values_list("job__project", flat=True)[0]
    beside = ModelVersion.objects.filter(job__project=project) if project else own
    return dict(beside.values_list("pk", "init"))


def _step(version: ModelVersion) -> Step:
    named = version.job.inputs.get("data", []) if version.job else []
    names = [named] if isinstance(named, str) else list(named)
    hashes = _hashes(directory_of(version)) if names else {}
    alone = hashes.get("data", "") if len(names) == 1 else ""
    files = tuple(
        File(Path(name).name, hashes.get(f"data.{number}", alone))
        for number, name in enumerate(names)
    )
    return Step(version, files, None if files else version.snapshot)


def _hashes(directory: Path) -> dict[str, str]:
    """Of what the run read, by its names; empty where its record is gone."""
    path = directory / "run.json"
    try:
        if path.stat().st_size > LARGEST_BYTES:
            return {}
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    inputs = said.get("inputs") if isinstance(said, dict) else None
    return {str(name): str(one) for name, one in inputs.items()} if isinstance(inputs, dict) else {}
