"""What annotators say of one completion by itself: ratings, lines, thumbs, and both bad."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policy.config import require
from policy.rows import clip, parse_weight, parse_whole, require_keys

ACCEPTABLE = "acceptable"
"""The rating of lines and thumbs: 1 is good enough, 0 is not."""
BOTH_BAD = "both_bad"
MOST_LEVELS = 100


@dataclass(frozen=True, slots=True)
class Judgment:
    """One annotator's word on one completion, by its index.

    name: the attribute rated, or ACCEPTABLE. level: a whole number. low, high: the ends of its
    scale where the row tells them (`scales`), else the level itself. axis: of a line, its vote's;
    of a rating its name, for an axis may be rated as well as ranked; of a thumb none.
    """

    completion: int
    name: str
    level: int
    low: int
    high: int
    weight: float = 1.0
    axis: str | None = None


def is_wanted(axis: str | None, wanted: str | Collection[str] | None) -> bool:
    """Whether a vote's axis is the wanted one, or one of them; None wants all."""
    return wanted is None or axis in ((wanted,) if isinstance(wanted, str) else wanted)


def read_judgments(
    row: Mapping[str, Any], index: Mapping[str, int], axis: str | Collection[str] | None
) -> list[Judgment]:
    """Those of a comparisons row that weigh something.

    From its votes on the axis (None: all): completions of the first `acceptable` groups are good
    enough, other ranked ones are not, and of those not ranked nothing is known; `both_bad` says of
    every completion that it is not. From its `judgments`: the ratings, which no axis restricts.
    They weigh what the same annotator's votes in this row do. Raises BadInput.
    """
    found = [
        judgment
        for vote in row["votes"]
        if is_wanted(vote["axis"], axis)
        for judgment in _lines(vote, index)
    ]
    weights = {str(vote["annotator"]): vote["weight"] for vote in row["votes"]}
    said = row.get("judgments") or []
    require(isinstance(said, list), f"judgments must be a list: {clip(said)}")
    for one in said:
        require_keys(one, ("annotator", "completion", "ratings"), "a judgment")
        found += _ratings(one, index, one.get("weight", weights.get(str(one["annotator"]))))
    return [judgment for judgment in found if judgment.weight > 0]


def _lines(vote: Mapping[str, Any], index: Mapping[str, int]) -> Iterator[Judgment]:
    weight = parse_weight(vote["weight"], "weight of a vote")
    if vote.get("outcome") == BOTH_BAD:
        for completion in index.values():
            yield Judgment(completion, ACCEPTABLE, 0, 0, 1, weight, vote["axis"])
    if vote.get("acceptable") is not None:
        line = parse_whole(vote["acceptable"], "acceptable")
        for place, group in enumerate(vote["ranking"]):
            for name in group:
                level = int(place < line)
                yield Judgment(index[name], ACCEPTABLE, level, 0, 1, weight, vote["axis"])


def _ratings(
    said: Mapping[str, Any], index: Mapping[str, int], weight: object
) -> Iterator[Judgment]:
    completion, ratings, scales = said["completion"], said["ratings"], said.get("scales", {})
    require(
        isinstance(completion, str) and completion in index,
        f"a judgment names a completion that the row has not: {clip(completion)}",
    )
    for what in (ratings, scales):
        require(isinstance(what, Mapping), f"ratings and scales must be objects: {clip(what)}")
    for name, value in ratings.items():
        level = parse_whole(value, f"rating {clip(name)}")
        ends = scales.get(name, (level, level))
        require(
            isinstance(ends, list | tuple) and len(ends) == 2,
            f"scale {clip(name)} must have two ends: {clip(ends)}",
        )
        low, high = (parse_whole(end, f"an end of scale {clip(name)}") for end in ends)
        require(
            low <= level <= high < low + MOST_LEVELS,
            f"rating {clip(name)} is {level} on a scale from {low} to {high}",
        )
        weighs = parse_weight(weight, "weight of a judgment")
        yield Judgment(index[completion], name, level, low, high, weighs, name)
