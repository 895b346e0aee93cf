"""Two runs side by side: the settings that differ, what came of each, and the same curves."""

import csv
import heapq
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.job_schemas import settings_of
from annotation.models import Membership, Project, TrainingJob
from annotation.pages.alarms import RUNG
from annotation.pages.charts import Chart, line_chart, number
from annotation.pages.job_figures import in_order, leading_of, target_of, title_of
from annotation.pages.job_tables import INPUT_NAMES, input_lines
from annotation.pages.measures import figure_of, name_of, phase_of
from annotation.pages.shell import project_page, project_template
from annotation.permissions import WATCH
from annotation.services.curves import series_of

MOST_OFFERED = 200
"""The newest jobs, to choose from."""
Path = tuple[str, ...]
"""Keys of nested results: final, dev, accuracy."""


class PairForm(forms.Form):
    """Which two jobs."""

    one = forms.ModelChoiceField(TrainingJob.objects.none(), label=gettext_lazy("Job"))
    other = forms.ModelChoiceField(TrainingJob.objects.none(), label=gettext_lazy("Beside"))

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        newest = project.jobs.select_related(
            "init", "reference", "reward", "snapshot", "version", "project"
        ).order_by("-pk")
        shown = [(job.pk, _named(job)) for job in newest.defer("log_tail")[:MOST_OFFERED]]
        for field in self.fields.values():
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = newest
            field.choices = shown

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        one, other = data.get("one"), data.get("other")
        if one and other and one.kind != other.kind:
            kinds = {"one": one.get_kind_display(), "other": other.get_kind_display()}
            raise forms.ValidationError(
                _("Only runs of one kind stand side by side: these are %(one)s and %(other)s.")
                % kinds
            )
        return data


@dataclass(frozen=True, slots=True)
class Line:
    """One setting or result of both; empty where a run has none."""

    name: str
    one: str
    other: str
    difference: str = ""
    """The second less the first, of numbers."""


@project_page(*WATCH)
def pair(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Both runs, or the form that asks which."""
    is_asked = "other" in request.GET
    form = PairForm(
        request.GET if is_asked else None,
        initial={"one": request.GET.get("one")},
        project=membership.project,
    )
    context: dict[str, Any] = {"form": form}
    if is_asked and form.is_valid():
        one, other = form.cleaned_data["one"], form.cleaned_data["other"]
        charts = charts_of(one, other)
        leading = leading_of(one)
        context |= {
            "one": one,
            "other": other,
            "settings": settings_that_differ(one, other),
            "results": results_of(one, other),
            "leading": [chart for place, chart in charts if place in leading],
            "more": [chart for place, chart in charts if place not in leading],
        }
    status = 400 if form.errors else 200
    return project_template(request, membership, "pages/job_pair.html", context, status)


@project_page(*WATCH)
def pair_csv(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Every number of both runs as CSV: phase, step, name, the one's and the other's."""
    form = PairForm(request.GET, project=membership.project)
    if not form.is_valid():
        return project_template(request, membership, "pages/job_pair.html", {"form": form}, 400)
    one, other = form.cleaned_data["one"], form.cleaned_data["other"]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["phase", "step", "name", f"job_{one.pk}", f"job_{other.pk}"])
    writer.writerows(_numbers(one, other))
    name = f"jobs-{one.pk}-and-{other.pk}.csv"
    return HttpResponse(
        text.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def settings_that_differ(one: TrainingJob, other: TrainingJob) -> list[Line]:
    """Of what each began from, was told and worked on; what was left out is at its default."""
    both = _began(one), _began(other)
    known = settings_of(one.kind)
    for job, found in zip((one, other), both, strict=True):
        found |= {name: setting.default for name, setting in known.items()} | job.config
        found |= dict(input_lines(job))
    return [
        Line(name, _said(both[0].get(name)), _said(both[1].get(name)))
        for name in dict.fromkeys([*both[0], *both[1]])
        if both[0].get(name) != both[1].get(name)
    ]


def _began(job: TrainingJob) -> dict[str, Any]:
    return {
        str(INPUT_NAMES["init"]): job.init.name if job.init else None,
        _("KL is measured from"): job.reference.name if job.reference else None,
        _("Rewarded by"): job.reward.name if job.reward else None,
        _("Snapshot"): job.snapshot.sha256[:12] if job.snapshot else None,
    }


def results_of(one: TrainingJob, other: TrainingJob) -> list[Line]:
    """The figures that either ended with; the difference where both are numbers."""
    first, second = dict(_flat(one.result)), dict(_flat(other.result))
    return [
        Line(
            _path_in_words(path),
            _figure(path, first.get(path)),
            _figure(path, second.get(path)),
            _difference(first.get(path), second.get(path)),
        )
        for path in dict.fromkeys([*first, *second])
        if path[-1] not in ("step", "phase")
    ]


def _flat(values: Mapping[str, Any], before: Path = ()) -> Iterator[tuple[Path, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*before, key))
        else:
            yield (*before, key), value


def _path_in_words(path: Path) -> str:
    """Of `final` the phase comes first, as on a job's own page."""
    if len(path) > 2 and path[0] == "final":
        return f"{phase_of(path[1])}: {name_of('.'.join(path[2:]))}"
    return name_of(".".join(path))


def _figure(path: Path, value: Any) -> str:
    return "–" if value is None else figure_of(path[-1], value).value


def _difference(first: Any, second: Any) -> str:
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in (first, second)):
        return ""
    return f"{'+' if second > first else ''}{number(second - first)}"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return "–" if value is None else str(value)


def charts_of(one: TrainingJob, other: TrainingJob) -> list[tuple[tuple[str, str], Chart]]:
    """(phase, key) -> both runs' curves on the same axes, in the order of a job's own page; what
    never changed and is alike in both has none."""
    first, second = (series_of(job, without=(RUNG,)) for job in (one, other))
    found = []
    for place in in_order({*first, *second}, leading_of(one)):
        target = target_of(one) if place == ("ppo", "kl_nats") else None
        if target is not None and target != target_of(other):
            target = None
        chart = line_chart(
            place[1],
            first.get(place, []),
            title=title_of(place),
            target=target,
            beside=second.get(place, []),
        )
        if chart is not None and not chart.is_constant:
            found.append((place, chart))
    return found


def _numbers(one: TrainingJob, other: TrainingJob) -> Iterator[tuple[Any, ...]]:
    """Rows of the CSV, one phase after the other and by step; a value that a run lacks is empty."""
    phases = {*_phases(one), *_phases(other)}
    for phase in sorted(phases):
        rows = heapq.merge(_rows(one, phase, 0), _rows(other, phase, 1), key=lambda row: row[:2])
        for step, same in groupby(rows, key=lambda row: row[0]):
            both: list[Mapping[str, Any]] = [{}, {}]
            for _step, which, values in same:
                both[which] = values
            for name in dict.fromkeys([*both[0], *both[1]]):
                yield phase, step, name, both[0].get(name), both[1].get(name)


def _phases(job: TrainingJob) -> list[str]:
    return list(job.metrics.order_by().values_list("phase", flat=True).distinct())


def _rows(job: TrainingJob, phase: str, which: int) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    rows = job.metrics.filter(phase=phase).order_by("step").values_list("step", "values")
    for step, values in rows.iterator():
        yield step, which, values


def _named(job: TrainingJob) -> str:
    made = f" · {job.version.name}" if hasattr(job, "version") else ""
    return f"#{job.pk} {job.get_kind_display()} · {job.get_status_display()}{made}"
