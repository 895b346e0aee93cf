"""Freeze: a query at a position of the ledger becomes a file that never changes.

`sha256` of a snapshot is the SHA-256 of its manifest `<sha256>.json`, which holds project, kind,
query, position, counts and the SHA-256 of the rows, `<sha256>.jsonl`. So it stands for what was
asked and what came out of it: two queries that happen to give the same rows stay two datasets.

The position makes a freeze repeatable: votes by their id, voids by the id of their audit entry,
writers by the id of their generation. What came later is not seen, even when a row is frozen again.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict
from annotation.models import DatasetSnapshot, Project, Tombstone, User
from annotation.services.audit import record
from annotation.services.plans.comparisons import ComparisonsPlan
from annotation.services.plans.demonstrations import DemonstrationsPlan
from annotation.services.plans.prompts import PromptsPlan
from annotation.services.plans.rows import Row
from annotation.services.positions import Position, is_forgotten_since
from annotation.services.projects import lock_project
from annotation.tombstones import in_words

Plan = ComparisonsPlan | PromptsPlan | DemonstrationsPlan
PLANS: Mapping[str, Callable[[Project, Mapping[str, Any]], Plan]] = {
    "comparisons": ComparisonsPlan,
    "prompts": PromptsPlan,
    "demonstrations": DemonstrationsPlan,
}
MAX_TRIES = 5


def freeze(
    *,
    project: Project,
    kind: str,
    query: Mapping[str, Any] | None = None,
    by: User | None = None,
    on_row: Callable[[], object] = lambda: None,
) -> DatasetSnapshot:
    """The snapshot of this query at this position, written if it isn't there yet.

    query: annotators, languages, purposes, splits, schemes, guidelines (versions), sources,
    licences, axes, tags (each a list); accuracy with checks, agreement (annotation/funnel.py says
    what of); since and until, in ISO 8601; `decisions`, off or instead (of
    the votes); `weights`, none, dawid_skene or bradley_terry; `groups`, one side of the train
    groups (annotation/group_shares.py); `up_to`, a position as another snapshot has it, missing
    parts = now. Comparisons take people's votes of all splits unless told
    otherwise, prompts and demonstrations those of train. on_row: called for whatever is looked at;
    what it raises ends it with nothing left behind. Raises BadInput for anything else,
    Conflict if votes from before the position kept arriving.
    """
    for _ in range(MAX_TRIES):
        plan, position = _planned(project, kind, query)
        known = DatasetSnapshot.objects.filter(
            project=project, kind=kind, query=plan.query, ledger_position=position
        )
        if (found := known.order_by("pk").first()) and path_of(found).is_file():
            return found
        if snapshot := _keep(project, kind, plan, position, by, on_row):
            return snapshot
    raise Conflict(gettext("The ledger did not come to rest while it was read; try again."))


def position_now(
    *, project: Project, kind: str, query: Mapping[str, Any] | None = None
) -> Position:
    """Where freezing this query now would stand. Raises as freeze does for what cannot be asked."""
    return _planned(project, kind, query)[1]


def count(
    *,
    project: Project,
    kind: str,
    query: Mapping[str, Any] | None = None,
    on_row: Callable[[], object] = lambda: None,
) -> tuple[int, dict[str, int]]:
    """Rows and funnel that freeze would give now, with nothing written. Raises as freeze does."""
    plan, position = _planned(project, kind, query)
    rows = sum(1 for _row in plan.rows(position, on_row))
    return rows, {str(bucket): number for bucket, number in sorted(plan.counts.items())}


def path_of(snapshot: DatasetSnapshot) -> Path:
    """Where a snapshot's rows lie."""
    return Path(settings.ARTIFACTS_DIR) / snapshot.path


def rows_of(snapshot: DatasetSnapshot) -> Iterator[Row]:
    """A snapshot's rows, one at a time. Raises Conflict where they are gone with the data of
    somebody who was forgotten."""
    if stone := Tombstone.objects.filter(snapshot=snapshot).first():
        raise Conflict(in_words(stone))
    with path_of(snapshot).open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _planned(project: Project, kind: str, query: Mapping[str, Any] | None) -> tuple[Plan, Position]:
    """What a query asks for, and up to where."""
    if kind not in PLANS:
        raise BadInput(f"A snapshot holds {', '.join(PLANS)}: not {kind!r}.")
    options = dict(query or {})
    up_to = options.pop("up_to", None) or {}
    plan = PLANS[kind](project, options)
    return plan, plan.position(up_to)


def _keep(
    project: Project,
    kind: str,
    plan: Plan,
    position: Position,
    by: User | None,
    on_row: Callable[[], object],
) -> DatasetSnapshot | None:
    """Write the files beside their place, rename them into it, and only then add the row.

    None, and nothing kept, if something up to the position appeared meanwhile: a transaction that
    took its id before the position was read may be committed after its place was passed
    (PostgreSQL); or if somebody's data was deleted since, which a file must not bring back.
    """
    folder = Path(settings.ARTIFACTS_DIR) / "snapshots"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".part-{uuid.uuid4().hex}"
    try:
        rows, file_sha256 = _write_rows(part, plan.rows(position, on_row))
        counts = {str(bucket): number for bucket, number in sorted(plan.counts.items())}
        if not plan.is_complete(position):
            return None
        manifest = json.dumps(
            {
                "project": project.pk,
                "kind": kind,
                "query": plan.query,
                "position": position,
                "rows": rows,
                "counts": counts,
                "file_sha256": file_sha256,
                **({"notes": plan.notes} if plan.notes else {}),
            },
            sort_keys=True,
        )
        sha256 = hashlib.sha256(manifest.encode()).hexdigest()
        try:
            with transaction.atomic():
                lock_project(project)  # as forget_person does, who then finds the row
                if kind != "prompts" and is_forgotten_since(project, position):
                    return None
                part.replace(folder / f"{sha256}.jsonl")
                part.write_text(manifest, encoding="utf-8")
                part.replace(folder / f"{sha256}.json")
                snapshot = DatasetSnapshot.objects.create(
                    project=project,
                    kind=kind,
                    query=plan.query,
                    ledger_position=position,
                    sha256=sha256,
                    path=f"snapshots/{sha256}.jsonl",
                    rows=rows,
                    counts=counts,
                    notes=plan.notes,
                    sources={str(pk): number for pk, number in sorted(plan.sources.items())},
                    created_by=by,
                )
                record(
                    action="snapshot.freeze",
                    target=snapshot,
                    project=project,
                    actor=by,
                    kind=kind,
                    sha256=sha256,
                    rows=rows,
                    splits=plan.query["splits"],
                )
        except IntegrityError:  # another froze the same meanwhile; the files are the same bytes
            return DatasetSnapshot.objects.get(sha256=sha256)
    finally:
        part.unlink(missing_ok=True)
    return snapshot


def _write_rows(path: Path, rows: Iterator[Row]) -> tuple[int, str]:
    """Number of rows written and the file's SHA-256; on disk when this returns."""
    digest, num_rows = hashlib.sha256(), 0
    encode = json.JSONEncoder(ensure_ascii=False).encode
    with path.open("wb") as file:
        for row in rows:
            line = encode(row).encode() + b"\n"
            digest.update(line)
            file.write(line)
            num_rows += 1
        file.flush()
        os.fsync(file.fileno())
    return num_rows, digest.hexdigest()
