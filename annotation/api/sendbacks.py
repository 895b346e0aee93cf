"""Answers sent back, and what their annotators make of it: a revision, or words."""

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.desk import JudgmentIn, PreferenceOut, RankingIn
from annotation.api.views import NewestFirst, ProjectView
from annotation.models import SendBack, SendBackState
from annotation.permissions import LABEL, REVIEW
from annotation.services import sendbacks as service
from annotation.services.answers import MAX_IDEAL, MAX_NOTE, Judgment
from annotation.services.rankings import AxisRanking
from annotation.services.review import BY_THE_ANNOTATOR, revise_preference


class CommentIn(serializers.Serializer[Any]):
    comment = serializers.CharField(max_length=service.MAX_COMMENT)


class ReplyIn(serializers.Serializer[Any]):
    reply = serializers.CharField(max_length=service.MAX_COMMENT)


class ReviseIn(serializers.Serializer[Any]):
    """What is not sent stays as it was."""

    rankings = RankingIn(many=True, allow_empty=False)
    note = serializers.CharField(max_length=MAX_NOTE, allow_blank=True, required=False)
    judgments = JudgmentIn(many=True, required=False)
    ideal = serializers.CharField(
        max_length=MAX_IDEAL, allow_blank=True, required=False, trim_whitespace=False
    )


class SendBackOut(serializers.ModelSerializer[SendBack]):
    """A send-back; whoever gave the answer by pseudonym, whoever sent it without a name."""

    annotator = serializers.CharField(source="annotator.pseudonym")

    class Meta:
        model = SendBack
        fields = (
            "id", "preference", "annotator", "comment", "state", "reply", "revision",
            "created_at", "settled_at",
        )  # fmt: skip


class SendBacksView(ProjectView):
    roles = {"GET": LABEL}
    pagination_class = NewestFirst

    @extend_schema(
        responses=SendBackOut(many=True),
        parameters=[
            OpenApiParameter("state", str, enum=SendBackState.values),
            OpenApiParameter("mine", bool, description="What came back to the caller alone."),
        ],
    )
    def get(self, request: Request, slug: str) -> Response:
        """Newest first: what came back to a labeler; a reviewer's or admin's are everybody's."""
        rows = self.project.send_backs.select_related("annotator")
        mine = request.query_params.get("mine", "").lower() in ("1", "true", "yes")
        if mine or self.membership.role not in REVIEW:
            rows = rows.filter(annotator__user=self.user)
        if (state := request.query_params.get("state", "")) in SendBackState.values:
            rows = rows.filter(state=state)
        return self.page(rows, SendBackOut)


class SendBackView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=CommentIn, responses={201: SendBackOut})
    def post(self, request: Request, slug: str, preference_id: int) -> Response:
        """Send an answer back to whoever gave it; it counts as it is until it is settled."""
        preference = get_object_or_404(self.project.preferences, pk=preference_id)
        wanted = CommentIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        made = service.send_back(
            preference=preference, by=self.user, comment=wanted.validated_data["comment"]
        )
        return Response(SendBackOut(made).data, status=201)


class DeclineView(ProjectView):
    roles = {"POST": LABEL}

    @extend_schema(request=ReplyIn, responses=SendBackOut)
    def post(self, request: Request, slug: str, send_back_id: int) -> Response:
        """Leave one's answer as it is, and say why."""
        own: QuerySet[SendBack] = self.project.send_backs.filter(annotator__user=self.user)
        sent = get_object_or_404(own, pk=send_back_id)
        wanted = ReplyIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        done = service.decline(sent=sent, by=self.user, reply=wanted.validated_data["reply"])
        return Response(SendBackOut(done).data)


class WithdrawView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=None, responses=SendBackOut)
    def post(self, request: Request, slug: str, send_back_id: int) -> Response:
        """Take a send-back back."""
        sent = get_object_or_404(self.project.send_backs, pk=send_back_id)
        return Response(SendBackOut(service.withdraw(sent=sent, by=self.user)).data)


class ReviseView(ProjectView):
    roles = {"POST": LABEL}

    @extend_schema(request=ReviseIn, responses={201: PreferenceOut})
    def post(self, request: Request, slug: str, preference_id: int) -> Response:
        """Change one's own answer: the next revision, which settles a send-back of it."""
        own = self.project.preferences.filter(annotator__user=self.user)
        preference = get_object_or_404(own, pk=preference_id)
        wanted = ReviseIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        data = wanted.validated_data
        judgments = [Judgment(**one) for one in data["judgments"]] if "judgments" in data else None
        revised = revise_preference(
            preference=preference,
            rankings=[AxisRanking(**one) for one in data["rankings"]],
            judgments=judgments,
            note=data.get("note"),
            ideal=data.get("ideal"),
            cause=BY_THE_ANNOTATOR,
            by=self.user,
        )
        return Response(PreferenceOut(revised).data, status=201)


urlpatterns = [
    path("projects/<slug:slug>/send-backs/", SendBacksView.as_view()),
    path("projects/<slug:slug>/send-backs/<int:send_back_id>/decline", DeclineView.as_view()),
    path("projects/<slug:slug>/send-backs/<int:send_back_id>/withdraw", WithdrawView.as_view()),
    path("projects/<slug:slug>/preferences/<int:preference_id>/send-back", SendBackView.as_view()),
    path("projects/<slug:slug>/preferences/<int:preference_id>/revise", ReviseView.as_view()),
]
