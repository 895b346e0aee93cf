"""Exports that people order."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from annotation.models.projects import Project


class OrderState(models.TextChoices):
    WAITING = "waiting", _("Being written")
    DONE = "done", _("Written")
    FAILED = "failed", _("Not written")


class ExportOrder(models.Model):
    """An export that was asked for; whoever writes it claims it and is fenced by `attempt`."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="export_orders")
    format = models.CharField(max_length=12)
    files = models.CharField(max_length=8)
    query = models.JSONField(default=dict, blank=True)
    """As it was asked."""
    position = models.JSONField(default=dict, blank=True)
    """Where the ledger stood then: what comes until it is written is not in it."""
    counts_only = models.BooleanField(default=False)
    """Count what freezing would give, and freeze nothing."""
    state = models.CharField(max_length=7, choices=OrderState.choices, default=OrderState.WAITING)
    export = models.CharField(max_length=40, blank=True, default="")
    """The export's id once it is done: the name of its folder."""
    account = models.JSONField(default=dict, blank=True)
    """Of what was counted only: `rows` and `funnel`."""
    rows_done = models.PositiveBigIntegerField(default=0)
    """Frozen or written so far, by this attempt."""
    error = models.TextField(blank=True, default="")
    attempt = models.PositiveIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    """Of whoever writes it; null while nobody does."""
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="export_order_state", condition=models.Q(state__in=OrderState.values)
            )
        ]
        indexes = [
            # services.exports.waiting_orders
            models.Index(
                fields=["id"],
                name="export_order_waiting",
                condition=models.Q(state="waiting"),
            ),
            models.Index(fields=["project", "-id"], name="export_order_newest_first"),
        ]

    def __str__(self) -> str:
        return f"export order {self.pk}"
