"""Days of work: how long an annotator was at it, and what was skipped."""

from django.db import models
from django.db.models import Q

from annotation.models.projects import Annotator


class WorkDay(models.Model):
    """One annotator's day, in the time zone of the installation."""

    annotator = models.ForeignKey(Annotator, models.CASCADE, related_name="work_days")
    day = models.DateField()
    active_seconds = models.FloatField(default=0.0)
    """At work by the page's measure, idle taken out, never more than the clock on the wall."""
    skips = models.PositiveIntegerField(default=0)
    sensitive = models.PositiveIntegerField(default=0)
    """Comparisons of sensitive batches that were handed out, answered or not."""
    reported_at = models.DateTimeField(null=True, blank=True)
    """Up to when the clock on the wall has been used."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["annotator", "day"], name="work_day_once"),
            models.CheckConstraint(name="work_day_active", condition=Q(active_seconds__gte=0)),
        ]

    def __str__(self) -> str:
        return f"{self.annotator} on {self.day}"
