"""Under which licences a dataset's rows are, and what may come of those that forbid commerce.

A job of the loop leaves such rows out unless its inputs ask for them. A model that learned from
them, itself or by one of those that it was made from, is put in force only once an admin has
answered for each dataset: by name, with a reason, for the licences that it had then.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from django.db import transaction
from django.db.models import Model
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict
from annotation.licences import forbids_commerce
from annotation.models import (
    Comparison,
    ComparisonCompletion,
    Completion,
    DatasetSnapshot,
    Lane,
    LicenceOverride,
    ModelVersion,
    Preference,
    Project,
    Prompt,
    Source,
    User,
)
from annotation.services.audit import record
from annotation.services.lineage import EDGES
from annotation.services.plans.voted import MAX_IDS
from annotation.services.reasons import said_why
from annotation.services.snapshots import path_of

IDS_AT_ONCE = 500


def allowed_licences(project: Project, inputs: Mapping[str, Any], lane: str) -> list[str] | None:
    """The licences whose rows a job learns from; None = all.

    What its inputs say, else in the loop all that forbid nothing, where some do. Raises BadInput
    where that leaves none.
    """
    if "licences" in inputs:
        return list(inputs["licences"])
    if lane != Lane.LOOP:
        return None
    known = set(Source.objects.filter(project=project).values_list("licence", flat=True))
    allowed = sorted(licence for licence in known if not forbids_commerce(licence))
    if not allowed:
        raise BadInput(
            "Every source of the project forbids commercial use: a job of the loop names those it "
            "learns from in inputs.licences."
        )
    return None if len(allowed) == len(known) else allowed


def sources_of(snapshot: DatasetSnapshot) -> dict[int, int]:
    """Source -> rows with a text or a vote of it. A snapshot of before this was kept is read once;
    where its rows are not on this machine, any of them may be of any source."""
    if snapshot.sources is None:
        if not path_of(snapshot).is_file():
            every = Source.objects.filter(project=snapshot.project_id).values_list("pk", flat=True)
            return dict.fromkeys(every, snapshot.rows)
        snapshot.sources = {str(pk): rows for pk, rows in _sources_in(snapshot).items()}
        snapshot.save(update_fields=["sources"])
    return {int(pk): rows for pk, rows in snapshot.sources.items()}


def _sources_in(snapshot: DatasetSnapshot) -> Counter[int]:
    found: Counter[int] = Counter()
    rows = _rows_in(snapshot)
    while some := dict(islice(rows, IDS_AT_ONCE)):
        of_row: dict[int, set[int]] = {}
        for row, source in _sources_by_row(snapshot.kind, tuple(some)):
            of_row.setdefault(row, set()).add(source)
        for row, source in _sources_by_vote(some):
            of_row.setdefault(row, set()).add(source)
        for sources in of_row.values():
            found.update(sources)
    return found


def _rows_in(snapshot: DatasetSnapshot) -> Iterator[tuple[int, set[int]]]:
    """Each row's number with its votes."""
    with path_of(snapshot).open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            said = [*row.get("votes", ()), *row.get("judgments", ())]
            yield int(row["id"]), {one["preference"] for one in said if "preference" in one}


