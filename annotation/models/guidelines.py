"""The guideline: what annotators are asked to look for, version by version, and who read which."""

from typing import TypedDict

from django.conf import settings
from django.db import models

from annotation.models.projects import Annotator, Project


class FaqWords(TypedDict):
    """A question and its answer in one language."""

    question: str
    answer: str


class FaqEntry(TypedDict):
    """One entry below the guideline. Its id stays when its words change."""

    id: int
    texts: dict[str, FaqWords]


class Guideline(models.Model):
    """One version, in Markdown. Immutable, like a scheme: an edit makes the next version.

    texts: language -> text, e.g. {"en": "...", "zh-hans": "..."}; never empty.
    faq: what leads answered once for all, below the text; its words may lack a language.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="guidelines")
    version = models.PositiveIntegerField()
    texts = models.JSONField(default=dict)
    faq = models.JSONField(default=list, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "version"], name="guideline_version")
        ]

    def __str__(self) -> str:
        return f"guideline {self.version}"

    @property
    def languages(self) -> list[str]:
        """Those it is written in, by name: a database keeps no order in JSON."""
        return sorted(self.texts)

    def nearest(self, language: str) -> str:
        """The language to show to a reader of another: the same, a relative (zh for zh-hans), or
        the first."""
        if language in self.texts:
            return language
        relatives = [one for one in self.languages if one.split("-")[0] == language.split("-")[0]]
        return [*relatives, *self.languages][0]

    def text_in(self, language: str) -> str:
        """The text for a reader of a language."""
        return str(self.texts[self.nearest(language)])

    def faq_in(self, language: str) -> list[FaqWords]:
        """The entries for a reader of a language; one that lacks it in the first that it has."""
        return [
            entry["texts"].get(language) or entry["texts"][min(entry["texts"])]
            for entry in self.faq
        ]

    def whole(self, language: str) -> str:
        """Text and entries as one text, which is what versions are compared by."""
        entries = [f"### {one['question']}\n\n{one['answer']}" for one in self.faq_in(language)]
        return "\n\n".join([self.text_in(language).strip(), *entries])


class GuidelineReading(models.Model):
    """An annotator said that they had read a version."""

    annotator = models.ForeignKey(Annotator, models.CASCADE, related_name="readings")
    guideline = models.ForeignKey(Guideline, models.CASCADE, related_name="readings")
    read_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["annotator", "guideline"], name="guideline_read_once")
        ]

    def __str__(self) -> str:
        return f"{self.annotator_id} read {self.guideline_id}"
