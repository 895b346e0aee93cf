"""People whose data was deleted, and the datasets that held it."""

from django.conf import settings
from django.db import models

from annotation.models.projects import Annotator, Project
from annotation.models.registry import DatasetSnapshot


class Forgotten(models.Model):
    """A person is to be forgotten: none of their answers stands in any dataset from then on.

    The row is the message: datasets that held an answer are replaced one by one, and what is left
    after a crash is found by the next look.
    """

    project = models.ForeignKey(Project, models.PROTECT, related_name="forgotten")
    annotator = models.OneToOneField(Annotator, models.PROTECT, related_name="forgotten")
    outside_digest = models.CharField(max_length=64, blank=True, default="")
    """Of the id that an imported dataset has for them (services.outside); "" for a person here."""
    reason = models.CharField(max_length=200)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"forgetting of {self.annotator_id}"


class Tombstone(models.Model):
    """A dataset whose file is gone, for it held the data of somebody who was forgotten. Its row
    stays, with counts, hash and query."""

    snapshot = models.OneToOneField(DatasetSnapshot, models.PROTECT, related_name="tombstone")
    successor = models.ForeignKey(
        DatasetSnapshot, models.PROTECT, null=True, blank=True, related_name="stands_for"
    )
    """The same query at the same position without them; none where that can't be told again."""
    forgotten = models.ForeignKey(Forgotten, models.PROTECT, related_name="tombstones")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"tombstone of {self.snapshot_id}"
