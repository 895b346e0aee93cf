"""Who works on what: users, projects, members, annotators, rules, batches, tokens."""

from datetime import date

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class User(AbstractUser):
    """A person who signs in. `language` is the interface language, empty = the browser's."""

    language = models.CharField(max_length=10, blank=True, default="")


class Project(models.Model):
    """One policy being improved from one team's preferences, with the settings of its loop."""

    slug = models.SlugField(unique=True, max_length=60)
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    auto_promote = models.BooleanField(default=False)
    """A version that passes its gate is put in force without an admin."""
    open_target = models.PositiveIntegerField(default=50)
    """Top-up keeps this many comparisons open, written by the policy in force; 0 = no top-up."""
    heldout_share = models.FloatField(default=0.1)
    """Share of topped-up comparisons on dev and test prompts, for evaluation only."""
    asking = models.JSONField(default=dict, blank=True)
    """What topped-up comparisons are made of, as annotation.asking.Asking has it; {} = pairs of the
    policy that writes."""
    completions_per_comparison = models.PositiveSmallIntegerField(default=2)
    answers_wanted = models.PositiveSmallIntegerField(default=1)
    """How many annotators answer a topped-up comparison."""
    kl_budget_nats = models.FloatField(default=10.0)
    """A policy further than this from the SFT root, in nats per response, fails its gate."""
    lease_seconds = models.PositiveIntegerField(default=900)
    review_below = models.FloatField(default=0.5)
    """A comparison whose answers agree less (annotation/accord.py) goes to review; 0 = none does.
    """
    catch_leaks = models.BooleanField(default=True)
    """No completion that names its maker (annotation/leaks.py) is put before a labeler."""
    catch_alike = models.BooleanField(default=True)
    """Nor are two that are near-identical."""
    sensitive_per_day = models.PositiveSmallIntegerField(null=True, blank=True)
    """Comparisons of sensitive batches that one annotator is given in a day; null = any number."""
    chat_open = models.BooleanField(default=False)
    """Members who label may chat with the models that LiveSetup names."""
    checks = models.JSONField(default=dict, blank=True)
    """How annotators are checked by gold, as services.checkrules.CheckRules has it; {} = not."""
    num_practice = models.PositiveIntegerField(default=0)
    """Live practice items, kept here so that the labeling page need not count them."""
    job_defaults = models.JSONField(default=dict, blank=True)
    """Config per job kind, e.g. {"ppo": {...}}; a job's own config is laid over it. Inputs are too:
    {"inputs": {"reward": {"annotators": ["person", "simulated"]}}} says whose votes train."""

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="project_heldout_share", condition=Q(heldout_share__range=(0.0, 1.0))
            ),
            models.CheckConstraint(
                name="project_completions_per_comparison",
                condition=Q(completions_per_comparison__range=(2, 9)),
            ),
            models.CheckConstraint(
                name="project_review_below", condition=Q(review_below__range=(0.0, 1.0))
            ),
            models.CheckConstraint(
                name="project_answers_wanted", condition=Q(answers_wanted__gte=1)
            ),
            models.CheckConstraint(
                name="project_sensitive_per_day",
                condition=Q(sensitive_per_day__isnull=True) | Q(sensitive_per_day__gte=1),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Role(models.TextChoices):
    LABELER = "labeler", _("Labeler")
    REVIEWER = "reviewer", _("Reviewer")
    ADMIN = "admin", _("Admin")
    RESEARCHER = "researcher", _("Researcher")


class Membership(models.Model):
    """A user's role in a project. Nothing of a project is visible without one."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=12, choices=Role.choices)
    languages = models.JSONField(default=list, blank=True)
    """Languages this person reads; empty = any."""
    skills = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_once"),
            models.CheckConstraint(name="membership_role", condition=Q(role__in=Role.values)),
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role}) in {self.project}"


class AnnotatorKind(models.TextChoices):
    PERSON = "person", _("Person")
    OUTSIDE = "outside", _("Outside person of an imported dataset")
    MODEL = "model", _("Model")
    SIMULATED = "simulated", _("Simulated labeler")


class AnnotatorStanding(models.TextChoices):
    """What the bar on hidden checks has come to; annotation.gold.Standing says by which rule."""

    GOOD = "good", _("Good")
    WARNED = "warned", _("Warned")
    STOPPED = "stopped", _("Stopped")


class QualificationState(models.TextChoices):
    OPEN = "open", _("Not qualified yet")
    PASSED = "passed", _("Qualified")
    FAILED = "failed", _("Not passed")


class Annotator(models.Model):
    """Who answers comparisons in one project. Simulated and model votes never count as human."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="annotators")
    kind = models.CharField(max_length=10, choices=AnnotatorKind.choices)
    pseudonym = models.CharField(max_length=40)
    """Shown instead of the name wherever an annotator is seen by others."""
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="annotators"
    )
    external_id = models.CharField(max_length=200, blank=True, default="")
    """The id in the dataset that an outside annotator came from."""
    created_at = models.DateTimeField(auto_now_add=True)

    refuses_sensitive = models.BooleanField(default=False)
    """Wants nothing of sensitive batches."""

    # Kept on the row that every claim reads anyway, so that no claim counts checks.
    until_check = models.PositiveIntegerField(null=True, blank=True)
    """New comparisons until the next hidden check is due; null = not drawn yet."""
    until_repeat = models.PositiveIntegerField(null=True, blank=True)
    """New comparisons until one of their own comes again; null = not drawn yet."""
    num_checks = models.PositiveIntegerField(default=0)
    """Gaps between hidden checks drawn so far; a part of the seed of the next."""
    standing = models.CharField(
        max_length=7, choices=AnnotatorStanding.choices, default=AnnotatorStanding.GOOD
    )
    standing_from = models.DateTimeField(null=True, blank=True)
    """Since when a warning is to be read, or when work was stopped or given back."""
    qualification = models.CharField(
        max_length=7, choices=QualificationState.choices, default=QualificationState.OPEN
    )
    qualification_try = models.PositiveSmallIntegerField(default=1)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "pseudonym"], name="annotator_pseudonym"),
            models.UniqueConstraint(
                fields=["project", "user"], name="annotator_user", condition=Q(user__isnull=False)
            ),
            models.UniqueConstraint(
                fields=["project", "kind", "external_id"],
                name="annotator_external",
                condition=~Q(external_id=""),
            ),
        ]

    def __str__(self) -> str:
        return self.pseudonym


