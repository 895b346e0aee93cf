"""Orders to void much at once, which are carried out a few answers at a time."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from annotation.models.projects import Annotator, Project


class RangeVoid(models.Model):
    """All answers of one annotator that were given in a range of time are to be void.

    The row is the message: whoever carries it out voids answer by answer, and what is left after a
    crash is found by the next look.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="range_voids")
    annotator = models.ForeignKey(Annotator, models.PROTECT, related_name="range_voids")
    since = models.DateTimeField()
    until = models.DateTimeField()
    """Not included."""
    reason = models.CharField(max_length=200)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    num_voided = models.PositiveIntegerField(default=0)
    num_reopened = models.PositiveIntegerField(default=0)
    """Of these, how many held a slot."""
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(name="range_void_range", condition=Q(since__lt=F("until")))
        ]
        indexes = [
            # services.voiding.unfinished
            models.Index(
                fields=["id"], name="range_void_unfinished", condition=Q(finished_at__isnull=True)
            )
        ]

    def __str__(self) -> str:
        return f"void of {self.annotator_id} from {self.since} to {self.until}"
