"""TRL unpaired rows: `prompt`, `completion`, `label`; what KTO learns from.

A label by itself compares nothing, so rows that stand below one another and share their
`comparison` (or, where none is named, their prompt) are one: good completions above the others,
with the line between them. `from` of Concord's own rows is followed: `order` draws no line,
`both_bad` orders nothing (exporters/unpaired.py).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from annotation.importers.comparisons import KINDS
from annotation.importers.lines import MAX_ROW_BYTES, BadRow, RawRow, Rows
from annotation.importers.rows import (
    ComparisonRow,
    CompletionRow,
    RankingRow,
    Refused,
    VoteRow,
    clip,
    digest,
    left_out_of,
    messages_of,
    name_of,
    parse_json,
    prompt_of,
    require,
    require_distinct,
    text_of,
)
from annotation.importers.side_by_side import BOTH_BAD

FIELDS = ("prompt", "completion", "label", "from", "comparison", "axis", "annotator", "kind")
MOST_ROWS = 200
"""Of one comparison: votes on its completions, on every axis."""
TOGETHER = "rows"
Who = tuple[str, str, str]
"""Annotator in the file, kind there, axis."""


def is_one(row: Mapping[str, Any]) -> bool:
    """Whether a row of a file is of this format."""
    return {"prompt", "completion", "label"} <= set(row)


def put_together(rows: Rows) -> Rows:
    """Rows of one comparison as one row, {"rows": [...]}, with the line of the first; what can't be
    read is passed on as it is."""
    held: list[bytes] = []
    line, key, num_bytes = 0, "", 0

    def taken() -> Iterator[RawRow]:
        if held:
            yield RawRow(line, b'{"' + TOGETHER.encode() + b'": [' + b", ".join(held) + b"]}")
        held.clear()

    for raw in rows:
        if isinstance(raw, BadRow):
            yield from taken()
            yield raw
            continue
        found = _key(raw)
        is_full = len(held) >= MOST_ROWS or num_bytes + len(raw.data) > MAX_ROW_BYTES
        if found != key or not found or is_full:
            yield from taken()
            line, key, num_bytes = raw.line, found, 0
        held.append(raw.data)
        num_bytes += len(raw.data)
    yield from taken()


def _key(raw: RawRow) -> str:
    """What rows of one comparison share; "" for a row that can't be read, which stands alone."""
    try:
        row = parse_json(raw)
    except Refused:
        return ""
    name = row.get("comparison")
    return json.dumps([name] if name else [None, row.get("prompt")], sort_keys=True)


def parse(row: Mapping[str, Any]) -> ComparisonRow:
    """The comparison of rows that were put together. Raises Refused with the reason."""
    rows = row.get(TOGETHER, [row])
    if not isinstance(rows, list):
        raise Refused(f"rows must be a list: {clip(rows)}")
    for one in rows:
        if not isinstance(one, dict):
            raise Refused(f"not a JSON object: {clip(one)}")
        require(one, "prompt", "completion", "label")
    first = rows[0]
    messages = messages_of(first["prompt"], "prompt")
    places: dict[str, int] = {}
    votes: dict[Who, dict[int, Mapping[str, Any]]] = {}
    for one in rows:
        text = _text(one["completion"])
        place = places.setdefault(text, len(places))
        if not isinstance(one["label"], bool):
            raise Refused(f"label must be true or false: {clip(one['label'])}")
        said = votes.setdefault(_who(one), {})
        if place in said and said[place]["label"] != one["label"]:
            raise Refused(f"a completion is labelled true and false: {clip(text)}")
        said[place] = one
    completions = [CompletionRow(text=text) for text in places]
    if len(completions) < 2:
        raise Refused("a completion with a label by itself holds no comparison")
    require_distinct(completions)
    prompt = prompt_of({**first, "id": None}, messages)
    named = name_of(first, "comparison") or digest(messages, list(places))
    return ComparisonRow(
        prompt=prompt,
        completions=completions,
        votes=_votes(votes, named),
        left_out=left_out_of(first, FIELDS),
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        turns = messages_of(value, "completion")
        if len(turns) != 1 or turns[0]["role"] != "assistant":
            raise Refused(f"completion must be one answer of the assistant: {clip(value)}")
        value = turns[0]["content"]
    return text_of(value, "the completion")


def _who(row: Mapping[str, Any]) -> Who:
    kind = KINDS.get(str(row.get("kind") or "outside"))
    if kind is None:
        raise Refused(f"kind must be one of {', '.join(KINDS)}: {clip(row['kind'])}")
    return name_of(row, "annotator"), kind, name_of(row, "axis", 40) or "overall"


def _votes(said: Mapping[Who, Mapping[int, Mapping[str, Any]]], external_id: str) -> list[VoteRow]:
    """One per annotator, with a ranking per axis."""
    rankings: dict[tuple[str, str], list[RankingRow]] = {}
    for (annotator, kind, axis), labelled in said.items():
        rankings.setdefault((annotator, kind), []).append(_ranking(axis, labelled))
    return [
        VoteRow(annotator=annotator, kind=kind, rankings=found, external_id=external_id)
        for (annotator, kind), found in rankings.items()
    ]


def _ranking(axis: str, labelled: Mapping[int, Mapping[str, Any]]) -> RankingRow:
    good = [place for place, row in labelled.items() if row["label"]]
    bad = [place for place, row in labelled.items() if not row["label"]]
    by = {str(row.get("from") or "line") for row in labelled.values()}
    if by == {BOTH_BAD}:
        return RankingRow(axis=axis, outcome=BOTH_BAD, groups=[])
    groups = [group for group in (good, bad) if group]
    if len(labelled) < 2:
        raise Refused("somebody labels one completion alone, which compares nothing")
    line = None if by == {"order"} else int(bool(good))
    outcome = "ranked" if len(groups) > 1 else "equal"
    return RankingRow(axis=axis, outcome=outcome, groups=groups, acceptable=line)
