"""Label Studio's JSON export: tasks with `data` and `annotations`, pairwise or ranker results.

Pairwise: `selected` is left or right, an empty result is a tie. Ranker: ids of `data.items` from
best to worst. Cancelled annotations are skips and say nothing. What is asked is one field of
`data`; the others are left out by name.
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
    prompt_of,
    require,
    text_of,
)
from annotation.importers.side_by_side import (
    all_equal,
    asked_in,
    comparison,
    list_of,
    object_of,
    ranked,
)

ANSWER = re.compile(r"(answer|response|completion|text|option)[-_ ]?[\dab]", re.IGNORECASE)
SIDES = {"left": ranked([0], [1]), "right": ranked([1], [0])}


def parse(row: Mapping[str, Any], asked: str = "") -> ComparisonRow:
    """The comparison of one task. asked: the field of `data` with the question (side_by_side.
    asked_in). Raises Refused with the reason."""
    require(row, "data", "annotations")
    data = object_of(row, "data")
    if "items" in data:
        names, texts = _items(data)
    else:
        names = [name for name in data if ANSWER.fullmatch(name) and name not in asked.split(",")]
        texts = [text_of(data[name], name) for name in names]
    if len(texts) < 2:
        raise Refused(f"it needs a question and two answers: {clip(list(data))}")
    answers = ["items"] if "items" in data else names
    question, left_out = asked_in(data, answers, asked, "data")
    said = []
    for annotation in list_of(row, "annotations"):
        if not isinstance(annotation, dict):
            raise Refused(f"an annotation must be an object: {clip(annotation)}")
        if annotation.get("was_cancelled"):
            left_out.append("annotations.was_cancelled")
            continue
        said.append((_who(annotation), _ranking(list_of(annotation, "result"), names)))
    return comparison(
        prompt=prompt_of({"id": row.get("id")}, [{"role": "user", "content": question}]),
        completions=[CompletionRow(text=text) for text in texts],
        said=said,
        left_out=left_out + (["predictions"] if row.get("predictions") else []),
    )


def _items(data: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Ids and texts of a ranker's items."""
    names, texts = [], []
    for one in list_of(data, "items"):
        if not isinstance(one, dict):
            raise Refused(f"an item must be an object: {clip(one)}")
        require(one, "id")
        names.append(str(one["id"]))
        texts.append(text_of(one.get("body") or one.get("html") or one.get("text"), "an item"))
    return names, texts


def _who(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    return str(by.get("id") if isinstance(by, dict) else by if by is not None else "")


def _ranking(results: list[Any], names: list[str]) -> RankingRow:
    said = [one for one in results if isinstance(one, dict) and isinstance(one.get("value"), dict)]
    for one in said:
        value = one["value"]
        if value.get("selected") in SIDES and len(names) == 2:
            return SIDES[value["selected"]]
        if "ranker" in value:
            return _by_rank(value["ranker"], names)
    if said:
        raise Refused(f"a result is pairwise or ranker: {clip(said[0])}")
    return all_equal(len(names))


def _by_rank(value: Any, names: list[str]) -> RankingRow:
    if isinstance(value, dict):
        filled = [bucket for bucket in value.values() if bucket]
        if len(filled) > 1:
            raise Refused(f"a ranker of several buckets gives no one order: {clip(value)}")
        order = filled[0] if filled else None
    else:
        order = value
    if not isinstance(order, list) or not order:
        raise Refused(f"a ranker's value is a list of ids: {clip(value)}")
    for name in order:
        if name not in names or order.count(name) > 1:
            raise Refused(f"a ranker names each item once, by its id: {clip(name)}")
    if len(order) < 2:
        raise Refused(f"a ranker of one item says nothing of the others: {clip(order)}")
    return ranked(*([names.index(name)] for name in order))
