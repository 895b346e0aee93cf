"""Who did what, for ever."""

from typing import Any, NoReturn

from django.conf import settings
from django.db import models

from annotation.models.projects import Project


class AuditEntry(models.Model):
    """One act. Append only: the model refuses changes, and so does the database."""

    project = models.ForeignKey(
        Project, models.PROTECT, null=True, blank=True, related_name="audit_entries"
    )
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True)
    """None = a worker or a command."""
    action = models.CharField(max_length=60)
    """A verb with its object, e.g. preference.void or version.promote."""
    target = models.CharField(max_length=120, blank=True, default="")
    """What it was done to, e.g. preference:812."""
    data = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["project", "-id"], name="audit_newest_first")]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.action} {self.target}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert only."""
        if self.pk is not None:
            raise TypeError("An audit entry is never changed.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("An audit entry is never deleted.")
