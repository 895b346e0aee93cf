"""Argilla's records: `fields`, and `responses` by question, each a list of value and user.

Answers are the fields that are numbered (response_1, response_2 ...); what is asked are the others.
A label question names the better field or a tie, a ranking question gives each field its rank.
"""

import re
from collections.abc import Mapping
from typing import Any

from annotation.importers.rows import (
    ComparisonRow,
    CompletionRow,
    RankingRow,
    Refused,
    clip,
    name_of,
    prompt_of,
    require,
    text_of,
)
from annotation.importers.side_by_side import (
    BOTH_BAD,
    CANNOT_TELL,
    all_equal,
    by_number,
    comparison,
    list_of,
    none_of_them,
    object_of,
    ranked,
)

NUMBERED = re.compile(r"(.*?)[-_ ]?\d+")
OUTCOMES = {
    "both_bad": BOTH_BAD,
    "neither": BOTH_BAD,
    "cannot_tell": CANNOT_TELL,
    "unsure": CANNOT_TELL,
}
TIES = ("tie", "equal", "both", "same")


def parse(row: Mapping[str, Any]) -> ComparisonRow:
    """The comparison of one record. Raises Refused with the reason."""
    require(row, "fields", "responses")
    fields = {str(key): value for key, value in object_of(row, "fields").items() if value}
    answers = [name for name in fields if NUMBERED.fullmatch(name)]
    asked = [text_of(text, name) for name, text in fields.items() if name not in answers]
    if len(answers) < 2 or not asked:
        raise Refused(f"it needs a question and two numbered answers: {clip(list(fields))}")
    said: dict[str, RankingRow] = {}
    for question in object_of(row, "responses"):
        for response in list_of(row["responses"], question):
            if not isinstance(response, dict):
                raise Refused(f"a response must be an object: {clip(response)}")
            if response.get("status") in ("draft", "discarded"):
                continue
            require(response, "value", "user_id")
            who = name_of(response, "user_id")
            if who in said:
                raise Refused(f"annotator {clip(who)} answers two questions: which one counts?")
            said[who] = _ranking(response["value"], answers)
    metadata = row.get("metadata") if isinstance(row.get("metadata"), dict) else {}
    prompt = {"id": row.get("id"), "metadata": metadata}
    return comparison(
        prompt=prompt_of(prompt, [{"role": "user", "content": "\n".join(asked)}]),
        completions=[CompletionRow(text=text_of(fields[name], name)) for name in answers],
        said=list(said.items()),
        left_out=["suggestions"] if row.get("suggestions") else [],
    )


def _ranking(value: Any, answers: list[str]) -> RankingRow:
    if isinstance(value, list):
        return by_number({_place(one, answers): -float(_rank(one)) for one in value})
    if value in answers:
        best = answers.index(value)
        return ranked([best], [place for place in range(len(answers)) if place != best])
    if value in TIES:
        return all_equal(len(answers))
    if value in OUTCOMES:
        return none_of_them(OUTCOMES[value])
    known = ", ".join([*answers, *TIES, *OUTCOMES])
    raise Refused(f"a label is one of {known}: {clip(value)}")


def _place(one: Any, answers: list[str]) -> int:
    if not isinstance(one, dict) or one.get("value") not in answers:
        raise Refused(f"a ranking names one of {', '.join(answers)}: {clip(one)}")
    return answers.index(one["value"])


def _rank(one: Mapping[str, Any]) -> int:
    rank = one.get("rank")
    if not isinstance(rank, int) or isinstance(rank, bool):
        raise Refused(f"a rank is a whole number: {clip(rank)}")
    return rank
