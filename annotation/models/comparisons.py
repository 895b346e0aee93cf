"""The questions and the answers: comparisons, leases on them, preferences and their rankings.

The queue's invariant, kept by annotation/services (queue, leases) and tested on both databases:

    unreleased leases + counted answers + open_slots == answers_wanted

A lease is an Assignment with holds_slot=True; a counted answer is a Preference with counted=True.
"""

import time

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.guidelines import Guideline
from annotation.models.projects import (
    BY_MODEL,
    NEVER_DUE,
    Annotator,
    Batch,
    Project,
    Purpose,
    Scheme,
    Strategy,
)
from annotation.models.prompts import Completion, Prompt, Source

IN_WALK = Q(open_slots__gt=0, retired_at__isnull=True) & (
    Q(purpose=Purpose.PRODUCTION) | Q(purpose=Purpose.EVALUATION)
)
"""What the queue hands out in turn. OR, for SQLite does not recognise an IN with parameters as the
condition of a partial index."""
GOES_BY_SCORES = Q(strategy=Strategy.UNCERTAIN) | Q(strategy=Strategy.DISPUTED)


NOT_VALID = Q(current=False) | Q(voided_at__isnull=False)
"""Answers that a newer revision or a void took out."""


class ComparisonQuerySet(models.QuerySet["Comparison"]):
    """Reads on comparisons, chainable."""

    def open(self) -> "ComparisonQuerySet":
        """Those that still want an answer nobody is working on."""
        return self.filter(open_slots__gt=0, retired_at__isnull=True, batch__paused=False)

    def for_training(self) -> "ComparisonQuerySet":
        """Those whose votes may train a model: production and live, on train prompts."""
        return self.filter(purpose__in=(Purpose.PRODUCTION, Purpose.LIVE), prompt__split="train")


