"""The chat of live collection: start, say, read, listen, choose. Blind, like the page."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.desk import JudgmentIn, RankingIn
from annotation.api.views import NewestFirst, ProjectView
from annotation.chat_events import turn_events
from annotation.models import LiveSetup, LiveThread, LiveTurn, Project
from annotation.permissions import ADMINISTER, LABEL
from annotation.services import live
from annotation.services.answers import MAX_IDEAL, MAX_NOTE, Answer, Judgment
from annotation.services.live_setup import SETUP_FIELDS, change_setup, setup_of
from annotation.services.projects import annotator_for
from annotation.services.queue import MAX_KEY
from annotation.services.rankings import AxisRanking
from annotation.services.versions import versions_of

KEY_HELP = "Made by the caller, once per act; a repeat is harmless."


class MessageIn(serializers.Serializer[Any]):
    key = serializers.CharField(max_length=MAX_KEY, help_text=KEY_HELP)
    message = serializers.CharField(max_length=live.MAX_MESSAGE)


class ThreadIn(MessageIn):
    language = serializers.CharField(max_length=12, allow_blank=True, default="")


class LiveAnswerOut(serializers.Serializer[Any]):
    place = serializers.IntegerField()
    text = serializers.CharField()


class TurnOut(serializers.ModelSerializer[LiveTurn]):
    """A message and what became of it. Who wrote the answers is not in it, nor why one failed."""

    answers = serializers.SerializerMethodField()
    preference = serializers.IntegerField(source="preference_id", allow_null=True)

    class Meta:
        model = LiveTurn
        fields = (
            "number", "message", "state", "answers", "continued_with", "preference", "created_at",
        )  # fmt: skip

    @extend_schema_field(LiveAnswerOut(many=True))
    def get_answers(self, turn: LiveTurn) -> Any:
        """Both, once they are whole; before that the stream tells them."""
        whole = [one for one in turn.answers.all() if one.text]
        return LiveAnswerOut(whole, many=True).data


class ThreadOut(serializers.ModelSerializer[LiveThread]):
    class Meta:
        model = LiveThread
        fields: tuple[str, ...] = ("id", "language", "max_turns", "closed_at", "created_at")


class WholeThreadOut(ThreadOut):
    turns = TurnOut(many=True)

    class Meta(ThreadOut.Meta):
        fields = (*ThreadOut.Meta.fields, "turns")


class ChoiceIn(serializers.Serializer[Any]):
    key = serializers.CharField(max_length=MAX_KEY, help_text=KEY_HELP)
    rankings = RankingIn(many=True, allow_empty=False, help_text="The two answers are 1 and 2.")
    judgments = JudgmentIn(many=True, default=list)
    note = serializers.CharField(max_length=MAX_NOTE, allow_blank=True, default="")
    go_on_with = serializers.IntegerField(
        allow_null=True,
        default=None,
        min_value=1,
        max_value=2,
        help_text="Where the conversation goes on from; null = the better answer.",
    )
    edited = serializers.CharField(
        max_length=MAX_IDEAL,
        allow_blank=True,
        default="",
        trim_whitespace=False,
        help_text="How the answer should have been: it is gone on with, and is a demonstration.",
    )
    end = serializers.BooleanField(default=False)


class SetupOut(serializers.ModelSerializer[LiveSetup]):
    is_open = serializers.BooleanField(source="project.chat_open")

    class Meta:
        model = LiveSetup
        fields = (*SETUP_FIELDS, "is_open")


class SetupIn(serializers.Serializer[Any]):
    is_open = serializers.BooleanField(required=False)
    version_a = serializers.IntegerField(required=False, allow_null=True)
    temperature_a = serializers.FloatField(required=False, min_value=0, max_value=2)
    version_b = serializers.IntegerField(required=False, allow_null=True)
    temperature_b = serializers.FloatField(required=False, min_value=0, max_value=2)
    max_new_tokens = serializers.IntegerField(required=False, min_value=1, max_value=8192)
    max_turns = serializers.IntegerField(required=False, min_value=1, max_value=100)
    max_threads_per_day = serializers.IntegerField(required=False, min_value=1, max_value=10_000)


class OwnThreads(ProjectView):
    @property
    def threads(self) -> QuerySet[LiveThread]:
        """The caller's own; everybody else's are 404."""
        return self.project.live_threads.filter(annotator__user=self.user).select_related(
            "annotator", "project"
        )

    def thread(self, pk: int) -> LiveThread:
        return get_object_or_404(self.threads, pk=pk)

    def turn(self, thread_id: int, number: int) -> LiveTurn:
        thread = self.thread(thread_id)
        return get_object_or_404(thread.turns.select_related("thread__project"), number=number)


class ThreadsView(OwnThreads):
    roles = {"GET": LABEL, "POST": LABEL}
    pagination_class = NewestFirst

    @extend_schema(responses=ThreadOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """The caller's conversations, newest first."""
        return self.page(self.threads, ThreadOut)

    @extend_schema(request=ThreadIn, responses={201: WholeThreadOut})
    def post(self, request: Request, slug: str) -> Response:
        """Begin a conversation with its first message."""
        wanted = ThreadIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        annotator = annotator_for(user=self.user, project=self.project)
        thread = live.start_thread(annotator=annotator, **wanted.validated_data)
        return Response(WholeThreadOut(thread).data, status=201)


