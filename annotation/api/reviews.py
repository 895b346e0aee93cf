"""Review over the API: what people disagree on, and the decisions."""

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.desk import PreferenceOut, RankingIn, RankingOut, ShownCompletion, VoidIn
from annotation.api.views import NewestFirst, ProjectView
from annotation.errors import BadInput
from annotation.models import Decision, Review, ReviewState
from annotation.permissions import REVIEW
from annotation.services.answers import MAX_NOTE
from annotation.services.decisions import decide, void_decision
from annotation.services.disagreements import votes_compared
from annotation.services.rankings import AxisRanking


class DecisionIn(serializers.Serializer[Any]):
    seen = serializers.IntegerField(
        min_value=0, help_text="Number of the newest decision that was looked at; 0: there is none."
    )
    rankings = RankingIn(many=True, default=list)
    undecidable = serializers.BooleanField(default=False)
    reason = serializers.CharField(max_length=MAX_NOTE, allow_blank=True, default="")


class DecisionOut(serializers.ModelSerializer[Decision]):
    """A decision; its reviewer by pseudonym."""

    by = serializers.CharField(source="by.pseudonym")
    scheme = serializers.IntegerField(source="scheme.version")
    presented_order = serializers.ListField(child=serializers.IntegerField())
    rankings = RankingOut(many=True)

    class Meta:
        model = Decision
        fields = (
            "id", "comparison", "number", "by", "scheme", "presented_order", "rankings",
            "undecidable", "reason", "current", "voided_at", "void_reason", "created_at",
        )  # fmt: skip


class ReviewOut(serializers.ModelSerializer[Review]):
    accord = serializers.DictField(child=serializers.FloatField())

    class Meta:
        model = Review
        fields = (
            *("comparison", "state", "accord", "lowest", "num_answers", "answers_since"),
            "opened_at",
        )


class WholeReviewOut(ReviewOut):
    """With all that the reviewer reads; who wrote the completions is not among it."""

    prompt = serializers.ListField(
        child=serializers.DictField(), source="comparison.prompt.messages"
    )
    completions = serializers.SerializerMethodField()
    answers = serializers.SerializerMethodField()
    decisions = serializers.SerializerMethodField()

    class Meta:
        model = Review
        fields = (*ReviewOut.Meta.fields, "prompt", "completions", "answers", "decisions")

    @extend_schema_field(ShownCompletion(many=True))
    def get_completions(self, review: Review) -> Any:
        """By id, in their stored order."""
        entries = review.comparison.entries.select_related("completion")
        return [{"id": one.completion_id, "text": one.completion.text} for one in entries]

    @extend_schema_field(PreferenceOut(many=True))
    def get_answers(self, review: Review) -> Any:
        """All valid ones, the first first."""
        votes = votes_compared(review.comparison_id, review.project.job_defaults)
        rows = votes.select_related("annotator", "scheme", "guideline", "ideal")
        found = rows.prefetch_related("rankings", "judgments").order_by("pk")
        return PreferenceOut(found, many=True).data

    @extend_schema_field(DecisionOut(many=True))
    def get_decisions(self, review: Review) -> Any:
        """The newest first; at most one is current."""
        rows = Decision.objects.filter(comparison=review.comparison_id)
        found = rows.select_related("by", "scheme").order_by("-number")
        return DecisionOut(found, many=True).data


class ReviewsView(ProjectView):
    roles = {"GET": REVIEW}
    pagination_class = NewestFirst

    @extend_schema(
        responses=ReviewOut(many=True),
        parameters=[OpenApiParameter("state", str, enum=ReviewState.values)],
    )
    def get(self, request: Request, slug: str) -> Response:
        """Comparisons with two answers or more, newest first; of a state, unless none is named."""
        state = request.query_params.get("state", "")
        if state and state not in ReviewState.values:
            raise BadInput(f"A state is one of {', '.join(ReviewState.values)}: {state[:20]!r}.")
        rows: QuerySet[Review] = self.project.reviews.all()
        return self.page(rows.filter(state=state) if state else rows, ReviewOut)


class ReviewView(ProjectView):
    roles = {"GET": REVIEW}

    @extend_schema(responses=WholeReviewOut)
    def get(self, request: Request, slug: str, comparison_id: int) -> Response:
        """One, with its answers side by side."""
        rows = self.project.reviews.select_related("comparison__prompt", "project")
        return Response(WholeReviewOut(get_object_or_404(rows, comparison=comparison_id)).data)


class DecideView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=DecisionIn, responses={201: DecisionOut})
    def post(self, request: Request, slug: str, comparison_id: int) -> Response:
        """Decide it. 409 where somebody has decided since `seen`: look at that first."""
        rows = self.project.reviews.select_related("comparison")
        review = get_object_or_404(rows, comparison=comparison_id)
        wish = DecisionIn(data=request.data)
        wish.is_valid(raise_exception=True)
        said = dict(wish.validated_data)
        rankings = [AxisRanking(**one) for one in said.pop("rankings")]
        decision = decide(comparison=review.comparison, by=self.user, rankings=rankings, **said)
        return Response(DecisionOut(decision).data, status=201)


class DecisionsView(ProjectView):
    roles = {"GET": REVIEW}
    pagination_class = NewestFirst

    @extend_schema(responses=DecisionOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """All decisions, newest first; those that count are current."""
        return self.page(self.project.decisions.select_related("by", "scheme"), DecisionOut)


class VoidDecisionView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=VoidIn, responses=DecisionOut)
    def post(self, request: Request, slug: str, decision_id: int) -> Response:
        """Take a decision back."""
        rows = self.project.decisions.select_related("project", "by", "scheme")
        decision = get_object_or_404(rows, pk=decision_id)
        void = VoidIn(data=request.data)
        void.is_valid(raise_exception=True)
        voided = void_decision(
            decision=decision, by=self.user, reason=void.validated_data["reason"]
        )
        return Response(DecisionOut(voided).data)


urlpatterns = [
    path("projects/<slug:slug>/reviews/", ReviewsView.as_view()),
    path("projects/<slug:slug>/reviews/<int:comparison_id>/", ReviewView.as_view()),
    path("projects/<slug:slug>/reviews/<int:comparison_id>/decide", DecideView.as_view()),
    path("projects/<slug:slug>/decisions/", DecisionsView.as_view()),
    path("projects/<slug:slug>/decisions/<int:decision_id>/void", VoidDecisionView.as_view()),
]
