"""Questions to the leads: ask, read, answer, close, publish."""

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.guidelines import EntryWords
from annotation.api.views import NewestFirst, ProjectView
from annotation.models import Question, QuestionState
from annotation.permissions import LABEL, REVIEW
from annotation.services import questions as service
from annotation.services.guidelines import MAX_ANSWER, MAX_QUESTION


class QuestionIn(serializers.Serializer[Any]):
    assignment = serializers.IntegerField(help_text="One of the caller's own.")
    text = serializers.CharField(max_length=service.MAX_TEXT)
    put_aside = serializers.BooleanField(
        default=False, help_text="Give the lease back until the question is closed."
    )


class TextIn(serializers.Serializer[Any]):
    text = serializers.CharField(max_length=service.MAX_TEXT)


class EntryWordsIn(EntryWords):
    question = serializers.CharField(max_length=MAX_QUESTION)
    answer = serializers.CharField(max_length=MAX_ANSWER)


class EntryIn(serializers.Serializer[Any]):
    texts = serializers.DictField(child=EntryWordsIn(), help_text="By language.")


class QuestionOut(serializers.ModelSerializer[Question]):
    """A question; its asker by pseudonym, whoever answered without a name."""

    annotator = serializers.CharField(source="annotator.pseudonym")
    published_in = serializers.IntegerField(
        source="published_in.version", default=None, help_text="Version of the guideline."
    )

    class Meta:
        model = Question
        fields = (
            "id", "comparison", "annotator", "text", "state", "answer", "published_in",
            "created_at", "answered_at", "closed_at",
        )  # fmt: skip


class QuestionsView(ProjectView):
    roles = {"GET": LABEL, "POST": LABEL}
    pagination_class = NewestFirst

    @extend_schema(
        responses=QuestionOut(many=True),
        parameters=[
            OpenApiParameter("state", str, enum=QuestionState.values),
            OpenApiParameter("mine", bool, description="The caller's own alone."),
        ],
    )
    def get(self, request: Request, slug: str) -> Response:
        """Newest first: a labeler's own; a reviewer's or admin's are everybody's."""
        rows = _questions(self, request.query_params.get("mine", ""))
        if (state := request.query_params.get("state", "")) in QuestionState.values:
            rows = rows.filter(state=state)
        return self.page(rows, QuestionOut)

    @extend_schema(request=QuestionIn, responses={201: QuestionOut})
    def post(self, request: Request, slug: str) -> Response:
        """Ask the leads about a comparison that one was given."""
        wanted = QuestionIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        own = self.project.assignments.filter(annotator__user=self.user)
        given = get_object_or_404(
            own.select_related("annotator__project", "comparison"),
            pk=wanted.validated_data["assignment"],
        )
        question = service.ask(
            annotator=given.annotator,
            comparison=given.comparison,
            text=wanted.validated_data["text"],
            put_aside=wanted.validated_data["put_aside"],
        )
        return Response(QuestionOut(question).data, status=201)


class QuestionView(ProjectView):
    roles = {"GET": LABEL}

    @extend_schema(responses=QuestionOut)
    def get(self, request: Request, slug: str, question_id: int) -> Response:
        """One question that the caller may see."""
        return Response(QuestionOut(get_object_or_404(_questions(self), pk=question_id)).data)


class AnswerView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=TextIn, responses=QuestionOut)
    def post(self, request: Request, slug: str, question_id: int) -> Response:
        """Answer an open question."""
        question = get_object_or_404(_questions(self), pk=question_id)
        wanted = TextIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        done = service.answer(question=question, text=wanted.validated_data["text"], by=self.user)
        return Response(QuestionOut(done).data)


class CloseView(ProjectView):
    roles = {"POST": LABEL}

    @extend_schema(request=None, responses=QuestionOut)
    def post(self, request: Request, slug: str, question_id: int) -> Response:
        """Close it: read or withdrawn by its asker, put away by a lead."""
        question = get_object_or_404(_questions(self), pk=question_id)
        return Response(QuestionOut(service.close(question=question, by=self.user)).data)


class PublishView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=EntryIn, responses=QuestionOut)
    def post(self, request: Request, slug: str, question_id: int) -> Response:
        """Take an answered question up into the guideline's FAQ, in words of one's own."""
        question = get_object_or_404(_questions(self), pk=question_id)
        wanted = EntryIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        done = service.publish(
            question=question, texts=wanted.validated_data["texts"], by=self.user
        )
        return Response(QuestionOut(done).data)


def _questions(view: ProjectView, mine: str = "") -> QuerySet[Question]:
    """What the caller may see."""
    rows = view.project.questions.select_related("annotator", "published_in", "project")
    if mine.lower() in ("1", "true", "yes") or view.membership.role not in REVIEW:
        rows = rows.filter(annotator__user=view.user)
    return rows


urlpatterns = [
    path("projects/<slug:slug>/questions/", QuestionsView.as_view()),
    path("projects/<slug:slug>/questions/<int:question_id>/", QuestionView.as_view()),
    path("projects/<slug:slug>/questions/<int:question_id>/answer", AnswerView.as_view()),
    path("projects/<slug:slug>/questions/<int:question_id>/close", CloseView.as_view()),
    path("projects/<slug:slug>/questions/<int:question_id>/publish", PublishView.as_view()),
]
