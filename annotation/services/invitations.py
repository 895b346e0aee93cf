"""Invitations by link: made by an admin, opened by whoever holds the link, counted exactly.

Only POST joins: a mail program or a browser that looks ahead uses nothing up.
"""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict, NotAllowed
from annotation.models import (
    AuditEntry,
    Invitation,
    InvitationState,
    Membership,
    Project,
    Role,
    User,
)
from annotation.services.audit import name_of, record
from annotation.services.projects import add_member, clean_names, require_role

MAX_USES = 1000
MAX_DAYS = 90


@transaction.atomic
def invite(
    *,
    project: Project,
    role: str,
    by: User | None,
    languages: Sequence[str] = (),
    skills: Sequence[str] = (),
    uses: int = 1,
    days: int = 7,
    note: str = "",
) -> tuple[Invitation, str]:
    """A new invitation and the secret of its link, which is nowhere kept: show it once.

    uses: how many people may join by it. days: how long it lives. note: whom it is for.
    """
    require_role(role)
    if not 1 <= uses <= MAX_USES:
        raise BadInput(f"An invitation is for 1 to {MAX_USES} people: {uses}.")
    if not 1 <= days <= MAX_DAYS:
        raise BadInput(f"An invitation lives 1 to {MAX_DAYS} days: {days}.")
    if len(note) > 200:
        raise BadInput(f"A note has at most 200 characters, not {len(note)}.")
    secret = secrets.token_urlsafe(32)
    invitation = Invitation.objects.create(
        project=project,
        digest=_digest(secret),
        role=role,
        languages=clean_names(languages, "language"),
        skills=clean_names(skills, "skill"),
        note=note.strip(),
        uses_allowed=uses,
        created_by=by,
        expires_at=timezone.now() + timedelta(days=days),
    )
    record(
        action="invitation.make",
        target=invitation,
        project=project,
        actor=by,
        role=role,
        uses=uses,
        expires_at=invitation.expires_at.isoformat(),
    )
    return invitation, secret


def find_invitation(secret: str) -> Invitation | None:
    """The invitation of a link, whatever has become of it."""
    return (
        Invitation.objects.select_related("project", "created_by")
        .filter(digest=_digest(secret))
        .first()
    )


@transaction.atomic
def accept_invitation(*, invitation: Invitation, user: User) -> Membership:
    """Make the user a member, and use the invitation up by one.

    Raises Conflict, and uses nothing up, for one who is a member already or where the invitation
    is used up, expired or revoked; of many who come at once exactly `uses_allowed` get in.
    Raises NotAllowed for somebody who was removed after the link was made: a newer one lets them
    in again.
    """
    if Membership.objects.filter(project=invitation.project, user=user).exists():
        raise Conflict(
            gettext("%(name)s is a member of this project already.") % {"name": user.get_username()}
        )
    require_not_removed(user, invitation)
    if state_of(invitation) == InvitationState.REVOKED:
        raise Conflict(_closed(InvitationState.REVOKED))
    taken = Invitation.objects.filter(
        pk=invitation.pk,
        revoked_at=None,
        expires_at__gt=timezone.now(),
        uses__lt=F("uses_allowed"),
    ).update(uses=F("uses") + 1)
    invitation.refresh_from_db(fields=["uses", "revoked_at", "expires_at"])
    if not taken:
        raise Conflict(_closed(invitation.state))
    membership = add_member(
        project=invitation.project,
        user=user,
        role=invitation.role,
        by=invitation.created_by,
        languages=invitation.languages,
        skills=invitation.skills,
    )
    record(
        action="invitation.accept",
        target=invitation,
        project=invitation.project,
        actor=user,
        role=invitation.role,
    )
    return membership


@transaction.atomic
def join_with_new_account(*, invitation: Invitation, user: User) -> Membership:
    """Save a new user, with a password set, as a member: both or neither.

    Raises BadInput where somebody else has the name, also one who took it at this moment.
    """
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError:  # the name is all that is unique about a new user
        raise BadInput(gettext("A user with that username already exists.")) from None
    record(action="user.create", target=user, actor=user, username=user.get_username())
    return accept_invitation(invitation=invitation, user=user)


@transaction.atomic
def revoke_invitation(*, invitation: Invitation, by: User | None) -> None:
    """Close a link for ever; who came by it stays. Closing it twice is closing it once."""
    open_still = Invitation.objects.filter(pk=invitation.pk, revoked_at=None)
    if open_still.update(revoked_at=timezone.now()):
        record(action="invitation.revoke", target=invitation, project=invitation.project, actor=by)
    invitation.refresh_from_db(fields=["revoked_at"])


def require_not_removed(user: User, invitation: Invitation) -> None:
    """Raises NotAllowed where an admin took the project from the user while the link was out."""
    removals = AuditEntry.objects.filter(
        project=invitation.project_id,
        action="member.remove",
        target=name_of(user),
        created_at__gte=invitation.created_at,
    )
    if removals.exists():
        raise NotAllowed(
            gettext(
                "You were removed from this project after this invitation was made. "
                "Ask an admin of the project for a new one."
            )
        )


def state_of(invitation: Invitation) -> InvitationState:
    """Whether the link opens the project; one of an admin who is none any more does not."""
    inviter = invitation.created_by
    if inviter is not None and not _administers(inviter, invitation.project):
        return InvitationState.REVOKED
    return invitation.state


def _administers(user: User, project: Project) -> bool:
    if not user.is_active:
        return False
    admins = Membership.objects.filter(user=user, project=project, role=Role.ADMIN)
    return user.is_superuser or admins.exists()


def _closed(state: InvitationState) -> str:
    return f"This invitation is {state.label}."


def _digest(secret: str) -> str:
    """256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
