"""Curves of long runs: what a page draws of ten thousand steps, and that no spike is lost."""

import random
import re

import pytest

from annotation.models import CurvePiece, JobKind, JobMetric, JobStatus, TrainingJob
from annotation.services import jobs
from annotation.services.curves import MOST_READ, SIZES, series_of
from annotation.services.jobs import MetricRow


@pytest.fixture
def job(cast):
    return TrainingJob.objects.create(
        project=cast.project, kind=JobKind.PPO, status=JobStatus.RUNNING, attempt=1
    )


@pytest.fixture
def record(job):
    """Rows of (step, values) of one phase, sent together."""

    def send(*rows, phase="ppo"):
        told = [MetricRow(step=step, phase=phase, values=values) for step, values in rows]
        assert jobs.record_metrics(job_id=job.pk, attempt=1, rows=told)

    return send


def slow_pieces(job, size) -> dict:
    """The definition: of every `size` steps the lowest, the highest and the last number."""
    found: dict = {}
    for row in job.metrics.order_by("step"):
        numbers = found.setdefault((row.phase, row.step // size * size), {})
        for name, value in row.values.items():
            numbers.setdefault(name, [])
            if value is not None:
                numbers[name].append([row.step, value])
    for numbers in found.values():
        for name, points in numbers.items():
            if points:
                low = min(points, key=lambda point: point[1])
                high = max(points, key=lambda point: point[1])
                numbers[name] = sorted({tuple(one) for one in (low, high, points[-1])})
    return found


def drawn(draw) -> float | None:
    return draw.choice([None, draw.random(), draw.randint(-9, 9)])


def pieces(job, size) -> dict:
    return {
        (one.phase, one.start): {
            name: [tuple(point) for point in points] for name, points in one.values.items()
        }
        for one in CurvePiece.objects.filter(job=job, size=size)
    }


def test_pieces_are_those_of_the_definition_however_the_rows_came(job, record):
    draw = random.Random(5)
    steps = list(range(1, 700))
    while steps:
        count = draw.randint(1, 90)
        sent, steps = steps[:count], steps[count:]
        record(*[(step, {name: drawn(draw) for name in ("score", "kl")}) for step in sent])
        record(*[(step, {"loss": drawn(draw)}) for step in sent if step % 50 == 0], phase="dev")
    record(*[(step, {"score": 99.0}) for step in range(60, 70)])  # by a later attempt
    for size in SIZES:
        assert pieces(job, size) == slow_pieces(job, size)


@pytest.fixture
def long_run(job, record):
    """10,000 steps of PPO, flat but for one step up and one down."""
    for first in range(1, 10_001, 2_000):
        record(
            *[
                (step, {"score": {4321: 9.0, 8765: -7.0}.get(step, step % 7 / 7), "kl_nats": step})
                for step in range(first, first + 2_000)
            ]
        )
    return job


def test_a_spike_of_one_step_among_ten_thousand_is_drawn(cast, enter, long_run):
    points = dict(series_of(long_run)["ppo", "score"])
    assert (points[4321], points[8765], points[10_000]) == (9.0, -7.0, 10_000 % 7 / 7)
    html = enter(cast.reviewer).get(f"/p/shop/jobs/{long_run.pk}/").content.decode()
    chart = next(part for part in html.split("<figure") if "Score: from" in part)
    line = re.search(r'<polyline class="line" points="([^"]*)"', chart)[1]
    drawn = [tuple(map(float, point.split(","))) for point in line.split()]
    assert len(drawn) <= 260
    heights = sorted(y for _, y in drawn)
    # the axis runs from -10 to 10 over 118 units: 9 lies at 15.9, -7 at 110.3, 0 to 1 at 63 to 69
    assert heights[0] == pytest.approx(15.9, abs=0.1)
    assert heights[-1] == pytest.approx(110.3, abs=0.1)
    assert all(63 <= y <= 69.1 for y in heights[1:-1])
    assert f"<strong>{10_000 % 7 / 7:.4g}</strong>" in chart


def test_a_long_run_is_read_from_few_rows(cast, enter, long_run, django_assert_max_num_queries):
    client = enter(cast.reviewer)
    with django_assert_max_num_queries(14):
        client.get(f"/p/shop/jobs/{long_run.pk}/")
    assert sum(map(len, series_of(long_run).values())) <= 2 * 3 * 160


def test_a_short_run_is_drawn_as_it_was_recorded(job, record):
    record(*[(step, {"score": step, "note": "text", "ok": True}) for step in range(1, 30)])
    assert series_of(job) == {("ppo", "score"): [(step, step) for step in range(1, 30)]}


def test_a_run_from_before_there_were_pieces_is_read_whole(job):
    JobMetric.objects.bulk_create(
        JobMetric(job=job, phase="ppo", step=step, values={"score": step})
        for step in range(MOST_READ + 5)
    )
    assert len(series_of(job)["ppo", "score"]) == MOST_READ + 5
