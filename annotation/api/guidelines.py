"""The guideline: its versions, the next one, and "I have read it"."""

from typing import Any

from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.views import NewestFirst, ProjectView
from annotation.models import Guideline, GuidelineReading
from annotation.permissions import ANY, LABEL, REVIEW
from annotation.services.guidelines import acknowledge
from annotation.services.projects import MAX_GUIDELINE, annotator_for, new_guideline


class EntryWords(serializers.Serializer[Any]):
    question = serializers.CharField()
    answer = serializers.CharField()


class EntryOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    texts = serializers.DictField(child=EntryWords(), help_text="By language.")


class GuidelineVersionOut(serializers.ModelSerializer[Guideline]):
    """A version in all its languages, with the questions below it."""

    texts = serializers.DictField(
        child=serializers.CharField(), help_text="Markdown by language, such as en and zh-hans."
    )
    faq = EntryOut(many=True)

    class Meta:
        model = Guideline
        fields = ("id", "version", "texts", "faq", "created_at")


class GuidelineIn(serializers.Serializer[Any]):
    texts = serializers.DictField(child=serializers.CharField(max_length=MAX_GUIDELINE))
    base = serializers.IntegerField(
        required=False, help_text="The version that was edited; 409 if it is the newest no more."
    )


class ReadingOut(serializers.ModelSerializer[GuidelineReading]):
    version = serializers.IntegerField(source="guideline.version")

    class Meta:
        model = GuidelineReading
        fields = ("version", "read_at")


class GuidelinesView(ProjectView):
    roles = {"GET": ANY, "POST": REVIEW}
    pagination_class = NewestFirst

    @extend_schema(responses=GuidelineVersionOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """All versions, the one in force first."""
        return self.page(self.project.guidelines.all(), GuidelineVersionOut)

    @extend_schema(request=GuidelineIn, responses={201: GuidelineVersionOut})
    def post(self, request: Request, slug: str) -> Response:
        """Make the next version; the questions below it stay."""
        wanted = GuidelineIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        made = new_guideline(project=self.project, by=self.user, **wanted.validated_data)
        return Response(GuidelineVersionOut(made).data, status=201)


class ReadView(ProjectView):
    roles = {"POST": LABEL}

    @extend_schema(request=None, responses=ReadingOut)
    def post(self, request: Request, slug: str, guideline_id: int) -> Response:
        """Note that the caller has read this version."""
        guideline = get_object_or_404(self.project.guidelines, pk=guideline_id)
        annotator = annotator_for(user=self.user, project=self.project)
        return Response(ReadingOut(acknowledge(annotator=annotator, guideline=guideline)).data)


urlpatterns = [
    path("projects/<slug:slug>/guidelines/", GuidelinesView.as_view()),
    path("projects/<slug:slug>/guidelines/<int:guideline_id>/read", ReadView.as_view()),
]