class Comparison(models.Model):
    """One prompt and K >= 2 distinct completions, put to annotators for a purpose."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="comparisons")
    batch = models.ForeignKey(Batch, models.PROTECT, related_name="comparisons")
    prompt = models.ForeignKey(Prompt, models.PROTECT, related_name="comparisons")
    completions = models.ManyToManyField(
        Completion, through="ComparisonCompletion", related_name="comparisons"
    )
    purpose = models.CharField(max_length=14, choices=Purpose.choices)
    repeat_of = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="repeats"
    )
    """The question that this one asks its annotator again; set where the purpose is repeat."""
    content_hash = models.CharField(max_length=64)
    """SHA-256 of batch, prompt and the sorted completion ids: one question once per batch. Of a
    repeat: of its original and annotator."""
    answers_wanted = models.PositiveSmallIntegerField(default=1)
    """0 for imported comparisons: their answers came with them and hold no slot."""
    full_overlap = models.PositiveSmallIntegerField(null=True, blank=True)
    """Answers it wants once its first two differ; null = answers_wanted, whatever they say."""
    open_slots = models.IntegerField()
    language = models.CharField(max_length=12, blank=True, default="")
    skill = models.CharField(max_length=40, blank=True, default="")
    priority = models.SmallIntegerField(default=0)
    due_day = models.IntegerField(default=NEVER_DUE)
    """The batch's, kept here for services.lanes."""
    sort_key = models.FloatField()
    """Random in [0, 1), set once: a shuffled queue without ORDER BY RANDOM()."""
    opened_at = models.FloatField(default=time.time)
    """When a slot last came free or it came (back) into its lane, in seconds since 1970. A trigger
    keeps it, whoever writes; services.lanes relies on it."""
    strategy = models.CharField(max_length=9, choices=Strategy.choices, default=Strategy.RANDOM)
    """The batch's, kept here for services.selection."""
    uncertainty = models.FloatField(null=True, blank=True)
    """How little the reward model tells its completions apart (services.scores); null = unknown."""
    disagreement = models.FloatField(null=True, blank=True)
    """How far the members of an ensemble part on it (workers.scoring), 0 to 0.5; null = unknown, as
    with a single model."""
    scored_by = models.ForeignKey(
        "annotation.ModelVersion", models.PROTECT, null=True, blank=True, related_name="+"
    )
    selector = models.CharField(max_length=20, blank=True, default="")
    """What chose its prompt, with its version, where workers made it."""
    propensity = models.FloatField(null=True, blank=True)
    """Probability with which the prompt was chosen."""
    retired_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ComparisonQuerySet.as_manager()

    handed_out_by: tuple[str, float | None] = ("", None)
    """Selector and propensity, set by the walk on what it hands out; kept by the lease."""

    class Meta:
        constraints = [
            # evaluation is never picked by a model
            models.CheckConstraint(
                name="comparison_picked_by_model",
                condition=~Q(strategy__in=BY_MODEL) | Q(purpose="production"),
            ),
            models.CheckConstraint(name="comparison_open_slots", condition=Q(open_slots__gte=0)),
            models.CheckConstraint(
                name="comparison_slots_within_wanted",
                condition=Q(open_slots__lte=F("answers_wanted")),
            ),
            models.UniqueConstraint(fields=["project", "content_hash"], name="comparison_content"),
            models.CheckConstraint(
                name="comparison_purpose", condition=Q(purpose__in=Purpose.values)
            ),
        ]
        indexes = [
            # services.lanes goes along these two and nothing else
            models.Index(
                fields=["project", "-priority", "due_day", "language", "skill", "sort_key"],
                name="comparison_open_queue",
                condition=IN_WALK,
            ),
            models.Index(
                fields=["project", "priority", "due_day", "language", "skill", "opened_at"],
                name="comparison_opened",
                condition=IN_WALK,
            ),
            # pages.loop counts what is open
            models.Index(
                fields=["project", "batch"],
                name="comparison_open",
                condition=Q(open_slots__gt=0, retired_at__isnull=True),
            ),
            # services.battles and services.consistency look for the newest
            models.Index(
                fields=["project", "id"],
                name="comparison_evaluation",
                condition=Q(purpose=Purpose.EVALUATION),
            ),
            models.Index(
                fields=["project", "id"],
                name="comparison_repeats",
                condition=Q(purpose=Purpose.REPEAT),
            ),
            # services.selection, one each for its ways to look
            models.Index(
                "batch",
                "language",
                F("answers_wanted") - F("open_slots"),
                "sort_key",
                name="comparison_fewest",
                condition=IN_WALK & Q(strategy="fewest"),
            ),
            models.Index(
                fields=["batch", "language", "sort_key"],
                name="comparison_by_chance",
                condition=IN_WALK & Q(strategy="uncertain"),
            ),
            models.Index(
                fields=["batch", "language", "-uncertainty"],
                name="comparison_uncertain",
                condition=IN_WALK & Q(strategy="uncertain", uncertainty__isnull=False),
            ),
            models.Index(
                fields=["batch", "language", "sort_key"],
                name="comparison_disputed_by_chance",
                condition=IN_WALK & Q(strategy="disputed"),
            ),
            models.Index(
                fields=["batch", "language", "-disagreement"],
                name="comparison_disputed",
                condition=IN_WALK & Q(strategy="disputed", disagreement__isnull=False),
            ),
            # services.asked and a search by how they were made
            models.Index(
                fields=["project", "selector", "purpose", "id"],
                name="comparison_made_as",
                condition=~Q(selector=""),
            ),
            # services.scores.unscored
            models.Index(
                fields=["project", "scored_by"],
                name="comparison_to_score",
                condition=Q(open_slots__gt=0, retired_at__isnull=True) & GOES_BY_SCORES,
            ),
        ]

    def __str__(self) -> str:
        return f"comparison {self.pk}"


