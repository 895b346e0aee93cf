"""Curves of long runs: the lowest, highest and last value of every few steps, at several sizes.

A page that reads ten thousand rows of forty numbers takes a second. What it draws is a few hundred
points, so these are kept beside the rows, and a spike of one step is among them at every size.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db.models import QuerySet

from annotation.models import CurvePiece, JobMetric, TrainingJob

SIZES = (8, 64, 512)
"""Steps in a piece; each is made from the pieces of the size before, the first from the rows."""
MOST_READ = 800
"""Rows or pieces that a page reads of one job, a few more where a run has many phases."""

Point = tuple[float, float | None]
"""(step, value); None: no number."""
Series = dict[tuple[str, str], list[Point]]
"""(phase, figure) -> its points by step."""


def keep_curves(job_id: int, steps: Iterable[tuple[str, int]]) -> None:
    """Make the pieces anew that hold these (phase, step), from what is recorded now."""
    touched: dict[str, set[int]] = defaultdict(set)
    for phase, step in steps:
        touched[phase].add(step)
    finer: int | None = None
    for size in SIZES:
        pieces = [
            piece
            for phase, places in touched.items()
            for piece in _pieces(job_id, phase, size, finer, {at // size * size for at in places})
        ]
        CurvePiece.objects.bulk_create(
            pieces,
            batch_size=200,
            update_conflicts=True,
            unique_fields=["job", "size", "phase", "start"],
            update_fields=["values"],
        )
        finer = size


def _pieces(
    job_id: int, phase: str, size: int, finer: int | None, starts: set[int]
) -> Iterator[CurvePiece]:
    """The pieces of a phase that begin there."""
    found: dict[int, dict[str, list[list[float]]]] = {start: {} for start in starts}
    first, beyond = min(starts), max(starts) + size
    for at, values in _made_of(job_id, phase, finer, first, beyond):
        if (start := at // size * size) in found:
            for name, points in values.items():
                found[start].setdefault(name, []).extend(points)
    for start, values in found.items():
        extremes = {name: _extremes(points) for name, points in values.items()}
        yield CurvePiece(job_id=job_id, size=size, phase=phase, start=start, values=extremes)


def _made_of(
    job_id: int, phase: str, finer: int | None, first: int, beyond: int
) -> Iterator[tuple[int, Mapping[str, list[list[float]]]]]:
    """(step, figure -> points) of what lies from `first` to before `beyond`."""
    if finer is None:
        rows = JobMetric.objects.filter(
            job=job_id, phase=phase, step__gte=first, step__lt=beyond
        ).order_by("step")
        for step, values in rows.values_list("step", "values").iterator():
            yield step, {name: _point(step, value) for name, value in values.items() if _is(value)}
        return
    pieces = CurvePiece.objects.filter(
        job=job_id, phase=phase, size=finer, start__gte=first, start__lt=beyond
    ).order_by("start")
    yield from pieces.values_list("start", "values").iterator()


def _point(step: int, value: float | None) -> list[list[float]]:
    return [] if value is None or not math.isfinite(value) else [[step, value]]


def _is(value: Any) -> bool:
    """A number, or what was none: neither text nor a flag."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _extremes(points: Sequence[list[float]]) -> list[list[float]]:
    """The lowest, the highest and the last of points by step."""
    if not points:
        return []
    lowest = min(points, key=lambda point: point[1])
    highest = max(points, key=lambda point: point[1])
    kept = {point[0]: point for point in (lowest, highest, points[-1])}
    return [kept[step] for step in sorted(kept)]


# --- reading ------------------------------------------------------------------------------------


def series_of(job: TrainingJob, *, without: Iterable[str] = ()) -> Series:
    """The curves of a job, by step: all that was recorded of a short run, and of a long one pieces
    of the smallest size that gives few enough. without: phases to leave out.

    A run that was recorded before there were pieces is read whole.
    """
    rows = job.metrics.exclude(phase__in=without)
    count = rows.count()
    if count > MOST_READ:
        size = next((one for one in SIZES if count <= MOST_READ * one), SIZES[-1])
        pieces = job.curve_pieces.filter(size=size).exclude(phase__in=without).order_by("start")
        found = list(pieces.values_list("phase", "start", "values"))
        if found:
            return _series(
                (phase, {name: points or [(start, None)] for name, points in values.items()})
                for phase, start, values in found
            )
    return _series((phase, _of_row(step, values)) for phase, step, values in _in_order(rows))


def _in_order(rows: QuerySet[JobMetric]) -> Iterable[tuple[str, int, dict[str, Any]]]:
    return rows.order_by("step").values_list("phase", "step", "values")


def _of_row(step: int, values: Mapping[str, Any]) -> dict[str, list[Point]]:
    return {name: [(step, value)] for name, value in values.items() if _is(value)}


def _series(pieces: Iterable[tuple[str, Mapping[str, Iterable[Any]]]]) -> Series:
    series: Series = defaultdict(list)
    for phase, values in pieces:
        for name, points in values.items():
            series[phase, name].extend((step, value) for step, value in points)
    return series
