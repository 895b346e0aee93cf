"""Datasets, training and models: snapshots, jobs and their metrics, versions, promotions, rules."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.models.projects import Project


class DatasetSnapshot(models.Model):
    """A frozen dataset: a query at a position of the ledger, over internal ids, by its hash.

    The file lies under ARTIFACTS_DIR; an export renders it with its own pseudonym salt and hash.
    """

    project = models.ForeignKey(Project, models.PROTECT, related_name="snapshots")
    kind = models.CharField(max_length=14)
    """comparisons, prompts or demonstrations: which row format of README it has."""
    query = models.JSONField()
    ledger_position = models.JSONField()
    """The highest ids seen, e.g. {"preference": 812, "audit": 95}."""
    sha256 = models.CharField(max_length=64, unique=True)
    path = models.CharField(max_length=300)
    """Relative to ARTIFACTS_DIR."""
    rows = models.PositiveIntegerField()
    counts = models.JSONField()
    """The funnel: every vote in exactly one bucket."""
    notes = models.JSONField(default=dict, blank=True)
    """How weights came about and what became of decisions, where the query asks for either."""
    sources = models.JSONField(null=True, blank=True)
    """Source -> rows with a text of it; null in rows of before, see services.licences."""
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.kind} {self.sha256[:12]}"


class LicenceOverride(models.Model):
    """Somebody answers for a dataset whose rows forbid commercial use: models that learned from it
    may be put in force. Append only; licences that its sources get later are not answered for."""

    snapshot = models.ForeignKey(DatasetSnapshot, models.PROTECT, related_name="overrides")
    licences = models.JSONField()
    reason = models.CharField(max_length=200)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"override of {self.snapshot_id}"


class JobKind(models.TextChoices):
    PRETRAIN = "pretrain", _("Pretraining")
    SFT = "sft", _("Supervised fine-tuning")
    REWARD = "reward", _("Reward model")
    JUDGE = "judge", _("Judge")
    PPO = "ppo", _("PPO")
    SAMPLE = "sample", _("Sampling")


class JobStatus(models.TextChoices):
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    DONE = "done", _("Done")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")


class Lane(models.TextChoices):
    LOOP = "loop", _("Loop")
    EXPERIMENT = "experiment", _("Experiment")


class TrainingJob(models.Model):
    """A wish for training, written by the web, fulfilled by a worker. The row is the message.

    Claim and heartbeat are conditional updates fenced by `attempt`: whoever holds an older
    number can neither record nor publish.
    """

    project = models.ForeignKey(Project, models.PROTECT, related_name="jobs")
    kind = models.CharField(max_length=10, choices=JobKind.choices)
    lane = models.CharField(max_length=10, choices=Lane.choices, default=Lane.LOOP)
    status = models.CharField(max_length=10, choices=JobStatus.choices, default=JobStatus.QUEUED)
    config = models.JSONField(default=dict, blank=True)
    """The laboratory's config, plus nothing: inputs are columns."""
    inputs = models.JSONField(default=dict, blank=True)
    """What the job works on beyond versions, e.g. {"data": [paths]} or {"prompts": 40}."""
    init = models.ForeignKey(
        "ModelVersion", models.PROTECT, null=True, blank=True, related_name="jobs_from_init"
    )
    reference = models.ForeignKey(
        "ModelVersion", models.PROTECT, null=True, blank=True, related_name="jobs_from_reference"
    )
    reward = models.ForeignKey(
        "ModelVersion", models.PROTECT, null=True, blank=True, related_name="jobs_from_reward"
    )
    snapshot = models.ForeignKey(
        DatasetSnapshot, models.PROTECT, null=True, blank=True, related_name="jobs"
    )
    reason = models.CharField(max_length=200, blank=True, default="")
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+"
    )
    requested_at = models.DateTimeField(auto_now_add=True)
    attempt = models.PositiveIntegerField(default=0)
    lost_attempts = models.PositiveSmallIntegerField(default=0)
    """How often its worker fell silent; attempts that ended in good order do not count."""
    worker = models.CharField(max_length=200, blank=True, default="")
    started_at = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField(default=0)
    phase = models.CharField(max_length=40, blank=True, default="")
    exit_code = models.IntegerField(null=True, blank=True)
    error = models.TextField(blank=True, default="")
    log_tail = models.TextField(blank=True, default="")
    result = models.JSONField(default=dict, blank=True)
    """What it ended with, e.g. {"comparisons": 40} or final metrics."""
    wish_key = models.CharField(max_length=40, null=True, blank=True, unique=True)
    """Of the form that asked for it: sent twice, it asks once."""
    wish_sha256 = models.CharField(max_length=64, blank=True, default="")
    """Of what was asked under that key; the row itself is filled in at its start."""

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "kind"],
                name="job_one_running_in_loop",
                condition=Q(status="running", lane="loop"),
            ),
            models.CheckConstraint(name="job_kind", condition=Q(kind__in=JobKind.values)),
            models.CheckConstraint(name="job_status", condition=Q(status__in=JobStatus.values)),
        ]
        indexes = [
            # workers.tasks.dispatch and requeue_stale
            models.Index(fields=["status", "heartbeat_at"], name="job_by_status"),
            models.Index(fields=["project", "-id"], name="job_newest_first"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} job {self.pk}"


class JobMetric(models.Model):
    """One line of metrics.jsonl: the numbers of one step of one phase, each once."""

    job = models.ForeignKey(TrainingJob, models.CASCADE, related_name="metrics")
    phase = models.CharField(max_length=40)
    step = models.PositiveIntegerField()
    values = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "phase", "step"], name="metric_once")]

    def __str__(self) -> str:
        return f"{self.phase} {self.step}"


