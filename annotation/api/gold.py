"""Gold for leads: items, answers, rules, reports; for a labeler, their own accuracy alone."""

from dataclasses import asdict
from typing import Any

from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.desk import RankingIn
from annotation.api.views import NewestFirst, ProjectView
from annotation.models import GoldItem, GoldUse, Report
from annotation.permissions import ADMINISTER, LABEL, REVIEW
from annotation.services import standing
from annotation.services.checkrules import ENDS, MAX_SKILL, CheckRules, change_checks
from annotation.services.gold import (
    MAX_EXPLANATION,
    make_gold,
    retire_gold,
    vote_on_gold,
)
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from annotation.services.reasons import MAX_REASON
from annotation.services.reports import MAX_WORDS, Ruling, decide_report, report_question


class GoldIn(serializers.Serializer[Any]):
    comparison = serializers.IntegerField(help_text="The one to copy.")
    use = serializers.ChoiceField(choices=GoldUse.choices, default=GoldUse.HIDDEN)


class GoldOut(serializers.ModelSerializer[GoldItem]):
    """An item; what experts said of it is not in the list, so that each judges alone."""

    comparison = serializers.IntegerField(source="comparison_id")
    origin = serializers.IntegerField(source="origin_id")

    class Meta:
        model = GoldItem
        fields: tuple[str, ...] = (
            "id", "comparison", "origin", "use", "state", "num_shown", "retire_reason",
            "created_at",
        )  # fmt: skip


class ConstraintOut(serializers.Serializer[Any]):
    """`better` and `worse` are completion ids, for `above` alone."""

    axis = serializers.CharField()
    says = serializers.CharField()
    better = serializers.IntegerField(required=False)
    worse = serializers.IntegerField(required=False)


class CheckedOut(serializers.Serializer[Any]):
    annotator = serializers.CharField(source="annotator.pseudonym")
    preference = serializers.IntegerField(source="preference_id")
    verdict = serializers.CharField()
    counts = serializers.BooleanField()
    attempt = serializers.IntegerField(help_text="Of a qualification; 0 for a hidden check.")
    created_at = serializers.DateTimeField()


class GoldDetail(GoldOut):
    """For whoever has answered it as an expert: what they agree on, and annotators' answers."""

    constraints = serializers.SerializerMethodField()
    checks = serializers.SerializerMethodField()

    class Meta(GoldOut.Meta):
        fields = (*GoldOut.Meta.fields, "constraints", "checks")

    def _has_voted(self, item: GoldItem) -> bool:
        return item.votes.filter(expert=self.context["user"]).exists()

    @extend_schema_field(ConstraintOut(many=True, allow_null=True))
    def get_constraints(self, item: GoldItem) -> Any:
        """Null before the caller's own answer."""
        return item.constraints if self._has_voted(item) else None

    @extend_schema_field(CheckedOut(many=True, allow_null=True))
    def get_checks(self, item: GoldItem) -> Any:
        """Null before the caller's own answer."""
        if not self._has_voted(item):
            return None
        return CheckedOut(item.checks.select_related("annotator").order_by("pk"), many=True).data


class GoldVoteIn(serializers.Serializer[Any]):
    rankings = RankingIn(many=True, allow_empty=False)
    explanation = serializers.CharField(
        max_length=MAX_EXPLANATION, allow_blank=True, default="", help_text="Shown after practice."
    )


class GoldRetireIn(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=MAX_REASON)
    is_wrong = serializers.BooleanField(
        default=False, help_text="Past answers to it count no more."
    )


class CheckRulesOut(serializers.Serializer[Any]):
    """services.checkrules.CheckRules."""

    gold_every = serializers.IntegerField(help_text="One hidden check in so many; 0 = none.")
    repeat_every = serializers.IntegerField(
        help_text="One own comparison comes again in so many; 0 = never."
    )
    repeat_gap = serializers.IntegerField(help_text="Answers that lie between at least.")
    bar_percent = serializers.IntegerField(help_text="0 = no bar.")
    bar_window = serializers.IntegerField()
    bar_more = serializers.IntegerField()
    qualification_items = serializers.IntegerField(help_text="0 = no qualification.")
    qualification_percent = serializers.IntegerField()
    qualification_skill = serializers.CharField()


class CheckRulesIn(serializers.Serializer[Any]):
    """What is left out stays as it is."""

    qualification_skill = serializers.CharField(
        required=False, allow_blank=True, max_length=MAX_SKILL
    )

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        numbers = {
            name: serializers.IntegerField(required=False, min_value=low, max_value=high)
            for name, (low, high) in ENDS.items()
        }
        return {**numbers, **super().get_fields()}


class AccuracyOut(serializers.Serializer[Any]):
    accuracy = serializers.FloatField(
        source="value", allow_null=True, help_text="Rounded and late; null before twenty checks."
    )
    n = serializers.SerializerMethodField()

    def get_n(self, shown: Any) -> int:
        """Checks that it rests on; 0 where nothing is shown."""
        return 0 if shown.value is None else int(shown.n)


class ReportIn(serializers.Serializer[Any]):
    words = serializers.CharField(max_length=MAX_WORDS)


class ReportOut(serializers.ModelSerializer[Report]):
    """The same for every question, gold or not."""

    comparison = serializers.IntegerField(source="comparison_id")
    annotator = serializers.CharField(source="annotator.pseudonym")

    class Meta:
        model = Report
        fields = (
            "id", "comparison", "annotator", "words", "state", "reply", "decided_at", "created_at",
        )  # fmt: skip


class DecideIn(serializers.Serializer[Any]):
    ruling = serializers.ChoiceField(choices=[(one.value, one.value) for one in Ruling])
    reply = serializers.CharField(max_length=MAX_WORDS)


