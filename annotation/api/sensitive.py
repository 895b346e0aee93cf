"""Sensitive comparisons: whether the caller wants them, and how many a day may bring."""

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.views import ProjectView
from annotation.permissions import ADMINISTER, LABEL
from annotation.services.projects import annotator_for
from annotation.services.queue import refuse_sensitive
from annotation.services.sensitive import MOST_PER_DAY, given_today, set_cap


class WishIn(serializers.Serializer[Any]):
    refuses = serializers.BooleanField(help_text="Give me nothing of sensitive batches.")


class SensitiveOut(serializers.Serializer[Any]):
    refuses = serializers.BooleanField()
    per_day = serializers.IntegerField(allow_null=True, help_text="Null: any number.")
    given_today = serializers.IntegerField(help_text="To the caller, answered or not.")


class CapIn(serializers.Serializer[Any]):
    per_day = serializers.IntegerField(min_value=1, max_value=MOST_PER_DAY, allow_null=True)


class CapOut(serializers.Serializer[Any]):
    per_day = serializers.IntegerField(allow_null=True, help_text="Null: any number.")


class WishView(ProjectView):
    roles = {"GET": LABEL, "POST": LABEL}

    @extend_schema(responses=SensitiveOut)
    def get(self, request: Request, slug: str) -> Response:
        """The caller's own wish, and how many they were given today."""
        return self._answer()

    @extend_schema(request=WishIn, responses=SensitiveOut)
    def post(self, request: Request, slug: str) -> Response:
        """Refuse sensitive comparisons, or take them again. What the caller holds of them goes
        back."""
        wish = WishIn(data=request.data)
        wish.is_valid(raise_exception=True)
        annotator = annotator_for(user=self.user, project=self.project)
        refuse_sensitive(annotator=annotator, refuses=wish.validated_data["refuses"])
        return self._answer()

    def _answer(self) -> Response:
        annotator = annotator_for(user=self.user, project=self.project)
        found = {
            "refuses": annotator.refuses_sensitive,
            "per_day": self.project.sensitive_per_day,
            "given_today": given_today(annotator),
        }
        return Response(SensitiveOut(found).data)


class CapView(ProjectView):
    roles = {"POST": ADMINISTER}

    @extend_schema(request=CapIn, responses=CapOut)
    def post(self, request: Request, slug: str) -> Response:
        """How many sensitive comparisons a day may bring to one annotator."""
        cap = CapIn(data=request.data)
        cap.is_valid(raise_exception=True)
        per_day = cap.validated_data["per_day"]
        project = set_cap(project=self.project, per_day=per_day, by=self.user)
        return Response(CapOut({"per_day": project.sensitive_per_day}).data)


urlpatterns = [
    path("projects/<slug:slug>/sensitive", WishView.as_view()),
    path("projects/<slug:slug>/sensitive/cap", CapView.as_view()),
]
