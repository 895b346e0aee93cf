"""HelpSteer2's preferences: `prompt`, `response_1`, `response_2`, `preference_strength`.

Negative strengths prefer the first response, 0 is a tie, -100 means that neither is any good
(huggingface.co/datasets/nvidia/HelpSteer2). Later turns follow the marks `<extra_id_1>User` and
`<extra_id_1>Assistant`. The people behind a strength are not named, so it is one vote.
"""

import re
from collections.abc import Mapping
from typing import Any

from annotation.importers.rows import (
    ComparisonRow,
    CompletionRow,
    RankingRow,
    Refused,
    left_out_of,
    prompt_of,
    require,
    text_of,
    whole_of,
)
from annotation.importers.side_by_side import (
    BOTH_BAD,
    all_equal,
    comparison,
    none_of_them,
    ranked,
)

TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
ROLES = {"User": "user", "Assistant": "assistant"}
SPLITS = {"train": "train", "validation": "dev", "val": "dev"}
NEITHER, STRONGEST = -100, 3


def parse(row: Mapping[str, Any]) -> ComparisonRow:
    """The comparison of one row. Raises Refused with the reason."""
    if "response" in row and "response_1" not in row:
        raise Refused("one response with its ratings is no comparison: take the preference file")
    require(row, "prompt", "response_1", "response_2", "preference_strength")
    strength = whole_of(row["preference_strength"], "preference_strength")
    split = SPLITS.get(str(row.get("split")))
    return comparison(
        prompt=prompt_of({"language": "en", "split": split}, turns(row["prompt"])),
        completions=[
            CompletionRow(text=text_of(row[key], key)) for key in ("response_1", "response_2")
        ],
        said=[("", ranking_of(strength))],
        left_out=left_out_of(row, ("response_1", "response_2", "preference_strength")),
    )


def ranking_of(strength: int) -> RankingRow:
    """What a strength says of places 0 and 1."""
    if strength == NEITHER:
        return none_of_them(BOTH_BAD)
    if abs(strength) > STRONGEST:
        raise Refused(f"preference_strength lies from -3 to 3, or is -100: {strength}")
    if strength == 0:
        return all_equal(2)
    better = 0 if strength < 0 else 1
    return ranked([better], [1 - better], strengths=[float(abs(strength))])


def turns(prompt: Any) -> list[dict[str, str]]:
    """The conversation behind the marks."""
    first, *rest = TURN.split(text_of(prompt, "prompt"))
    found = [("User", first), *zip(rest[::2], rest[1::2], strict=True)]
    if found[-1][0] == "Assistant" and not found[-1][1].strip():
        found.pop()  # the mark of the answer that is to come
    return [
        {"role": ROLES[mark], "content": text_of(text, "a turn of the prompt").strip()}
        for mark, text in found
    ]