class ComparisonCompletion(models.Model):
    """A completion's place in a comparison (the stored place; annotators see a drawn order)."""

    comparison = models.ForeignKey(Comparison, models.CASCADE, related_name="entries")
    completion = models.ForeignKey(Completion, models.PROTECT, related_name="entries")
    position = models.PositiveSmallIntegerField()

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(
                fields=["comparison", "completion"], name="comparison_completion_once"
            ),
            models.UniqueConstraint(
                fields=["comparison", "position"], name="comparison_position_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.position}: completion {self.completion_id}"


class LeaseKind(models.TextChoices):
    ACTIVE = "active", _("Active")
    PREFETCHED = "prefetched", _("Prefetched")


class AssignmentState(models.TextChoices):
    LEASED = "leased", _("Leased")
    ANSWERED = "answered", _("Answered")
    SKIPPED = "skipped", _("Skipped")
    RELEASED = "released", _("Released")
    EXPIRED = "expired", _("Expired")
    LATER = "later", _("Put off")
    ASIDE = "aside", _("Put aside")
    """Given back until a question about it is closed."""


class Assignment(models.Model):
    """A lease on a comparison and the order shown, one per comparison and annotator for ever.

    Annotator alone is no index: with old statistics PostgreSQL would take it for a claim, and read
    all that the annotator ever had where the partial indexes below hold one row.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="assignments")
    comparison = models.ForeignKey(
        Comparison, models.CASCADE, related_name="assignments", db_index=False
    )
    annotator = models.ForeignKey(
        Annotator, models.PROTECT, related_name="assignments", db_index=False
    )
    scheme = models.ForeignKey(Scheme, models.PROTECT)
    guideline = models.ForeignKey(Guideline, models.PROTECT, null=True, blank=True)
    presented_order = models.JSONField()
    """Completion ids as shown, drawn once per (comparison, annotator)."""
    kind = models.CharField(max_length=10, choices=LeaseKind.choices, default=LeaseKind.ACTIVE)
    state = models.CharField(
        max_length=8, choices=AssignmentState.choices, default=AssignmentState.LEASED
    )
    holds_slot = models.BooleanField(default=True)
    """True from the claim until it is answered, skipped, released or swept."""
    leased_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    selector = models.CharField(max_length=20, blank=True, default="")
    """What chose the comparison, with its version; "" for a check, a repeat or one put off."""
    propensity = models.FloatField(null=True, blank=True)
    """Probability with which the selector drew this comparison, where it knows it."""
    skip_reason = models.CharField(max_length=200, blank=True, default="")
    active_seconds = models.FloatField(default=0.0)
    """At work on it so far, by the page's measure; see services.worktime.note_activity."""
    stands_in_for = models.ForeignKey(
        Batch, models.PROTECT, null=True, blank=True, related_name="stood_in_for"
    )
    """The batch whose comparison a hidden check took the place of: it is asked and shown as one of
    these, or its scheme, due date and rules of skipping would tell it apart."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["comparison", "annotator"], name="assignment_once"),
            # an annotator is one project's, so this is: one active and one prefetched lease each
            models.UniqueConstraint(
                fields=["annotator", "kind"],
                name="assignment_one_lease_of_a_kind",
                condition=Q(holds_slot=True),
            ),
            models.CheckConstraint(
                name="assignment_slot_while_leased",
                condition=Q(holds_slot=False) | Q(state="leased"),
            ),
        ]
        indexes = [
            # sweep_expired_leases
            models.Index(
                fields=["project", "expires_at"],
                name="assignment_expiring",
                condition=Q(holds_slot=True),
            ),
            # walk.put_off
            models.Index(
                fields=["annotator"], name="assignment_put_off", condition=Q(state="later")
            ),
        ]

    def __str__(self) -> str:
        return f"assignment {self.pk}"

    @property
    def shown_batch(self) -> Batch:
        """The batch that the annotator is to take it for."""
        return self.stands_in_for or self.comparison.batch


class WalkPlace(models.Model):
    """How far an annotator went in a lane of the queue; see services.lanes.

    A memory, no truth: without it the next walk begins anew and finds the same.
    """

    annotator = models.ForeignKey(
        Annotator, models.CASCADE, related_name="places", db_index=False
    )  # walk_place_once begins with it
    priority = models.SmallIntegerField()
    due_day = models.IntegerField(default=NEVER_DUE)
    language = models.CharField(max_length=12, blank=True)
    skill = models.CharField(max_length=40, blank=True)
    stage = models.PositiveSmallIntegerField()
    reached = models.FloatField()
    began_at = models.FloatField()
    paused = models.TextField(blank=True)
    """Ids of the batches that were passed over then, because they were paused or sensitive; with
    others the place says nothing."""

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["annotator", "priority", "due_day", "language", "skill"],
                name="walk_place_once",
            )
        ]

    def __str__(self) -> str:
        lane = f"{self.priority} {self.due_day} {self.language} {self.skill}"
        return f"annotator {self.annotator_id} in {lane}"


class PreferenceQuerySet(models.QuerySet["Preference"]):
    """Reads on preferences, chainable."""

    def valid(self) -> "PreferenceQuerySet":
        """Current and not voided."""
        return self.filter(current=True, voided_at__isnull=True)

    def not_valid(self) -> "PreferenceQuerySet":
        """The others; there is an index of these alone."""
        return self.filter(NOT_VALID)

    def human(self) -> "PreferenceQuerySet":
        """Answers of people, here or in an imported dataset."""
        return self.filter(annotator__kind__in=("person", "outside"))


class Preference(models.Model):
    """One annotator's answer to a comparison; holds one Ranking per axis.

    A revision is a new row with the next number; the older row stays, current=False.
    """

    # three that the indexes and constraints below begin with
    project = models.ForeignKey(Project, models.CASCADE, related_name="preferences", db_index=False)
    comparison = models.ForeignKey(
        Comparison, models.PROTECT, related_name="preferences", db_index=False
    )
    annotator = models.ForeignKey(
        Annotator, models.PROTECT, related_name="preferences", db_index=False
    )
    assignment = models.ForeignKey(
        Assignment, models.PROTECT, null=True, blank=True, related_name="preferences"
    )
    scheme = models.ForeignKey(Scheme, models.PROTECT)
    guideline = models.ForeignKey(Guideline, models.PROTECT, null=True, blank=True)
    presented_order = models.JSONField(default=list, blank=True)
    revision = models.PositiveIntegerField(default=1)
    cause = models.CharField(max_length=200, blank=True, default="")
    """Why this revision was made; empty for a first answer."""
    current = models.BooleanField(default=True)
    counted = models.BooleanField(default=False)
    """Holds one of the comparison's answers_wanted slots; surplus and imported ones never do."""
    voided_at = models.DateTimeField(null=True, blank=True)
    voided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+"
    )
    void_reason = models.CharField(max_length=200, blank=True, default="")
    idempotency_key = models.CharField(max_length=80, null=True, blank=True, unique=True)
    source = models.ForeignKey(Source, models.PROTECT, null=True, blank=True)
    """Set for imported answers alone."""
    external_id = models.CharField(max_length=200, blank=True, default="")
    note = models.TextField(blank=True, default="")
    """The reason, in the annotator's words."""
    ideal = models.ForeignKey(
        Completion, models.PROTECT, null=True, blank=True, related_name="ideal_of"
    )
    """How the answer should have been, where the annotator wrote it: a demonstration too."""
    seconds = models.FloatField(null=True, blank=True)
    """From the claim to the answer."""
    active_seconds = models.FloatField(null=True, blank=True)
    """Of these, at work by the page's measure; None where no page measured."""
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = PreferenceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["comparison", "annotator"],
                name="preference_one_current",
                condition=Q(current=True),
            ),
            models.UniqueConstraint(
                fields=["comparison", "annotator", "revision"], name="preference_revision"
            ),
            models.UniqueConstraint(
                fields=["comparison", "annotator", "external_id"],
                name="preference_external",
                condition=~Q(external_id=""),
            ),
            models.CheckConstraint(
                name="preference_counted_is_valid",
                condition=Q(counted=False)
                | Q(current=True, voided_at__isnull=True, source__isnull=True),
            ),
            models.CheckConstraint(
                name="preference_void_has_reason",
                condition=Q(voided_at__isnull=True) | ~Q(void_reason=""),
            ),
        ]
        indexes = [
            # workers.retraining counts answers since the last reward model
            models.Index(fields=["project", "id"], name="preference_ledger"),
            # pages.label.answered_today and services.worktime.timesheet
            models.Index(fields=["annotator", "created_at"], name="preference_of_day"),
            # pages.loop takes them off all answers: few, so that an answer writes nothing here
            models.Index(fields=["project"], name="preference_not_valid", condition=NOT_VALID),
        ]

    def __str__(self) -> str:
        return f"preference {self.pk}"


