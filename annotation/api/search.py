"""Search, tags and asking again."""

from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.views import NewestFirst, ProjectView, validated
from annotation.asking import MADE_AS
from annotation.models import Comparison, Split
from annotation.permissions import REVIEW, WATCH
from annotation.services.search import (
    MOST_AT_ONCE,
    MOST_TAG,
    Wanted,
    ask_again,
    found,
    tag_comparisons,
    tags_of,
    untag_comparisons,
)

LARGEST_ID = 2**63 - 1


class WantedIn(serializers.Serializer[Any]):
    """services.search.Wanted; what is left out asks nothing."""

    text = serializers.CharField(
        required=False,
        max_length=500,
        allow_blank=True,
        help_text='Words anywhere; "in quotation marks" behind each other; Chinese as it stands.',
    )
    version = serializers.IntegerField(
        required=False, max_value=LARGEST_ID, help_text="Id of a policy that wrote."
    )
    annotator = serializers.CharField(required=False, help_text="Pseudonym of who answered.")
    flag = serializers.CharField(required=False)
    disputed = serializers.BooleanField(required=False, help_text="People disagree.")
    tag = serializers.CharField(required=False)
    language = serializers.CharField(required=False)
    split = serializers.ChoiceField(choices=Split.choices, required=False)
    made_as = serializers.ChoiceField(choices=list(MADE_AS), required=False)
    score_from = serializers.FloatField(required=False, help_text="By the reward model in force.")
    score_to = serializers.FloatField(required=False)


class FoundOut(serializers.ModelSerializer[Comparison]):
    prompt = serializers.ListField(child=serializers.DictField(), source="prompt.messages")
    completions = serializers.SerializerMethodField()
    tags = serializers.SlugRelatedField[Any](slug_field="name", many=True, read_only=True)
    batch = serializers.CharField(source="batch.name")
    split = serializers.CharField(source="prompt.split")

    class Meta:
        model = Comparison
        fields = (
            *("id", "purpose", "batch", "split", "language", "prompt", "completions", "tags"),
            *("answers_wanted", "open_slots", "retired_at"),
        )

    def get_completions(self, comparison: Comparison) -> list[str]:
        """In their stored order."""
        return [entry.completion.text for entry in comparison.entries.all()]


class SomeIn(serializers.Serializer[Any]):
    comparisons = serializers.ListField(
        child=serializers.IntegerField(max_value=LARGEST_ID),
        min_length=1,
        max_length=MOST_AT_ONCE,
    )


class TaggedIn(SomeIn):
    name = serializers.CharField(max_length=MOST_TAG)


class ChangedOut(serializers.Serializer[Any]):
    changed = serializers.IntegerField(help_text="How many comparisons.")


class SearchView(ProjectView):
    roles = {"GET": WATCH}
    pagination_class = NewestFirst

    @extend_schema(
        responses=FoundOut(many=True), parameters=[WantedIn, OpenApiParameter("cursor", str)]
    )
    def get(self, request: Request, slug: str) -> Response:
        """Comparisons by their text and by what is known of them, newest first."""
        wanted = WantedIn(data=request.query_params)
        wanted.is_valid(raise_exception=True)
        rows = found(self.project, Wanted(**wanted.validated_data))
        more = rows.select_related("prompt", "batch")
        return self.page(more.prefetch_related("entries__completion", "tags"), FoundOut)


class TagsView(ProjectView):
    roles = {"GET": WATCH, "POST": REVIEW, "DELETE": REVIEW}

    @extend_schema(responses=serializers.ListSerializer(child=serializers.CharField()))
    def get(self, request: Request, slug: str) -> Response:
        """The names of the project's tags."""
        return Response(tags_of(self.project))

    @extend_schema(request=TaggedIn, responses=ChangedOut)
    def post(self, request: Request, slug: str) -> Response:
        """Give a tag to comparisons; what has it already is not counted."""
        wish = validated(TaggedIn, request)
        changed = tag_comparisons(project=self.project, by=self.user, **wish)
        return Response({"changed": changed})

    @extend_schema(request=TaggedIn, responses=ChangedOut)
    def delete(self, request: Request, slug: str) -> Response:
        """Take a tag from comparisons."""
        wish = validated(TaggedIn, request)
        changed = untag_comparisons(project=self.project, by=self.user, **wish)
        return Response({"changed": changed})


class AskAgainView(ProjectView):
    roles = {"POST": REVIEW}

    @extend_schema(request=SomeIn, responses=ChangedOut)
    def post(self, request: Request, slug: str) -> Response:
        """Want one more answer to each, of somebody who has not seen it."""
        wish = validated(SomeIn, request)
        return Response({"changed": ask_again(project=self.project, by=self.user, **wish)})


urlpatterns = [
    path("projects/<slug:slug>/search/", SearchView.as_view()),
    path("projects/<slug:slug>/tags/", TagsView.as_view()),
    path("projects/<slug:slug>/ask-again", AskAgainView.as_view()),
]
