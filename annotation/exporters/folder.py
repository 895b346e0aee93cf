"""An export: a snapshot as JSONL per split, a manifest and a card, published by a rename."""

import hashlib
import json
import platform
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import django
from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from annotation.agreement import PairAgreement
from annotation.errors import BadInput
from annotation.exporters import card, comparisons, raw, trl
from annotation.exporters.pseudonyms import Pseudonyms, new_salt_id
from annotation.funnel import VoteQuery
from annotation.models import (
    ComparisonCompletion,
    DatasetSnapshot,
    Project,
    Prompt,
    Source,
    Split,
    User,
)
from annotation.services import snapshots
from annotation.services.audit import record
from annotation.services.plans.comparisons import buckets_at
from annotation.services.positions import votes_at

FORMATS = ("trl", "comparisons", "raw")
MANIFEST, CARD = "manifest.json", "README.md"
EXPORT_ID = re.compile(r"[0-9]{8}-[a-z]+-[0-9a-f]{12}")
MOST_WRITERS = 50
"""Named in the manifest; the rest are summed."""


def make_export(
    *,
    project: Project,
    format: str,
    query: Mapping[str, Any] | None = None,
    by: User | None = None,
) -> Path:
    """A new folder under ARTIFACTS_DIR/exports/<project id>/. Raises BadInput."""
    name = f"{timezone.now():%Y%m%d}-{format}-{uuid.uuid4().hex[:12]}"
    folder = _exports_of(project) / name
    write_export(project=project, format=format, query=query, by=by, out=folder)
    return folder


def exports_of(project: Project) -> list[dict[str, Any]]:
    """The manifests of a project's exports with their `id`, newest first."""
    folder = _exports_of(project)
    found = []
    for path in folder.glob(f"*/{MANIFEST}") if folder.is_dir() else ():
        if EXPORT_ID.fullmatch(path.parent.name):
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found.append({"id": path.parent.name, **manifest})
    return sorted(found, key=lambda manifest: str(manifest["made_at"]), reverse=True)


def export_file(project: Project, export_id: str, name: str) -> Path | None:
    """A file of one of the project's exports, or None; no name leads out of its folder."""
    folder = _exports_of(project) / export_id
    if not EXPORT_ID.fullmatch(export_id) or not (folder / MANIFEST).is_file():
        return None
    return next((path for path in folder.iterdir() if path.name == name and path.is_file()), None)


def _exports_of(project: Project) -> Path:
    return Path(settings.ARTIFACTS_DIR) / "exports" / str(project.pk)


def write_export(
    *,
    project: Project,
    format: str,
    out: Path,
    query: Mapping[str, Any] | None = None,
    by: User | None = None,
) -> dict[str, Any]:
    """Freeze and write; the manifest. `out` must be empty or absent, and appears whole or not.

    query: what snapshots.freeze takes for comparisons. Raises BadInput.
    """
    if format not in FORMATS:
        raise BadInput(f"An export's format is one of {', '.join(FORMATS)}: {format!r}.")
    require_free(out)
    out = out.resolve()
    snapshot = snapshots.freeze(project=project, kind="comparisons", query=query, by=by)
    part = out.with_name(f".{out.name}.part-{uuid.uuid4().hex}")
    try:
        part.mkdir(parents=True)
        manifest = _write(part, project, snapshot, format)
        part.rename(out)
    except OSError as error:
        raise BadInput(f"Cannot write {out}: {error.strerror}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
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
    folder: Path, project: Project, snapshot: DatasetSnapshot, format: str
) -> dict[str, Any]:
    names = Pseudonyms(new_salt_id())
    account = _Account()
    with ExitStack() as stack:
        files = _Files(folder, stack)
        for split, row in _rendered(project, snapshot, format, names, account):
            files.write(split, row)
        written = files.closed()
    manifest = {
        "format": format,
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
        "sources": _sources(project, snapshot),
        "schemes": list(project.schemes.order_by("version").values("id", "version", "axes")),
        "guidelines": list(
            project.guidelines.order_by("version").values("id", "version", "texts", "faq")
        ),
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


@dataclass(slots=True)
class _Account:
    """What is counted on the way through the rows."""

    left_out: Counter[str] = field(default_factory=Counter)
    agreement: PairAgreement = field(default_factory=PairAgreement)
    writers: Counter[str] = field(default_factory=Counter)

    def see(self, row: Mapping[str, Any]) -> None:
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
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of the export with its split."""
    for row in snapshots.rows_of(snapshot):
        account.see(row)
        if format != "raw":
            render = trl.rows if format == "trl" else comparisons.rows
            for rendered in render(row, names, account.left_out):
                yield row["split"], rendered
    if format == "raw":
        for comparison, buckets, decision in buckets_at(
            project, VoteQuery.of(snapshot.query), snapshot.ledger_position
        ):
            for rendered in raw.votes_of(comparison, buckets, names, decision):
                yield comparison.prompt.split, rendered


class _Files:
    """One JSONL file per split, opened at its first row, hashed as it is written."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.open: dict[str, BinaryIO] = {}
        self.digests: dict[str, Any] = {}
        self.rows: Counter[str] = Counter()

    def write(self, split: str, row: Mapping[str, Any]) -> None:
        if split not in self.open:
            self.open[split] = self.stack.enter_context((self.folder / f"{split}.jsonl").open("wb"))
            self.digests[split] = hashlib.sha256()
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        self.open[split].write(line)
        self.digests[split].update(line)
        self.rows[split] += 1

    def closed(self) -> list[dict[str, Any]]:
        """What was written, train first."""
        return [
            {
                "name": f"{split}.jsonl",
                "split": split,
                "rows": self.rows[split],
                "bytes": self.open[split].tell(),
                "sha256": self.digests[split].hexdigest(),
            }
            for split in map(str, Split)
            if split in self.open
        ]


def _sources(project: Project, snapshot: DatasetSnapshot) -> list[Any]:
    """Where the prompts and completions of voted comparisons come from, with their licences."""
    voted = votes_at(project, snapshot.ledger_position)
    prompts = Prompt.objects.filter(
        Exists(voted.filter(comparison__prompt=OuterRef("pk"))), source=OuterRef("pk")
    )
    entries = ComparisonCompletion.objects.filter(
        Exists(voted.filter(comparison=OuterRef("comparison"))), completion__source=OuterRef("pk")
    )
    used = Source.objects.filter(Q(Exists(prompts)) | Q(Exists(entries)), project=project)
    return list(used.order_by("pk").values("id", "name", "licence", "terms", "consent"))