class Outcome(models.TextChoices):
    RANKED = "ranked", _("Ranked")
    EQUAL = "equal", _("Equal")
    BOTH_BAD = "both_bad", _("Both bad")
    CANNOT_TELL = "cannot_tell", _("Cannot tell")


class Ranking(models.Model):
    """One axis of an answer.

    groups: completion ids best first, ids of one group tied, e.g. [[12], [7, 9]]. For `ranked`
    and `equal` alone; ids that stand in no group were not ranked, which never means last.
    strengths: one number per gap between neighbouring groups, or empty.
    acceptable: how many groups from the top are good enough, or null where nobody was asked.
    """

    preference = models.ForeignKey(Preference, models.CASCADE, related_name="rankings")
    axis = models.CharField(max_length=40, default="overall")
    outcome = models.CharField(max_length=11, choices=Outcome.choices)
    groups = models.JSONField(default=list, blank=True)
    strengths = models.JSONField(default=list, blank=True)
    acceptable = models.PositiveSmallIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["preference", "axis"], name="ranking_axis_once"),
            models.CheckConstraint(name="ranking_outcome", condition=Q(outcome__in=Outcome.values)),
        ]

    def __str__(self) -> str:
        return f"{self.axis}: {self.outcome}"


class CompletionJudgment(models.Model):
    """What an answer says of one completion by itself: ratings and flags.

    ratings: attribute -> whole number, as the scheme names them. flags: names of the scheme's.
    """

    preference = models.ForeignKey(Preference, models.CASCADE, related_name="judgments")
    completion = models.ForeignKey(Completion, models.PROTECT, related_name="judgments")
    ratings = models.JSONField(default=dict, blank=True)
    flags = models.JSONField(default=list, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["preference", "completion"], name="judgment_once")
        ]

    def __str__(self) -> str:
        return f"judgment of completion {self.completion_id}"
