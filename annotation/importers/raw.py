"""A `raw` export into a new project, whose ledger is then equal to the one that it came from.

Every revision, void and decision with its time, under the same schemes, guidelines, sources and
batches. What the folder does not hold (exporters.columns.DROPS) is not made up: people come as
outside annotators, votes given there name a source, and a version that wrote a text is a name. The
files are held against the manifest's hashes first, and all of it is one transaction.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from django.db import DataError, IntegrityError, transaction

from annotation.errors import BadInput
from annotation.exporters.folder import BATCH, GUIDELINE, MANIFEST, SCHEME
from annotation.importers.comparisons import KINDS
from annotation.importers.lines import BadRow, read_rows
from annotation.importers.load import file_sha256
from annotation.importers.parquet import is_parquet, read_parquet
from annotation.importers.rows import Refused, clip, parse_json
from annotation.models import (
    Annotator,
    AuditEntry,
    Batch,
    Comparison,
    ComparisonCompletion,
    Completion,
    CompletionJudgment,
    Decision,
    Generation,
    Guideline,
    Origin,
    Preference,
    Project,
    Prompt,
    Purpose,
    Ranking,
    Scheme,
    Source,
    User,
)
from annotation.services.audit import name_of, record
from annotation.services.disagreements import look_again
from annotation.services.ledger import content_hash_of, prompt_hash
from annotation.services.positions import VOID, VOID_DECISION
from annotation.services.projects import DEFAULT_SOURCE, create_project, outside_annotator
from annotation.services.search_text import index_texts

Row = Mapping[str, Any]
COMPARISONS_AT_ONCE = 200
MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of an import."""

    project: Project
    comparisons: int
    votes: int
    decisions: int


def import_raw(*, folder: Path, slug: str, name: str = "", by: User | None = None) -> Restored:
    """A new project of a raw export's folder. Raises BadInput, and then there is no project."""
    manifest = _manifest(folder)
    try:
        with transaction.atomic():
            project = create_project(
                name=name or str(manifest["project"]["name"]),
                slug=slug,
                by=by,
                description=str(manifest["project"]["description"]),
            )
            ledger = _begun(project, manifest)
            for file in manifest["files"]:
                _store_file(ledger, folder / str(file["name"]))
            record(
                action="ledger.import",
                target=project,
                project=project,
                actor=by,
                snapshot=manifest["snapshot"]["sha256"],
                votes=ledger.votes,
            )
    except KeyError as error:
        raise BadInput(f"{MANIFEST} has no field {error}.") from error
    return Restored(project, ledger.comparisons, ledger.votes, ledger.decisions)


