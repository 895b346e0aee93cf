"""OpenAssistant's message trees: every prompt whose answers were ranked becomes a comparison.

`rank` 0 is the best; an answer without a rank was not ranked. Deleted messages and what failed
review are left out, and so are groups with more answers than a comparison can have.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from annotation.importers.rows import (
    ComparisonRow,
    CompletionRow,
    Refused,
    clip,
    prompt_of,
    require,
    text_of,
)
from annotation.importers.side_by_side import by_number, comparison

ROLES = {"prompter": "user", "assistant": "assistant"}
MOST_ANSWERS = 9
MOST_LEVELS = 100


def parse(row: Mapping[str, Any]) -> list[ComparisonRow]:
    """The comparisons of one tree. Raises Refused with the reason."""
    require(row, "message_tree_id", "prompt")
    found = list(_below(row["prompt"], [], str(row["message_tree_id"])))
    if not found:
        raise Refused("no two answers of this tree were ranked against each other")
    return found


def _below(message: Any, before: list[dict[str, str]], tree: str) -> Iterator[ComparisonRow]:
    if not isinstance(message, dict):
        raise Refused(f"a message must be an object: {clip(message)}")
    require(message, "text", "role")
    if message["role"] not in ROLES:
        raise Refused(f"role must be prompter or assistant: {clip(message['role'])}")
    turn = {"role": ROLES[message["role"]], "content": text_of(message["text"], "a message")}
    messages = [*before, turn]
    replies = [one for one in message.get("replies") or [] if _is_kept(one)]
    ranked_ones = [one for one in replies if isinstance(one.get("rank"), int)]
    if turn["role"] == "user" and len(ranked_ones) >= 2 and len(replies) <= MOST_ANSWERS:
        yield _comparison(message, messages, replies, tree)
    if len(messages) < MOST_LEVELS:
        for reply in replies:
            yield from _below(reply, messages, tree)


def _is_kept(reply: Any) -> bool:
    if not isinstance(reply, dict):
        raise Refused(f"a reply must be an object: {clip(reply)}")
    return not reply.get("deleted") and reply.get("review_result") is not False


def _comparison(
    message: Mapping[str, Any], messages: list[dict[str, str]], replies: list[Any], tree: str
) -> ComparisonRow:
    said = {"id": message.get("message_id"), "group": tree, "language": message.get("lang")}
    return comparison(
        prompt=prompt_of(said, messages),
        completions=[CompletionRow(text=text_of(one.get("text"), "a reply")) for one in replies],
        said=[
            (
                "",
                by_number(
                    {
                        place: -float(one["rank"])
                        for place, one in enumerate(replies)
                        if isinstance(one.get("rank"), int)
                    }
                ),
            )
        ],
    )
