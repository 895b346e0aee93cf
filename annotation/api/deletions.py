"""Delete a person's data from a project: look first, then say whom again and why."""

from typing import Any

from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.views import NewestFirst, ProjectView, validated
from annotation.api.voids import VersionName
from annotation.models import Annotator, Forgotten, Tombstone
from annotation.permissions import ADMINISTER
from annotation.services.forgetting import order_forgetting, preview
from annotation.services.reasons import MAX_REASON


class PersonIn(serializers.Serializer[Any]):
    annotator = serializers.CharField(max_length=40, help_text="The pseudonym.")


class DeletionIn(PersonIn):
    confirm = serializers.CharField(
        max_length=40, help_text="The pseudonym again: what is deleted can't be brought back."
    )
    reason = serializers.CharField(max_length=MAX_REASON)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.pop("confirm") != attrs["annotator"]:
            raise serializers.ValidationError(
                {"confirm": "Say the pseudonym of `annotator` again: it can't be brought back."}
            )
        return attrs


class DeletionPreviewOut(serializers.Serializer[Any]):
    answers = serializers.IntegerField(help_text="Answers that would be void, without name.")
    datasets = serializers.SerializerMethodField(
        help_text="Hashes of the datasets that would be replaced; null where the workers have to "
        "look through them."
    )
    trained = VersionName(many=True, help_text="Versions that learned from these datasets.")

    def get_datasets(self, found: Any) -> list[str] | None:
        return None if found.snapshots is None else [one.sha256 for one in found.snapshots]


class WithdrawnOut(serializers.ModelSerializer[Tombstone]):
    """A dataset that held the person, and the one in its place; null where there is none."""

    sha256 = serializers.CharField(source="snapshot.sha256")
    successor = serializers.CharField(source="successor.sha256", allow_null=True, default=None)

    class Meta:
        model = Tombstone
        fields = ("sha256", "successor")


class DeletionOut(serializers.ModelSerializer[Forgotten]):
    """A deletion; finished_at is null while workers replace the datasets."""

    annotator = serializers.CharField(
        source="annotator.pseudonym", help_text="What the rows are called now."
    )
    by = serializers.CharField(source="by.username")
    datasets = WithdrawnOut(source="tombstones", many=True)

    class Meta:
        model = Forgotten
        fields = ("id", "annotator", "reason", "by", "created_at", "finished_at", "datasets")


class DeletionsView(ProjectView):
    roles = {"GET": ADMINISTER, "POST": ADMINISTER}
    pagination_class = NewestFirst

    @extend_schema(responses=DeletionOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """People whose data was deleted, newest first."""
        done = Forgotten.objects.filter(project=self.project).select_related("annotator", "by")
        rows = done.prefetch_related("tombstones__snapshot", "tombstones__successor")
        return self.page(rows, DeletionOut)

    @extend_schema(request=DeletionIn, responses={201: DeletionOut})
    def post(self, request: Request, slug: str) -> Response:
        """Delete a person's data: their answers become void and lose name and note, and every
        dataset that held them is frozen again without them. There is no way back."""
        asked = validated(DeletionIn, request)
        annotator = _named(self, asked)
        made = order_forgetting(annotator=annotator, reason=asked["reason"], by=self.user)
        return Response(DeletionOut(made).data, status=201)


class DeletionPreviewView(ProjectView):
    roles = {"POST": ADMINISTER}

    @extend_schema(request=PersonIn, responses=DeletionPreviewOut)
    def post(self, request: Request, slug: str) -> Response:
        """What deleting a person's data would do; nothing is changed."""
        annotator = _named(self, validated(PersonIn, request))
        return Response(DeletionPreviewOut(preview(annotator)).data)


def _named(view: ProjectView, asked: dict[str, Any]) -> Annotator:
    """404 for whoever is not there, or not any more."""
    there = view.project.annotators.filter(forgotten=None)
    return get_object_or_404(there, pseudonym=asked["annotator"])


urlpatterns = [
    path("projects/<slug:slug>/deletions/", DeletionsView.as_view()),
    path("projects/<slug:slug>/deletions/preview", DeletionPreviewView.as_view()),
]
