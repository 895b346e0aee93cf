"""A plot as a sheet of lines: a page draws it, and the same numbers are its CSV."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from django.http import HttpResponse

from annotation.intervals import Statistic
from annotation.pages.head_to_head import Bar, bar_of

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take the beginning of a name for."""
BOX_WIDTH, BOX_MARGIN = 220, 6


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a line."""

    statistic: Statistic
    votes: str = ""
    """Query of the page that lists what it is made of; empty: it is not made of votes."""
    bar: Bar | None = None
    says_n: bool = True
    """Else it leads to its votes by itself: another figure of the line says how many."""


@dataclass(frozen=True, slots=True)
class Box:
    """Five quantiles as a picture, in SVG user units from the left."""

    low: float
    first: float
    middle: float
    third: float
    high: float
    zero: float | None
    width: int = BOX_WIDTH

    @property
    def breadth(self) -> float:
        """Of the box."""
        return round(max(self.third - self.first, 1.0), 1)


@dataclass(frozen=True, slots=True)
class Line:
    """One line; figures stand in the order of the sheet's columns, None where there is none."""

    label: str
    figures: list[Figure | None]
    box: Box | None = None
    is_whole: bool = False
    """Of everything together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """One plot."""

    of: str
    """What a label names."""
    columns: list[tuple[str, str]]
    """(name in the CSV, title on the page)."""
    lines: list[Line] = field(default_factory=list)
    lead: str = ""
    notes: list[str] = field(default_factory=list)
    empty: str = ""
    """Said where there is no line."""


def share_bar(statistic: Statistic, zero: float = 0.5) -> Bar | None:
    """A share in [0, 1] with its interval, beside a level to compare with; a share without an
    interval becomes a line from that level."""
    if statistic.value is None:
        return None
    low = statistic.low if statistic.low is not None else min(zero, statistic.value)
    high = statistic.high if statistic.high is not None else max(zero, statistic.value)
    return bar_of(low, statistic.value, high, span=(0.0, 1.0), zero=zero)


def box_of(quantiles: Sequence[float], span: tuple[float, float]) -> Box:
    """Five quantiles, rising, within a span of values that becomes the width of the picture."""
    least, most = span
    scale = (BOX_WIDTH - 2 * BOX_MARGIN) / ((most - least) or 1.0)
    low, first, middle, third, high = (
        round(BOX_MARGIN + (value - least) * scale, 1) for value in quantiles
    )
    zero = round(BOX_MARGIN - least * scale, 1) if least <= 0 <= most else None
    return Box(low, first, middle, third, high, zero)


def query_of(**cell: object) -> str:
    """The query of a list of votes."""
    return urlencode({name: value for name, value in cell.items() if value is not None})


def csv_of(sheet: Sheet, name: str) -> HttpResponse:
    """The sheet's numbers, in full digits."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["label", "figure", "value", "low", "high", "n", "why_none"])
    writer.writerows(_rows(sheet))
    return HttpResponse(
        text.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )


def _rows(sheet: Sheet) -> Iterator[list[object]]:
    for line in sheet.lines:
        for (column, _title), figure in zip(sheet.columns, line.figures, strict=True):
            if figure is not None:
                one = figure.statistic
                yield [
                    plain(line.label),
                    column,
                    *("" if value is None else value for value in (one.value, one.low, one.high)),
                    one.n,
                    one.undefined,
                ]


def plain(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(FORMULA) else name
