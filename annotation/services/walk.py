"""The walk: which open comparison comes next for an annotator.

It takes the lanes of the highest priority, of these those due first, that are for the annotator, in
an order drawn by lot each time, and asks the first that has something for what comes next; see
services.lanes. What it meets is handed out in turn, production and evaluation: comparisons of other
purposes are picked, or made for one annotator, by services of their own.
"""

import math
import random
from datetime import datetime
from itertools import groupby, islice
from typing import Any, Literal

from django.db.models import Exists, OuterRef, Q, QuerySet

from annotation.errors import NothingToDo
from annotation.models import (
    Annotator,
    Assignment,
    AssignmentState,
    Batch,
    Comparison,
    Membership,
    Preference,
    Purpose,
)
from annotation.models.comparisons import IN_WALK
from annotation.prepared import Prepared
from annotation.services.lanes import ABOVE_ALL, Lane, next_in, view_of
from annotation.services.leases import MAY_COME_AGAIN
from annotation.services.levels import first_with_any
from annotation.services.selection import choose
from annotation.services.sensitive import why_none

MAX_RETRY_SECONDS = 60
LEVELS_READ = (1, 16, 2**31 - 1)
"""So many levels are read at first, so many then, and then the rest."""
WALKED = (Purpose.PRODUCTION, Purpose.EVALUATION)

Pool = tuple[str, str]
"""(language, skill) of a comparison."""


_COMPARISON = Prepared(
    lambda pk: Comparison.objects.select_related("batch__scheme", "prompt").filter(pk=pk), pk=1
)


def candidates(
    annotator: Annotator, membership: Membership | None = None, now: datetime | None = None
) -> list[Comparison]:
    """The next open comparison for this annotator: of the highest priority there is, and of that
    from a batch that is due first.

    Empty when there is nothing (more) for them. membership: theirs, where it is at hand. now: says
    of which day the cap on sensitive ones is.
    """
    pool = (membership.languages, membership.skills) if membership else fitness(annotator)
    below = ABOVE_ALL
    for levels in LEVELS_READ:
        view = view_of(annotator.project_id, below, levels)
        if not view.lanes:
            break
        passed_over = view.paused
        if view.sensitive and why_none(annotator, now):
            passed_over |= view.sensitive
        mine = [lane for lane in view.lanes if fits((lane.language, lane.skill), *pool)]
        is_top = below == ABOVE_ALL
        if found := _first_in(_in_turn(mine), passed_over, annotator, is_top=is_top):
            return [_by_strategy(_COMPARISON(pk=found)[0], annotator)]
        below = view.lanes[-1].level
    return []


def _in_turn(lanes: list[Lane]) -> list[Lane]:
    """By level, those of one level in an order drawn by lot."""
    levels = [list(level) for _, level in groupby(lanes, key=lambda lane: lane.level)]
    return [lane for level in levels for lane in random.sample(level, len(level))]


def _first_in(
    lanes: list[Lane], passed_over: frozenset[int], annotator: Annotator, *, is_top: bool
) -> int | None:
    """The next comparison of the first lane that has one. is_top: they are of the first level,
    where mostly the first lane has one, and is asked straight."""
    at = 0 if is_top and lanes else first_with_any(lanes, passed_over, annotator)
    while at is not None:
        if found := next_in(lanes[at], passed_over, annotator):
            return found[0]
        lanes = lanes[at + 1 :]  # somebody else may have been faster there
        at = first_with_any(lanes, passed_over, annotator)
    return None


def _by_strategy(walked: Comparison, annotator: Annotator) -> Comparison:
    """What the batch's strategy prefers to the comparison that the walk found, or that itself."""
    choice = choose(walked, annotator)
    if choice is None:
        walked.handed_out_by = ("ring-1", None)
        return walked
    chosen = _COMPARISON(pk=choice.comparison)[0]
    chosen.handed_out_by = (choice.selector, choice.propensity)
    return chosen


