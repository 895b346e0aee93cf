"""Charts: coordinates that can be checked by hand."""

import math

import pytest
from django.template.loader import render_to_string

from annotation.pages.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Tick,
    line_chart,
    nice_ticks,
    number,
    thinned,
)


def test_numbers_that_are_as_good_as_infinite_are_gaps():
    chart = line_chart("loss", [(1, 1e308), (2, 0.5), (3, -1e308), (4, 0.25)])
    assert chart is not None
    assert (chart.first, chart.last, chart.lines) == ("0.5", "0.25", [])
    assert line_chart("loss", [(1, 1e308), (2, -1e308)]) is None


def test_a_line_from_corner_to_corner():
    chart = line_chart("loss", [(0, 0.0), (10, 1.0)])
    assert chart.lines == [f"{LEFT}.0,{HEIGHT - BOTTOM}.0 {WIDTH - RIGHT}.0,{TOP}.0"]
    assert [tick.text for tick in chart.x_ticks] == ["0", "10"]
    assert (chart.first, chart.last, chart.steps) == ("0", "1", 2)


def test_a_missing_value_is_a_gap():
    chart = line_chart("kl", [(1, 1.0), (2, 2.0), (3, None), (4, math.nan), (5, 1.0)])
    assert len(chart.lines) == 1
    assert chart.lines[0].count(",") == 2
    assert len(chart.dots) == 1


@pytest.mark.parametrize("points", [[], [(1, None)], [(1, math.inf), (2, math.nan)]])
def test_no_number_no_chart(points):
    assert line_chart("x", points) is None


@pytest.mark.parametrize(
    ("points", "is_constant"),
    [
        ([(1, 0.5), (2, 0.5), (3, 0.5)], True),
        ([(5, 2.0)], True),
        ([(1, 0.5), (2, 0.5), (3, 0.6)], False),
        ([(1, 0.5), (2, None), (3, 0.5)], False),  # the gap is worth seeing
    ],
)
def test_a_series_that_never_changes_is_a_number(points, is_constant):
    chart = line_chart("lr", points)
    assert chart is not None
    assert chart.is_constant is is_constant


def test_a_target_is_within_the_chart_and_at_its_height():
    chart = line_chart("kl_nats", [(0, 0.0), (10, 1.0)], title="KL", target=6.0)
    assert chart is not None
    # ticks 0, 2, 4, 6: the target at the top, a sixth of the way up to it the last value
    assert chart.target == Tick(float(TOP), "6")
    sixth = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) / 6
    assert chart.lines == [f"{LEFT}.0,{HEIGHT - BOTTOM}.0 {WIDTH - RIGHT}.0,{sixth:.1f}"]
    html = render_to_string("pages/chart.html", {"chart": chart})
    assert "target 6</text>" in html
    assert "KL: from 0 to 1 over 2 points" in html


def test_a_single_point_is_a_dot():
    chart = line_chart("x", [(5, 2.0)])
    assert chart.lines == []
    assert len(chart.dots) == 1


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.5, 1.0]),
        (0, 3, [0, 1, 2, 3]),
        (0.61, 0.79, [0.6, 0.7, 0.8]),
        (-4, 4, [-5, 0, 5]),
        (0, 250, [0, 100, 200, 300]),
    ],
)
def test_ticks_are_round_and_enclose(low, high, ticks):
    assert nice_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0, 1e-9])
def test_ticks_of_a_constant(value):
    ticks = nice_ticks(value, value)
    assert ticks[0] <= value <= ticks[-1]
    assert ticks[0] < ticks[-1]


def test_thinning_keeps_the_spike_and_the_order():
    points = [(step, 0.0) for step in range(5000)]
    points[3217] = (3217, 99.0)
    kept = thinned(points)
    assert (3217, 99.0) in kept
    assert len(kept) <= MAX_POINTS
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (12, "12"), (12345, "12.35k"), (1.5e-5, "1.5e-05"), (2e7, "2e+07")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text
