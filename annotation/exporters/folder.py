"""An export: a snapshot as a file per split, a manifest and a card, published by a rename.

The folder is one that Hugging Face's `load_dataset` takes as it is.
"""

import hashlib
import json
import platform
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from annotation.agreement import PairAgreement
from annotation.errors import BadInput, Conflict
from annotation.exporters import card, comparisons, raw, sft, trl, unpaired
from annotation.exporters.columns import COLUMNS, DROPS
from annotation.exporters.files import FILES, DataFiles
from annotation.exporters.pseudonyms import Pseudonyms, new_salt_id
from annotation.funnel import Bucket, VoteQuery
from annotation.models import (
    ComparisonCompletion,
    DatasetSnapshot,
    Project,
    Prompt,
    Source,
    User,
)
from annotation.services import snapshots
from annotation.services.audit import record
from annotation.services.plans.comparisons import buckets_at
from annotation.services.plans.narrowing import Beyond
from annotation.services.positions import is_forgotten_since, votes_at
from annotation.services.projects import lock_project
from annotation.services.snapshots import MAX_TRIES

FORMATS = tuple(COLUMNS)
RENDERERS = {
    "trl": trl.rows,
    "unpaired": unpaired.rows,
    "sft": sft.rows,
    "comparisons": comparisons.rows,
}
MANIFEST, CARD = "manifest.json", "README.md"
EXPORT_ID = re.compile(r"[0-9]{8}-[a-z]+-[0-9a-f]{12}")
SOURCE = ("id", "name", "licence", "terms", "consent")
SCHEME = (
    *("id", "version", "axes", "allow_tie", "allow_both_bad", "allow_cannot_tell"),
    "options",
)
GUIDELINE = ("id", "version", "texts", "faq")
BATCH = ("id", "name", "source", "purpose", "scheme", "skill", "priority", "review_below")
"""What a manifest tells of each."""
MOST_WRITERS = 50
"""Named in the manifest; the rest are summed."""


def make_export(
    *,
    project: Project,
    format: str,
    files: str = "jsonl",
    query: Mapping[str, Any] | None = None,
    by: User | None = None,
    on_row: Callable[[], object] = lambda: None,
) -> Path:
    """A new folder under ARTIFACTS_DIR/exports/<project id>/. Raises BadInput."""
    name = f"{timezone.now():%Y%m%d}-{format}-{uuid.uuid4().hex[:12]}"
    folder = _exports_of(project) / name
    write_export(
        project=project, format=format, files=files, query=query, by=by, out=folder, on_row=on_row
    )
    return folder


def exports_of(project: Project) -> list[dict[str, Any]]:
    """The manifests of a project's exports with their `id`, newest first."""
    folder = _exports_of(project)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = [one for name in names if (one := export_of(project, name))]
    return sorted(found, key=lambda manifest: str(manifest["made_at"]), reverse=True)


def export_of(project: Project, export_id: str) -> dict[str, Any] | None:
    """The manifest of one of the project's exports with its `id`, or None."""
    folder = export_folder(project, export_id)
    if folder is None:
        return None
    return {"id": export_id, **json.loads((folder / MANIFEST).read_text(encoding="utf-8"))}


def export_folder(project: Project, export_id: str) -> Path | None:
    """The folder of one of the project's exports, or None."""
    folder = _exports_of(project) / export_id
    whole = EXPORT_ID.fullmatch(export_id) and (folder / MANIFEST).is_file()
    return folder if whole else None


def is_withdrawn(project: Project, manifest: Mapping[str, Any]) -> bool:
    """Whether an export's data is gone, with that of somebody who was forgotten."""
    folder = _exports_of(project) / str(manifest["id"])
    return not all((folder / str(file["name"])).is_file() for file in manifest["files"])


def export_file(project: Project, export_id: str, name: str) -> tuple[Path, str] | None:
    """A file of one of the project's exports with its SHA-256, as the manifest has it (of the
    manifest and the card, as they are now), or None; no name leads out of its folder."""
    folder = export_folder(project, export_id)
    if folder is None:
        return None
    found = next((path for path in folder.iterdir() if path.name == name and path.is_file()), None)
    if found is None:
        return None
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    digests = {str(file["name"]): str(file["sha256"]) for file in manifest["files"]}
    return found, digests.get(name) or hashlib.sha256(found.read_bytes()).hexdigest()


