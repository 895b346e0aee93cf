"""Live collection: a writer chats, two models answer each message blind, the writer chooses.

The row is the message: the web adds a LiveTurn, a worker claims it with a conditional update
fenced by `attempt`, writes both answers and gives them back whole.
"""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.models.comparisons import Comparison, Preference
from annotation.models.projects import Annotator, Project
from annotation.models.prompts import Completion
from annotation.models.registry import ModelVersion


class LiveSetup(models.Model):
    """Which models answer the threads to come, and how far a writer may go.

    Side a and side b; a version of None is the policy in force when a thread starts.
    """

    project = models.OneToOneField(Project, models.CASCADE, related_name="live_setup")
    version_a = models.ForeignKey(
        ModelVersion, models.PROTECT, null=True, blank=True, related_name="+"
    )
    temperature_a = models.FloatField(default=0.7)
    version_b = models.ForeignKey(
        ModelVersion, models.PROTECT, null=True, blank=True, related_name="+"
    )
    temperature_b = models.FloatField(default=1.0)
    max_new_tokens = models.PositiveIntegerField(default=256)
    """Of one answer; at most half of a model's context, whatever stands here."""
    max_turns = models.PositiveSmallIntegerField(default=10)
    """Messages of a thread."""
    max_threads_per_day = models.PositiveSmallIntegerField(default=50)
    """Started by one writer in 24 hours."""

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="live_setup_limits",
                condition=Q(
                    temperature_a__range=(0.0, 2.0),
                    temperature_b__range=(0.0, 2.0),
                    max_new_tokens__range=(1, 8192),
                    max_turns__gte=1,
                    max_threads_per_day__gte=1,
                ),
            )
        ]

    def __str__(self) -> str:
        return f"live setup of {self.project}"


class LiveThread(models.Model):
    """One conversation, with the two models that answer all of it. The writer never learns which.

    Its turns are one split group: what follows from one opening never parts over the splits.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="live_threads")
    annotator = models.ForeignKey(Annotator, models.PROTECT, related_name="live_threads")
    key = models.CharField(max_length=80)
    """The caller's: asking twice to start is starting once."""
    language = models.CharField(max_length=12, blank=True, default="")
    split_group = models.CharField(max_length=200)
    version_a = models.ForeignKey(ModelVersion, models.PROTECT, related_name="+")
    temperature_a = models.FloatField()
    version_b = models.ForeignKey(ModelVersion, models.PROTECT, related_name="+")
    temperature_b = models.FloatField()
    max_new_tokens = models.PositiveIntegerField()
    max_turns = models.PositiveSmallIntegerField()
    closed_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["annotator", "key"], name="live_thread_key"),
        ]
        indexes = [
            # the writer's list, and how many of them were started today
            models.Index(fields=["annotator", "-created_at"], name="live_thread_of_writer"),
            models.Index(fields=["project", "-id"], name="live_thread_newest_first"),
        ]

    def __str__(self) -> str:
        return f"thread {self.pk}"


class TurnState(models.TextChoices):
    WAITING = "waiting", _("Waiting")
    WRITING = "writing", _("Writing")
    READY = "ready", _("Ready")
    """Both answers are whole, and the writer is asked."""
    CHOSEN = "chosen", _("Chosen")
    ALIKE = "alike", _("Alike")
    """Both wrote the same, twice: there is nothing to compare, and the thread goes on."""
    FAILED = "failed", _("Failed")
    DROPPED = "dropped", _("Dropped")
    """Its thread ended before a choice; nothing came of it."""


OPEN_STATES = (TurnState.WAITING, TurnState.WRITING, TurnState.READY, TurnState.FAILED)
"""A thread has one turn at most in these; the next message waits for it."""


class LiveTurn(models.Model):
    """One message of the writer, and what became of it."""

    thread = models.ForeignKey(LiveThread, models.CASCADE, related_name="turns")
    number = models.PositiveSmallIntegerField()
    message = models.TextField()
    key = models.CharField(max_length=80)
    state = models.CharField(max_length=7, choices=TurnState.choices, default=TurnState.WAITING)
    attempt = models.PositiveIntegerField(default=0)
    lost_attempts = models.PositiveSmallIntegerField(default=0)
    draw = models.PositiveIntegerField(default=0)
    """Part of the seeds: another attempt writes the same, asking again writes something else."""
    worker = models.CharField(max_length=200, blank=True, default="")
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True, default="")
    ready_at = models.DateTimeField(null=True, blank=True)
    continued_with = models.TextField(blank=True, default="")
    """The answer that the conversation goes on from: one of the two, or an edited one."""
    comparison = models.OneToOneField(
        Comparison, models.PROTECT, null=True, blank=True, related_name="live_turn"
    )
    preference = models.OneToOneField(
        Preference, models.PROTECT, null=True, blank=True, related_name="live_turn"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["thread", "number"], name="live_turn_number"),
            models.UniqueConstraint(fields=["thread", "key"], name="live_turn_key"),
            models.UniqueConstraint(
                fields=["thread"], name="live_turn_one_open", condition=Q(state__in=OPEN_STATES)
            ),
            models.CheckConstraint(name="live_turn_state", condition=Q(state__in=TurnState.values)),
            models.CheckConstraint(
                name="live_turn_chosen_has_preference",
                condition=Q(state="chosen", comparison__isnull=False, preference__isnull=False)
                | (~Q(state="chosen") & Q(comparison__isnull=True, preference__isnull=True)),
            ),
        ]
        indexes = [
            # workers look for waiting turns, and for those whose worker fell silent
            models.Index(
                fields=["state", "heartbeat_at"],
                name="live_turn_at_work",
                condition=Q(state__in=("waiting", "writing")),
            )
        ]

    def __str__(self) -> str:
        return f"turn {self.pk}"


class LiveAnswer(models.Model):
    """One side's answer to a turn, and the place it stands at, drawn per turn."""

    turn = models.ForeignKey(LiveTurn, models.CASCADE, related_name="answers")
    side = models.CharField(max_length=1)
    """a or b: which of the thread's models."""
    place = models.PositiveSmallIntegerField()
    """1 on the left, 2 on the right."""
    text = models.TextField(blank=True, default="")
    """Empty until both are whole."""
    seed = models.BigIntegerField(null=True, blank=True)
    sampling = models.JSONField(default=dict, blank=True)
    finish_reason = models.CharField(max_length=10, blank=True, default="")
    completion = models.ForeignKey(
        Completion, models.PROTECT, null=True, blank=True, related_name="live_answers"
    )

    class Meta:
        ordering = ["place"]
        constraints = [
            models.UniqueConstraint(fields=["turn", "side"], name="live_answer_side"),
            models.UniqueConstraint(fields=["turn", "place"], name="live_answer_place"),
            models.CheckConstraint(
                name="live_answer_side_and_place",
                condition=Q(side__in=("a", "b"), place__in=(1, 2)),
            ),
        ]

    def __str__(self) -> str:
        return f"answer {self.place} of {self.turn}"
