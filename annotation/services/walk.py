"""The walk: which open comparison comes next for an annotator.

Each step is one seek in the index comparison_open_queue; none sorts or counts. The index holds what
is handed out in turn, production and evaluation: comparisons of other purposes are picked, or made
for one annotator, by services of their own and never met here.
"""

import hashlib
import math
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from django.db.models import Exists, OuterRef, Q

from annotation.errors import NothingToDo
from annotation.models import (
    Annotator,
    Assignment,
    AssignmentState,
    Comparison,
    Membership,
    Preference,
    Purpose,
)
from annotation.models.comparisons import IN_WALK, ComparisonQuerySet

CANDIDATES = 8
"""Comparisons looked at per query of the walk."""
MAX_RETRY_SECONDS = 60
WALKED = (Purpose.PRODUCTION, Purpose.EVALUATION)

Pool = tuple[str, str]
"""(language, skill) of a comparison."""


def candidates(annotator: Annotator) -> list[Comparison]:
    """The next open comparisons for this annotator: highest priority first, then round the ring.

    Pools of one priority are merged by sort key. Empty when there is nothing (more) for them.
    """
    place = _place_on_ring(annotator)
    pools = _pools_of(annotator)
    below: dict[Pool, int | None] = {pool: _next_priority(annotator, pool) for pool in pools}
    while priorities := [priority for priority in below.values() if priority is not None]:
        top = max(priorities)
        level = [pool for pool, priority in below.items() if priority == top]
        for from_place in (True, False):
            found = [
                comparison
                for pool in level
                for comparison in _stretch(annotator, pool, top, place, from_place=from_place)
            ]
            if found:
                return sorted(found, key=lambda one: (one.sort_key, one.pk))
        for pool in level:
            below[pool] = _next_priority(annotator, pool, top)
    return []


def _stretch(
    annotator: Annotator, pool: Pool, priority: int, place: float, *, from_place: bool
) -> list[Comparison]:
    """The first candidates of a pool on one side of the place."""
    side = Q(sort_key__gte=place) if from_place else Q(sort_key__lt=place)
    walk = (
        _open_in(annotator, pool)
        .filter(side, _not_mine(annotator), priority=priority, batch__paused=False)
        .select_related("batch")
        .order_by("sort_key")
    )
    return list(walk[:CANDIDATES])


def _not_mine(annotator: Annotator) -> Q:
    """Neither leased, answered nor skipped by me; an expired or released lease may come again."""
    mine = Assignment.objects.filter(comparison=OuterRef("pk"), annotator=annotator).exclude(
        state__in=(AssignmentState.RELEASED, AssignmentState.EXPIRED)
    )
    answered = Preference.objects.filter(comparison=OuterRef("pk"), annotator=annotator)
    return ~Q(Exists(mine)) & ~Q(Exists(answered))


def _open_in(annotator: Annotator, pool: Pool) -> ComparisonQuerySet:
    language, skill = pool
    return _open(annotator).filter(language=language, skill=skill)


def _open(annotator: Annotator) -> ComparisonQuerySet:
    """What the partial index holds; paused batches are sorted out later, by a join."""
    return Comparison.objects.filter(IN_WALK, project=annotator.project_id)


def _next_priority(annotator: Annotator, pool: Pool, below: int | None = None) -> int | None:
    walk = _open_in(annotator, pool)
    if below is not None:
        walk = walk.filter(priority__lt=below)
    return walk.order_by("-priority").values_list("priority", flat=True).first()


def _pools_of(annotator: Annotator) -> list[Pool]:
    """The pools with open comparisons that are for this annotator."""
    languages, skills = fitness(annotator)
    return [pool for pool in _all_pools(annotator) if fits(pool, languages, skills)]


def _all_pools(annotator: Annotator) -> Iterator[Pool]:
    """Every (language, skill) with open comparisons: two seeks per pool, whatever lies in it."""
    walk = _open(annotator).order_by("language", "skill").values_list("language", "skill")
    pool = walk.filter(language__gte="").first()  # true of all; it leads SQLite to the index
    while pool is not None:
        yield pool
        language, skill = pool
        same_language = walk.filter(language=language, skill__gt=skill)
        pool = same_language.first() or walk.filter(language__gt=language).first()


def fitness(annotator: Annotator) -> tuple[list[str], list[str]]:
    """Languages (empty = any) and skills of the annotator's membership; of nobody: any, none."""
    membership = Membership.objects.filter(
        project=annotator.project_id, user__isnull=False, user=annotator.user_id
    ).first()
    return (membership.languages, membership.skills) if membership else ([], [])


def fits(pool: Pool, languages: list[str], skills: list[str]) -> bool:
    """A member for zh also gets zh-hant; a comparison without language or skill is everyone's."""
    language, skill = pool
    speaks = (
        not languages
        or not language
        or any(language == one or language.startswith(f"{one}-") for one in languages)
    )
    return speaks and (not skill or skill in skills)


def _place_on_ring(annotator: Annotator) -> float:
    """Where this annotator's walk starts, in [0, 1)."""
    digest = hashlib.sha256(f"place {annotator.pk}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def nothing_to_do(annotator: Annotator, now: datetime) -> NothingToDo:
    """Which of the three messages it is."""
    leases = Assignment.objects.filter(
        project=annotator.project_id, holds_slot=True, comparison__purpose__in=WALKED
    )
    languages, skills = fitness(annotator)
    may_come_free = (
        leases.exclude(annotator=annotator)
        .filter(
            Exists(Comparison.objects.filter(_not_mine(annotator), pk=OuterRef("comparison_id"))),
            comparison__retired_at__isnull=True,
            comparison__batch__paused=False,
        )
        .order_by("expires_at")
        .values_list("expires_at", "comparison__language", "comparison__skill")
    )
    for expires_at, language, skill in islice(may_come_free.iterator(), 1000):
        if fits((language, skill), languages, skills):
            seconds = math.ceil((expires_at - now).total_seconds())
            return NothingToDo("all_leased", min(max(seconds, 1), MAX_RETRY_SECONDS))
    if leases.exists() or _open(annotator).exists():
        return NothingToDo("none_for_you")
    return NothingToDo("done")
