"""Rows of a table (CSV), by a mapping of columns: which one is the prompt, the answers, the winner.

Either `chosen` and `rejected`, or `first`, `second` and `winner`. What a winner's cell may say
stands in WINNERS; a cell may also hold the name of the answer's column. Numbers mean what the
caller says they do, or nothing: one table's 0 is a tie, another's the first answer.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from annotation.errors import BadInput
from annotation.importers.rows import (
    ComparisonRow,
    CompletionRow,
    RankingRow,
    Refused,
    clip,
    messages_of,
    name_of,
    prompt_of,
    text_of,
)
from annotation.importers.side_by_side import (
    BOTH_BAD,
    CANNOT_TELL,
    all_equal,
    comparison,
    none_of_them,
    ranked,
)

REQUIRED = ("prompt",)
TWO_WAYS = (("chosen", "rejected"), ("first", "second", "winner"))
OPTIONAL = ("annotator", "id", "group", "language", "split", "task", "first_model", "second_model")
COLUMNS = (*REQUIRED, *TWO_WAYS[0], *TWO_WAYS[1], *OPTIONAL)
MEANINGS = ("first", "second", "tie", "both_bad", "cannot_tell")
"""What a value may be said to mean; each of them a word of WINNERS too."""
WINNERS: dict[str, RankingRow] = {
    **dict.fromkeys(("a", "first", "left", "model_a", "response_1"), ranked([0], [1])),
    **dict.fromkeys(("b", "second", "right", "model_b", "response_2"), ranked([1], [0])),
    **dict.fromkeys(("tie", "equal", "same", "draw"), all_equal(2)),
    **dict.fromkeys(("both_bad", "neither", "tie (bothbad)"), none_of_them(BOTH_BAD)),
    **dict.fromkeys(("cannot_tell", "unsure"), none_of_them(CANNOT_TELL)),
}
NUMBER = re.compile(r"[-+]?\d+([.,]\d*)?")
MOST_SHOWN = 8
"""Values that a sentence names."""


def require_mapping(mapping: Mapping[str, str], header: list[str]) -> None:
    """Raise BadInput unless it names what a comparison needs, by columns that there are."""
    if unknown := sorted(set(mapping) - set(COLUMNS)):
        raise BadInput(f"A table has {', '.join(COLUMNS)}: not {unknown[0]!r}.")
    for meaning, column in mapping.items():
        if column not in header:
            raise BadInput(
                f"The file has no column {column!r} for {meaning}; it has {', '.join(header)}."
            )
    twice = [one for one in mapping.values() if list(mapping.values()).count(one) > 1]
    if twice:
        raise BadInput(f"Column {twice[0]!r} stands for two things.")
    if "prompt" not in mapping or not any(set(way) <= set(mapping) for way in TWO_WAYS):
        raise BadInput(
            "A table needs a column for prompt, and those for chosen and rejected or for first, "
            f"second and winner: there are {', '.join(mapping) or 'none'}."
        )


def require_values(mapping: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Raise BadInput unless they can be what a winner's cells mean."""
    if values and "winner" not in mapping:
        raise BadInput("--values say what a winner's cells mean, and --columns name no winner.")
    for value, meaning in values.items():
        if meaning not in MEANINGS:
            raise BadInput(f"A value means one of {', '.join(MEANINGS)}: {meaning}={value}.")


def require_told(
    name: str, cells: Iterable[str], mapping: Mapping[str, str], values: Mapping[str, str]
) -> None:
    """Raise BadInput if a winner's cell is a number that nobody said the meaning of."""
    seen = {cell.strip() for cell in cells}
    unsaid = {cell for cell in seen if _is_number(cell, mapping) and cell not in values}
    if unsaid:
        shown = ", ".join(clip(cell, 40).strip('"') for cell in sorted(seen)[:MOST_SHOWN])
        raise BadInput(
            f"{name}: what the numbers of {mapping['winner']!r} mean must be said, e.g. --values "
            f"first=1 second=2 tie=0; it holds {shown}{' ...' if len(seen) > MOST_SHOWN else ''}."
        )


def meaning_of(cell: str, mapping: Mapping[str, str]) -> str:
    """Which of MEANINGS a winner's cell says by itself; "" where it must be told. Columns of the
    answers may still be unnamed."""
    by_column = {mapping[name]: name for name in ("first", "second") if name in mapping}
    if cell in by_column:
        return by_column[cell]
    if NUMBER.fullmatch(cell) or (ranking := WINNERS.get(cell.lower())) is None:
        return ""
    return next(one for one in MEANINGS if WINNERS[one] == ranking)


def _is_number(cell: str, mapping: Mapping[str, str]) -> bool:
    return bool(NUMBER.fullmatch(cell)) and cell not in (
        mapping.get("first"),
        mapping.get("second"),
    )


def parser(
    mapping: Mapping[str, str], values: Mapping[str, str]
) -> Callable[[Mapping[str, Any]], ComparisonRow]:
    """What takes a row of a table whose columns mean what the mapping says. values: what a winner's
    cell says -> one of MEANINGS."""

    def parse(row: Mapping[str, Any]) -> ComparisonRow:
        said = {meaning: row.get(column) or "" for meaning, column in mapping.items()}
        messages = messages_of(text_of(said["prompt"], "prompt"), "prompt")
        if "winner" in said:
            names, ranking = ("first", "second"), _ranking(said["winner"], mapping, values)
        else:
            names, ranking = ("chosen", "rejected"), ranked([0], [1])
        optional = {key: said.get(key) or None for key in ("id", "group", "split")}
        unread = [name for name in row if name not in mapping.values() and row[name]]
        return comparison(
            prompt=prompt_of({**said, **optional}, messages),
            completions=[
                CompletionRow(text=text_of(said[name], name), writer=name_of(said, f"{name}_model"))
                for name in names
            ],
            said=[(name_of(said, "annotator"), ranking)],
            left_out=[clip(name, 42).strip('"') for name in unread],
        )

    return parse


def _ranking(cell: str, mapping: Mapping[str, str], values: Mapping[str, str]) -> RankingRow:
    by_column = {mapping["first"]: "first", mapping["second"]: "second"}
    said = cell.strip()
    word = values.get(said) or by_column.get(cell) or by_column.get(said) or said.lower()
    found = WINNERS.get(word)
    if found is None:
        known = ", ".join([*values, *WINNERS])
        raise Refused(f"winner must be one of {known}: {clip(cell)}")
    return found
