"""Adaptive overlap: two answers, and all the others only where these two differ; pure.

The two first answers of any comparison come from whoever was next, whatever it says, so agreement
measured on them is that of people at large. A third answer comes only where two differed: measured
over all answers, agreement would come out too low. A share of the comparisons, drawn by the hash of
their content, therefore always gets all answers.
"""

from collections.abc import Mapping, Sequence

from annotation.accord import Said, nearness

FIRST = 2
"""Answers that every comparison gets."""
FULL_SHARE = 0.1
"""Of the comparisons: these always get all answers."""
FULL_BELOW = f"{round(FULL_SHARE * 16**8):08x}"
"""A content hash below this belongs to that share."""
ENOUGH = 0.8
"""Two orders that say the same of four in five pairs of completions do not differ."""

Axes = Mapping[str, Said]
"""One answer, by axis."""


def is_always_full(content_hash: str) -> bool:
    """Whether a comparison is one of the share that gets all answers; fixed at its creation."""
    return content_hash < FULL_BELOW


def differ(one: Axes, other: Axes) -> bool:
    """Whether two answers differ on any axis: their nearness (annotation/accord.py) is less than
    ENOUGH, or cannot be told, or only one of them has the axis."""
    if one.keys() != other.keys():
        return True
    found = [nearness(one[axis], other[axis]) for axis in one]
    return any(near is None or near < ENOUGH for near in found)


def answers_wanted(answers: Sequence[Axes], full: int) -> int:
    """How many answers a comparison wants, given those that count, the first first."""
    if len(answers) >= FIRST and differ(answers[0], answers[1]):
        return full
    return FIRST