def _sources_by_row(kind: str, ids: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Pairs of a row's number and a source of one of its texts."""

    def pairs(model: type[Model], key: str, *paths: str) -> Iterator[tuple[int, int]]:
        for path in paths:
            yield from model._default_manager.filter(**{f"{key}__in": ids}).values_list(key, path)

    if kind == "prompts":
        yield from pairs(Prompt, "pk", "source")
    elif kind == "demonstrations":
        yield from pairs(Completion, "pk", "source", "prompt__source")
    else:
        yield from pairs(Comparison, "pk", "prompt__source")
        yield from pairs(ComparisonCompletion, "comparison", "completion__source")


def _sources_by_vote(rows: Mapping[int, set[int]]) -> Iterator[tuple[int, int]]:
    """Pairs of a row's number and the source of one of its votes."""
    asked = sorted({pk for votes in rows.values() for pk in votes})
    for start in range(0, len(asked), MAX_IDS):
        found = Preference.objects.filter(pk__in=asked[start : start + MAX_IDS])
        yield from found.exclude(source=None).values_list("comparison", "source")


def licences_of(snapshot: DatasetSnapshot) -> dict[str, int]:
    """Licence -> rows, as the sources have it now; "" where none is stated."""
    sources = sources_of(snapshot)
    found: Counter[str] = Counter()
    for pk, licence in Source.objects.filter(pk__in=sources).values_list("pk", "licence"):
        found[licence] += sources[pk]
    return dict(found)


def forbidding(snapshot: DatasetSnapshot) -> dict[str, int]:
    """Those licences of it that forbid commerce, with their rows."""
    return {one: rows for one, rows in licences_of(snapshot).items() if forbids_commerce(one)}


def known_forbidding(snapshot: DatasetSnapshot) -> dict[str, int]:
    """The same for pages, which read no file: nothing of a snapshot of before that nobody asked."""
    return {} if snapshot.sources is None else forbidding(snapshot)


@transaction.atomic
def override_licences(*, snapshot: DatasetSnapshot, reason: str, by: User) -> LicenceOverride:
    """Answer for a dataset whose rows forbid commerce, as they are now. Raises BadInput where none
    does, or for no reason, Conflict where somebody has answered for all of it already."""
    reason = said_why(reason, gettext("An override needs a reason"))
    DatasetSnapshot.objects.select_for_update().get(pk=snapshot.pk)  # two at once: one answers
    licences = sorted(forbidding(snapshot))
    if not licences:
        raise BadInput(gettext("No row of this dataset forbids commercial use."))
    if not unanswered(snapshot):
        raise Conflict(gettext("Somebody has answered for this dataset already."))
    made = LicenceOverride.objects.create(
        snapshot=snapshot, licences=licences, reason=reason, by=by
    )
    record(
        action="snapshot.override",
        target=snapshot,
        project=snapshot.project,
        actor=by,
        sha256=snapshot.sha256,
        licences=licences,
        reason=reason,
    )
    return made


def unanswered(snapshot: DatasetSnapshot) -> list[str]:
    """Licences that forbid commerce and for which nobody has answered."""
    answered = {one for made in snapshot.overrides.all() for one in made.licences}
    return sorted(set(forbidding(snapshot)) - answered)


def datasets_behind(version: ModelVersion) -> list[DatasetSnapshot]:
    """Those that a version learned from, itself or by what it was made from; oldest first."""
    found: dict[int, DatasetSnapshot] = {}
    seen: set[int] = set()
    waiting = [version.pk]
    while waiting:
        seen.update(waiting)
        rows = ModelVersion.objects.filter(pk__in=waiting).select_related(
            "snapshot", "job__snapshot"
        )
        waiting = []
        for one in rows:
            for snapshot in (one.snapshot, one.job.snapshot if one.job else None):
                if snapshot is not None:
                    found[snapshot.pk] = snapshot
            parents = (getattr(one, f"{edge}_id") for edge in EDGES)
            waiting += [pk for pk in parents if pk is not None and pk not in seen]
    return [found[pk] for pk in sorted(found)]


def require_shippable(version: ModelVersion) -> None:
    """Raise BadInput where a dataset behind a version forbids commerce and nobody has answered for
    it."""
    for snapshot in datasets_behind(version):
        if licences := unanswered(snapshot):
            rows = forbidding(snapshot)
            raise BadInput(
                gettext(
                    "%(version)s learned from dataset %(sha256)s, which holds rows that forbid "
                    "commercial use: %(licences)s. An admin must answer for it on the page Export "
                    "first."
                )
                % {
                    "version": version.name,
                    "sha256": snapshot.sha256[:12],
                    "licences": ", ".join(f"{one} ({rows[one]:,})" for one in licences),
                }
            )
