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
class Curve:
    """One run's values, as they are drawn; see Chart."""

    lines: list[str]
    dots: list[tuple[float, float]]
    last: str
    """Empty where it has no value."""


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
    beside: "Curve | None" = None
    """Another run's values, on the same axes."""
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
    beside: Sequence[Point] | None = None,
) -> Chart | None:
    """A chart of values over steps; None where there is no finite value.

    title: what name is called, itself if left out. target: a level that is drawn too. marks: steps
    to be marked, where they lie between the first and the last. beside: another run's values.
    """
    own, other = _finite(points), _finite(beside or ())
    finite = own + other
    if not finite:
        return None
    x_low, x_high = min(x for x, _ in finite), max(x for x, _ in finite)
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

    def curve(values: Sequence[Point], last: str) -> Curve:
        runs = [[place(x, y) for x, y in run] for run in _stretches(thinned(values))]
        return Curve(
            lines=[" ".join(f"{x},{y}" for x, y in run) for run in runs if len(run) > 1],
            dots=[run[0] for run in runs if len(run) == 1],
            last=last,
        )

    drawn = curve(points, number(own[-1][1]) if own else "")
    x_marks = [x_low] if x_low == x_high else [x_low, x_high]
    return Chart(
        name=name,
        lines=drawn.lines,
        dots=drawn.dots,
        y_ticks=[Tick(place(x_low, y)[1], number(y)) for y in y_ticks],
        x_ticks=[Tick(place(x, y_low)[0], number(x)) for x in x_marks],
        first=number(own[0][1]) if own else "",
        last=drawn.last,
        steps=len(points),
        title=title or name,
        target=None if target is None else Tick(place(x_low, target)[1], number(target)),
        marks=[Tick(place(x, y_low)[0], number(x)) for x in marks if x_low <= x <= x_high],
        is_constant=len({y for _, y in [*points, *(beside or ())]}) == 1,
        beside=None if beside is None else curve(beside, number(other[-1][1]) if other else ""),
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


def _finite(points: Iterable[Point]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y is not None and _is_drawn(y)]


def _is_drawn(value: float | None) -> bool:
    return value is not None and abs(value) < DRAWN_BELOW


def _value(point: Point) -> float:
    return point[1] if point[1] is not None else math.nan
