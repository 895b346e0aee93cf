"""Small checks that rows of a file go through. Each raises BadInput with the value seen.

The value is made a text only where it is refused: else half of the time of reading goes there.
"""

import json
from collections.abc import Mapping, Sequence

from policy.config import BadInput, require

SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-100, 1e100
"""Of a vote that counts: between them no sum is infinite, and no share of one is 0."""


def parse_string(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{name} must be a string with something in it: {clip(value)}")
    return value


def parse_weight(value: object, name: str) -> float:
    """A weight as a row has it; null is 1."""
    weight = 1.0 if value is None else value
    if isinstance(weight, int | float) and (
        weight == 0 or SMALLEST_WEIGHT <= weight <= LARGEST_WEIGHT
    ):
        return float(weight)
    raise BadInput(
        f"{name} must be 0 or a number from {SMALLEST_WEIGHT} to {LARGEST_WEIGHT}: {clip(value)}"
    )


def parse_whole(value: object, name: str) -> int:
    require(
        isinstance(value, int) and not isinstance(value, bool),
        f"{name} must be a whole number: {clip(value)}",
    )
    assert isinstance(value, int)
    return value


def parse_strengths(value: object, num_gaps: int) -> tuple[float, ...]:
    """One level per gap; a number alone stands for a single gap."""
    given = [] if value is None else value if isinstance(value, list) else [value]
    levels = [level if isinstance(level, int | float) else 0 for level in given]
    if len(levels) != (num_gaps if given else 0) or not all(
        0 < level <= LARGEST_WEIGHT and not isinstance(level, bool) for level in levels
    ):
        raise BadInput(
            "strength must be null or a number above 0 for each gap between groups, of which there "
            f"are {max(0, num_gaps)}: {clip(value)}"
        )
    return tuple(float(level) for level in levels)


def require_keys(row: object, keys: Sequence[str], name: str) -> None:
    if not isinstance(row, Mapping):
        raise BadInput(f"{name} must be an object: {clip(row)}")
    if missing := [key for key in keys if key not in row]:
        raise BadInput(f"{name} lacks {', '.join(missing)}: {clip(row)}")


def clip(value: object, width: int = 80) -> str:
    """A value as it is shown in a message: JSON, cut to a line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= width else text[: width - 1] + "…"