def default_axes() -> list[str]:
    """The axes of a scheme that asks one question."""
    return ["overall"]


class Scheme(models.Model):
    """What an answer may look like. Immutable: an edit makes the next version."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="schemes")
    version = models.PositiveIntegerField()
    axes = models.JSONField(default=default_axes)
    allow_tie = models.BooleanField(default=True)
    allow_both_bad = models.BooleanField(default=True)
    allow_cannot_tell = models.BooleanField(default=True)
    options = models.JSONField(default=dict, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "version"], name="scheme_version")
        ]

    def __str__(self) -> str:
        return f"scheme {self.version}"


class Purpose(models.TextChoices):
    PRODUCTION = "production", _("Production")
    EVALUATION = "evaluation", _("Evaluation")
    GOLD = "gold", _("Gold")
    QUALIFICATION = "qualification", _("Qualification")
    REPEAT = "repeat", _("Repeat")
    LIVE = "live", _("Live")


class SkipMode(models.TextChoices):
    """What becomes of a comparison that somebody skips; its slot opens again at once."""

    OTHERS = "others", _("others get it, and never the same person again")
    LATER = "later", _("others get it, and the same person when nothing else is left")
    RETIRE = "retire", _("others get it, and it is retired once enough people skipped it")


class Strategy(models.TextChoices):
    """Which comparison of a batch is handed out next; services.selection."""

    RANDOM = "random", _("by chance")
    FEWEST = "fewest", _("those with the fewest answers first")
    UNCERTAIN = "uncertain", _("those whose scores lie closest, one in five by chance")
    DISPUTED = "disputed", _("those an ensemble disagrees on most, one in five by chance")


BY_MODEL = (Strategy.UNCERTAIN, Strategy.DISPUTED)
"""Strategies that go by what the reward model in force says."""


NEVER_DUE = date.max.toordinal()
"""The day of what has no due date: after all others."""


class Batch(models.Model):
    """Comparisons that came together: one source, purpose and scheme, one pool of annotators."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="batches")
    name = models.CharField(max_length=120)
    source = models.ForeignKey("annotation.Source", models.PROTECT, related_name="batches")
    purpose = models.CharField(max_length=14, choices=Purpose.choices, default=Purpose.PRODUCTION)
    scheme = models.ForeignKey(Scheme, models.PROTECT, related_name="batches")
    skill = models.CharField(max_length=40, blank=True, default="")
    """Only members with this skill are asked; empty = all."""
    priority = models.SmallIntegerField(default=0)
    """Higher goes first."""
    paused = models.BooleanField(default=False)
    review_below = models.FloatField(null=True, blank=True)
    """In place of the project's; null = as there."""
    due_on = models.DateField(null=True, blank=True)
    """The last day on which its answers are of use. Of one priority what is due sooner goes first,
    and what is late before that; it is never a reason to hand out less."""
    overlap = models.PositiveSmallIntegerField(null=True, blank=True)
    """Answers that each of its comparisons wants; null = as each of them was opened."""
    adaptive = models.BooleanField(default=False)
    """Two answers first, the others where these two differ (annotation/overlap.py)."""
    sensitive = models.BooleanField(default=False)
    """Its texts are veiled until a labeler has them shown, and it is passed over for whoever wants
    none of these or had enough of them today (services.sensitive)."""
    skip_mode = models.CharField(max_length=6, choices=SkipMode.choices, default=SkipMode.OTHERS)
    skips_to_retire = models.PositiveSmallIntegerField(default=1)
    """How many people must skip a comparison until it is retired, where the mode says so."""
    strategy = models.CharField(max_length=9, choices=Strategy.choices, default=Strategy.RANDOM)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="batch_name"),
            models.CheckConstraint(
                name="batch_review_below",
                condition=Q(review_below__isnull=True) | Q(review_below__range=(0.0, 1.0)),
            ),
            models.CheckConstraint(
                name="batch_overlap", condition=Q(overlap__isnull=True) | Q(overlap__gte=1)
            ),
            models.CheckConstraint(
                name="batch_skip_mode", condition=Q(skip_mode__in=SkipMode.values)
            ),
            models.CheckConstraint(
                name="batch_skips_to_retire", condition=Q(skips_to_retire__gte=1)
            ),
            models.CheckConstraint(
                name="batch_strategy", condition=Q(strategy__in=Strategy.values)
            ),
            # evaluation is never picked by a model
            models.CheckConstraint(
                name="batch_picked_by_model",
                condition=~Q(strategy__in=BY_MODEL) | Q(purpose="production"),
            ),
        ]
        indexes = [
            # services.lanes reads these with every claim
            models.Index(fields=["project"], name="batch_paused", condition=Q(paused=True)),
            models.Index(fields=["project"], name="batch_sensitive", condition=Q(sensitive=True)),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def due_day(self) -> int:
        """The due date as a number, for the order of the queue."""
        return self.due_on.toordinal() if self.due_on else NEVER_DUE
