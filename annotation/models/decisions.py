"""How near the answers to a comparison lie to each other, and what a reviewer decided."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.comparisons import Comparison
from annotation.models.projects import Annotator, Project, Scheme


class Decision(models.Model):
    """A reviewer's word on a comparison, beside its votes and never one of them.

    Append only: a later one takes an earlier one's place, and the earlier row stays.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="decisions")
    comparison = models.ForeignKey(Comparison, models.PROTECT, related_name="decisions")
    by = models.ForeignKey(Annotator, models.PROTECT, related_name="decisions")
    scheme = models.ForeignKey(Scheme, models.PROTECT)
    number = models.PositiveIntegerField(default=1)
    """Counts the decisions of a comparison."""
    presented_order = models.JSONField()
    rankings = models.JSONField(default=list, blank=True)
    """One object per axis, as services.rankings.AxisRanking has it; empty where it cannot be
    decided."""
    undecidable = models.BooleanField(default=False)
    reason = models.TextField(blank=True, default="")
    votes_seen = models.PositiveBigIntegerField()
    """The newest vote's id when it was decided; what came later the reviewer didn't see."""
    current = models.BooleanField(default=True)
    """False once it is superseded or void."""
    voided_at = models.DateTimeField(null=True, blank=True)
    voided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+"
    )
    void_reason = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            # two reviewers at once: one of them comes second, whatever the code does
            models.UniqueConstraint(
                fields=["comparison"], name="decision_one_current", condition=Q(current=True)
            ),
            models.UniqueConstraint(fields=["comparison", "number"], name="decision_number"),
            models.CheckConstraint(
                name="decision_current_is_valid",
                condition=Q(current=False) | Q(voided_at__isnull=True),
            ),
            models.CheckConstraint(
                name="decision_void_has_reason",
                condition=Q(voided_at__isnull=True) | ~Q(void_reason=""),
            ),
        ]
        indexes = [
            # decided today, and the list of decisions
            models.Index(fields=["project", "-id"], name="decision_newest_first")
        ]

    def __str__(self) -> str:
        return f"decision {self.pk}"


class ReviewState(models.TextChoices):
    OPEN = "open", _("Waits for a reviewer")
    DECIDED = "decided", _("Decided")
    ABOVE = "above", _("Not below the bar")


class Review(models.Model):
    """A comparison with two answers or more, or one that was sent here: how far they agree, and
    whether somebody must decide.

    Kept by services.reviews.look_again whenever an answer comes, changes or goes.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="reviews")
    comparison = models.OneToOneField(Comparison, models.CASCADE, related_name="review")
    state = models.CharField(max_length=7, choices=ReviewState.choices, default=ReviewState.ABOVE)
    accord = models.JSONField()
    """Axis -> how near the answers lie to each other (annotation/accord.py)."""
    lowest = models.FloatField()
    """Of these."""
    num_answers = models.PositiveIntegerField()
    answers_since = models.PositiveIntegerField(default=0)
    """Answers that came after the decision."""
    opened_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    """When somebody sent it here whatever its answers say; null = they alone brought it."""

    class Meta:
        constraints = [
            models.CheckConstraint(name="review_state", condition=Q(state__in=ReviewState.values))
        ]
        indexes = [
            # services.reviews.next_for takes the open one that people disagree on most
            models.Index(
                fields=["project", "lowest", "id"],
                name="review_open",
                condition=Q(state="open"),
            )
        ]

    def __str__(self) -> str:
        return f"review of comparison {self.comparison_id}"
