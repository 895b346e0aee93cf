"""The Chinese OpenAssistant rankings: `instruction`, `input`, `history`, `output` best to worst.

`history` holds earlier (user, assistant) turns. The volunteers aren't named, so a ranking belongs
to one outside annotator.
"""

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


def parse(row: Mapping[str, Any]) -> ComparisonRow:
    """The comparison of one row. Raises Refused with the reason."""
    require(row, "instruction", "output")
    messages = messages_of_instruction(row)
    if not isinstance(row["output"], list):
        raise Refused(f"output must be a list, best answer first: {clip(row['output'])}")
    completions = [
        CompletionRow(text=text_of(text, f"answer {place}").strip())
        for place, text in enumerate(row["output"], start=1)
    ]
    require_distinct(completions)
    prompt = prompt_of({"language": "zh", **row}, messages)
    vote = VoteRow(
        annotator=name_of(row, "annotator"),
        kind="outside",
        rankings=[best_to_worst(len(completions))],
        external_id=prompt.external_id or digest(messages, [each.text for each in completions]),
    )
    return ComparisonRow(
        prompt=prompt,
        completions=completions,
        votes=[vote],
        left_out=left_out_of(row, ("instruction", "input", "history", "output", "annotator")),
    )


def messages_of_instruction(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The conversation: earlier turns, then the instruction with its input on a line below."""
    history = row.get("history") or []
    if not isinstance(history, list):
        raise Refused(f"history must be a list of pairs: {clip(history)}")
    messages = []
    for pair in history:
        if not isinstance(pair, list) or len(pair) != 2:
            raise Refused(f"history must hold pairs of user and assistant: {clip(pair)}")
        for role, content in zip(("user", "assistant"), pair, strict=True):
            messages.append({"role": role, "content": text_of(content, "an earlier turn").strip()})
    question = text_of(row["instruction"], "instruction").strip()
    added = row.get("input") or ""
    if not isinstance(added, str):
        raise Refused(f"input must be a text: {clip(added)}")
    content = f"{question}\n{added.strip()}" if added.strip() else question
    return [*messages, {"role": "user", "content": content}]
