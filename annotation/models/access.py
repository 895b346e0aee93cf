"""Keys to the REST API and invitations into a project: what for, where, and until when."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.projects import Project, Role


class Scope(models.TextChoices):
    """What a token may be used for; the role of its user bounds it at every request."""

    READ = "read", _("look")
    LABEL = "label", _("label")
    REVIEW = "review", _("review")
    EXPORT = "export", _("export datasets and models")
    ADMINISTER = "administer", _("administer: members, jobs, versions, rules")


def all_scopes() -> list[str]:
    """What tokens had before there were scopes."""
    return list(Scope.values)


class ApiToken(models.Model):
    """A user's key to the REST API; only its SHA-256 is kept, the key itself is shown once."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=12)
    """The first characters, so that its owner can tell tokens apart."""
    digest = models.CharField(max_length=64, unique=True)
    scopes = models.JSONField(default=all_scopes)
    project = models.ForeignKey(
        Project, models.CASCADE, null=True, blank=True, related_name="api_tokens"
    )
    """The one project it opens; none = all of its user's."""
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @property
    def is_live(self) -> bool:
        """True while the token opens the API."""
        return self.revoked_at is None and not self.is_expired

    @property
    def is_expired(self) -> bool:
        """True from its last moment on."""
        return self.expires_at is not None and self.expires_at <= timezone.now()


class InvitationState(models.TextChoices):
    OPEN = "open", _("open")
    USED_UP = "used_up", _("used up")
    EXPIRED = "expired", _("expired")
    REVOKED = "revoked", _("revoked")


class Invitation(models.Model):
    """A link that makes whoever opens it a member; only its secret's SHA-256 is kept."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="invitations")
    digest = models.CharField(max_length=64, unique=True)
    role = models.CharField(max_length=12, choices=Role.choices)
    languages = models.JSONField(default=list, blank=True)
    skills = models.JSONField(default=list, blank=True)
    note = models.CharField(max_length=200, blank=True, default="")
    """Whom it is for, for the admins alone: a name, an address."""
    uses_allowed = models.PositiveIntegerField(default=1)
    uses = models.PositiveIntegerField(default=0)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(name="invitation_role", condition=Q(role__in=Role.values)),
            models.CheckConstraint(
                name="invitation_uses", condition=Q(uses__lte=F("uses_allowed"))
            ),
        ]

    def __str__(self) -> str:
        return f"invitation of a {self.role} into {self.project}"

    @property
    def state(self) -> InvitationState:
        """Whether it opens the project, or why it doesn't any more."""
        if self.revoked_at is not None:
            return InvitationState.REVOKED
        if self.uses >= self.uses_allowed:
            return InvitationState.USED_UP
        if self.expires_at <= timezone.now():
            return InvitationState.EXPIRED
        return InvitationState.OPEN
