"""Training jobs: start, watch, read their numbers, cancel."""

import csv
import io
import json
from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import JobKind, JobStatus, Lane, Membership, Project, TrainingJob
from annotation.pages.alarms import alarms_of
from annotation.pages.dev_answers import num_dev_of, warning_of
from annotation.pages.job_figures import figures_of
from annotation.pages.job_tables import config_lines, input_lines, minutes_left, result_phases
from annotation.pages.queued import waits_of
from annotation.pages.sampled import made_by_sampling
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER, WATCH
from annotation.services.jobs import cancel_job, data_files
from annotation.storable import TOO_DEEP, fault_of

JOBS_PER_PAGE = 50


class PlainJSONField(forms.JSONField):
    """JSON that the ledger can keep: finite numbers, nested to a limit, no NUL."""

    def to_python(self, value: Any) -> Any:
        try:
            found = super().to_python(value)
            fault = fault_of(found)
        except RecursionError:
            fault = TOO_DEEP
        except ValueError:  # Python reads no number of more than 4,300 digits
            fault = _("A number in it is too long")
        if fault:
            raise forms.ValidationError(f"{fault}.")
        return found

    def bound_data(self, data: Any, initial: Any) -> Any:
        """As it was typed, be it JSON or not."""
        return InvalidJSONInput(data or "")


class StartForm(forms.Form):
    """Which job, with what config and inputs; empty = the project's defaults."""

    kind = forms.ChoiceField(label=gettext_lazy("Job"), choices=JobKind.choices)
    config = PlainJSONField(
        label=gettext_lazy("Config (JSON, laid over the project's defaults)"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "class": "code", "spellcheck": "false"}),
    )
    inputs = PlainJSONField(
        label=gettext_lazy("Inputs (JSON)"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "class": "code", "spellcheck": "false"}),
    )
    lane = forms.ChoiceField(label=gettext_lazy("Lane"), choices=Lane.choices)
    paths = forms.MultipleChoiceField(
        label=gettext_lazy("Files to read; pretraining needs one or more"), required=False
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["kind"].initial = JobKind.REWARD
        self.fields["config"].initial = {}
        self.fields["inputs"].initial = {}
        known = [(name, name) for name in data_files()]
        self.fields["paths"].choices = known  # type: ignore[attr-defined]
        self.defaults = {
            JobKind(kind).label: json.dumps(config, ensure_ascii=False, indent=2)
            for kind, config in project.job_defaults.items()
            if kind in JobKind.values
        }


def _job(membership: Membership, job_id: int) -> TrainingJob:
    return get_object_or_404(
        TrainingJob.objects.select_related(
            "project", "init", "reference", "reward", "snapshot", "requested_by", "version"
        ),
        project=membership.project,
        pk=job_id,
    )


def _context(job: TrainingJob) -> dict[str, Any]:
    is_live = job.status in (JobStatus.QUEUED, JobStatus.RUNNING)
    alarms = alarms_of(job)
    num_dev = num_dev_of(job)
    return {
        "job": job,
        "alarms": alarms,
        "figures": figures_of(job, alarms, num_dev),
        "unmeasured": warning_of(num_dev),
        "is_live": is_live,
        "waits": waits_of([job]).get(job.pk, ""),
        "sampled": made_by_sampling(job),
        "config": config_lines(job),
        "inputs": input_lines(job),
        "result": result_phases(job, num_dev),
        "minutes_left": minutes_left(job, timezone.now()),
    }


@project_page(*WATCH)
def jobs(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Every job of the project, newest first; htmx asks again for the table alone."""
    rows = membership.project.jobs.select_related("requested_by", "version").order_by("-pk")
    page = Paginator(rows, JOBS_PER_PAGE).get_page(request.GET.get("page"))
    is_moving = any(job.status in (JobStatus.QUEUED, JobStatus.RUNNING) for job in page)
    is_fragment = bool(request.headers.get("HX-Request"))
    template = "pages/jobs_live.html" if is_fragment else "pages/jobs.html"
    waits = waits_of(list(page))
    context = {
        "page": page,
        "rows": [(job, waits.get(job.pk, "")) for job in page],
        "poll_seconds": 2 if is_moving else 8,
    }
    return project_template(request, membership, template, context)


@project_page(*WATCH)
def job(request: HttpRequest, membership: Membership, job_id: int) -> HttpResponse:
    """One job: how far, its charts, its log, what it works on."""
    return project_template(
        request, membership, "pages/job.html", _context(_job(membership, job_id))
    )


@project_page(*WATCH)
def live(request: HttpRequest, membership: Membership, job_id: int) -> HttpResponse:
    """The part of a job's page that htmx asks for again while it runs."""
    return project_template(
        request, membership, "pages/job_live.html", _context(_job(membership, job_id))
    )


@project_page(*WATCH)
def metrics_csv(request: HttpRequest, membership: Membership, job_id: int) -> HttpResponse:
    """Every number of a job as CSV: phase, step, name, value."""
    found = _job(membership, job_id)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["phase", "step", "name", "value"])
    for phase, step, values in found.metrics.order_by("phase", "step").values_list(
        "phase", "step", "values"
    ):
        writer.writerows([phase, step, name, value] for name, value in values.items())
    return HttpResponse(
        text.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="job-{found.pk}-metrics.csv"'},
    )


@project_page(*ADMINISTER, methods=("POST",))
def cancel(request: HttpRequest, membership: Membership, job_id: int) -> HttpResponse:
    """Stop a job; a running one ends at its next step, with a checkpoint."""
    found = _job(membership, job_id)
    with told(request):
        cancel_job(job=found, by=user_of(request))
        messages.success(request, _("Job %(number)s is asked to stop.") % {"number": found.pk})
    return redirect("job", slug=membership.project.slug, job_id=found.pk)
