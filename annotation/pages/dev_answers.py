"""Held-out answers that a job was measured on: what to say of too few, and which figures to leave.

A temperature is fitted to them, so with none it is a default and with a handful it is an end of its
range (100: an order no better than chance); neither is a measurement.
"""

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.models import JobKind, JobStatus, TrainingJob
from annotation.services.heldout import heldout_of
from annotation.verdicts import FEWEST_GROUPS

LEARN_FROM_VOTES = (JobKind.REWARD, JobKind.JUDGE)
USED = "dev_num_used"
"""What the laboratory calls the dev rows of a file that it could measure on."""


def num_dev_of(job: TrainingJob) -> int | None:
    """Answers on held-out prompts that order something: of the job's snapshot, or rows of its
    files, or of the project while the job waits. None where nobody knows or it needs none."""
    if job.kind not in LEARN_FROM_VOTES:
        return None
    if job.snapshot is not None:
        return int(job.snapshot.counts.get("dev", 0))
    if "data" not in job.inputs:
        return heldout_of(job.project).answered if job.status == JobStatus.QUEUED else None
    counted = job.metrics.filter(phase="data").values_list("values", flat=True).first() or {}
    return int(counted[USED]) if USED in counted else None


def warning_of(num_dev: int | None) -> str:
    """One sentence where a model can't be measured, or hardly; empty where it can."""
    if num_dev is None or num_dev >= FEWEST_GROUPS:
        return ""
    if not num_dev:
        return _(
            "Nobody has answered a held-out (dev) question, so nothing measures this model: it has "
            "no accuracy, no temperature, and no gate can judge it."
        )
    return ngettext(
        "Only %(count)s answer to held-out (dev) questions measures this model: its figures on dev "
        "say next to nothing, and a gate judges from %(wanted)s on.",
        "Only %(count)s answers to held-out (dev) questions measure this model: their figures say "
        "next to nothing, and a gate judges from %(wanted)s on.",
        num_dev,
    ) % {"count": num_dev, "wanted": FEWEST_GROUPS}


def is_measured(phase: str, key: str, num_dev: int | None) -> bool:
    """Whether a figure of a job stands for something that was seen on dev, or needs no dev."""
    if num_dev is None or num_dev >= FEWEST_GROUPS:
        return True
    if phase == "scores" and key == "temperature":
        return False
    return bool(num_dev) or not (phase == "dev" or (phase == "scores" and key.startswith("dev_")))
