"""Mails that the ledger owes: one row for each event and person, written with the event itself."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.models.projects import Project


class MailKind(models.TextChoices):
    JOB_FAILED = "job_failed", _("A job failed")
    GATE_REFUSED = "gate_refused", _("A gate refused")
    BELOW_BAR = "below_bar", _("A labeler fell below the bar")


class Mail(models.Model):
    """To be sent by a worker. A retry of what it tells of writes no second row."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="mails")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="mails")
    kind = models.CharField(max_length=20, choices=MailKind.choices)
    event = models.CharField(max_length=120)
    """What it tells of, e.g. job:12."""
    facts = models.JSONField()
    """What the text is made from, in the reader's language, as it is sent."""
    created_at = models.DateTimeField(auto_now_add=True)
    tries = models.PositiveSmallIntegerField(default=0)
    next_try_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["event", "user"], name="mail_once"),
            models.CheckConstraint(name="mail_kind", condition=Q(kind__in=MailKind.values)),
        ]
        indexes = [
            # services.mails.send_waiting
            models.Index(fields=["next_try_at"], name="mail_waiting", condition=Q(sent_at=None))
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.event} to {self.user_id}"
