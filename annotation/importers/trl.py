"""TRL preference rows: `prompt`, `chosen`, `rejected`, as texts or as messages.

The four shapes of huggingface.co/docs/trl/dataset_formats#preference: standard or conversational,
with the prompt told apart or implicit in both answers. Implicit texts must be transcripts with turn
marks, for two plain texts may begin alike without that being a prompt.
"""

from collections.abc import Mapping
from typing import Any

from annotation.importers.hh_rlhf import comparison_of_two, split_transcripts
from annotation.importers.rows import (
    ComparisonRow,
    Refused,
    clip,
    messages_of,
    require,
    text_of,
)


def parse(row: Mapping[str, Any]) -> ComparisonRow:
    """The comparison of one row. Raises Refused with the reason."""
    if "completion" in row and "label" in row:
        raise Refused("an unpaired row (completion and label) holds no comparison")
    require(row, "chosen", "rejected")
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) and isinstance(rejected, str):
        for key in ("chosen", "rejected"):
            text_of(row[key], f"the {key} completion")
        if "prompt" in row:
            messages = messages_of(row["prompt"], "prompt")
            return comparison_of_two(row, messages, (chosen, rejected))
        return comparison_of_two(row, *split_transcripts(chosen, rejected))
    answers = messages_of(chosen, "chosen"), messages_of(rejected, "rejected")
    if "prompt" in row:
        messages = messages_of(row["prompt"], "prompt")
    else:
        messages, answers = _shared(*answers)
    for name, answer in zip(("chosen", "rejected"), answers, strict=True):
        if len(answer) != 1 or answer[0]["role"] != "assistant":
            raise Refused(f"{name} must be one last answer of the assistant: {clip(answer)}")
    return comparison_of_two(row, messages, (answers[0][0]["content"], answers[1][0]["content"]))


Messages = list[dict[str, str]]


def _shared(chosen: Messages, rejected: Messages) -> tuple[Messages, tuple[Messages, Messages]]:
    """The messages before the last of each, which must be the same."""
    if chosen[:-1] != rejected[:-1]:
        raise Refused("chosen and rejected part before their last answer")
    if len(chosen) < 2:
        raise Refused(f"no prompt: {clip(chosen)} is all there is")
    return chosen[:-1], (chosen[-1:], rejected[-1:])
