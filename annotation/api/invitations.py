"""Invitations by link: made, listed and revoked. Joining by one is for people, in a browser."""

from typing import Any

from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.projects import NamesField
from annotation.api.views import NewestFirst, ProjectView
from annotation.models import Invitation, InvitationState, Role
from annotation.permissions import ADMINISTER
from annotation.services.invitations import (
    MAX_DAYS,
    MAX_USES,
    invite,
    revoke_invitation,
    state_of,
)


class InvitationIn(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=Role.choices)
    languages = NamesField(max_length=50, default=list)
    skills = NamesField(max_length=50, default=list)
    uses = serializers.IntegerField(min_value=1, max_value=MAX_USES, default=1)
    days = serializers.IntegerField(min_value=1, max_value=MAX_DAYS, default=7)
    note = serializers.CharField(max_length=200, allow_blank=True, default="")


class InvitationOut(serializers.ModelSerializer[Invitation]):
    languages = NamesField()
    skills = NamesField()
    state = serializers.SerializerMethodField()

    class Meta:
        model = Invitation
        fields: tuple[str, ...] = (
            *("id", "role", "languages", "skills", "note", "uses", "uses_allowed"),
            *("state", "created_at", "expires_at", "revoked_at"),
        )

    def get_state(self, invitation: Invitation) -> InvitationState:
        """Whether it opens the project, or why not any more."""
        return state_of(invitation)


class NewInvitationOut(InvitationOut):
    link = serializers.SerializerMethodField()

    class Meta(InvitationOut.Meta):
        fields = (*InvitationOut.Meta.fields, "link")

    def get_link(self, invitation: Invitation) -> str:
        """Shown once."""
        return str(self.context["link"])


class InvitationsView(ProjectView):
    roles = {"GET": ADMINISTER, "POST": ADMINISTER}
    pagination_class = NewestFirst

    @extend_schema(responses=InvitationOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """The project's invitations, newest first."""
        rows = self.project.invitations.select_related("project", "created_by")
        return self.page(rows, InvitationOut)

    @extend_schema(request=InvitationIn, responses={201: NewInvitationOut})
    def post(self, request: Request, slug: str) -> Response:
        """Make an invitation; its link is in this one answer and nowhere else."""
        wish = InvitationIn(data=request.data)
        wish.is_valid(raise_exception=True)
        invitation, secret = invite(project=self.project, by=self.user, **wish.validated_data)
        link = request.build_absolute_uri(reverse("join", args=[secret]))
        return Response(NewInvitationOut(invitation, context={"link": link}).data, status=201)


class RevokeInvitationView(ProjectView):
    roles = {"POST": ADMINISTER}

    @extend_schema(request=None, responses=InvitationOut)
    def post(self, request: Request, slug: str, invitation_id: int) -> Response:
        """Close a link; who came by it stays."""
        invitation = get_object_or_404(self.project.invitations, pk=invitation_id)
        revoke_invitation(invitation=invitation, by=self.user)
        return Response(InvitationOut(invitation).data)


urlpatterns = [
    path("projects/<slug:slug>/invitations/", InvitationsView.as_view()),
    path(
        "projects/<slug:slug>/invitations/<int:invitation_id>/revoke",
        RevokeInvitationView.as_view(),
    ),
]
