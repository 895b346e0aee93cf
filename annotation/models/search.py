"""What search reads, and the tags that people give to what they found."""

from django.conf import settings
from django.db import models

from annotation.models.comparisons import Comparison
from annotation.models.projects import Project


class SearchText(models.Model):
    """The words of a comparison's prompt and completions (annotation/search_words.py).

    Indexed by what each database has: PostgreSQL's GIN over the tokens, SQLite's FTS5 beside the
    table, kept by triggers (migration 0033_search).
    """

    comparison = models.OneToOneField(
        Comparison, models.CASCADE, primary_key=True, related_name="search_text"
    )
    grams = models.TextField()

    def __str__(self) -> str:
        return f"words of comparison {self.comparison_id}"


class Tag(models.Model):
    """A word of a project's own for some of its comparisons."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="tags")
    name = models.CharField(max_length=40)
    comparisons = models.ManyToManyField(Comparison, through="Tagging", related_name="tags")

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="tag_name"),
            models.CheckConstraint(name="tag_has_name", condition=~models.Q(name="")),
        ]

    def __str__(self) -> str:
        return self.name


class Tagging(models.Model):
    """That a comparison has a tag, and who gave it."""

    tag = models.ForeignKey(Tag, models.CASCADE, related_name="taggings", db_index=False)
    comparison = models.ForeignKey(Comparison, models.CASCADE, related_name="taggings")
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tag", "comparison"], name="tagging_once")]

    def __str__(self) -> str:
        return f"tag {self.tag_id} of comparison {self.comparison_id}"
