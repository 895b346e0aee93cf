"""Line charts made on the server: numbers in, the coordinates of an SVG out. No script draws.

The picture is a template's matter (pages/chart.html); this module knows only arithmetic.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

WIDTH, HEIGHT = 340, 150
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 10, 22
MAX_POINTS = 240
"""More are thinned to their buckets' lowest and highest: a spike is never averaged away."""

DRAWN_BELOW = 1e300
"""Whatever lies beyond is as good as infinite: the difference of two such values is no number."""

Point = tuple[float, float | None]
"""(step, value); None or a value that can't be drawn leaves a gap."""


@dataclass(frozen=True)
class Tick:
    """A line of the grid: where it runs, and the number beside it."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """All that the template needs; coordinates are SVG user units from the top left."""

    name: str
    lines: list[str]
    """`points` of one polyline per unbroken stretch."""
    dots: list[tuple[float, float]]
    """Stretches of a single point."""
    y_ticks: list[Tick]
    x_ticks: list[Tick]
    first: str
    last: str
    steps: int
    title: str
    """What the key is called."""
    target: Tick | None
    """A level to compare with."""
    marks: list[Tick]
    """Steps at which something began."""
    is_constant: bool
    """It never changes: the number says all, a line would say nothing."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    floor: int = HEIGHT - BOTTOM


def line_chart(
    name: str,
    points: Sequence[Point],
    *,
    title: str = "",
    target: float | None = None,
    marks: Iterable[float] = (),
) -> Chart | None:
    """A chart of values over steps; None where there is no finite value.

    title: what name is called, itself if left out. target: a level that is drawn too. marks: steps
    to be marked, where they lie between the first and the last.
    """
    finite = [(x, y) for x, y in points if y is not None and _is_drawn(y)]
    if not finite:
        return None
    x_low, x_high = finite[0][0], finite[-1][0]
    levels = [y for _, y in finite] + ([] if target is None else [target])
    y_ticks = nice_ticks(min(levels), max(levels))
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (y - y_low) / (y_high - y_low)
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )

    stretches = [[place(x, y) for x, y in stretch] for stretch in _stretches(thinned(points))]
    x_marks = [x_low] if x_low == x_high else [x_low, x_high]
    return Chart(
        name=name,
        lines=[" ".join(f"{x},{y}" for x, y in one) for one in stretches if len(one) > 1],
        dots=[one[0] for one in stretches if len(one) == 1],
        y_ticks=[Tick(place(x_low, y)[1], number(y)) for y in y_ticks],
        x_ticks=[Tick(place(x, y_low)[0], number(x)) for x in x_marks],
        first=number(finite[0][1]),
        last=number(finite[-1][1]),
        steps=len(points),
        title=title or name,
        target=None if target is None else Tick(place(x_low, target)[1], number(target)),
        marks=[Tick(place(x, y_low)[0], number(x)) for x in marks if x_low <= x <= x_high],
        is_constant=len({y for _, y in points}) == 1,
    )


def nice_ticks(low: float, high: float, wanted: int = 3) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that enclose low and high."""
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most about MAX_POINTS points: of each bucket of neighbours the lowest and the highest."""
    if len(points) <= MAX_POINTS:
        return list(points)
    size = math.ceil(len(points) / (MAX_POINTS // 2))
    kept: list[Point] = []
    for start in range(0, len(points), size):
        bucket = [(x, y) for x, y in points[start : start + size] if _is_drawn(y)]
        if not bucket:
            kept.append((points[start][0], None))
            continue
        extremes = {min(bucket, key=_value), max(bucket, key=_value)}
        kept.extend(sorted(extremes))
    return kept


def number(value: float) -> str:
    """A number short enough for an axis: 12, 0.25, 1.5e-05, 12.3k."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.2g}"
    if size >= 10_000:
        return f"{value / 1000:.4g}k"
    return f"{value:.4g}"


def _stretches(points: Iterable[Point]) -> list[list[tuple[float, float]]]:
    """Runs of finite values between the gaps."""
    runs = groupby(points, key=lambda point: _is_drawn(point[1]))
    return [[(x, y) for x, y in run if y is not None] for is_drawn, run in runs if is_drawn]


def _is_drawn(value: float | None) -> bool:
    return value is not None and abs(value) < DRAWN_BELOW


def _value(point: Point) -> float:
    return point[1] if point[1] is not None else math.nan
