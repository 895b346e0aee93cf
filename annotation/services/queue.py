"""The queue: who works on which comparison, and what their answers count for.

Invariant, for every comparison, on both databases and whatever the interleaving:

    unreleased leases + counted answers + open_slots == answers_wanted

Every write is a short transaction that takes its comparison's row first (a conditional update or
SELECT ... FOR UPDATE) and touches no second comparison: nothing can deadlock, and a claim that
loses a race goes on to the next candidate.
"""

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice

from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from annotation.errors import BadInput, Conflict, LeaseLost, NothingToDo
from annotation.models import (
    Annotator,
    Assignment,
    AssignmentState,
    Comparison,
    LeaseKind,
    Membership,
    Preference,
    Project,
)
from annotation.models.comparisons import ComparisonQuerySet
from annotation.services import answers
from annotation.services.answers import Answer, Judgment
from annotation.services.projects import current_guideline
from annotation.services.rankings import AxisRanking
from annotation.storable import require_storable

PREFETCH_SECONDS = 120
"""A prefetched lease is short: it only bridges the reading of the one before."""
RELEASED_PER_CLAIM = 20
"""A claim clears away this many expired leases of others before it looks around."""
CANDIDATES = 8
"""Comparisons looked at per query of the walk."""
CLAIM_TRIES = 50
"""A claim that loses this many races in a row asks to be repeated a second later."""
MAX_RETRY_SECONDS = 60
MAX_KEY, MAX_REASON = 80, 200

Pool = tuple[str, str]
"""(language, skill) of a comparison."""


def claim_comparison(
    *, annotator: Annotator, kind: str = LeaseKind.ACTIVE, now: datetime | None = None
) -> Assignment:
    """A lease for the annotator; asking again while it lives gives the same one.

    A prefetched lease becomes the active one. The walk goes by priority, then round the ring of
    sort keys from a place of the annotator's own, so that people rarely meet. Raises NothingToDo.
    """
    now = now or timezone.now()
    if kind not in LeaseKind.values:
        raise BadInput(f"A lease is {' or '.join(LeaseKind.values)}: {kind!r}.")
    in_project = Assignment.objects.filter(project=annotator.project_id)
    _release_expired(in_project, now, RELEASED_PER_CLAIM)
    for _ in range(CLAIM_TRIES):
        _release_expired(in_project.filter(annotator=annotator), now)
        if lease := _lease_at_hand(annotator, kind, now):
            return lease
        candidates = _candidates(annotator)
        if not candidates:
            if lease := _lease_at_hand(annotator, kind, now):
                return lease  # another tab took the last one between the two looks
            raise _nothing_to_do(annotator, now)
        for comparison in candidates:
            try:
                if lease := _take(comparison, annotator, kind, now):
                    return lease
            except IntegrityError:
                break  # another tab of the same person was faster: its lease is theirs too
    raise NothingToDo("all_leased", 1)


def renew_lease(*, assignment: Assignment, now: datetime | None = None) -> Assignment:
    """Extend a lease from now; an expired one too, while nobody has released it.

    Raises LeaseLost.
    """
    now = now or timezone.now()
    expires_at = now + _lease_length(assignment.project, assignment.kind)
    renewed = Assignment.objects.filter(pk=assignment.pk, holds_slot=True).update(
        expires_at=expires_at
    )
    if not renewed:
        raise LeaseLost(f"Assignment {assignment.pk} is not leased any more.")
    assignment.refresh_from_db()
    return assignment


@transaction.atomic
def release_lease(*, assignment: Assignment) -> Assignment:
    """Give a lease back unanswered; one that is gone already stays as it is."""
    _lock(assignment.comparison_id)
    _give_back(Assignment.objects.filter(pk=assignment.pk), AssignmentState.RELEASED)
    assignment.refresh_from_db()
    return assignment


@transaction.atomic
def skip_comparison(*, assignment: Assignment, reason: str = "") -> Assignment:
    """Give a comparison back and never see it again. Skipping twice is skipping once.

    Raises Conflict where it was answered.
    """
    reason = reason.strip()
    if len(reason) > MAX_REASON:
        raise BadInput(f"A reason has at most {MAX_REASON} characters, not {len(reason)}.")
    require_storable(reason)
    _lock(assignment.comparison_id)
    mine = Assignment.objects.filter(pk=assignment.pk)
    _give_back(mine, AssignmentState.SKIPPED)
    assignment.refresh_from_db()
    if assignment.state == AssignmentState.ANSWERED:
        raise Conflict(f"Assignment {assignment.pk} is answered already.")
    if assignment.skip_reason == "":
        mine.update(state=AssignmentState.SKIPPED, skip_reason=reason)
        assignment.refresh_from_db()
    return assignment


