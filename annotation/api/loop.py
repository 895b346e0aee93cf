"""The settings of a project's loop and its retrain rule."""

from typing import Any

from django.db import transaction
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.views import ProjectView
from annotation.models import Project, RetrainRule
from annotation.permissions import ADMINISTER, RESEARCH
from annotation.services.loop import LOOP_FIELDS, RULE_FIELDS, change_loop, change_rule


class RuleOut(serializers.ModelSerializer[RetrainRule]):
    class Meta:
        model = RetrainRule
        fields = RULE_FIELDS


class LoopOut(serializers.ModelSerializer[Project]):
    rule = RuleOut(source="retrain_rule", allow_null=True)

    class Meta:
        model = Project
        fields = (*LOOP_FIELDS, "rule")


class RuleIn(serializers.Serializer[Any]):
    enabled = serializers.BooleanField(required=False)
    after_preferences = serializers.IntegerField(required=False, allow_null=True, min_value=1)
    every_minutes = serializers.IntegerField(required=False, allow_null=True, min_value=1)
    ppo_after_reward = serializers.BooleanField(required=False)


class LoopIn(serializers.Serializer[Any]):
    auto_promote = serializers.BooleanField(required=False)
    open_target = serializers.IntegerField(required=False, min_value=0, max_value=100_000)
    heldout_share = serializers.FloatField(required=False, min_value=0, max_value=1)
    asking = serializers.DictField(
        required=False,
        help_text="Shares of same, in_force, reference and anchor, which sum to 1, and "
        "length_matched; {} = same alone.",
    )
    completions_per_comparison = serializers.IntegerField(required=False, min_value=2, max_value=9)
    answers_wanted = serializers.IntegerField(required=False, min_value=1, max_value=1000)
    kl_budget_nats = serializers.FloatField(required=False, min_value=0)
    catch_leaks = serializers.BooleanField(required=False)
    catch_alike = serializers.BooleanField(required=False)
    job_defaults = serializers.DictField(required=False)
    rule = RuleIn(required=False)


class LoopView(ProjectView):
    roles = {"GET": RESEARCH, "PATCH": ADMINISTER}

    @extend_schema(responses=LoopOut)
    def get(self, request: Request, slug: str) -> Response:
        """How the loop turns."""
        return Response(LoopOut(self.project).data)

    @extend_schema(request=LoopIn, responses=LoopOut)
    def patch(self, request: Request, slug: str) -> Response:
        """Change what is given; the rest stays."""
        wanted = LoopIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        changes = dict(wanted.validated_data)
        rule = changes.pop("rule", None)
        with transaction.atomic():
            if changes:
                change_loop(project=self.project, changes=changes, by=self.user)
            if rule:
                change_rule(project=self.project, changes=rule, by=self.user)
        return Response(LoopOut(Project.objects.get(pk=self.project.pk)).data)


urlpatterns = [path("projects/<slug:slug>/loop", LoopView.as_view(), name="loop")]