class ThreadView(OwnThreads):
    roles = {"GET": LABEL}

    @extend_schema(responses=WholeThreadOut)
    def get(self, request: Request, slug: str, thread_id: int) -> Response:
        """One conversation with all that was said."""
        return Response(WholeThreadOut(self.thread(thread_id)).data)


class SayView(OwnThreads):
    roles = {"POST": LABEL}

    @extend_schema(request=MessageIn, responses={201: TurnOut})
    def post(self, request: Request, slug: str, thread_id: int) -> Response:
        """The next message; 409 while the turn before is open."""
        thread = self.thread(thread_id)
        wanted = MessageIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        turn = live.say(thread=thread, **wanted.validated_data)
        return Response(TurnOut(turn).data, status=201)


class EndView(OwnThreads):
    roles = {"POST": LABEL}

    @extend_schema(request=None, responses=ThreadOut)
    def post(self, request: Request, slug: str, thread_id: int) -> Response:
        """End a conversation; a turn without a choice is dropped."""
        return Response(ThreadOut(live.end_thread(thread=self.thread(thread_id))).data)


class TurnView(OwnThreads):
    roles = {"GET": LABEL}

    @extend_schema(responses=TurnOut, operation_id="projects_chats_turn_retrieve")
    def get(self, request: Request, slug: str, thread_id: int, number: int) -> Response:
        """One turn as it stands."""
        return Response(TurnOut(self.turn(thread_id, number)).data)


class ChooseView(OwnThreads):
    roles = {"POST": LABEL}

    @extend_schema(request=ChoiceIn, responses=TurnOut)
    def post(self, request: Request, slug: str, thread_id: int, number: int) -> Response:
        """Choose an answer and go on from it. The same key returns the turn as it was settled."""
        turn = self.turn(thread_id, number)
        wanted = ChoiceIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        asked = wanted.validated_data
        chosen = live.choose(
            turn=turn,
            answer=Answer(
                rankings=[AxisRanking(**one) for one in asked["rankings"]],
                judgments=[Judgment(**one) for one in asked["judgments"]],
                note=asked["note"],
            ),
            key=asked["key"],
            go_on_with=asked["go_on_with"],
            edited=asked["edited"],
            end=asked["end"],
        )
        return Response(TurnOut(chosen).data)


class AgainView(OwnThreads):
    roles = {"POST": LABEL}

    @extend_schema(request=None, responses=TurnOut)
    def post(self, request: Request, slug: str, thread_id: int, number: int) -> Response:
        """Have a failed turn answered once more."""
        return Response(TurnOut(live.ask_again(turn=self.turn(thread_id, number))).data)


class AnyMedia(BaseContentNegotiation):
    """The stream's own response is no renderer's business; an error is JSON."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class StreamView(OwnThreads):
    roles = {"GET": LABEL}
    content_negotiation_class = AnyMedia

    @extend_schema(responses={(200, "text/event-stream"): OpenApiTypes.STR})
    def get(self, request: Request, slug: str, thread_id: int, number: int) -> HttpResponse:
        """Server-sent events: `begin`, `piece` {place, text}, then `end` (or `lost`): ask for the
        turn. Last-Event-ID goes on where it was. 204: no stream to be had, ask for the turn."""
        return turn_events(request._request, self.turn(thread_id, number), self.user)


class SetupView(ProjectView):
    roles = {"GET": ADMINISTER, "PATCH": ADMINISTER}

    @extend_schema(responses=SetupOut)
    def get(self, request: Request, slug: str) -> Response:
        """Who answers in the chat."""
        return Response(SetupOut(setup_of(self.project)).data)

    @extend_schema(request=SetupIn, responses=SetupOut)
    def patch(self, request: Request, slug: str) -> Response:
        """Change what is given; conversations that have begun keep their models."""
        wanted = SetupIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        changes = dict(wanted.validated_data)
        is_open = changes.pop("is_open", self.project.chat_open)
        for name in ("version_a", "version_b"):
            if changes.get(name) is not None:
                changes[name] = get_object_or_404(versions_of(self.project), pk=changes[name])
        change_setup(project=self.project, changes=changes, is_open=is_open, by=self.user)
        project = Project.objects.get(pk=self.project.pk)
        return Response(SetupOut(setup_of(project)).data)


urlpatterns = [
    path("projects/<slug:slug>/chats/", ThreadsView.as_view()),
    path("projects/<slug:slug>/chats/<int:thread_id>/", ThreadView.as_view()),
    path("projects/<slug:slug>/chats/<int:thread_id>/say", SayView.as_view()),
    path("projects/<slug:slug>/chats/<int:thread_id>/end", EndView.as_view()),
    path("projects/<slug:slug>/chats/<int:thread_id>/<int:number>/", TurnView.as_view()),
    path("projects/<slug:slug>/chats/<int:thread_id>/<int:number>/stream", StreamView.as_view()),
    path("projects/<slug:slug>/chats/<int:thread_id>/<int:number>/choose", ChooseView.as_view()),
    path("projects/<slug:slug>/chats/<int:thread_id>/<int:number>/again", AgainView.as_view()),
    path("projects/<slug:slug>/chat-setup", SetupView.as_view()),
]
