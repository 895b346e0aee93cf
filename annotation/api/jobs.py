"""Training jobs: listed, asked for, watched, cancelled."""

import re
from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.views import NewestFirst, ProjectView
from annotation.errors import BadInput
from annotation.models import JobKind, JobMetric, JobStatus, Lane, ModelVersion, TrainingJob
from annotation.permissions import ADMINISTER, WATCH
from annotation.services.jobs import cancel_job, metrics_since
from annotation.services.versions import versions_of
from annotation.services.wishes import ask_for_training

MAX_METRICS = 5000
"""Rows of metrics in one answer; ask again with metrics_since for the rest."""


class JobIn(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(choices=JobKind.choices)
    lane = serializers.ChoiceField(choices=Lane.choices, default=Lane.LOOP)
    config = serializers.DictField(default=dict, help_text="Settings of the public command.")
    inputs = serializers.DictField(
        default=dict, help_text="data (paths), annotators, init (none), comparisons (a number)."
    )
    init = serializers.IntegerField(required=False, help_text="Id of a policy version.")
    reference = serializers.IntegerField(required=False, help_text="Id of a policy version.")
    reward = serializers.IntegerField(required=False, help_text="Id of a reward version.")
    reason = serializers.CharField(default="", allow_blank=True, max_length=200)


class JobOut(serializers.ModelSerializer[TrainingJob]):
    requested_by = serializers.SlugRelatedField[Any](slug_field="username", read_only=True)

    class Meta:
        model = TrainingJob
        fields: tuple[str, ...] = (
            *("id", "kind", "lane", "status", "reason", "requested_by", "requested_at"),
            *("config", "inputs", "init", "reference", "reward", "snapshot"),
            *("attempt", "lost_attempts", "worker", "started_at", "heartbeat_at", "finished_at"),
            *("cancel_requested_at", "step", "total_steps", "phase", "exit_code", "error"),
            "result",
        )


class MetricOut(serializers.ModelSerializer[JobMetric]):
    values = serializers.DictField()

    class Meta:
        model = JobMetric
        fields = ("step", "phase", "values")


class JobDetailOut(JobOut):
    version = serializers.SerializerMethodField()
    metrics = MetricOut(many=True)

    class Meta(JobOut.Meta):
        fields = (*JobOut.Meta.fields, "log_tail", "version", "metrics")

    def get_version(self, job: TrainingJob) -> int | None:
        """Id of the version that the job published."""
        return ModelVersion.objects.filter(job=job).values_list("pk", flat=True).first()


class JobsView(ProjectView):
    roles = {"GET": WATCH, "POST": ADMINISTER}
    pagination_class = NewestFirst

    @extend_schema(
        responses=JobOut(many=True),
        parameters=[
            OpenApiParameter("kind", enum=JobKind.values),
            OpenApiParameter("status", enum=JobStatus.values),
        ],
    )
    def get(self, request: Request, slug: str) -> Response:
        """The project's jobs, newest first."""
        jobs: QuerySet[TrainingJob] = self.project.jobs.select_related("requested_by")
        for name, known in (("kind", JobKind.values), ("status", JobStatus.values)):
            if (wanted := request.query_params.get(name)) is not None:
                if wanted not in known:
                    raise BadInput(f"{name} must be one of {', '.join(known)}: {wanted!r}.")
                jobs = jobs.filter(**{name: wanted})
        return self.page(jobs, JobOut)

    @extend_schema(request=JobIn, responses={201: JobOut})
    def post(self, request: Request, slug: str) -> Response:
        """Ask for training. A version that is left out is the one in force when the job starts."""
        wish = JobIn(data=request.data)
        wish.is_valid(raise_exception=True)
        asked = dict(wish.validated_data)
        for name in ("init", "reference", "reward"):
            if name in asked:
                asked[name] = get_object_or_404(versions_of(self.project), pk=asked[name])
        job = ask_for_training(project=self.project, by=self.user, **asked)
        return Response(JobOut(job).data, status=201)


class JobView(ProjectView):
    roles = {"GET": WATCH}

    @extend_schema(
        responses=JobDetailOut,
        parameters=[OpenApiParameter("metrics_since", int, description="Steps after this one.")],
    )
    def get(self, request: Request, slug: str, job_id: int) -> Response:
        """A job with its metrics, at most 5000 rows."""
        job = get_object_or_404(self.project.jobs.select_related("requested_by"), pk=job_id)
        since = request.query_params.get("metrics_since", "-1")
        if not re.fullmatch(r"-?[0-9]{1,18}", since):
            raise BadInput(f"metrics_since must be a whole number: {since[:40]!r}.")
        rows = metrics_since(job=job, step=int(since))[:MAX_METRICS]
        job._prefetched_objects_cache = {"metrics": list(rows)}  # type: ignore[attr-defined]
        return Response(JobDetailOut(job).data)


class CancelView(ProjectView):
    roles = {"POST": ADMINISTER}

    @extend_schema(request=None, responses=JobOut)
    def post(self, request: Request, slug: str, job_id: int) -> Response:
        """End a queued job at once; a running one stops soon. 409 where it has ended."""
        job = get_object_or_404(self.project.jobs, pk=job_id)
        return Response(JobOut(cancel_job(job=job, by=self.user)).data)


urlpatterns = [
    path("projects/<slug:slug>/jobs/", JobsView.as_view(), name="jobs"),
    path("projects/<slug:slug>/jobs/<int:job_id>/", JobView.as_view(), name="job"),
    path("projects/<slug:slug>/jobs/<int:job_id>/cancel", CancelView.as_view(), name="cancel-job"),
]