class GoldListView(ProjectView):
    roles = {"GET": REVIEW, "POST": REVIEW}
    pagination_class = NewestFirst

    @extend_schema(responses=GoldOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Gold items, newest first."""
        return self.page(self.project.gold_items.all(), GoldOut)

    @extend_schema(request=GoldIn, responses={201: GoldOut})
    def post(self, request: Request, slug: str) -> Response:
        """Make a copy of a comparison gold: a draft until two experts have answered it alike."""
        wanted = GoldIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        comparison = get_object_or_404(
            self.project.comparisons, pk=wanted.validated_data["comparison"]
        )
        made = make_gold(comparison=comparison, use=wanted.validated_data["use"], by=self.user)
        return Response(GoldOut(made).data, status=201)


class GoldView(ProjectView):
    roles = {"GET": REVIEW}

    @extend_schema(responses=GoldDetail)
    def get(self, request: Request, slug: str, item_id: int) -> Response:
        """One item; constraints and answers for whoever has answered it."""
        item = get_object_or_404(self.project.gold_items, pk=item_id)
        return Response(GoldDetail(item, context={"user": self.user}).data)


class GoldVoteView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=GoldVoteIn, responses=GoldDetail)
    def post(self, request: Request, slug: str, item_id: int) -> Response:
        """Answer an item as an expert; a second answer replaces the first."""
        item = get_object_or_404(self.project.gold_items, pk=item_id)
        vote = GoldVoteIn(data=request.data)
        vote.is_valid(raise_exception=True)
        voted = vote_on_gold(
            item=item,
            by=self.user,
            rankings=[AxisRanking(**one) for one in vote.validated_data["rankings"]],
            explanation=vote.validated_data["explanation"],
        )
        return Response(GoldDetail(voted, context={"user": self.user}).data)


class GoldRetireView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=GoldRetireIn, responses=GoldOut)
    def post(self, request: Request, slug: str, item_id: int) -> Response:
        """Never hand an item out again."""
        item = get_object_or_404(self.project.gold_items, pk=item_id)
        wanted = GoldRetireIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        retired = retire_gold(item=item, by=self.user, **wanted.validated_data)
        if wanted.validated_data["is_wrong"]:
            standing.recover_without(retired)
        return Response(GoldOut(retired).data)


class CheckRulesView(ProjectView):
    roles = {"GET": REVIEW, "PATCH": ADMINISTER}

    @extend_schema(responses=CheckRulesOut)
    def get(self, request: Request, slug: str) -> Response:
        """How annotators are checked."""
        return Response(asdict(CheckRules.of(self.project.checks)))

    @extend_schema(request=CheckRulesIn, responses=CheckRulesOut)
    def patch(self, request: Request, slug: str) -> Response:
        """Change how annotators are checked."""
        wanted = CheckRulesIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        changed = change_checks(project=self.project, changes=wanted.validated_data, by=self.user)
        return Response(asdict(CheckRules.of(changed.checks)))


class AccuracyView(ProjectView):
    roles = {"GET": LABEL}

    @extend_schema(responses=AccuracyOut)
    def get(self, request: Request, slug: str) -> Response:
        """The caller's own accuracy on hidden checks, told late and only from twenty on."""
        annotator = annotator_for(user=self.user, project=self.project)
        return Response(AccuracyOut(standing.own_accuracy(annotator)).data)


class ReportView(ProjectView):
    roles = {"POST": LABEL}

    @extend_schema(request=ReportIn, responses={201: ReportOut})
    def post(self, request: Request, slug: str, preference_id: int) -> Response:
        """Say that the question of one's own answer is wrong."""
        own = self.project.preferences.filter(annotator__user=self.user, source=None)
        preference = get_object_or_404(
            own.select_related("comparison", "annotator"), pk=preference_id
        )
        said = ReportIn(data=request.data)
        said.is_valid(raise_exception=True)
        report = report_question(
            comparison=preference.comparison,
            annotator=preference.annotator,
            words=said.validated_data["words"],
        )
        return Response(ReportOut(report).data, status=201)


class ReportsView(ProjectView):
    roles = {"GET": REVIEW}
    pagination_class = NewestFirst

    @extend_schema(responses=ReportOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Reports of wrong questions, newest first."""
        return self.page(self.project.reports.select_related("annotator"), ReportOut)


class DecideView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=DecideIn, responses=ReportOut)
    def post(self, request: Request, slug: str, report_id: int) -> Response:
        """Take the question out, let experts answer it anew, or decline."""
        report = get_object_or_404(self.project.reports, pk=report_id)
        decision = DecideIn(data=request.data)
        decision.is_valid(raise_exception=True)
        decided = decide_report(report=report, by=self.user, **decision.validated_data)
        return Response(ReportOut(decided).data)


urlpatterns = [
    path("projects/<slug:slug>/gold/", GoldListView.as_view()),
    path("projects/<slug:slug>/gold/<int:item_id>/", GoldView.as_view()),
    path("projects/<slug:slug>/gold/<int:item_id>/vote", GoldVoteView.as_view()),
    path("projects/<slug:slug>/gold/<int:item_id>/retire", GoldRetireView.as_view()),
    path("projects/<slug:slug>/checks", CheckRulesView.as_view()),
    path("projects/<slug:slug>/accuracy", AccuracyView.as_view()),
    path("projects/<slug:slug>/preferences/<int:preference_id>/report", ReportView.as_view()),
    path("projects/<slug:slug>/reports/", ReportsView.as_view()),
    path("projects/<slug:slug>/reports/<int:report_id>/decide", DecideView.as_view()),
]
