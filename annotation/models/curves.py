"""Curves of a run, kept so that a page draws ten thousand steps from a few hundred rows."""

from django.db import models

from annotation.models.registry import TrainingJob


class CurvePiece(models.Model):
    """`size` neighbouring steps of a phase of a job: each figure's lowest, highest and last.

    Made from the job's metrics as they come in, by services/curves.py.
    """

    job = models.ForeignKey(TrainingJob, models.CASCADE, related_name="curve_pieces")
    size = models.PositiveIntegerField()
    """Steps in it, recorded or not."""
    phase = models.CharField(max_length=40)
    start = models.PositiveIntegerField()
    """Its first step, a multiple of size."""
    values = models.JSONField()
    """Figure -> [[step, value] ...] by step, three at most; empty where it had no number."""

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["job", "size", "phase", "start"], name="curve_piece_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.phase} {self.start} + {self.size}"