def submit_preference(
    *,
    assignment: Assignment,
    rankings: Sequence[AxisRanking],
    key: str,
    note: str = "",
    judgments: Sequence[Judgment] = (),
    ideal: str = "",
    now: datetime | None = None,
) -> Preference:
    """Store an answer; the same key returns the first one, also under concurrency.

    A lease that was lost counts if a slot is free, else the answer is kept as surplus
    (counted=False). Raises BadRanking if it does not fit what was shown, Conflict for a second
    answer to the assignment, one after a skip, or a key that belongs to another assignment.
    """
    now = now or timezone.now()
    if not 1 <= len(key) <= MAX_KEY:
        raise BadInput(f"A key has 1 to {MAX_KEY} characters, not {len(key)}.")
    require_storable(key)
    if first := _first_with(key, assignment):
        return first
    answer = answers.checked(
        Answer(rankings=rankings, judgments=judgments, note=note, ideal=ideal),
        scheme=assignment.scheme,
        presented_order=assignment.presented_order,
    )
    try:
        return _answer(assignment, answer, key, now)
    except IntegrityError:  # the same key reached another assignment's answer at the same moment
        if first := _first_with(key, assignment):
            return first
        raise


def sweep_expired_leases(*, now: datetime | None = None) -> int:
    """Release every expired lease, of all projects; returns how many."""
    return _release_expired(Assignment.objects.all(), now or timezone.now())


def shown_order(comparison: Comparison, annotator: Annotator) -> list[int]:
    """The completion ids as this annotator sees them: a shuffle seeded by who and what."""
    ids = list(comparison.entries.order_by("position").values_list("completion_id", flat=True))
    seed = f"order {comparison.pk} {annotator.pk}"
    random.Random(hashlib.sha256(seed.encode()).digest()).shuffle(ids)
    return ids


def _lease_at_hand(annotator: Annotator, kind: str, now: datetime) -> Assignment | None:
    """The live lease of this kind, or the prefetched one made active."""
    live = Assignment.objects.filter(annotator=annotator, holds_slot=True, expires_at__gt=now)
    leases = {lease.kind: lease for lease in live}
    if kind in leases or kind != LeaseKind.ACTIVE or not leases:
        return leases.get(kind)
    try:
        with transaction.atomic():
            live.filter(kind=LeaseKind.PREFETCHED).update(
                kind=LeaseKind.ACTIVE,
                leased_at=now,
                expires_at=now + _lease_length(annotator.project, LeaseKind.ACTIVE),
            )
    except IntegrityError:
        pass  # another tab has just got an active one, which is then this one's too
    return live.filter(kind=kind).first()


@transaction.atomic
def _take(
    comparison: Comparison, annotator: Annotator, kind: str, now: datetime
) -> Assignment | None:
    """Take one slot and write the lease; None where the last slot has just gone."""
    # no join in this WHERE: PostgreSQL checks it again on the row that another claim has changed
    taken = Comparison.objects.filter(
        pk=comparison.pk, open_slots__gt=0, retired_at__isnull=True
    ).update(open_slots=F("open_slots") - 1)
    if not taken:
        return None
    guideline = current_guideline(annotator.project)
    lease = {
        "kind": kind,
        "state": AssignmentState.LEASED,
        "holds_slot": True,
        "guideline": guideline,
        "leased_at": now,
        "expires_at": now + _lease_length(annotator.project, kind),
    }
    before = Assignment.objects.filter(comparison=comparison, annotator=annotator)
    if before.filter(state__in=(AssignmentState.RELEASED, AssignmentState.EXPIRED)).update(**lease):
        return before.get()
    return Assignment.objects.create(
        project_id=annotator.project_id,
        comparison=comparison,
        annotator=annotator,
        scheme_id=comparison.batch.scheme_id,
        presented_order=shown_order(comparison, annotator),
        **lease,
    )


@transaction.atomic
def _answer(assignment: Assignment, answer: Answer, key: str, now: datetime) -> Preference:
    comparison = _lock(assignment.comparison_id)
    if first := _first_with(key, assignment):  # it was stored while this one waited for the lock
        return first
    assignment.refresh_from_db()
    if assignment.state in (AssignmentState.ANSWERED, AssignmentState.SKIPPED):
        raise Conflict(f"Assignment {assignment.pk} is {assignment.state} already.")
    counted = assignment.holds_slot
    if not counted and comparison.open_slots > 0 and comparison.retired_at is None:
        Comparison.objects.filter(pk=comparison.pk).update(open_slots=F("open_slots") - 1)
        counted = True
    assignment.state, assignment.holds_slot = AssignmentState.ANSWERED, False
    assignment.save(update_fields=["state", "holds_slot"])
    preference = Preference.objects.create(
        project_id=assignment.project_id,
        comparison_id=assignment.comparison_id,
        annotator_id=assignment.annotator_id,
        assignment=assignment,
        scheme_id=assignment.scheme_id,
        guideline_id=assignment.guideline_id,
        presented_order=assignment.presented_order,
        counted=counted,
        idempotency_key=key,
        note=answer.note,
        seconds=max(0.0, (now - assignment.leased_at).total_seconds()),
    )
    answers.store(preference, answer)
    return preference


