"""Keys to the REST API: issued for some acts, revoked for ever."""

import hashlib
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput
from annotation.models import ApiToken, Project, Scope, User
from annotation.permissions import projects_of, scopes_of
from annotation.services.audit import record

TOKEN_MARK = "concord_"
MAX_DAYS = 3650


@transaction.atomic
def issue_token(
    *,
    user: User,
    name: str,
    scopes: Collection[str] | None = None,
    project: Project | None = None,
    expires_at: datetime | None = None,
    by: User | None = None,
) -> tuple[ApiToken, str]:
    """A new API token and its plaintext, which is nowhere kept: show it once.

    scopes: what it may be used for, None = all that the user's roles allow. project: the only one
    it opens. Raises BadInput for more than the roles allow, a project that the user is no member
    of, or an end that is past.
    """
    name = name.strip()
    if not name or len(name) > 80:
        raise BadInput(
            gettext("A token needs a name of 1 to 80 characters: %(seen)r.") % {"seen": name[:90]}
        )
    if project is not None and not projects_of(user).filter(pk=project.pk).exists():
        raise BadInput(
            gettext("%(name)s is no member of a project %(project)r.")
            % {"name": user.get_username(), "project": project.slug}
        )
    if expires_at is not None and expires_at <= timezone.now():
        raise BadInput(
            gettext("A token can't end in the past: %(seen)s.")
            % {"seen": f"{expires_at:%Y-%m-%d %H:%M}"}
        )
    plaintext = TOKEN_MARK + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        user=user,
        name=name,
        prefix=plaintext[:12],
        digest=token_digest(plaintext),
        scopes=_allowed(scopes, scopes_of(user, project)),
        project=project,
        expires_at=expires_at,
    )
    record(
        action="token.issue",
        target=token,
        actor=by or user,
        name=name,
        user=user.pk,
        scopes=token.scopes,
        only_project=project.slug if project else None,
        expires_at=expires_at.isoformat() if expires_at else None,
    )
    return token, plaintext


def _allowed(wanted: Collection[str] | None, allowed: list[Scope]) -> list[str]:
    """In the order of Scope. Raises BadInput for what is unknown or more than the roles allow."""
    if wanted is None:
        return [scope.value for scope in allowed]
    if unknown := sorted(set(wanted) - set(Scope.values)):
        raise BadInput(f"A scope is one of {', '.join(Scope.values)}: {unknown[0]!r}.")
    if not wanted:
        raise BadInput(f"A token needs one or more scopes out of {', '.join(allowed)}.")
    if beyond := [scope.value for scope in Scope if scope in wanted and scope not in allowed]:
        raise BadInput(
            gettext("Your roles there allow %(allowed)s, not %(beyond)s.")
            % {"allowed": ", ".join(allowed), "beyond": beyond[0]}
        )
    return [scope.value for scope in Scope if scope in wanted]


@transaction.atomic
def revoke_token(*, token: ApiToken, by: User | None) -> None:
    """Close a token for ever; closing it twice is closing it once."""
    if ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
        record(action="token.revoke", target=token, actor=by, name=token.name)
    token.refresh_from_db(fields=["revoked_at"])


def touch_token(token: ApiToken) -> None:
    """Note that a token was used, at most once a minute: a request should not cost a write."""
    now = timezone.now()
    minute_ago = now - timedelta(minutes=1)
    if token.last_used_at is None or token.last_used_at < minute_ago:
        ApiToken.objects.filter(
            Q(last_used_at=None) | Q(last_used_at__lt=minute_ago), pk=token.pk
        ).update(last_used_at=now)


def in_days(days: int | None) -> datetime | None:
    """The end of a token that lives so long; None = no end. Raises BadInput."""
    if days is None:
        return None
    if not 1 <= days <= MAX_DAYS:
        raise BadInput(
            gettext("A token lives 1 to %(most)s days: %(seen)s.")
            % {"most": MAX_DAYS, "seen": days}
        )
    return timezone.now() + timedelta(days=days)


def token_digest(plaintext: str) -> str:
    """What is kept of a token. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(plaintext.encode()).hexdigest()
