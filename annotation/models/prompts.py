"""What is asked and what was answered: sources, prompts, completions, writers, scores."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.models.projects import Annotator, Project


class Source(models.Model):
    """Where prompts and completions come from, and on what terms."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="sources")
    name = models.CharField(max_length=120)
    licence = models.CharField(max_length=80, blank=True, default="")
    terms = models.TextField(blank=True, default="")
    consent = models.TextField(blank=True, default="")
    retention_days = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="source_name")]

    def __str__(self) -> str:
        return self.name


class Split(models.TextChoices):
    TRAIN = "train", _("Train")
    DEV = "dev", _("Dev")
    TEST = "test", _("Test")


def text_alone(messages: Iterable[Mapping[str, Any]]) -> bool:
    """No message has typed parts: the laboratories can read it."""
    return all(isinstance(message["content"], str) for message in messages)


class Prompt(models.Model):
    """A conversation awaiting an answer.

    messages: [{"role": "system"|"user"|"assistant", "content": str or typed parts}, ...].
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="prompts")
    source = models.ForeignKey(Source, models.PROTECT, related_name="prompts")
    external_id = models.CharField(max_length=200, blank=True, default="")
    messages = models.JSONField()
    task = models.CharField(max_length=40, blank=True, default="")
    language = models.CharField(max_length=12, blank=True, default="")
    metadata = models.JSONField(default=dict, blank=True)
    content_hash = models.CharField(max_length=64)
    """SHA-256 of messages (system prompt included) and metadata, canonical JSON."""
    split_group = models.CharField(max_length=200)
    """Thread or tree id, else the normalised first user turn: related prompts share a split."""
    split = models.CharField(max_length=5, choices=Split.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "content_hash"], name="prompt_content"),
            models.CheckConstraint(name="prompt_split", condition=Q(split__in=Split.values)),
        ]
        indexes = [
            # workers.pairs and datasets.freeze draw prompts of one split
            models.Index(fields=["project", "split"], name="prompt_by_split"),
            # imports look up the split that a group already has
            models.Index(fields=["project", "split_group"], name="prompt_by_group"),
        ]

    def __str__(self) -> str:
        return f"prompt {self.pk}"

    @property
    def text_alone(self) -> bool:
        """No message has typed parts: the laboratories can read it."""
        return text_alone(self.messages)


class Completion(models.Model):
    """A text that answers a prompt, once per prompt however often it was written."""

    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="completions")
    source = models.ForeignKey(Source, models.PROTECT, related_name="completions")
    text = models.TextField()
    text_hash = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["prompt", "text_hash"], name="completion_text"),
            models.CheckConstraint(name="completion_not_empty", condition=~Q(text="")),
        ]

    def __str__(self) -> str:
        return f"completion {self.pk}"


class Origin(models.TextChoices):
    POLICY = "policy", _("Written by a registered policy version")
    IMPORTED = "imported", _("Came with an imported dataset")
    DEMONSTRATION = "demonstration", _("Written or edited by a person as an ideal answer")


class Generation(models.Model):
    """The act that produced a completion; several models may have written the same text."""

    completion = models.ForeignKey(Completion, models.CASCADE, related_name="generations")
    origin = models.CharField(max_length=13, choices=Origin.choices)
    model_version = models.ForeignKey(
        "annotation.ModelVersion", models.PROTECT, null=True, blank=True, related_name="generations"
    )
    writer = models.CharField(max_length=200, blank=True, default="")
    """Name of an outside model or person, when it is not a registered version."""
    annotator = models.ForeignKey(
        Annotator, models.PROTECT, null=True, blank=True, related_name="generations"
    )
    sampling = models.JSONField(default=dict, blank=True)
    """Temperature, max_new_tokens and the like."""
    seed = models.BigIntegerField(null=True, blank=True)
    finish_reason = models.CharField(max_length=10, blank=True, default="")
    job = models.ForeignKey(
        "annotation.TrainingJob", models.PROTECT, null=True, blank=True, related_name="generations"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="generation_policy_has_version",
                condition=~Q(origin="policy") | Q(model_version__isnull=False),
            ),
            # a sample job that is run twice writes nothing twice
            models.UniqueConstraint(
                fields=["completion", "job", "seed"],
                name="generation_once_per_job",
                condition=Q(job__isnull=False),
            ),
            models.UniqueConstraint(
                fields=["completion", "origin", "writer"],
                name="generation_once_per_writer",
                condition=Q(job__isnull=True),
            ),
        ]
        indexes = [
            # services.opponents.can_be_had
            models.Index(
                fields=["completion"],
                name="generation_not_by_policy",
                condition=~Q(origin="policy"),
            ),
        ]

    def __str__(self) -> str:
        return f"generation {self.pk}"


class CompletionScore(models.Model):
    """A reward model's number for a completion; written by workers, read by the queue."""

    completion = models.ForeignKey(Completion, models.CASCADE, related_name="scores")
    model_version = models.ForeignKey(
        "annotation.ModelVersion", models.PROTECT, related_name="completion_scores"
    )
    score = models.FloatField()
    spread = models.FloatField(null=True, blank=True)
    """Standard deviation over the members of an ensemble, where there is one."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["completion", "model_version"], name="score_once")
        ]

    def __str__(self) -> str:
        return f"{self.score:.3f}"
