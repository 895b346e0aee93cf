"""Argilla's records: `fields`, and `responses` by question, each a list of value and user.

Answers are the fields that are numbered (response_1, response_2 ...), what is asked is one of the
others; the rest is left out by name.
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
    asked_in,
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


def parse(row: Mapping[str, Any], asked: str = "") -> ComparisonRow:
    """The comparison of one record. asked: the field with the question (side_by_side.asked_in).
    Raises Refused with the reason."""
    require(row, "fields", "responses")
    fields = {str(key): value for key, value in object_of(row, "fields").items() if value}
    named = asked.split(",")
    answers = [name for name in fields if NUMBERED.fullmatch(name) and name not in named]
    if len(answers) < 2:
        raise Refused(f"it needs a question and two numbered answers: {clip(list(fields))}")
    question, left_out = asked_in(fields, answers, asked, "fields")
    said: dict[str, RankingRow] = {}
    for name in object_of(row, "responses"):
        for response in list_of(row["responses"], name):
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
        prompt=prompt_of(prompt, [{"role": "user", "content": question}]),
        completions=[CompletionRow(text=text_of(fields[name], name)) for name in answers],
        said=list(said.items()),
        left_out=left_out + (["suggestions"] if row.get("suggestions") else []),
    )


def _ranking(value: Any, answers: list[str]) -> RankingRow:
    if isinstance(value, list):
        if len(value) < 2:
            raise Refused(f"a ranking of one field says nothing of the others: {clip(value)}")
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
