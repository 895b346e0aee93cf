"""Questions that annotators put to the leads of a project, about a comparison they were given."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.models.comparisons import Comparison
from annotation.models.guidelines import Guideline
from annotation.models.projects import Annotator, Project


class QuestionState(models.TextChoices):
    OPEN = "open", _("Open")
    ANSWERED = "answered", _("Answered")
    CLOSED = "closed", _("Closed")


class Question(models.Model):
    """One question: open, then answered by a lead, then closed once the asker has read it.

    An open one may be closed too: withdrawn by the asker, or put away by a lead without words.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="questions")
    comparison = models.ForeignKey(Comparison, models.PROTECT, related_name="questions")
    annotator = models.ForeignKey(Annotator, models.PROTECT, related_name="questions")
    """Who asks."""
    text = models.TextField()
    state = models.CharField(
        max_length=8, choices=QuestionState.choices, default=QuestionState.OPEN
    )
    answer = models.TextField(blank=True, default="")
    answered_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+"
    )
    answered_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    published_in = models.ForeignKey(
        Guideline, models.PROTECT, null=True, blank=True, related_name="questions"
    )
    """The version whose FAQ took it up, in a lead's words."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="question_state", condition=Q(state__in=QuestionState.values)
            ),
            models.CheckConstraint(
                name="question_open_has_no_answer",
                condition=~Q(state=QuestionState.OPEN) | Q(answer=""),
            ),
            models.CheckConstraint(
                name="question_answered_has_answer",
                condition=~Q(state=QuestionState.ANSWERED) | ~Q(answer=""),
            ),
        ]
        indexes = [
            # the leads' badge and their page
            models.Index(fields=["project", "state", "-id"], name="question_by_state"),
            # the asker's badge and their page
            models.Index(fields=["annotator", "state", "-id"], name="question_of_asker"),
        ]

    def __str__(self) -> str:
        return f"question {self.pk}"