def _first_with(key: str, assignment: Assignment) -> Preference | None:
    first = Preference.objects.filter(idempotency_key=key).first()
    if first is not None and first.assignment_id != assignment.pk:
        raise Conflict(f"Key {key!r} belongs to another answer.")
    return first


def _release_expired(leases: QuerySet[Assignment], now: datetime, most: int | None = None) -> int:
    """Release expired leases one by one, each in a transaction of its own."""
    expired = leases.filter(holds_slot=True, expires_at__lte=now).order_by("expires_at", "pk")
    released = 0
    for pk, comparison_id in list(expired.values_list("pk", "comparison_id")[:most]):
        with transaction.atomic():
            _lock(comparison_id)
            still = Assignment.objects.filter(pk=pk, expires_at__lte=now)
            released += _give_back(still, AssignmentState.EXPIRED)
    return released


def _give_back(lease: QuerySet[Assignment], state: str) -> int:
    """End a lease that holds a slot and re-open it; 0 where it held none. Lock first."""
    comparison_ids = list(lease.values_list("comparison_id", flat=True))
    given = lease.filter(holds_slot=True).update(holds_slot=False, state=state)
    if given:
        Comparison.objects.filter(pk__in=comparison_ids).update(open_slots=F("open_slots") + 1)
    return given


def _lock(comparison_id: int) -> Comparison:
    """The comparison's row, held until the transaction ends (SQLite holds the whole file)."""
    return Comparison.objects.select_for_update(no_key=True).get(pk=comparison_id)


def _lease_length(project: Project, kind: str) -> timedelta:
    seconds = project.lease_seconds
    if kind == LeaseKind.PREFETCHED:
        seconds = min(seconds, PREFETCH_SECONDS)
    return timedelta(seconds=seconds)


# The walk. Each step below is one seek in the index comparison_open_queue; none sorts or counts.


def _candidates(annotator: Annotator) -> list[Comparison]:
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
    return Comparison.objects.filter(
        project=annotator.project_id, open_slots__gt=0, retired_at__isnull=True
    )


def _next_priority(annotator: Annotator, pool: Pool, below: int | None = None) -> int | None:
    walk = _open_in(annotator, pool)
    if below is not None:
        walk = walk.filter(priority__lt=below)
    return walk.order_by("-priority").values_list("priority", flat=True).first()


def _pools_of(annotator: Annotator) -> list[Pool]:
    """The pools with open comparisons that are for this annotator."""
    languages, skills = _fitness(annotator)
    return [pool for pool in _all_pools(annotator) if _fits(pool, languages, skills)]


def _all_pools(annotator: Annotator) -> Iterator[Pool]:
    """Every (language, skill) with open comparisons: two seeks per pool, whatever lies in it."""
    walk = _open(annotator).order_by("language", "skill").values_list("language", "skill")
    pool = walk.filter(language__gte="").first()  # true of all; it leads SQLite to the index
    while pool is not None:
        yield pool
        language, skill = pool
        same_language = walk.filter(language=language, skill__gt=skill)
        pool = same_language.first() or walk.filter(language__gt=language).first()


def _fitness(annotator: Annotator) -> tuple[list[str], list[str]]:
    """Languages (empty = any) and skills of the annotator's membership; of nobody: any, none."""
    membership = Membership.objects.filter(
        project=annotator.project_id, user__isnull=False, user=annotator.user_id
    ).first()
    return (membership.languages, membership.skills) if membership else ([], [])


def _fits(pool: Pool, languages: list[str], skills: list[str]) -> bool:
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


def _nothing_to_do(annotator: Annotator, now: datetime) -> NothingToDo:
    """Which of the three messages it is."""
    leases = Assignment.objects.filter(project=annotator.project_id, holds_slot=True)
    languages, skills = _fitness(annotator)
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
        if _fits((language, skill), languages, skills):
            seconds = math.ceil((expires_at - now).total_seconds())
            return NothingToDo("all_leased", min(max(seconds, 1), MAX_RETRY_SECONDS))
    if leases.exists() or _open(annotator).exists():
        return NothingToDo("none_for_you")
    return NothingToDo("done")
