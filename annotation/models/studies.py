"""Studies: what was measured of a project's votes with the features of a reward model."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.models.projects import Project
from annotation.models.registry import DatasetSnapshot, ModelVersion


class StudyState(models.TextChoices):
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    DONE = "done", _("Done")
    FAILED = "failed", _("Failed")


class Study(models.Model):
    """A wish to know what each annotator, batch and guideline version did for dev log loss, and
    what came out. The row is the message.

    Whoever works on it claims it by a conditional update and is fenced by `attempt`.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="studies")
    reward = models.ForeignKey(ModelVersion, models.PROTECT, related_name="studies")
    """Whose features, and the scores that are stored on the way."""
    snapshot = models.ForeignKey(
        DatasetSnapshot, models.PROTECT, null=True, blank=True, related_name="studies"
    )
    state = models.CharField(max_length=7, choices=StudyState.choices, default=StudyState.QUEUED)
    result = models.JSONField(default=dict, blank=True)
    """As rewardmodel/contributions.py has it."""
    error = models.TextField(blank=True, default="")
    attempt = models.PositiveIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    step = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            # a second press of the button finds the first one's row
            models.UniqueConstraint(
                fields=["project"],
                name="study_one_at_work",
                condition=Q(state="queued") | Q(state="running"),
            ),
            models.CheckConstraint(name="study_state", condition=Q(state__in=StudyState.values)),
        ]
        indexes = [models.Index(fields=["project", "-id"], name="study_newest_first")]

    def __str__(self) -> str:
        return f"study {self.pk}"