def put_off(annotator: Annotator, now: datetime | None = None) -> list[Comparison]:
    """Open comparisons that this annotator put off until nothing else is left, oldest first."""
    languages, skills = fitness(annotator)
    found = (
        Comparison.objects.filter(
            IN_WALK,
            project=annotator.project_id,
            assignments__annotator=annotator,
            assignments__state=AssignmentState.LATER,
            batch__in=_handed_out(annotator, now),
        )
        .select_related("batch")
        .order_by("assignments__leased_at", "pk")
    )
    return [one for one in found if fits((one.language, one.skill), languages, skills)]


_POOL: Prepared[Any] = Prepared(
    lambda project, user: Membership.objects.filter(project=project, user=user).values_list(
        "languages", "skills"
    ),
    project=1,
    user=1,
)


def fitness(annotator: Annotator) -> tuple[list[str], list[str]]:
    """Languages (empty = any) and skills of the annotator's membership; of nobody: any, none."""
    if annotator.user_id is None:
        return [], []
    return _POOL.first(project=annotator.project_id, user=annotator.user_id) or ([], [])


def fits(pool: Pool, languages: list[str], skills: list[str]) -> bool:
    """A member for zh also gets zh-hant; a comparison without language or skill is everyone's."""
    language, skill = pool
    speaks = (
        not languages
        or not language
        or any(language == one or language.startswith(f"{one}-") for one in languages)
    )
    return speaks and (not skill or skill in skills)


def _handed_out(annotator: Annotator, now: datetime | None) -> QuerySet[Batch]:
    """Batches that are not paused, and not sensitive where the annotator is to get none."""
    batches = Batch.objects.filter(project=annotator.project_id, paused=False)
    return batches.filter(sensitive=False) if why_none(annotator, now) else batches


def nothing_to_do(annotator: Annotator, now: datetime) -> NothingToDo:
    """Which of the three messages it is, and whether it is about sensitive comparisons."""
    leases = Assignment.objects.filter(
        project=annotator.project_id, holds_slot=True, comparison__purpose__in=WALKED
    )
    languages, skills = fitness(annotator)
    may_come_free = (
        leases.exclude(annotator=annotator)
        .filter(
            Exists(
                Comparison.objects.filter(_may_be_mine(annotator), pk=OuterRef("comparison_id"))
            ),
            comparison__retired_at__isnull=True,
            comparison__batch__in=_handed_out(annotator, now),
        )
        .order_by("expires_at")
        .values_list("expires_at", "comparison__language", "comparison__skill")
    )
    for expires_at, language, skill in islice(may_come_free.iterator(), 1000):
        if fits((language, skill), languages, skills):
            seconds = math.ceil((expires_at - now).total_seconds())
            return NothingToDo("all_leased", min(max(seconds, 1), MAX_RETRY_SECONDS))
    if leases.exists() or Comparison.objects.filter(IN_WALK, project=annotator.project_id).exists():
        return NothingToDo("none_for_you", because=_passed_over(annotator, now))
    return NothingToDo("done")


def _passed_over(annotator: Annotator, now: datetime) -> Literal["", "refused", "capped"]:
    """Why sensitive comparisons that are open and fit are not for the annotator; empty: none is."""
    because = why_none(annotator, now)
    if not because:
        return ""
    pools = Comparison.objects.filter(
        IN_WALK,
        _may_be_mine(annotator),
        project=annotator.project_id,
        batch__sensitive=True,
        batch__paused=False,
    ).values_list("language", "skill")
    languages, skills = fitness(annotator)
    found = any(fits(pool, languages, skills) for pool in islice(pools.iterator(), 1000))
    return because if found else ""


def _may_be_mine(annotator: Annotator) -> Q:
    """Neither leased, answered nor skipped for good by me."""
    mine = Assignment.objects.filter(comparison=OuterRef("pk"), annotator=annotator).exclude(
        state__in=MAY_COME_AGAIN
    )
    answered = Preference.objects.filter(comparison=OuterRef("pk"), annotator=annotator)
    return ~Q(Exists(mine)) & ~Q(Exists(answered))
