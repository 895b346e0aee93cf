"""Model versions and what is in force: listed, promoted, rolled back."""

from typing import Any

from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.views import NewestFirst, ProjectView
from annotation.models import ModelVersion, Promotion, Slot
from annotation.permissions import ADMINISTER, WATCH
from annotation.services.versions import KIND_OF_SLOT, promote, roll_back, versions_of


class VersionOut(serializers.ModelSerializer[ModelVersion]):
    class Meta:
        model = ModelVersion
        fields = (
            *("id", "kind", "stage", "name", "path", "sha256", "licence", "created_at", "job"),
            *("init", "reference", "reward", "value_init", "snapshot", "metrics"),
        )


class PromotionOut(serializers.ModelSerializer[Promotion]):
    by = serializers.SlugRelatedField[Any](slug_field="username", read_only=True)

    class Meta:
        model = Promotion
        fields = ("id", "slot", "version", "verdict", "numbers", "by", "created_at")


class PromoteIn(serializers.Serializer[Any]):
    slot = serializers.ChoiceField(
        choices=Slot.choices, required=False, help_text="Left out: policy or reward, as it fits."
    )


class VersionsView(ProjectView):
    roles = {"GET": WATCH}
    pagination_class = NewestFirst

    @extend_schema(responses=VersionOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Versions that the project made or put in force, newest first."""
        return self.page(versions_of(self.project), VersionOut)


class VersionView(ProjectView):
    roles = {"GET": WATCH}

    @extend_schema(responses=VersionOut)
    def get(self, request: Request, slug: str, version_id: int) -> Response:
        """One version; metrics.gate is its gate's verdict, once it has one."""
        return Response(
            VersionOut(get_object_or_404(versions_of(self.project), pk=version_id)).data
        )


class PromoteView(ProjectView):
    roles = {"POST": ADMINISTER}

    @extend_schema(request=PromoteIn, responses={201: PromotionOut})
    def post(self, request: Request, slug: str, version_id: int) -> Response:
        """Put a version in force, whatever its gate said; the gate's numbers are kept with it."""
        wish = PromoteIn(data=request.data)
        wish.is_valid(raise_exception=True)
        version = get_object_or_404(versions_of(self.project), pk=version_id)
        fits = next(slot for slot, kind in KIND_OF_SLOT.items() if kind == version.kind)
        promotion = promote(
            project=self.project,
            slot=wish.validated_data.get("slot", fits),
            version=version,
            verdict="by_admin",
            numbers=version.metrics.get("gate", {}),
            by=self.user,
        )
        return Response(PromotionOut(promotion).data, status=201)


class PromotionsView(ProjectView):
    roles = {"GET": WATCH}
    pagination_class = NewestFirst

    @extend_schema(responses=PromotionOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """What was put in force, newest first; the newest of a slot is in force."""
        return self.page(self.project.promotions.select_related("by"), PromotionOut)


class RollBackView(ProjectView):
    roles = {"POST": ADMINISTER}

    @extend_schema(request=None, responses={201: PromotionOut})
    def post(self, request: Request, slug: str, slot: str) -> Response:
        """Put the version before the one in force back. 409 where there is none."""
        promotion = roll_back(project=self.project, slot=slot, by=self.user)
        return Response(PromotionOut(promotion).data, status=201)


urlpatterns = [
    path("projects/<slug:slug>/versions/", VersionsView.as_view(), name="versions"),
    path("projects/<slug:slug>/versions/<int:version_id>/", VersionView.as_view(), name="version"),
    path("projects/<slug:slug>/versions/<int:version_id>/promote", PromoteView.as_view()),
    path("projects/<slug:slug>/promotions/", PromotionsView.as_view()),
    path("projects/<slug:slug>/slots/<slug:slot>/rollback", RollBackView.as_view()),
]
