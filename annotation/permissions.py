"""Who may do what in a project, in one place.

A project is invisible to whoever is not its member: every look at it is 404, never 403.
"""

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet
from django.http import Http404
from django.utils.translation import gettext, gettext_lazy

from annotation.errors import NotAllowed
from annotation.models import Membership, Project, Role, Scope, User
from annotation.prepared import Prepared

SINGULAR = {
    Role.LABELER: gettext_lazy("labeler"),
    Role.REVIEWER: gettext_lazy("reviewer"),
    Role.ADMIN: gettext_lazy("admin"),
    Role.RESEARCHER: gettext_lazy("researcher"),
}
PLURAL = {
    Role.LABELER: gettext_lazy("labelers"),
    Role.REVIEWER: gettext_lazy("reviewers"),
    Role.ADMIN: gettext_lazy("admins"),
    Role.RESEARCHER: gettext_lazy("researchers"),
}
"""Roles in the middle of a sentence."""

NOT_THERE = "There is no such project, or you are not a member of it."
ANY = tuple(Role.values)
LABEL = (Role.LABELER, Role.REVIEWER, Role.ADMIN)
"""Claim, submit, skip, see own answers."""
REVIEW = (Role.REVIEWER, Role.ADMIN)
"""See everybody's answers, void."""
ADMINISTER = (Role.ADMIN,)
"""Members, jobs, promotions, rules."""
RESEARCH = (Role.RESEARCHER, Role.ADMIN)
"""Exports, snapshots."""
WATCH = (Role.REVIEWER, Role.RESEARCHER, Role.ADMIN)
"""See jobs and versions: their logs and samples would tell a labeler who writes like what."""

ROLES_OF_SCOPE: dict[Scope, tuple[str, ...]] = {
    Scope.READ: ANY,
    Scope.LABEL: LABEL,
    Scope.REVIEW: REVIEW,
    Scope.EXPORT: RESEARCH,
    Scope.ADMINISTER: ADMINISTER,
}
"""Whose tokens may be issued for what; a role bounds a token at every request besides."""


def scope_of(method: str, roles: tuple[str, ...]) -> Scope:
    """What a token must be for to do this: READ to look, else what the roles stand for.

    An act of roles that no scope stands for asks for the widest.
    """
    if method in ("GET", "HEAD", "OPTIONS"):
        return Scope.READ
    fitting = (scope for scope, known in ROLES_OF_SCOPE.items() if set(known) == set(roles))
    return next((one for one in fitting if one != Scope.READ), Scope.ADMINISTER)


def scopes_of(user: User, project: Project | None = None) -> list[Scope]:
    """What tokens of a user may be for: in one project, or in any of theirs."""
    if user.is_superuser:
        return list(Scope)
    memberships = Membership.objects.filter(user=user)
    if project is not None:
        memberships = memberships.filter(project=project)
    roles = set(memberships.values_list("role", flat=True))
    if project is None and user.is_staff:
        roles.add(Role.ADMIN)  # who may make a project, and be its admin
    return [scope for scope in Scope if scope == Scope.READ or roles & set(ROLES_OF_SCOPE[scope])]


_MEMBERSHIP = Prepared(
    lambda slug, user: Membership.objects.select_related("project").filter(
        project__slug=slug, user=user
    ),
    slug="",
    user=1,
)


def member(user: User | AnonymousUser, project_slug: str, *roles: str) -> Membership:
    """The user's membership in a project, which must have one of the roles (none given = any).

    A superuser gets an unsaved admin membership anywhere. Raises Http404 where the project does
    not exist or the user is no member, NotAllowed where the role does not suffice.
    """
    if not isinstance(user, User) or not user.is_active:
        raise Http404(NOT_THERE)
    membership = _MEMBERSHIP.first(slug=project_slug, user=user.pk)
    if user.is_superuser:
        return _as_admin(user, project_slug, membership)
    if membership is None:
        raise Http404(NOT_THERE)
    if roles and membership.role not in roles:
        raise NotAllowed(
            gettext("Only %(roles)s may do this; you are a %(role)s of this project.")
            % {"roles": _listed(roles), "role": SINGULAR[Role(membership.role)]}
        )
    return membership


def projects_of(user: User) -> QuerySet[Project]:
    """The projects a user may see, by name."""
    if user.is_superuser:
        return Project.objects.order_by("name", "pk")
    return Project.objects.filter(memberships__user=user).order_by("name", "pk")


def may_found(user: User) -> bool:
    """Whether the user may make a project: superusers, staff, and whoever is an admin somewhere."""
    if user.is_superuser or user.is_staff:
        return True
    return Membership.objects.filter(user=user, role=Role.ADMIN).exists()


def require_founder(user: User) -> None:
    """Raises NotAllowed for a user who may not make projects."""
    if not may_found(user):
        raise NotAllowed(gettext("Only staff and admins of a project may make projects."))


def _as_admin(user: User, project_slug: str, membership: Membership | None) -> Membership:
    if membership is not None:
        project = membership.project
    else:
        found = Project.objects.filter(slug=project_slug).first()
        if found is None:
            raise Http404(NOT_THERE)
        project = found
    return Membership(
        project=project,
        user=user,
        role=Role.ADMIN,
        languages=membership.languages if membership else [],
        skills=membership.skills if membership else [],
    )


def _listed(roles: tuple[str, ...]) -> str:
    names = [str(PLURAL[Role(role)]) for role in roles]
    return gettext(" and ").join(filter(None, [gettext(", ").join(names[:-1]), names[-1]]))