def _manifest(folder: Path) -> dict[str, Any]:
    """The folder's manifest, once every file it names is there, whole."""
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            manifest = json.loads(file.read(MAX_MANIFEST_BYTES))
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise BadInput(f"{path} is no JSON: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != "raw":
        seen = manifest.get("format") if isinstance(manifest, dict) else manifest
        raise BadInput(f"Only a raw export makes a ledger again: format {clip(seen)}.")
    for file in manifest.get("files") or []:
        name = str(file.get("name"))
        if Path(name).name != name:
            raise BadInput(f"A file's name leads out of the folder: {clip(name)}.")
        if (found := file_sha256(folder / name)) != file.get("sha256"):
            raise BadInput(
                f"{name} is not the file that {MANIFEST} names: SHA-256 {found[:12]}..., not "
                f"{str(file.get('sha256'))[:12]}... Was it uploaded to its end?"
            )
    return manifest


def _begun(project: Project, manifest: Mapping[str, Any]) -> "_Ledger":
    try:
        return _Ledger.begun(project, manifest)
    except (TypeError, ValueError, AttributeError, IntegrityError, DataError) as error:
        raise BadInput(f"{MANIFEST}: {clip(str(error), 200)}") from error


def _fields_of(row: Row, names: Sequence[str], what: str) -> dict[str, Any]:
    """The row's fields of these names. Raises BadInput for any other: a field that is not read here
    would be lost, or, as a project's number, lead into what is not this import's."""
    if others := sorted(set(row) - set(names)):
        raise BadInput(f"A {what} of {MANIFEST} has a field that is not known: {clip(others[0])}.")
    return {name: row[name] for name in names if name != "id"}


def _store_file(ledger: "_Ledger", path: Path) -> None:
    groups = (list(rows) for _id, rows in groupby(_rows(path), lambda one: _comparison_id(*one)))
    while chunk := list(islice(groups, COMPARISONS_AT_ONCE)):
        lines = f"{path.name}, lines {chunk[0][0][0]:,} to {chunk[-1][-1][0]:,}"
        try:
            ledger.store([[row for _line, row in group] for group in chunk])
        except KeyError as error:
            raise BadInput(f"{lines}: something has no field or number {error}.") from error
        except (TypeError, ValueError, AttributeError, IntegrityError, DataError) as error:
            raise BadInput(f"{lines}: {clip(str(error), 200)}") from error


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    for raw in (read_parquet if is_parquet(path) else read_rows)(path):
        if isinstance(raw, BadRow):
            raise BadInput(f"{path.name}, line {raw.line}: {raw.reason}.")
        try:
            yield raw.line, parse_json(raw)
        except Refused as reason:
            raise BadInput(f"{path.name}, line {raw.line}: {reason}.") from reason


def _comparison_id(line: int, row: Row) -> str:
    comparison = row.get("comparison")
    if not isinstance(comparison, dict) or "id" not in comparison:
        raise BadInput(f"Line {line} names no comparison: {clip(comparison)}.")
    return str(comparison["id"])


@dataclass(slots=True)
class _Ledger:
    """The new project, and which row of it stands for which number of the folder."""

    project: Project
    sources: dict[int, Source]
    schemes: dict[int, Scheme]
    guidelines: dict[int, Guideline]
    batches: dict[int, Batch]
    given_there: Source
    """Names the source of votes that had none: they were given in the other installation."""
    annotators: dict[str, Annotator] = field(default_factory=dict)
    comparisons: int = 0
    votes: int = 0
    decisions: int = 0

    @classmethod
    def begun(cls, project: Project, manifest: Mapping[str, Any]) -> "_Ledger":
        default = project.sources.get(name=DEFAULT_SOURCE)
        project.schemes.all().delete()  # the folder's take the place of those of every new project
        project.guidelines.all().delete()
        sources, schemes, guidelines, batches = {}, {}, {}, {}
        for one in manifest["sources"]:
            fields = {key: one[key] for key in ("licence", "terms", "consent")}
            sources[one["id"]], _ = Source.objects.update_or_create(
                project=project, name=one["name"], defaults=fields
            )
        for one in manifest["schemes"]:
            fields = _fields_of(one, SCHEME, "scheme")
            schemes[one["id"]] = Scheme.objects.create(project=project, **fields)
        for one in manifest["guidelines"]:
            fields = _fields_of(one, GUIDELINE, "guideline")
            guidelines[one["id"]] = Guideline.objects.create(project=project, **fields)
        for one in manifest["batches"]:
            fields = _fields_of(one, BATCH, "batch")
            batches[one["id"]] = Batch.objects.create(
                project=project,
                source=sources[fields.pop("source")],
                scheme=schemes[fields.pop("scheme")],
                **fields,
            )
        return cls(project, sources, schemes, guidelines, batches, default)

    def store(self, groups: list[list[Row]]) -> None:
        """Comparisons with all their votes, in a handful of queries."""
        prompts = self._prompts(groups)
        completions = self._completions(groups, prompts)
        comparisons = self._comparisons(groups, prompts, completions)
        votes = self._votes(groups, comparisons, completions)
        self._decisions(groups, comparisons, completions, votes)
        for group, comparison in zip(groups, comparisons, strict=True):
            if len(group) > 1:
                look_again(comparison.pk)
        self.comparisons += len(groups)
        self.votes += len(votes)

    def _annotator(self, name: str, kind: str) -> Annotator:
        if name not in self.annotators:
            self.annotators[name] = outside_annotator(
                project=self.project, external_id=name, kind=KINDS[kind]
            )
        return self.annotators[name]

    def _prompts(self, groups: list[list[Row]]) -> list[Prompt]:
        """One per group."""
        hashes, wanted = [], {}
        for group in groups:
            said = group[0]["prompt"]
            content_hash = prompt_hash(said["messages"], said["metadata"])
            hashes.append(content_hash)
            wanted[content_hash] = Prompt(
                project=self.project,
                source=self.sources[said["source"]],
                content_hash=content_hash,
                **{
                    key: said[key]
                    for key in ("external_id", "messages", "task", "language", "metadata")
                },
                split_group=said["split_group"],
                split=said["split"],
            )
        there = Prompt.objects.filter(project=self.project, content_hash__in=hashes)
        found = {one.content_hash: one for one in there}
        new = [one for key, one in wanted.items() if key not in found]
        found |= {one.content_hash: one for one in Prompt.objects.bulk_create(new)}
        return [found[content_hash] for content_hash in hashes]

    def _completions(
        self, groups: list[list[Row]], prompts: list[Prompt]
    ) -> list[dict[str, Completion]]:
        """Per group, by their number in the folder."""
        said: dict[tuple[int, str], Row] = {}
        names: list[dict[str, tuple[int, str]]] = []
        for group, prompt in zip(groups, prompts, strict=True):
            names.append({})
            for one in (one for row in group for one in row["completions"]):
                if one["id"] not in names[-1]:
                    key = (prompt.pk, hashlib.sha256(one["text"].encode()).hexdigest())
                    names[-1][one["id"]] = key
                    said[key] = one
        there = Completion.objects.filter(
            prompt__in={prompt for prompt, _hash in said}, text_hash__in={one for _, one in said}
        )
        found = {(one.prompt_id, one.text_hash): one for one in there}
        new = {key: one for key, one in said.items() if key not in found}
        made = Completion.objects.bulk_create(
            Completion(
                prompt_id=prompt,
                source=self.sources[one["source"]],
                text=one["text"],
                text_hash=text_hash,
            )
            for (prompt, text_hash), one in new.items()
        )
        found |= {(one.prompt_id, one.text_hash): one for one in made}
        Generation.objects.bulk_create(
            (
                self._generation(found[key], act)
                for key, one in new.items()
                for act in one["generations"]
            ),
            ignore_conflicts=True,  # what one version wrote twice is one act of its name
        )
        return [{name: found[key] for name, key in by_name.items()} for by_name in names]

    def _generation(self, completion: Completion, act: Row) -> Generation:
        by = act["annotator"]
        policy = act["origin"] == Origin.POLICY  # its version is not here: a name is all there is
        return Generation(
            completion=completion,
            origin=Origin.IMPORTED if policy else act["origin"],
            annotator=self._annotator(by, act["annotator_kind"]) if by else None,
            **{key: act[key] for key in ("writer", "sampling", "seed", "finish_reason")},
        )

    def _comparisons(
        self,
        groups: list[list[Row]],
        prompts: list[Prompt],
        completions: list[dict[str, Completion]],
    ) -> list[Comparison]:
        made, entries, texts = [], [], []
        for group, prompt, by_name in zip(groups, prompts, completions, strict=True):
            said, batch = group[0]["comparison"], self.batches[group[0]["comparison"]["batch"]]
            placed = [
                by_name[one["id"]] for one in group[0]["completions"] if not one.get("is_ideal")
            ]
            ids = sorted(one.pk for one in placed)
            what = (batch.pk, prompt.pk, ids)
            if said["purpose"] == Purpose.REPEAT:
                what = ("repeat", said["id"], *what)  # type: ignore[assignment]
            comparison = Comparison(
                project=self.project,
                batch=batch,
                prompt=prompt,
                content_hash=content_hash_of(*what),
                answers_wanted=0,
                open_slots=0,
                priority=batch.priority,
                due_day=batch.due_day,
                sort_key=random.random(),
                **{
                    key: said[key]
                    for key in ("purpose", "language", "skill", "selector", "propensity")
                },
            )
            made.append(comparison)
            texts.append((comparison, prompt, placed))
            entries += [
                ComparisonCompletion(comparison=comparison, completion=one, position=place)
                for place, one in enumerate(placed)
            ]
        Comparison.objects.bulk_create(made)
        ComparisonCompletion.objects.bulk_create(entries)
        index_texts(texts)
        return made

    def _votes(
        self,
        groups: list[list[Row]],
        comparisons: list[Comparison],
        completions: list[dict[str, Completion]],
    ) -> dict[str, Preference]:
        """By their number in the folder."""
        made: dict[str, Preference] = {}
        rankings: list[Ranking] = []
        judgments: list[CompletionJudgment] = []
        for group, comparison, by_name in zip(groups, comparisons, completions, strict=True):
            newest: dict[str, int] = {}
            for row in group:
                newest[row["annotator"]] = max(newest.get(row["annotator"], 0), row["revision"])
            for row in sorted(group, key=lambda one: int(one["id"])):
                vote = self._vote(row, comparison, by_name, newest[row["annotator"]])
                made[row["id"]] = vote
                rankings += [_ranking(vote, one, by_name) for one in row["rankings"]]
                judgments += [
                    CompletionJudgment(
                        preference=vote,
                        completion=by_name[one["completion"]],
                        ratings=one["ratings"],
                        flags=one["flags"],
                    )
                    for one in row["judgments"]
                ]
        Preference.objects.bulk_create(made.values())
        Ranking.objects.bulk_create(rankings)
        CompletionJudgment.objects.bulk_create(judgments)
        self._voids(VOID, (vote for vote in made.values() if vote.voided_at))
        return made

    def _vote(
        self, row: Row, comparison: Comparison, by_name: Mapping[str, Completion], newest: int
    ) -> Preference:
        given_here = row["imported_from"] is None
        return Preference(
            project=self.project,
            comparison=comparison,
            annotator=self._annotator(row["annotator"], row["kind"]),
            scheme=self.schemes[row["scheme"]],
            guideline=None if row["guideline"] is None else self.guidelines[row["guideline"]],
            presented_order=[by_name[one].pk for one in row["presented_order"]],
            current=row["revision"] == newest,
            ideal=by_name[row["ideal"]] if row["ideal"] else None,
            source=self.given_there if given_here else self.sources[row["imported_from"]],
            voided_at=_time(row["voided_at"]),
            created_at=datetime.fromisoformat(row["created_at"]),
            **{
                key: row[key]
                for key in (
                    *("revision", "cause", "void_reason", "external_id", "note"),
                    *("seconds", "active_seconds"),
                )
            },
        )

    def _decisions(
        self,
        groups: list[list[Row]],
        comparisons: list[Comparison],
        completions: list[dict[str, Completion]],
        votes: Mapping[str, Preference],
    ) -> None:
        made = []
        for group, comparison, by_name in zip(groups, comparisons, completions, strict=True):
            for one in group[0]["comparison"]["decisions"]:
                seen = [votes[row["id"]].pk for row in group if _before(row, one)]
                made.append(
                    Decision(
                        project=self.project,
                        comparison=comparison,
                        by=self._annotator(one["annotator"], one["kind"]),
                        scheme=self.schemes[one["scheme"]],
                        presented_order=[by_name[name].pk for name in one["presented_order"]],
                        rankings=[
                            {**said, "groups": _placed(said["groups"], by_name)}
                            for said in one["rankings"]
                        ],
                        votes_seen=max(seen, default=0),
                        voided_at=_time(one["voided_at"]),
                        created_at=datetime.fromisoformat(one["created_at"]),
                        **{
                            key: one[key]
                            for key in ("number", "undecidable", "reason", "current", "void_reason")
                        },
                    )
                )
        Decision.objects.bulk_create(made)
        self._voids(VOID_DECISION, (one for one in made if one.voided_at))
        self.decisions += len(made)

    def _voids(self, action: str, voided: Iterable[Preference | Decision]) -> None:
        """The log decides what is void as of a position, so it has them too."""
        AuditEntry.objects.bulk_create(
            AuditEntry(
                project=self.project,
                action=action,
                target=name_of(one),
                data={"reason": one.void_reason, "imported": True},
            )
            for one in voided
        )


def _ranking(vote: Preference, said: Row, by_name: Mapping[str, Completion]) -> Ranking:
    return Ranking(
        preference=vote,
        groups=_placed(said["groups"], by_name),
        **{key: said[key] for key in ("axis", "outcome", "strengths", "acceptable")},
    )


def _placed(groups: list[list[str]], by_name: Mapping[str, Completion]) -> list[list[int]]:
    return [[by_name[name].pk for name in group] for group in groups]


def _before(row: Row, decision: Row) -> bool:
    return int(row["id"]) <= int(decision["votes_seen"])


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
