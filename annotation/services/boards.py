"""The leaderboard and its trials, computed once for each state of the ledger.

A board reads every answer of the evaluation and is fitted some two hundred times; who looks again
before anything has changed gets the one of before. Each process keeps a few.
"""

from dataclasses import dataclass

from annotation.kept import kept
from annotation.models import (
    Generation,
    JobKind,
    JobStatus,
    Project,
    Split,
    TrainingJob,
)
from annotation.services.battles import evaluation_of
from annotation.services.ledger_state import State, end_of, votes_and_voids
from annotation.standings import Board, board_of
from annotation.trials import Trial

KEPT = 8
"""Boards in a process."""
ACTIVE = (JobStatus.QUEUED, JobStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class Met:
    """Who met whom on a split, and how it stands."""

    board: Board
    trials: list[Trial]
    """In the order in which they came."""
    there_are_more: bool
    """Questions than were counted."""


def board_at(project: Project, split: str = Split.DEV) -> Met:
    """As the ledger stands now."""
    return _board(project, split, state_of(project))


def state_of(project: Project) -> State:
    """What a board depends on: answers by the newest, voids by the newest audit entry, and what
    jobs that set two against each other have written and noted so far."""
    jobs = TrainingJob.objects.filter(
        project=project, kind=JobKind.SAMPLE, inputs__has_key="against"
    ).order_by("pk")
    stood = tuple(jobs.values_list("pk", "status"))
    at_work = [pk for pk, status in stood if status in ACTIVE]
    notes: State = ()
    if at_work:
        wrote = Generation.objects.filter(job__in=at_work)
        inputs = jobs.filter(pk__in=at_work).values_list("inputs", flat=True)
        notes = (end_of(wrote), *(str(one) for one in inputs))
    return votes_and_voids(project), stood, notes


@kept(KEPT)
def _board(project: Project, split: str, state: State) -> Met:
    found = evaluation_of(project, split)
    return Met(board_of(found.battles), found.trials, found.there_are_more)
