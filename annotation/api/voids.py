"""Void all answers of one annotator in a range of time."""

from typing import Any

from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.views import NewestFirst, ProjectView
from annotation.models import RangeVoid
from annotation.permissions import REVIEW
from annotation.services.reasons import MAX_REASON
from annotation.services.voiding import order_range_void, preview


class RangeIn(serializers.Serializer[Any]):
    annotator = serializers.CharField(max_length=40, help_text="The pseudonym.")
    since = serializers.DateTimeField()
    until = serializers.DateTimeField(help_text="Not included.")


class RangeVoidIn(RangeIn):
    reason = serializers.CharField(max_length=MAX_REASON)


class VersionName(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()


class PreviewOut(serializers.Serializer[Any]):
    answers = serializers.IntegerField()
    reopened = serializers.IntegerField(help_text="Slots that would open again.")
    trained = VersionName(many=True, help_text="Versions trained on the answers.")


class RangeVoidOut(serializers.ModelSerializer[RangeVoid]):
    """An order; finished_at is null while workers go on with it."""

    annotator = serializers.CharField(source="annotator.pseudonym")

    class Meta:
        model = RangeVoid
        fields = (
            "id", "annotator", "since", "until", "reason", "num_voided", "num_reopened",
            "created_at", "finished_at",
        )  # fmt: skip


class RangeVoidsView(ProjectView):
    roles = {"GET": REVIEW, "POST": REVIEW}
    pagination_class = NewestFirst

    @extend_schema(responses=RangeVoidOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Orders so far, newest first."""
        orders = RangeVoid.objects.filter(project=self.project).select_related("annotator")
        return self.page(orders, RangeVoidOut)

    @extend_schema(request=RangeVoidIn, responses={201: RangeVoidOut})
    def post(self, request: Request, slug: str) -> Response:
        """Void them all; slots open again, votes stay in the ledger."""
        wanted = RangeVoidIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        order = order_range_void(by=self.user, **_of_project(self, wanted.validated_data))
        return Response(RangeVoidOut(order).data, status=201)


class PreviewView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=RangeIn, responses=PreviewOut)
    def post(self, request: Request, slug: str) -> Response:
        """What voiding a range would do; nothing is changed."""
        wanted = RangeIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        return Response(PreviewOut(preview(**_of_project(self, wanted.validated_data))).data)


def _of_project(view: ProjectView, asked: dict[str, Any]) -> dict[str, Any]:
    found = get_object_or_404(view.project.annotators, pseudonym=asked["annotator"])
    return {**asked, "annotator": found}


urlpatterns = [
    path("projects/<slug:slug>/range-voids/", RangeVoidsView.as_view()),
    path("projects/<slug:slug>/range-voids/preview", PreviewView.as_view()),
]
