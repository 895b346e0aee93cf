"""Answers that a reviewer sent back to whoever gave them, with a comment."""

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.comparisons import Preference
from annotation.models.projects import Annotator, Project


class SendBackState(models.TextChoices):
    OPEN = "open", _("Waiting for the labeler")
    REVISED = "revised", _("Revised")
    DECLINED = "declined", _("Stands as it was")
    VOIDED = "voided", _("Voided")
    WITHDRAWN = "withdrawn", _("Withdrawn")


class SendBackQuerySet(models.QuerySet["SendBack"]):
    """Reads, and the one write: an open row is settled once, and never again."""

    def open(self) -> "SendBackQuerySet":
        """Those that wait for their labeler."""
        return self.filter(state=SendBackState.OPEN)

    def settle(self, state: str, **more: Any) -> int:
        """Move those that are open on; returns how many there were."""
        return self.open().update(state=state, settled_at=timezone.now(), **more)


class SendBack(models.Model):
    """One answer on its way back; services.sendbacks draws its states."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="send_backs")
    preference = models.ForeignKey(Preference, models.PROTECT, related_name="send_backs")
    """The answer as it was when it was sent back."""
    annotator = models.ForeignKey(Annotator, models.PROTECT, related_name="send_backs")
    """Who gave it, and is asked to look again."""
    comment = models.TextField()
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    state = models.CharField(
        max_length=9, choices=SendBackState.choices, default=SendBackState.OPEN
    )
    reply = models.TextField(blank=True, default="")
    """Why the answer stands, in the annotator's words."""
    revision = models.ForeignKey(
        Preference, models.PROTECT, null=True, blank=True, related_name="+"
    )
    """What came of it."""
    created_at = models.DateTimeField(auto_now_add=True)
    settled_at = models.DateTimeField(null=True, blank=True)

    objects = SendBackQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="send_back_state", condition=Q(state__in=SendBackState.values)
            ),
            models.UniqueConstraint(
                fields=["preference"],
                name="send_back_one_open",
                condition=Q(state=SendBackState.OPEN),
            ),
            models.CheckConstraint(
                name="send_back_revised_has_revision",
                condition=Q(state=SendBackState.REVISED, revision__isnull=False)
                | (~Q(state=SendBackState.REVISED) & Q(revision__isnull=True)),
            ),
            models.CheckConstraint(
                name="send_back_declined_has_reply",
                condition=~Q(state=SendBackState.DECLINED) | ~Q(reply=""),
            ),
        ]
        indexes = [
            # the annotator's desk
            models.Index(fields=["annotator", "state", "-id"], name="send_back_of_annotator"),
            # the reviewers' page
            models.Index(fields=["project", "state", "-id"], name="send_back_by_state"),
        ]

    def __str__(self) -> str:
        return f"send-back {self.pk}"
