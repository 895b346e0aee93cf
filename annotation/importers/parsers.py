"""What a format's rows mean: its parser, and the columns that a table's reader explains."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from annotation.errors import BadInput
from annotation.importers import (
    argilla,
    comparisons,
    helpsteer2,
    hh_rlhf,
    label_studio,
    lmarena,
    oasst_trees,
    oasst_zh,
    rewardbench,
    table,
    trl,
    ultrafeedback,
    unpaired,
)
from annotation.importers.csv_rows import beginning_of, header_of, is_table, read_table
from annotation.importers.lines import RawRow
from annotation.importers.rows import ComparisonRow

Parse = Callable[[Mapping[str, Any]], ComparisonRow | list[ComparisonRow]]
ASKING: Mapping[str, Callable[..., ComparisonRow]] = {
    "argilla": argilla.parse,
    "label-studio": label_studio.parse,
}
"""Formats that leave open which of their fields is the question; the caller may name it."""
UNPAIRED = "unpaired"
PREFERENCE_FORMATS: Mapping[str, Parse] = {
    "hh-rlhf": hh_rlhf.parse,
    "trl": trl.parse,
    UNPAIRED: unpaired.parse,
    "comparisons": comparisons.parse,
    "oasst-zh": oasst_zh.parse,
    "oasst-trees": oasst_trees.parse,
    "helpsteer2": helpsteer2.parse,
    "ultrafeedback": ultrafeedback.parse,
    "lmarena": lmarena.parse,
    "rewardbench": rewardbench.parse,
    **ASKING,
}
TABLE = "csv"
"""The format whose columns the caller explains (importers/table.py)."""


def parse_of(format: str, columns: Mapping[str, str], values: Mapping[str, str]) -> Parse:
    """The parser of a preference format. columns, values: as require_columns took them."""
    if format == TABLE:
        return table.parser(columns, values)
    if "prompt" in columns:
        return partial(ASKING[format], asked=columns["prompt"])
    return PREFERENCE_FORMATS[format]


def require_columns(
    path: Path,
    format: str,
    columns: Mapping[str, str],
    values: Mapping[str, str],
    *,
    from_beginning: bool = False,
) -> None:
    """Raise BadInput unless the file's columns can mean that, and its winners are understood.

    from_beginning: look at the first rows alone; one further down whose winner isn't understood is
    refused by itself.

    columns: what each stands for -> its name, of a table; of a format of ASKING `prompt` alone, the
    field with the question. values: what a winner's cell says -> one of table.MEANINGS.
    """
    if format != TABLE:
        if values or not set(columns) <= ({"prompt"} if format in ASKING else set()):
            more = ", prompt= also what is asked in argilla and label-studio"
            raise BadInput(f"--columns and --values explain a csv{more}: not {format}.")
        return
    if not is_table(path):
        raise BadInput(f"{path.name} is no table: its name ends with .csv or .tsv.")
    table.require_mapping(columns, header_of(path))
    table.require_values(columns, values)
    if "winner" in columns:
        some = beginning_of(path) if from_beginning else read_table(path)
        rows = (json.loads(row.data) for row in some if isinstance(row, RawRow))
        cells = (str(row[columns["winner"]]) for row in rows)
        table.require_told(path.name, cells, columns, values)
