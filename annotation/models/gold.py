"""Gold: questions with a known answer, who knows it, how annotators did, and what they report."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.models.comparisons import Comparison, Preference
from annotation.models.projects import Annotator, Project


class GoldUse(models.TextChoices):
    HIDDEN = "hidden", _("Hidden check")
    PRACTICE = "practice", _("Practice")
    QUALIFICATION = "qualification", _("Qualification")


class GoldState(models.TextChoices):
    DRAFT = "draft", _("Draft")
    LIVE = "live", _("In use")
    RETIRED = "retired", _("Retired")


class GoldItem(models.Model):
    """A comparison of its own, copied from another, whose answer experts know.

    It has no open slot, so the queue's walk never meets it: a hidden check or a qualification item
    is handed out by services.checks, which raises answers_wanted with every lease.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="gold_items")
    comparison = models.OneToOneField(Comparison, models.PROTECT, related_name="gold")
    origin = models.ForeignKey(Comparison, models.PROTECT, related_name="gold_copies")
    """What it was copied from; whoever had that never gets this as a hidden check."""
    use = models.CharField(max_length=13, choices=GoldUse.choices, default=GoldUse.HIDDEN)
    state = models.CharField(max_length=7, choices=GoldState.choices, default=GoldState.DRAFT)
    constraints = models.JSONField(default=list, blank=True)
    """What the experts agree on, as annotation.gold.Constraint has it; live items have some."""
    num_shown = models.PositiveIntegerField(default=0)
    """How often it was leased; the least shown goes first."""
    retire_reason = models.CharField(max_length=200, blank=True, default="")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["origin", "use"], name="gold_once_per_use"),
            models.CheckConstraint(
                name="gold_live_has_constraints", condition=~Q(state="live") | ~Q(constraints=[])
            ),
            models.CheckConstraint(name="gold_use", condition=Q(use__in=GoldUse.values)),
            models.CheckConstraint(name="gold_state", condition=Q(state__in=GoldState.values)),
        ]
        indexes = [
            # services.checks looks for the least shown live item of a use
            models.Index(fields=["project", "use", "state", "num_shown"], name="gold_least_shown")
        ]

    def __str__(self) -> str:
        return f"gold item {self.pk}"


class GoldVote(models.Model):
    """What one expert says of a gold item. A change of mind replaces it; the audit log has both."""

    item = models.ForeignKey(GoldItem, models.CASCADE, related_name="votes")
    expert = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="gold_votes")
    rankings = models.JSONField()
    """One object per axis: axis, outcome, groups."""
    explanation = models.TextField(blank=True, default="")
    """Shown after practice."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["item", "expert"], name="gold_vote_per_expert")
        ]

    def __str__(self) -> str:
        return f"vote of {self.expert} on {self.item}"


class CheckVerdict(models.TextChoices):
    """What an answer makes of what experts agree on.

    `unsaid` (cannot tell, not ranked, both bad where an order is asked for) contradicts nobody, but
    who never says anything must not look like a good annotator: it does not count as held.
    """

    HELD = "held", _("as the experts say")
    BROKEN = "broken", _("against the experts")
    UNSAID = "unsaid", _("nothing said")


class GoldCheck(models.Model):
    """A scored answer to a hidden check or a qualification item, as it stands after revisions."""

    item = models.ForeignKey(GoldItem, models.PROTECT, related_name="checks")
    annotator = models.ForeignKey(Annotator, models.PROTECT, related_name="gold_checks")
    preference = models.OneToOneField(Preference, models.PROTECT, related_name="gold_check")
    attempt = models.PositiveSmallIntegerField(default=0)
    """Which try of a qualification it belongs to; 0 for a hidden check."""
    verdict = models.CharField(max_length=6, choices=CheckVerdict.choices)
    counts = models.BooleanField(default=True)
    """False once the answer is void or the item turned out to be wrong."""
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["item", "annotator"], name="gold_check_once"),
            models.CheckConstraint(
                name="gold_check_verdict", condition=Q(verdict__in=CheckVerdict.values)
            ),
        ]
        indexes = [
            # the last k checks of an annotator, for the bar
            models.Index(fields=["annotator", "attempt", "-id"], name="gold_check_latest")
        ]

    def __str__(self) -> str:
        return f"check {self.pk}: {self.verdict}"


class PracticeAnswer(models.Model):
    """A labeler's answer to a practice item: no vote, it never leaves this table."""

    item = models.ForeignKey(GoldItem, models.PROTECT, related_name="practice_answers")
    annotator = models.ForeignKey(Annotator, models.PROTECT, related_name="practice_answers")
    rankings = models.JSONField()
    verdict = models.CharField(max_length=6, choices=CheckVerdict.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["item", "annotator"], name="practice_answer_once")
        ]

    def __str__(self) -> str:
        return f"practice answer {self.pk}: {self.verdict}"


class ReportState(models.TextChoices):
    OPEN = "open", _("Open")
    ACCEPTED = "accepted", _("Accepted")
    DECLINED = "declined", _("Declined")


class Report(models.Model):
    """An annotator says that a question itself is wrong; of a gold item that contests it.

    It looks the same to the annotator whatever the question was for.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="reports")
    comparison = models.ForeignKey(Comparison, models.PROTECT, related_name="reports")
    annotator = models.ForeignKey(Annotator, models.PROTECT, related_name="reports")
    words = models.TextField()
    state = models.CharField(max_length=8, choices=ReportState.choices, default=ReportState.OPEN)
    reply = models.TextField(blank=True, default="")
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["comparison", "annotator"], name="report_once"),
            models.CheckConstraint(name="report_state", condition=Q(state__in=ReportState.values)),
            models.CheckConstraint(
                name="report_decided_by_somebody",
                condition=Q(state="open") | Q(decided_at__isnull=False),
            ),
        ]
        indexes = [models.Index(fields=["project", "state"], name="report_open")]

    def __str__(self) -> str:
        return f"report {self.pk}: {self.state}"