def forget_parts() -> None:
    """What was being written when its process died goes after a day."""
    old = time.time() - 86400
    for part in (Path(settings.ARTIFACTS_DIR) / "exports").glob("*/.*.part-*"):
        if part.stat().st_mtime < old:
            shutil.rmtree(part, ignore_errors=True)


def _exports_of(project: Project) -> Path:
    return Path(settings.ARTIFACTS_DIR) / "exports" / str(project.pk)


def write_export(
    *,
    project: Project,
    format: str,
    out: Path,
    files: str = "jsonl",
    query: Mapping[str, Any] | None = None,
    by: User | None = None,
    on_row: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Freeze and write; the manifest. `out` must be empty or absent, and appears whole or not.

    query: what snapshots.freeze takes for comparisons, or for demonstrations where format is sft.
    files: jsonl or parquet. on_row: called for whatever is frozen, and again as it is written;
    what it raises ends both, with nothing left behind. Raises BadInput, also where there is no row
    to write.
    """
    require_known(format, files)
    require_free(out)
    out, kind = out.resolve(), kind_of(format)
    for _ in range(MAX_TRIES):
        snapshot = snapshots.freeze(project=project, kind=kind, query=query, by=by, on_row=on_row)
        if manifest := _published(out, project, snapshot, format, files, on_row):
            break
    else:
        raise Conflict(gettext("The ledger did not come to rest while it was read; try again."))
    record(
        action="export.make",
        target=snapshot,
        project=project,
        actor=by,
        format=format,
        folder=out.name,
        rows=sum(file["rows"] for file in manifest["files"]),
        splits=[file["split"] for file in manifest["files"]],
        salt_id=manifest["salt_id"],
    )
    return manifest


def _published(
    out: Path,
    project: Project,
    snapshot: DatasetSnapshot,
    format: str,
    files: str,
    on_row: Callable[[], object],
) -> dict[str, Any] | None:
    """The manifest of the folder, which stands in its place now; None, and nothing kept, where
    somebody's data was deleted since the snapshot was frozen."""
    part = out.with_name(f".{out.name}.part-{uuid.uuid4().hex}")
    try:
        part.mkdir(parents=True)
        try:
            manifest = _write(part, project, snapshot, format, files, on_row)
        except Conflict:  # the snapshot was withdrawn before its rows were read
            if not is_forgotten_since(project, snapshot.ledger_position):
                raise
            return None
        with transaction.atomic():
            lock_project(project)  # as forget_person does; whoever withdraws finds the folder
            if is_forgotten_since(project, snapshot.ledger_position):
                return None
            part.rename(out)
        return manifest
    except OSError as error:
        raise BadInput(f"Cannot write {out}: {error.strerror}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def require_known(format: str, files: str) -> None:
    """Raise BadInput for a format or a kind of file that there is not."""
    if format not in FORMATS:
        raise BadInput(f"An export's format is one of {', '.join(FORMATS)}: {format!r}.")
    if files not in FILES:
        raise BadInput(f"An export's files are {' or '.join(FILES)}: {files!r}.")


def kind_of(format: str) -> str:
    """The kind of snapshot that a format is written from; prompts, which have none, are counted."""
    return {"sft": "demonstrations", "prompts": "prompts"}.get(format, "comparisons")


def require_free(out: Path) -> None:
    """Raise BadInput unless the path is absent or an empty folder, and not the current one: that
    would be replaced under the feet of whoever stands in it."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise BadInput(f"{out} exists and is no folder.")
    if out.is_dir() and (first := next(out.iterdir(), None)):
        raise BadInput(f"{out} must be empty or absent; it holds {first.name!r}.")
    if out.resolve() == Path.cwd():
        raise BadInput(f"{out} is the folder you are in; name one inside it or beside it.")


def _write(
    folder: Path,
    project: Project,
    snapshot: DatasetSnapshot,
    format: str,
    files: str,
    on_row: Callable[[], object],
) -> dict[str, Any]:
    names = Pseudonyms(new_salt_id())
    account = _Account()
    data = DataFiles(folder, files, COLUMNS[format])
    try:
        for split, row in _rendered(project, snapshot, format, names, account, on_row):
            data.write(split, row)
        written = data.closed()
    finally:
        data.abandon()
    if not written:
        raise BadInput(_nothing(snapshot, format))
    all_of_it = format == "raw"
    manifest = {
        "format": format,
        "columns": [[name, meaning] for name, _kind, meaning in COLUMNS[format]],
        "drops": DROPS[format],
        "project": {
            "slug": project.slug,
            "name": project.name,
            "description": project.description,
        },
        "made_at": timezone.now().isoformat(timespec="seconds"),
        "snapshot": {"sha256": snapshot.sha256, "rows": snapshot.rows},
        "query": snapshot.query,
        "position": snapshot.ledger_position,
        "votes": sum(snapshot.counts.values()),
        "funnel": snapshot.counts,
        "notes": snapshot.notes,
        "left_out": dict(sorted(account.left_out.items())),
        "files": written,
        "agreement": {
            "share": account.agreement.share,
            "cases": account.agreement.cases,
            "comparisons": account.agreement.comparisons,
        },
        "writers": account.most_writers(),
        "sources": list(
            (project.sources if all_of_it else _sources(project, snapshot))
            .order_by("pk")
            .values(*SOURCE)
        ),
        "schemes": list(project.schemes.order_by("version").values(*SCHEME)),
        "guidelines": list(project.guidelines.order_by("version").values(*GUIDELINE)),
        **({"batches": list(project.batches.order_by("pk").values(*BATCH))} if all_of_it else {}),
        "salt_id": names.salt_id,
        "versions": {
            "concord": settings.SPECTACULAR_SETTINGS["VERSION"],
            "django": django.get_version(),
            "python": platform.python_version(),
        },
    }
    text = json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    (folder / CARD).write_text(card.render(manifest), encoding="utf-8")
    return manifest


def _nothing(snapshot: DatasetSnapshot, format: str) -> str:
    """Why an export would be empty: where the filter left everything."""
    where = ", ".join(f"{name} {number:,}" for name, number in snapshot.counts.items() if number)
    what = "ideal answer" if snapshot.kind == "demonstrations" else "vote"
    if not where:
        return f"There is nothing to export: the project has no {what} yet."
    return f"Nothing is left to export as {format}: every {what} fell to another bucket ({where})."


@dataclass(slots=True)
class _Account:
    """What is counted on the way through the rows."""

    left_out: Counter[str] = field(default_factory=Counter)
    agreement: PairAgreement = field(default_factory=PairAgreement)
    writers: Counter[str] = field(default_factory=Counter)

    def see(self, row: Mapping[str, Any]) -> None:
        if "votes" in row:  # a demonstration has none
            self.agreement.add(row["votes"])
            self.writers.update(completion["model"] for completion in row["completions"])

    def most_writers(self) -> dict[str, int]:
        most = dict(self.writers.most_common(MOST_WRITERS))
        if others := self.writers.total() - sum(most.values()):
            most["others"] = most.get("others", 0) + others
        return most


def _rendered(
    project: Project,
    snapshot: DatasetSnapshot,
    format: str,
    names: Pseudonyms,
    account: _Account,
    on_row: Callable[[], object],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of the export with its split."""
    for row in snapshots.rows_of(snapshot):
        on_row()
        account.see(row)
        if format != "raw":
            for rendered in RENDERERS[format](row, names, account.left_out):
                yield row["split"], rendered
    if format == "raw":
        query = VoteQuery.of(snapshot.query)
        found = buckets_at(project, query, snapshot.ledger_position, Beyond.of(snapshot, query))
        for comparison, buckets, decision in found:
            on_row()
            comparison.votes = [
                vote for vote in comparison.votes if buckets[vote.pk] != Bucket.FORGOTTEN
            ]
            for rendered in raw.votes_of(comparison, buckets, names, decision):
                yield comparison.prompt.split, rendered


def _sources(project: Project, snapshot: DatasetSnapshot) -> QuerySet[Source]:
    """Where the prompts and completions of voted comparisons come from, with their licences."""
    voted = votes_at(project, snapshot.ledger_position)
    prompts = Prompt.objects.filter(
        Exists(voted.filter(comparison__prompt=OuterRef("pk"))), source=OuterRef("pk")
    )
    entries = ComparisonCompletion.objects.filter(
        Exists(voted.filter(comparison=OuterRef("comparison"))), completion__source=OuterRef("pk")
    )
    return Source.objects.filter(Q(Exists(prompts)) | Q(Exists(entries)), project=project)
