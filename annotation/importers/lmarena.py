"""Arena battles: two conversations and a winner; and the older table with one column per winner.

`winner` is model_a, model_b, tie or tie (bothbad) (github.com/lm-sys/FastChat). The conversations
must share all but their last answer: what follows two different answers is no comparison of one
prompt.
"""

import json
from collections.abc import Mapping
from typing import Any

from annotation.importers.rows import (
    ComparisonRow,
    CompletionRow,
    Refused,
    clip,
    left_out_of,
    messages_of,
    name_of,
    prompt_of,
    require,
    text_of,
)
from annotation.importers.side_by_side import (
    BOTH_BAD,
    all_equal,
    comparison,
    none_of_them,
    ranked,
)

WINNERS = {
    "model_a": ranked([0], [1]),
    "model_b": ranked([1], [0]),
    "tie": all_equal(2),
    "tie (bothbad)": none_of_them(BOTH_BAD),
    "both_bad": none_of_them(BOTH_BAD),
}
ONE_HOT = {"winner_model_a": "model_a", "winner_model_b": "model_b", "winner_tie": "tie"}
LANGUAGES = {"english": "en", "chinese": "zh"}
KNOWN = (
    *("model_a", "model_b", "winner", "judge", "conversation_a", "conversation_b"),
    *("question_id", "response_a", "response_b", *ONE_HOT),
)


def parse(row: Mapping[str, Any]) -> ComparisonRow:
    """The comparison of one row. Raises Refused with the reason."""
    if "conversation_a" in row:
        require(row, "conversation_a", "conversation_b", "winner")
        one, other = (messages_of(row[key], key) for key in ("conversation_a", "conversation_b"))
    else:
        require(row, "prompt", "response_a", "response_b")
        one, other = (_turns(row, key) for key in ("response_a", "response_b"))
    for name, messages in (("conversation_a", one), ("conversation_b", other)):
        if messages[-1]["role"] != "assistant":
            raise Refused(f"{name} must end with an answer of the assistant")
    if one[:-1] != other[:-1]:
        raise Refused("the conversations part before their last answer")
    language = str(row.get("language") or "").lower()
    said = {
        "id": row.get("question_id") if row.get("question_id") is not None else row.get("id"),
        "language": LANGUAGES.get(language, language if len(language) <= 3 else ""),
    }
    return comparison(
        prompt=prompt_of(said, one[:-1]),
        completions=[
            CompletionRow(text=text_of(messages[-1]["content"], "an answer"), writer=writer)
            for messages, writer in (
                (one, name_of(row, "model_a")),
                (other, name_of(row, "model_b")),
            )
        ],
        said=[(name_of(row, "judge"), WINNERS[_winner(row)])],
        left_out=left_out_of(row, KNOWN),
    )


def _winner(row: Mapping[str, Any]) -> str:
    if "winner" in row:
        winner = str(row["winner"])
        if winner not in WINNERS:
            raise Refused(f"winner must be one of {', '.join(WINNERS)}: {clip(row['winner'])}")
        return winner
    won = [name for key, name in ONE_HOT.items() if str(row.get(key)) in ("1", "1.0", "True")]
    if len(won) != 1:
        seen = {key: row.get(key) for key in ONE_HOT}
        raise Refused(f"one of {', '.join(ONE_HOT)} must be 1: {clip(seen)}")
    return won[0]


def _turns(row: Mapping[str, Any], key: str) -> list[dict[str, str]]:
    """Prompts and answers stand in two lists, as JSON in a table."""
    asked, answered = (_listed(row[name], name) for name in ("prompt", key))
    if len(asked) != len(answered):
        raise Refused(f"prompt has {len(asked)} turns and {key} {len(answered)}")
    return [
        {"role": role, "content": text_of(text, f"a turn of {name}")}
        for question, answer in zip(asked, answered, strict=True)
        for role, text, name in (("user", question, "prompt"), ("assistant", answer, key))
    ]


def _listed(value: Any, name: str) -> list[Any]:
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise Refused(f"{name} is no JSON list: {error}") from error
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found:
        raise Refused(f"{name} must be a text or a list of texts: {clip(value)}")
    return found
