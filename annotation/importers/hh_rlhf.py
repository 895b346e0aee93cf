"""hh-rlhf: two whole transcripts that share everything up to the last answer.

Fields `chosen` and `rejected`; turns open with "\\n\\nHuman:" and "\\n\\nAssistant:"
(github.com/anthropics/hh-rlhf). Nobody is named, so the judgments belong to one outside annotator.
"""

import re
from collections.abc import Mapping
from typing import Any

from annotation.importers.rows import (
    ComparisonRow,
    CompletionRow,
    Refused,
    VoteRow,
    best_to_worst,
    clip,
    digest,
    left_out_of,
    name_of,
    prompt_of,
    require,
    require_distinct,
    text_of,
)

TURN = re.compile(r"\n\n(Human|Assistant):")
PAIR_FIELDS = ("chosen", "rejected", "chosen_model", "rejected_model", "annotator")
ROLE = {"Human": "user", "Assistant": "assistant"}


def parse(row: Mapping[str, Any]) -> ComparisonRow:
    """The comparison of one row. Raises Refused with the reason."""
    require(row, "chosen", "rejected")
    for key in ("chosen", "rejected"):
        text_of(row[key], key)
    messages, texts = split_transcripts(row["chosen"], row["rejected"])
    return comparison_of_two(row, messages, texts)


def comparison_of_two(
    row: Mapping[str, Any], messages: list[dict[str, str]], texts: tuple[str, str]
) -> ComparisonRow:
    """A comparison whose first text was preferred. Refuses empty and identical texts."""
    chosen, rejected = (
        CompletionRow(text=text_of(text, f"the {key} completion"), writer=name_of(row, writer))
        for text, key, writer in zip(
            texts, ("chosen", "rejected"), ("chosen_model", "rejected_model"), strict=True
        )
    )
    require_distinct([chosen, rejected])
    prompt = prompt_of(row, messages)
    vote = VoteRow(
        annotator=name_of(row, "annotator"),
        kind="outside",
        rankings=[best_to_worst(2)],
        external_id=prompt.external_id or digest(messages, chosen.text, rejected.text),
    )
    return ComparisonRow(
        prompt=prompt,
        completions=[chosen, rejected],
        votes=[vote],
        left_out=left_out_of(row, PAIR_FIELDS),
    )


def split_transcripts(chosen: str, rejected: str) -> tuple[list[dict[str, str]], tuple[str, str]]:
    """The turns that both share, and the answer that each ends with.

    Raises Refused if a transcript doesn't end with an answer, or if they part before it.
    """
    one, other = turns(chosen, "chosen"), turns(rejected, "rejected")
    for name, found in (("chosen", one), ("rejected", other)):
        if len(found) < 2 or found[-1]["role"] != "assistant":
            raise Refused(f"{name} must end with an answer of the assistant: {clip(found[-1:])}")
    if one[:-1] != other[:-1]:
        raise Refused("chosen and rejected part before their last answer")
    for turn in one[:-1]:
        text_of(turn["content"], f"an earlier turn of the {turn['role']}")
    return one[:-1], (one[-1]["content"], other[-1]["content"])


def turns(transcript: str, name: str) -> list[dict[str, str]]:
    """The turns of a transcript, stripped. Text before the first mark is refused."""
    before, *rest = TURN.split("\n\n" + transcript.lstrip("\n"))
    if before.strip() or not rest:
        raise Refused(f"{name} must open with 'Human:' or 'Assistant:': {clip(before)}")
    return [
        {"role": ROLE[mark], "content": content.strip()}
        for mark, content in zip(rest[::2], rest[1::2], strict=True)
    ]
