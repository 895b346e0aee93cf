"""The leaderboard and its trials, computed once for each state of the ledger.

A board reads every answer of the evaluation and is fitted some two hundred times; who looks again
before anything has changed gets the one of before. Each process keeps a few.
"""

from dataclasses import dataclass
from functools import lru_cache

from django.db.models import Max

from annotation.models import (
    AuditEntry,
    Generation,
    JobKind,
    JobStatus,
    Preference,
    Project,
    Split,
    TrainingJob,
)
from annotation.services.battles import battles_of
from annotation.standings import Board, board_of
from annotation.trials import Trial

KEPT = 8
"""Boards in a process."""
ACTIVE = (JobStatus.QUEUED, JobStatus.RUNNING)

State = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Met:
    """Who met whom on a split, and how it stands."""

    board: Board
    trials: list[Trial]
    """In the order in which they came."""


def board_at(project: Project, split: str = Split.DEV) -> Met:
    """As the ledger stands now."""
    return _board(project.pk, split, state_of(project))


def forget() -> None:
    """Drop what is kept, for a ledger that was put back to where it was before."""
    _board.cache_clear()


def state_of(project: Project) -> State:
    """What a board depends on: answers by the newest, voids by the newest audit entry, and what
    jobs that set two against each other have written and noted so far."""
    votes = Preference.objects.filter(project=project).aggregate(newest=Max("pk"))
    audit = AuditEntry.objects.filter(project=project).aggregate(newest=Max("pk"))
    jobs = TrainingJob.objects.filter(
        project=project, kind=JobKind.SAMPLE, inputs__has_key="against"
    ).order_by("pk")
    stood = tuple(jobs.values_list("pk", "status"))
    at_work = [pk for pk, status in stood if status in ACTIVE]
    notes: State = ()
    if at_work:
        wrote = Generation.objects.filter(job__in=at_work).aggregate(newest=Max("pk"))
        inputs = jobs.filter(pk__in=at_work).values_list("inputs", flat=True)
        notes = (wrote["newest"], *(str(one) for one in inputs))
    return votes["newest"], audit["newest"], stood, notes


@lru_cache(maxsize=KEPT)
def _board(project: int, split: str, state: State) -> Met:
    battles, trials = battles_of(Project.objects.get(pk=project), split)
    return Met(board_of(battles), trials)
