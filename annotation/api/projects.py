"""Projects and their members."""

from typing import Any

from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.views import ApiView, NewestFirst, ProjectView
from annotation.errors import BadInput, NotAllowed
from annotation.models import Membership, Project, Role, User
from annotation.permissions import ADMINISTER, ANY, projects_of, require_founder
from annotation.services.projects import (
    add_member,
    change_member,
    create_project,
    remove_member,
)


class NamesField(serializers.ListField):
    """Languages or skills."""

    child = serializers.CharField(max_length=40)


class ProjectIn(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=120)
    slug = serializers.CharField(max_length=60)
    description = serializers.CharField(max_length=5000, allow_blank=True, default="")
    axes = serializers.ListField(
        child=serializers.CharField(max_length=40), min_length=1, max_length=9, default=["overall"]
    )


class ProjectOut(serializers.ModelSerializer[Project]):
    class Meta:
        model = Project
        fields = ("slug", "name", "description", "created_at")


class MemberIn(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=150)
    role = serializers.ChoiceField(choices=Role.choices)
    languages = NamesField(max_length=50, default=list)
    skills = NamesField(max_length=50, default=list)


class MemberChange(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=Role.choices, required=False)
    languages = NamesField(max_length=50, required=False)
    skills = NamesField(max_length=50, required=False)


class MemberOut(serializers.ModelSerializer[Membership]):
    username = serializers.CharField(source="user.username")
    languages = NamesField()
    skills = NamesField()

    class Meta:
        model = Membership
        fields = ("id", "username", "role", "languages", "skills", "created_at")


class ProjectsView(ApiView):
    pagination_class = NewestFirst

    @extend_schema(responses=ProjectOut(many=True))
    def get(self, request: Request) -> Response:
        """The projects that the caller is a member of, newest first."""
        projects = projects_of(self.user)
        if self.token and self.token.project_id:
            projects = projects.filter(pk=self.token.project_id)
        return self.page(projects, ProjectOut)

    @extend_schema(request=ProjectIn, responses={201: ProjectOut})
    def post(self, request: Request) -> Response:
        """Make a project and become its admin."""
        require_founder(self.user)
        if self.token and self.token.project_id:
            raise NotAllowed("This token opens one project; it makes no others.")
        wanted = ProjectIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        project = create_project(by=self.user, **wanted.validated_data)
        return Response(ProjectOut(project).data, status=201)


class OneProjectView(ProjectView):
    roles = {"GET": ANY}

    @extend_schema(responses=ProjectOut)
    def get(self, request: Request, slug: str) -> Response:
        """One project."""
        return Response(ProjectOut(self.project).data)


class MembersView(ProjectView):
    roles = {"GET": ADMINISTER, "POST": ADMINISTER}
    pagination_class = NewestFirst

    @extend_schema(responses=MemberOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Everyone who works on the project."""
        return self.page(self.project.memberships.select_related("user"), MemberOut)

    @extend_schema(request=MemberIn, responses={201: MemberOut})
    def post(self, request: Request, slug: str) -> Response:
        """Let an existing user in."""
        wanted = MemberIn(data=request.data)
        wanted.is_valid(raise_exception=True)
        username = wanted.validated_data.pop("username")
        user = User.objects.filter(username=username, is_active=True).first()
        if user is None:
            raise BadInput(f"There is no user {username!r}.")
        membership = add_member(
            project=self.project, user=user, by=self.user, **wanted.validated_data
        )
        return Response(MemberOut(membership).data, status=201)


class MemberView(ProjectView):
    roles = {"PATCH": ADMINISTER, "DELETE": ADMINISTER}

    def _member(self, member_id: int) -> Membership:
        return get_object_or_404(
            self.project.memberships.select_related("user", "project"), pk=member_id
        )

    @extend_schema(request=MemberChange, responses=MemberOut)
    def patch(self, request: Request, slug: str, member_id: int) -> Response:
        """Change a role, the languages or the skills."""
        membership = self._member(member_id)
        change = MemberChange(data=request.data)
        change.is_valid(raise_exception=True)
        change_member(membership=membership, by=self.user, **change.validated_data)
        return Response(MemberOut(membership).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str, member_id: int) -> Response:
        """Take the project from a member; their answers stay."""
        remove_member(membership=self._member(member_id), by=self.user)
        return Response(status=204)


urlpatterns = [
    path("projects/", ProjectsView.as_view()),
    path("projects/<slug:slug>/", OneProjectView.as_view()),
    path("projects/<slug:slug>/members/", MembersView.as_view()),
    path("projects/<slug:slug>/members/<int:member_id>/", MemberView.as_view()),
]