class VersionKind(models.TextChoices):
    POLICY = "policy", _("Policy")
    REWARD = "reward", _("Reward model")


class ModelVersion(models.Model):
    """A published model directory. Belongs to the installation; its edges are its lineage."""

    kind = models.CharField(max_length=10, choices=VersionKind.choices)
    stage = models.CharField(max_length=20)
    """What made it: pretrain, sft, reward, ppo, or registered from outside."""
    name = models.CharField(max_length=120)
    path = models.CharField(max_length=300, unique=True)
    """Relative to ARTIFACTS_DIR."""
    sha256 = models.CharField(max_length=64)
    """Over the names and contents of the directory's files."""
    job = models.OneToOneField(
        TrainingJob, models.PROTECT, null=True, blank=True, related_name="version"
    )
    init = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="started_here"
    )
    reference = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="referred_here"
    )
    reward = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="rewarded_here"
    )
    value_init = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="valued_here"
    )
    snapshot = models.ForeignKey(
        DatasetSnapshot, models.PROTECT, null=True, blank=True, related_name="versions"
    )
    licence = models.CharField(max_length=80, blank=True, default="")
    metrics = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(name="version_kind", condition=Q(kind__in=VersionKind.values))
        ]

    def __str__(self) -> str:
        return self.name


class Slot(models.TextChoices):
    POLICY = "policy", _("Policy")
    REWARD = "reward", _("Reward model")
    JUDGE = "judge", _("Judge")


class PromotionQuerySet(models.QuerySet["Promotion"]):
    """Reads on promotions, chainable."""

    def in_force(self, project: Project, slot: str) -> "Promotion | None":
        """The newest promotion of a slot, or None."""
        return self.filter(project=project, slot=slot).order_by("-id").first()


class Promotion(models.Model):
    """A version put in force in a slot of a project. Append only: the newest is in force."""

    project = models.ForeignKey(Project, models.PROTECT, related_name="promotions")
    slot = models.CharField(max_length=10, choices=Slot.choices)
    version = models.ForeignKey(ModelVersion, models.PROTECT, related_name="promotions")
    verdict = models.CharField(max_length=20)
    """passed (the gate), unjudged (it passed for want of answers), by_admin, rollback, registered,
    first. Of older rows undecided too, which passed once."""
    numbers = models.JSONField(default=dict, blank=True)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = PromotionQuerySet.as_manager()

    class Meta:
        indexes = [
            # PromotionQuerySet.in_force
            models.Index(fields=["project", "slot", "-id"], name="promotion_newest")
        ]

    def __str__(self) -> str:
        return f"{self.slot}: {self.version_id}"


class RetrainRule(models.Model):
    """When a project's reward model is due, and whether PPO follows a new one."""

    project = models.OneToOneField(Project, models.CASCADE, related_name="retrain_rule")
    enabled = models.BooleanField(default=True)
    after_preferences = models.PositiveIntegerField(null=True, blank=True)
    """Due once this many new trainable answers came since the last reward job."""
    every_minutes = models.PositiveIntegerField(null=True, blank=True)
    """Due once this many minutes passed since the last reward job. Both set: both must hold."""
    ppo_after_reward = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="rule_says_when",
                condition=Q(after_preferences__isnull=False) | Q(every_minutes__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"retrain rule of {self.project}"
