"""Batches and their comparisons: progress, what a lead decides, retire and re-open."""

from typing import Any

from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.views import NewestFirst, ProjectView
from annotation.errors import BadInput
from annotation.models import Batch, Comparison, Scheme, SkipMode, Strategy
from annotation.permissions import ADMINISTER, REVIEW
from annotation.services.batches import (
    HIGHEST_PRIORITY,
    MOST_ANSWERS,
    MOST_SKIPS,
    change_batch,
    progress_of,
    reopen_comparison,
    retire_comparison,
)
from annotation.services.ledger import pause_batch
from annotation.services.reasons import MAX_REASON


class ProgressOut(serializers.Serializer[Any]):
    """`wanted` and `free` are answers, of comparisons that are not retired."""

    comparisons = serializers.IntegerField()
    retired = serializers.IntegerField()
    wanted = serializers.IntegerField()
    free = serializers.IntegerField()


class BatchOut(serializers.ModelSerializer[Batch]):
    source_name = serializers.CharField(source="source.name")
    scheme = serializers.IntegerField(source="scheme.version", help_text="The version.")

    class Meta:
        model = Batch
        fields: tuple[str, ...] = (
            "id", "name", "source_name", "purpose", "skill", "priority", "paused", "due_on",
            "overlap", "adaptive", "sensitive", "skip_mode", "skips_to_retire", "strategy",
            "scheme", "created_at",
        )  # fmt: skip


class BatchDetail(BatchOut):
    """A batch with its progress."""

    progress = serializers.SerializerMethodField()

    class Meta(BatchOut.Meta):
        fields = (*BatchOut.Meta.fields, "progress")

    def get_progress(self, batch: Batch) -> ProgressOut:
        """Counted now."""
        return ProgressOut(progress_of([batch])[batch.pk]).data  # type: ignore[return-value]


class BatchSettings(serializers.Serializer[Any]):
    """What a lead decides about a batch."""

    priority = serializers.IntegerField(
        required=False, min_value=-HIGHEST_PRIORITY, max_value=HIGHEST_PRIORITY
    )
    due_on = serializers.DateField(
        required=False,
        allow_null=True,
        help_text="Of batches with one priority, those due sooner go first; null comes last.",
    )
    overlap = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=MOST_ANSWERS,
        help_text="Answers that each comparison wants; it can be raised alone.",
    )
    adaptive = serializers.BooleanField(
        required=False, help_text="Two answers first, the others where these differ."
    )
    strategy = serializers.ChoiceField(required=False, choices=Strategy.choices)
    sensitive = serializers.BooleanField(required=False, help_text="Veiled until a labeler looks.")
    skip_mode = serializers.ChoiceField(required=False, choices=SkipMode.choices)
    skips_to_retire = serializers.IntegerField(
        required=False, min_value=1, max_value=MOST_SKIPS, help_text="Where skip_mode is retire."
    )
    scheme = serializers.IntegerField(required=False, help_text="A version of the project's.")


class BatchChange(BatchSettings):
    """What is left out stays as it is."""

    paused = serializers.BooleanField(required=False)
    seen = BatchSettings(
        required=False,
        help_text="What stood there when you decided: where others have set one of the fields "
        "otherwise meanwhile, nothing changes and the answer is 409, changed_meanwhile.",
    )


class RetireIn(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=MAX_REASON)


class ComparisonOut(serializers.ModelSerializer[Comparison]):
    """Where a comparison stands in the queue."""

    batch = serializers.IntegerField(source="batch_id")

    class Meta:
        model = Comparison
        fields = (
            "id", "batch", "purpose", "language", "skill", "priority", "answers_wanted",
            "open_slots", "retired_at",
        )  # fmt: skip


class BatchesView(ProjectView):
    roles = {"GET": REVIEW}
    pagination_class = NewestFirst

    @extend_schema(responses=BatchOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """The project's batches, newest first."""
        return self.page(self.project.batches.select_related("source", "scheme"), BatchOut)


class BatchView(ProjectView):
    roles = {"GET": REVIEW, "PATCH": ADMINISTER}

    @extend_schema(responses=BatchDetail)
    def get(self, request: Request, slug: str, batch_id: int) -> Response:
        """One batch and how far it is."""
        return Response(BatchDetail(self._batch(batch_id)).data)

    @extend_schema(request=BatchChange, responses=BatchDetail)
    def patch(self, request: Request, slug: str, batch_id: int) -> Response:
        """Decide how a batch is asked."""
        batch = self._batch(batch_id)
        wanted = BatchChange(data=request.data)
        wanted.is_valid(raise_exception=True)
        changes = dict(wanted.validated_data)
        paused, seen = changes.pop("paused", None), changes.pop("seen", {})
        for named in (changes, seen):
            if "scheme" in named:
                named["scheme"] = self._scheme(named["scheme"])
        change_batch(batch=batch, changes=changes, by=self.user, seen=seen)
        if paused is not None:
            pause_batch(batch=batch, paused=paused, by=self.user)
        return Response(BatchDetail(self._batch(batch_id)).data)

    def _scheme(self, version: int) -> Scheme:
        """Raises BadInput where there is none."""
        found = self.project.schemes.filter(version=version).first()
        if found is None:
            raise BadInput(f"The project has no version {version} of its scheme.")
        return found

    def _batch(self, batch_id: int) -> Batch:
        found = self.project.batches.select_related("source", "scheme")
        return get_object_or_404(found, pk=batch_id)


class RetireView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=RetireIn, responses=ComparisonOut)
    def post(self, request: Request, slug: str, comparison_id: int) -> Response:
        """Take a comparison out of the queue; its answers stay."""
        comparison = get_object_or_404(self.project.comparisons, pk=comparison_id)
        wanted = RetireIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        reason = wanted.validated_data["reason"]
        retired = retire_comparison(comparison=comparison, by=self.user, reason=reason)
        return Response(ComparisonOut(retired).data)


class ReopenView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=None, responses=ComparisonOut)
    def post(self, request: Request, slug: str, comparison_id: int) -> Response:
        """Put a retired comparison back into the queue."""
        comparison = get_object_or_404(self.project.comparisons, pk=comparison_id)
        reopened = reopen_comparison(comparison=comparison, by=self.user)
        return Response(ComparisonOut(reopened).data)


urlpatterns = [
    path("projects/<slug:slug>/batches/", BatchesView.as_view()),
    path("projects/<slug:slug>/batches/<int:batch_id>/", BatchView.as_view()),
    path("projects/<slug:slug>/comparisons/<int:comparison_id>/retire", RetireView.as_view()),
    path("projects/<slug:slug>/comparisons/<int:comparison_id>/reopen", ReopenView.as_view()),
]
