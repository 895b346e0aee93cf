"""What two snapshots of comparisons have in common: in, out, changed, and why.

Both files are in the order of their ids, so they are read beside each other, a row of each at a
time. Why a vote is not in a snapshot is the bucket that it has there, or that it came later.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from annotation.errors import BadInput
from annotation.funnel import IN_THE_FILE, WITHOUT_PAIRS
from annotation.models import DatasetSnapshot, Preference
from annotation.services.lineage import History
from annotation.services.plans.comparisons import with_versions
from annotation.services.snapshots import path_of, rows_of
from annotation.tombstones import tombstone_of

AT_ONCE = 300
EXAMPLES = 20
LATER = "later"
OTHERWISE = "otherwise"
"""A row that changed and has the same votes: another weight, writer, decision ..."""
SHOWN = (*IN_THE_FILE, *WITHOUT_PAIRS)

Row = dict[str, Any]
Two = tuple[Row | None, Row | None]


@dataclass(slots=True)
class Part:
    """Comparisons of which something can be said together."""

    comparisons: int = 0
    why: Counter[str] = field(default_factory=Counter)
    """Votes by the bucket that keeps them from the other snapshot, or LATER."""
    examples: list[str] = field(default_factory=list)
    """Numbers of comparisons, the first few."""


@dataclass(slots=True)
class Diff:
    """From one snapshot to another."""

    same: int = 0
    gone: Part = field(default_factory=Part)
    new: Part = field(default_factory=Part)
    changed: Part = field(default_factory=Part)


def diff(before: DatasetSnapshot, after: DatasetSnapshot) -> Diff:
    """What changed. Raises BadInput unless both hold comparisons of one project and are there."""
    for one in (before, after):
        if one.kind != "comparisons":
            raise BadInput(f"Snapshots of comparisons can be held together, not of {one.kind}.")
        if stone := tombstone_of(one):
            raise BadInput(stone)
        if not path_of(one).is_file():
            raise BadInput(f"The rows of snapshot {one.sha256[:12]} are not on this machine.")
    if before.project_id != after.project_id:
        raise BadInput("The two snapshots are of two projects.")
    found = Diff()
    differing = _differing(_beside(rows_of(before), rows_of(after)), found)
    while chunk := list(islice(differing, AT_ONCE)):
        _explain(chunk, before, after, found)
    return found


def _beside(one: Iterator[Row], other: Iterator[Row]) -> Iterator[Two]:
    """Rows of equal ids together, and None where one has none."""
    left, right = next(one, None), next(other, None)
    while left is not None or right is not None:
        if right is None or (left is not None and int(left["id"]) < int(right["id"])):
            yield left, None
            left = next(one, None)
        elif left is None or int(right["id"]) < int(left["id"]):
            yield None, right
            right = next(other, None)
        else:
            yield left, right
            left, right = next(one, None), next(other, None)


def _differing(pairs: Iterable[Two], found: Diff) -> Iterator[Two]:
    for left, right in pairs:
        if left == right:
            found.same += 1
        else:
            yield left, right


def _explain(
    chunk: list[Two], before: DatasetSnapshot, after: DatasetSnapshot, found: Diff
) -> None:
    ids = [int((left or right or {})["id"]) for left, right in chunk]
    votes = with_versions(Preference.objects.filter(comparison__in=ids)).select_related(
        "comparison__prompt__source", "annotator", "scheme", "guideline"
    )
    known = list(votes.prefetch_related("rankings").order_by("pk"))
    history = History(known)
    by_comparison: dict[int, list[Preference]] = {}
    for vote in known:
        by_comparison.setdefault(vote.comparison_id, []).append(vote)
    for pk, (left, right) in zip(ids, chunk, strict=True):
        part = found.new if left is None else found.gone if right is None else found.changed
        part.comparisons += 1
        if len(part.examples) < EXAMPLES:
            part.examples.append(str(pk))
        reasons = [
            reason
            for vote in by_comparison.get(pk, [])
            if (reason := _why(history, vote, before, after))
        ]
        part.why.update(reasons or [OTHERWISE])


def _why(
    history: History, vote: Preference, before: DatasetSnapshot, after: DatasetSnapshot
) -> str | None:
    """What keeps a vote from one of the two; None where it is in both, or in neither."""
    in_one, in_other = (history.bucket_in(one, vote) for one in (before, after))
    if (in_one in SHOWN) == (in_other in SHOWN):
        return None
    kept_out = in_other if in_one in SHOWN else in_one
    return LATER if kept_out is None else str(kept_out)
