"""What a run's policy wrote, step by step, to be read beside its scores."""

import csv
import io
from dataclasses import dataclass
from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from annotation.models import Membership, TrainingJob
from annotation.pages.charts import number
from annotation.pages.measures import Figure, figure_of
from annotation.pages.shell import project_page, project_template
from annotation.permissions import WATCH
from annotation.rollouts import (
    Line,
    Rollout,
    file_of,
    folder_of,
    lines_of,
    num_answers,
    rollouts_at,
    steps_in,
)

ROLLOUTS_PER_PAGE = 12
DRAWN, LOWEST, HIGHEST, FARTHEST, LONGEST = "drawn", "lowest", "highest", "farthest", "longest"
SORTS: list[tuple[str, str | Promise]] = [
    (LOWEST, gettext_lazy("lowest score first")),
    (HIGHEST, gettext_lazy("highest score first")),
    (FARTHEST, gettext_lazy("farthest from the reference first")),
    (LONGEST, gettext_lazy("longest first")),
    (DRAWN, gettext_lazy("as they were drawn")),
]


class RolloutForm(forms.Form):
    """Which step, which of its answers, in which order."""

    step = forms.IntegerField(label=gettext_lazy("Step"), required=False, min_value=0)
    sort = forms.ChoiceField(label=gettext_lazy("Order"), choices=SORTS, required=False)
    score_from = forms.FloatField(label=gettext_lazy("Score from"), required=False)
    score_to = forms.FloatField(label=gettext_lazy("Score to"), required=False)


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer as the page shows it."""

    rollout: Rollout
    question: str
    """The last turn of its prompt."""
    before: list[dict[str, str]]
    """The turns before that."""
    figures: list[Figure]


@project_page(*WATCH)
def rollouts(request: HttpRequest, membership: Membership, job_id: int) -> HttpResponse:
    """A page of one step's answers; the newest step unless another is asked for."""
    job = get_object_or_404(TrainingJob, project=membership.project, pk=job_id)
    form = RolloutForm(request.GET)
    asked = form.cleaned_data if form.is_valid() else {}
    folder = folder_of(job)
    steps = steps_in(folder) if folder else []
    context: dict[str, Any] = {"job": job, "form": form, "steps": steps}
    if folder and steps:
        step = _nearest(steps, asked.get("step"))
        path = file_of(folder, step)
        every = lines_of(path)
        page = Paginator(_chosen(every, asked), ROLLOUTS_PER_PAGE).get_page(request.GET.get("page"))
        place = steps.index(step)
        query = request.GET.copy()
        for name in ("step", "page"):
            query.pop(name, None)
        context |= {
            "step": step,
            "page": page,
            "query": query.urlencode(),
            "rows": [_shown(one) for one in rollouts_at(path, list(page))],
            "num_kept": len(every),
            "num_answers": num_answers(path),
            "lowest": number(min(line.score for line in every)) if every else "",
            "highest": number(max(line.score for line in every)) if every else "",
            "earlier": steps[place - 1] if place else None,
            "later": steps[place + 1] if place + 1 < len(steps) else None,
        }
    status = 400 if form.errors else 200
    return project_template(request, membership, "pages/rollouts.html", context, status)


@project_page(*WATCH)
def rollouts_csv(
    request: HttpRequest, membership: Membership, job_id: int, step: int
) -> HttpResponse:
    """The numbers of one step's answers as CSV, as they were drawn."""
    job = get_object_or_404(TrainingJob, project=membership.project, pk=job_id)
    folder = folder_of(job)
    if folder is None or not file_of(folder, step).is_file():
        raise Http404
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["score", "reference_score", "kl_nats", "tokens", "finish"])
    path = file_of(folder, step)
    for line in lines_of(path):
        for one in rollouts_at(path, [line]):
            writer.writerow([one.score, one.baseline, one.kl_nats, one.tokens, one.finish])
    name = f"job-{job.pk}-step-{step}.csv"
    return HttpResponse(
        text.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _nearest(steps: list[int], wanted: int | None) -> int:
    """The last step that has a file, or the one nearest to what was asked for."""
    return steps[-1] if wanted is None else min(steps, key=lambda step: abs(step - wanted))


def _chosen(lines: list[Line], asked: dict[str, Any]) -> list[Line]:
    low, high = asked.get("score_from"), asked.get("score_to")
    found = [
        line
        for line in lines
        if (low is None or line.score >= low) and (high is None or line.score <= high)
    ]
    sort = asked.get("sort") or LOWEST
    if sort == DRAWN:
        return found
    keys = {
        LOWEST: lambda line: line.score,
        HIGHEST: lambda line: -line.score,
        FARTHEST: lambda line: -line.kl_nats,
        LONGEST: lambda line: -line.tokens,
    }
    return sorted(found, key=keys[sort])


def _shown(one: Rollout) -> Shown:
    return Shown(
        rollout=one,
        question=one.prompt[-1]["content"] if one.prompt else "",
        before=one.prompt[:-1],
        figures=[
            figure_of("score", one.score),
            figure_of("baseline", one.baseline),
            figure_of("score_difference", one.gain),
            figure_of("kl_nats", one.kl_nats),
            figure_of("tokens", one.tokens),
            *(figure_of(name, value) for name, value in one.figures.items()),
        ],
    )
