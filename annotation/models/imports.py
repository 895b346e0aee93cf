"""Files that people hand in to be imported."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from annotation.models.projects import Project


class ImportState(models.TextChoices):
    NEW = "new", _("Not looked at yet")
    CHECKING = "checking", _("Being looked at")
    CHECKED = "checked", _("Ready to import")
    IMPORTING = "importing", _("Being imported")
    DONE = "done", _("Imported")
    FAILED = "failed", _("Not imported")


AT_WORK = (ImportState.CHECKING, ImportState.IMPORTING)
"""Somebody works on it, or will: the row is the message."""


class FileImport(models.Model):
    """A file on its way into a project: handed in, looked at, imported.

    Whoever works on it claims it by a conditional update and is fenced by `attempt`: one that holds
    an older number writes nothing more.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="file_imports")
    name = models.CharField(max_length=120)
    path = models.CharField(max_length=300, blank=True, default="")
    """Relative to ARTIFACTS_DIR; empty once the file is gone."""
    sha256 = models.CharField(max_length=64)
    num_bytes = models.BigIntegerField()
    state = models.CharField(max_length=9, choices=ImportState.choices, default=ImportState.NEW)
    reading = models.JSONField(default=dict, blank=True)
    """What it is taken for, as importers.formats.Reading has it."""
    source_name = models.CharField(max_length=120, blank=True, default="")
    licence = models.CharField(max_length=80, blank=True, default="")
    terms = models.TextField(blank=True, default="")
    account = models.JSONField(default=dict, blank=True)
    """What was found in it: rows, and how many of them would do, or did; the first refusals."""
    rows_done = models.PositiveIntegerField(default=0)
    """Of the import: where another attempt goes on."""
    error = models.TextField(blank=True, default="")
    attempt = models.PositiveIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    """Of whoever works on it; null while nobody does."""
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="file_import_state", condition=models.Q(state__in=ImportState.values)
            )
        ]
        indexes = [
            # services.imports.waiting_imports
            models.Index(
                fields=["id"],
                name="file_import_at_work",
                condition=models.Q(state="checking") | models.Q(state="importing"),
            ),
            models.Index(fields=["project", "-id"], name="file_import_newest_first"),
        ]

    def __str__(self) -> str:
        return f"import of {self.name}"
