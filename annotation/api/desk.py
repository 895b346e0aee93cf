"""The labeler's desk: claim, submit, skip, renew, release; and the answers given, to look at."""

from typing import Any

from django.http import Http404
from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api import shown
from annotation.api.views import NewestFirst, ProjectView, validated
from annotation.languages import reader_language
from annotation.models import (
    Assignment,
    Completion,
    Guideline,
    LeaseKind,
    Outcome,
    Preference,
)
from annotation.permissions import LABEL, REVIEW
from annotation.prepared import Prepared
from annotation.services.answers import MAX_IDEAL, MAX_NOTE, Judgment
from annotation.services.projects import annotator_for
from annotation.services.queue import (
    MAX_KEY,
    MAX_REASON,
    claim_comparison,
    release_lease,
    renew_lease,
    skip_comparison,
    submit_preference,
)
from annotation.services.rankings import AxisRanking
from annotation.services.review import void_preference
from annotation.services.schemes import Options


class ClaimIn(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(choices=LeaseKind.choices, default=LeaseKind.ACTIVE)


class ShownCompletion(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    text = serializers.CharField()


class AttributeOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    low = serializers.IntegerField()
    high = serializers.IntegerField()


class OptionsOut(serializers.Serializer[Any]):
    """services.schemes.Options; `levels` is how many strengths there are on a side."""

    strength_steps = serializers.IntegerField()
    levels = serializers.IntegerField()
    allow_partial = serializers.BooleanField()
    acceptability = serializers.BooleanField()
    ratings = AttributeOut(many=True)
    flags = serializers.ListField(child=serializers.CharField())
    reason = serializers.CharField()
    ideal = serializers.BooleanField()


class SchemeOut(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    axes = serializers.ListField(child=serializers.CharField())
    allow_tie = serializers.BooleanField()
    allow_both_bad = serializers.BooleanField()
    allow_cannot_tell = serializers.BooleanField()
    options = serializers.SerializerMethodField()

    @extend_schema_field(OptionsOut)
    def get_options(self, scheme: Any) -> Any:
        """What is asked for besides the order."""
        return OptionsOut(Options.of(scheme.options)).data


class FaqWordsOut(serializers.Serializer[Any]):
    question = serializers.CharField()
    answer = serializers.CharField()


class GuidelineOut(serializers.Serializer[Any]):
    """A version in the language that the request prefers (Accept-Language), or the nearest."""

    version = serializers.IntegerField()
    language = serializers.SerializerMethodField()
    text = serializers.SerializerMethodField()
    faq = serializers.SerializerMethodField()

    def get_language(self, guideline: Guideline) -> str:
        """Of the text."""
        return guideline.nearest(reader_language())

    def get_text(self, guideline: Guideline) -> str:
        """Markdown."""
        return guideline.text_in(reader_language())

    @extend_schema_field(FaqWordsOut(many=True))
    def get_faq(self, guideline: Guideline) -> Any:
        """Questions that were answered once for all."""
        return guideline.faq_in(reader_language())


class AssignmentOut(serializers.ModelSerializer[Assignment]):
    """A lease as its annotator sees it: blind, so neither writers nor the purpose are in it."""

    comparison = serializers.IntegerField(source="comparison_id")
    prompt = serializers.ListField(
        child=serializers.DictField(), source="comparison.prompt.messages"
    )
    completions = serializers.SerializerMethodField()
    scheme = SchemeOut()
    guideline = GuidelineOut(allow_null=True)

    class Meta:
        model = Assignment
        fields = (
            "id", "comparison", "kind", "state", "expires_at",
            "prompt", "completions", "scheme", "guideline",
        )  # fmt: skip

    @extend_schema_field(ShownCompletion(many=True))
    def get_completions(self, assignment: Assignment) -> Any:
        """Text by text in the presented order."""
        texts = Completion.objects.in_bulk(assignment.presented_order)
        return [{"id": pk, "text": texts[pk].text} for pk in assignment.presented_order]


class LeaseOut(serializers.ModelSerializer[Assignment]):
    """What becomes of a lease."""

    class Meta:
        model = Assignment
        fields = ("id", "kind", "state", "expires_at", "skip_reason")


class RankingIn(serializers.Serializer[Any]):
    axis = serializers.CharField(max_length=40, default="overall")
    outcome = serializers.ChoiceField(choices=Outcome.choices)
    groups = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField(), max_length=9),
        max_length=9,
        default=list,
        help_text="Completion ids best first; ids of one group are tied.",
    )
    strengths = serializers.ListField(
        child=serializers.FloatField(),
        max_length=8,
        default=list,
        help_text="One number above 0 per gap between groups, or none.",
    )
    acceptable = serializers.IntegerField(
        allow_null=True, default=None, help_text="How many groups from the top are good enough."
    )


class JudgmentIn(serializers.Serializer[Any]):
    completion = serializers.IntegerField()
    ratings = serializers.DictField(child=serializers.IntegerField(), default=dict)
    flags = serializers.ListField(
        child=serializers.CharField(max_length=40), max_length=12, default=list
    )


class PreferenceIn(serializers.Serializer[Any]):
    key = serializers.CharField(
        max_length=MAX_KEY, help_text="Made by the caller, once per answer; a repeat is harmless."
    )
    rankings = RankingIn(many=True, allow_empty=False)
    note = serializers.CharField(max_length=MAX_NOTE, allow_blank=True, default="")
    judgments = JudgmentIn(many=True, default=list)
    ideal = serializers.CharField(
        max_length=MAX_IDEAL,
        allow_blank=True,
        default="",
        trim_whitespace=False,
        help_text="How the answer should have been, where the scheme asks for it.",
    )


class SkipIn(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=MAX_REASON, allow_blank=True, default="")


class VoidIn(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=MAX_REASON)


class RankingOut(serializers.Serializer[Any]):
    axis = serializers.CharField()
    outcome = serializers.ChoiceField(choices=Outcome.choices)
    groups = serializers.ListField(child=serializers.ListField(child=serializers.IntegerField()))
    strengths = serializers.ListField(child=serializers.FloatField())
    acceptable = serializers.IntegerField(allow_null=True)


class JudgmentOut(serializers.Serializer[Any]):
    completion = serializers.IntegerField(source="completion_id")
    ratings = serializers.DictField(child=serializers.IntegerField())
    flags = serializers.ListField(child=serializers.CharField())


class PreferenceOut(serializers.ModelSerializer[Preference]):
    """An answer; its annotator by pseudonym."""

    annotator = serializers.CharField(source="annotator.pseudonym")
    scheme = serializers.IntegerField(source="scheme.version")
    guideline = serializers.IntegerField(source="guideline.version", default=None)
    presented_order = serializers.ListField(child=serializers.IntegerField())
    rankings = RankingOut(many=True)
    judgments = JudgmentOut(many=True)
    ideal = serializers.CharField(source="ideal.text", default=None)

    class Meta:
        model = Preference
        fields = (
            "id", "comparison", "assignment", "annotator", "scheme", "guideline",
            "presented_order", "rankings", "judgments", "ideal", "note", "seconds", "revision",
            "cause", "current", "counted", "voided_at", "void_reason", "created_at",
        )  # fmt: skip


_OWN = Prepared(
    lambda pk, project, user: Assignment.objects.filter(
        pk=pk, project=project, annotator__user=user
    ).select_related("project", "annotator", "scheme", "guideline"),
    pk=1,
    project=1,
    user=1,
)


class ClaimView(ProjectView):
    roles = {"POST": LABEL}

    @extend_schema(request=ClaimIn, responses=AssignmentOut)
    def post(self, request: Request, slug: str) -> Response:
        """Lease a comparison; asking again gives the same one. 404 nothing_to_do says why."""
        kind = validated(ClaimIn, request)["kind"]
        annotator = annotator_for(user=self.user, project=self.project)
        lease = claim_comparison(annotator=annotator, kind=kind, membership=self.membership)
        return Response(shown.lease(lease))


class AssignmentView(ProjectView):
    """The caller's own assignments; everybody else's are 404."""

    roles = {"POST": LABEL}

    def assignment(self, pk: int) -> Assignment:
        is_id = pk < 2**63  # a prepared query goes to the database as it is: SQLite takes no more
        if is_id and (own := _OWN.first(pk=pk, project=self.project.pk, user=self.user.pk)):
            return own
        raise Http404("There is no such assignment of yours.")


class SubmitView(AssignmentView):
    @extend_schema(request=PreferenceIn, responses={201: PreferenceOut})
    def post(self, request: Request, slug: str, assignment_id: int) -> Response:
        """Store an answer. Sent again it returns the first one; a late answer is kept."""
        assignment = self.assignment(assignment_id)
        answer = shown.plain_answer(request.data) or validated(PreferenceIn, request)
        preference = submit_preference(
            assignment=assignment,
            rankings=[AxisRanking(**ranking) for ranking in answer["rankings"]],
            key=answer["key"],
            note=answer["note"],
            judgments=[Judgment(**one) for one in answer["judgments"]],
            ideal=answer["ideal"],
        )
        return Response(shown.answer(preference), status=201)


class SkipView(AssignmentView):
    @extend_schema(request=SkipIn, responses=LeaseOut)
    def post(self, request: Request, slug: str, assignment_id: int) -> Response:
        """Give a comparison back and never see it again."""
        assignment = self.assignment(assignment_id)
        skip = SkipIn(data=request.data)
        skip.is_valid(raise_exception=True)
        skipped = skip_comparison(assignment=assignment, reason=skip.validated_data["reason"])
        return Response(LeaseOut(skipped).data)


class RenewView(AssignmentView):
    @extend_schema(request=None, responses=LeaseOut)
    def post(self, request: Request, slug: str, assignment_id: int) -> Response:
        """Keep a lease; 409 lease_lost once it went to others."""
        return Response(LeaseOut(renew_lease(assignment=self.assignment(assignment_id))).data)


class ReleaseView(AssignmentView):
    @extend_schema(request=None, responses=LeaseOut)
    def post(self, request: Request, slug: str, assignment_id: int) -> Response:
        """Give a lease back unanswered."""
        return Response(LeaseOut(release_lease(assignment=self.assignment(assignment_id))).data)


class PreferencesView(ProjectView):
    roles = {"GET": LABEL}
    pagination_class = NewestFirst

    @extend_schema(
        responses=PreferenceOut(many=True),
        parameters=[OpenApiParameter("mine", bool, description="The caller's own alone.")],
    )
    def get(self, request: Request, slug: str) -> Response:
        """Answers, newest first: a labeler's own; a reviewer's or admin's are everybody's."""
        return self.page(_answers(self, request.query_params.get("mine", "")), PreferenceOut)


class PreferenceView(ProjectView):
    roles = {"GET": LABEL}

    @extend_schema(responses=PreferenceOut)
    def get(self, request: Request, slug: str, preference_id: int) -> Response:
        """One answer that the caller may see."""
        return Response(PreferenceOut(get_object_or_404(_answers(self), pk=preference_id)).data)


class VoidView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=VoidIn, responses=PreferenceOut)
    def post(self, request: Request, slug: str, preference_id: int) -> Response:
        """Take an answer out of everything; its slot opens again."""
        preference = get_object_or_404(self.project.preferences, pk=preference_id)
        void = VoidIn(data=request.data)
        void.is_valid(raise_exception=True)
        voided = void_preference(
            preference=preference, by=self.user, reason=void.validated_data["reason"]
        )
        return Response(PreferenceOut(voided).data)


def _answers(view: ProjectView, mine: str = "") -> Any:
    """What the caller may see, with all that PreferenceOut shows."""
    rows = view.project.preferences.select_related(
        "annotator", "scheme", "guideline", "ideal"
    ).prefetch_related("rankings", "judgments")
    if mine.lower() in ("1", "true", "yes") or view.membership.role not in REVIEW:
        rows = rows.filter(annotator__user=view.user)
    return rows


urlpatterns = [
    path("projects/<slug:slug>/claim", ClaimView.as_view()),
    path("projects/<slug:slug>/assignments/<int:assignment_id>/submit", SubmitView.as_view()),
    path("projects/<slug:slug>/assignments/<int:assignment_id>/skip", SkipView.as_view()),
    path("projects/<slug:slug>/assignments/<int:assignment_id>/renew", RenewView.as_view()),
    path("projects/<slug:slug>/assignments/<int:assignment_id>/release", ReleaseView.as_view()),
    path("projects/<slug:slug>/preferences/", PreferencesView.as_view()),
    path("projects/<slug:slug>/preferences/<int:preference_id>/", PreferenceView.as_view()),
    path("projects/<slug:slug>/preferences/<int:preference_id>/void", VoidView.as_view()),
]
