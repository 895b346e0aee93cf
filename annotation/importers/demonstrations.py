"""Demonstrations: `prompt`, `completion` (README), `instruction`, `output`, or `messages`.

The second shape is Alpaca's, with `input` and `history` where they are there; the third a
conversation whose last turn is the answer, as TRL's SFTTrainer and the export `sft` have it. A text
or a list with one message of the assistant may be the completion.
"""

from collections.abc import Mapping
from typing import Any

from annotation.importers.oasst_zh import messages_of_instruction
from annotation.importers.rows import (
    CompletionRow,
    DemonstrationRow,
    Refused,
    clip,
    digest,
    messages_of,
    name_of,
    prompt_of,
    require,
    text_of,
)


def parse(row: Mapping[str, Any]) -> DemonstrationRow:
    """The demonstration of one row. Raises Refused with the reason."""
    if "label" in row:
        raise Refused("a completion with a label (unpaired) is no ideal answer")
    if "messages" in row and "prompt" not in row:
        *messages, last = messages_of(row["messages"], "messages")
        if last["role"] != "assistant" or not messages:
            raise Refused(f"the last of messages must be the assistant's answer: {clip(last)}")
        answer: Any = last["content"]
    elif "instruction" in row and "prompt" not in row:
        require(row, "output")
        messages, answer = messages_of_instruction(row), row["output"]
    else:
        require(row, "prompt", "completion")
        messages, answer = messages_of(row["prompt"], "prompt"), row["completion"]
    if isinstance(answer, list):
        turns = messages_of(answer, "completion")
        if len(turns) != 1 or turns[0]["role"] != "assistant":
            raise Refused(f"completion must be one answer of the assistant: {clip(answer)}")
        answer = turns[0]["content"]
    text = text_of(answer, "the completion")
    prompt = prompt_of(row, messages)
    return DemonstrationRow(
        prompt=prompt,
        completion=CompletionRow(text=text, writer=name_of(row, "writer")),
        external_id=prompt.external_id or digest(messages, text),
    )
