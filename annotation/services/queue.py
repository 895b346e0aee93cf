"""The queue: who works on which comparison, and what their answers count for.

Invariant, for every comparison, on both databases and whatever the interleaving:

    unreleased leases + counted answers + open_slots == answers_wanted

Every write is a short transaction that takes its comparison's row first (a conditional update or
SELECT ... FOR UPDATE) and touches no second comparison: nothing can deadlock, and a claim that
loses a race goes on to the next candidate.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict, LeaseLost, NothingToDo
from annotation.models import (
    Annotator,
    AnnotatorStanding,
    Assignment,
    AssignmentState,
    Comparison,
    LeaseKind,
    Membership,
    Preference,
    SkipMode,
)
from annotation.prepared import Prepared, insert
from annotation.services import answers, checks, repeats, sensitive, standing, walk
from annotation.services.answers import Answer, Judgment
from annotation.services.batches import retire_comparison
from annotation.services.disagreements import look_again
from annotation.services.gold import CHECKED
from annotation.services.leases import (
    give_back,
    lease_at_hand,
    lease_length,
    lock_comparison,
    release_all_expired,
    release_some_expired,
    take,
)
from annotation.services.overlap import settle
from annotation.services.rankings import AxisRanking
from annotation.services.worktime import count_skip
from annotation.storable import require_storable

CLAIM_TRIES = 50
"""A claim that loses this many races in a row asks to be repeated a second later."""
MAX_KEY, MAX_REASON = 80, 200

_WITH_KEY = Prepared(lambda key: Preference.objects.filter(idempotency_key=key), key="")
_VALID = Prepared(
    lambda comparison: (
        Preference.objects.valid().filter(comparison=comparison).values_list("pk")[:2]
    ),
    comparison=1,
)
_STATE = Prepared(
    lambda pk: Assignment.objects.filter(pk=pk).values_list("state", "holds_slot", "leased_at"),
    pk=1,
)


def claim_comparison(
    *,
    annotator: Annotator,
    kind: str = LeaseKind.ACTIVE,
    membership: Membership | None = None,
    now: datetime | None = None,
) -> Assignment:
    """A lease for the annotator; asking again while it lives gives the same one.

    A prefetched lease becomes the active one. The walk goes by priority, then by due date, then
    round the ring of sort keys from a place of the annotator's own, so that people rarely meet.
    membership: the annotator's, where the caller has just read it. Raises NothingToDo.
    """
    now = now or timezone.now()
    if kind not in LeaseKind.values:
        raise BadInput(f"A lease is {' or '.join(LeaseKind.values)}: {kind!r}.")
    checks.require_not_stopped(annotator)
    for number in range(CLAIM_TRIES):
        if lease := lease_at_hand(annotator, kind, now):
            return lease
        if number == 0:
            release_some_expired(annotator.project_id, now)
        try:
            if lease := checks.lease_of_qualification(annotator, kind, now):
                return lease
        except IntegrityError:
            continue  # another tab of the same person was faster: its lease is theirs too
        candidates = walk.candidates(annotator, membership, now) or walk.put_off(annotator, now)
        if not candidates:
            if lease := lease_at_hand(annotator, kind, now):
                return lease  # another tab took the last one between the two looks
            raise walk.nothing_to_do(annotator, now)
        try:
            if lease := checks.lease_of_hidden_check(annotator, candidates[0], kind, now):
                return lease
            if lease := repeats.lease_of_repeat(annotator, candidates[0], kind, now):
                return lease
        except IntegrityError:
            continue
        for comparison in candidates:
            try:
                if lease := take(comparison, annotator, kind, now):
                    return lease
            except IntegrityError:
                break  # another tab of the same person was faster: its lease is theirs too
    raise NothingToDo("all_leased", 1)


def renew_lease(*, assignment: Assignment, now: datetime | None = None) -> Assignment:
    """Extend a lease from now; an expired one too, while nobody has released it.

    Raises LeaseLost.
    """
    now = now or timezone.now()
    expires_at = now + lease_length(assignment.project, assignment.kind)
    renewed = Assignment.objects.filter(pk=assignment.pk, holds_slot=True).update(
        expires_at=expires_at
    )
    if not renewed:
        raise LeaseLost(
            gettext("Assignment %(number)s is not leased any more.") % {"number": assignment.pk}
        )
    assignment.refresh_from_db()
    return assignment


@transaction.atomic
def release_lease(*, assignment: Assignment) -> Assignment:
    """Give a lease back unanswered; one that is gone already stays as it is."""
    lock_comparison(assignment.comparison_id)
    give_back(Assignment.objects.filter(pk=assignment.pk), AssignmentState.RELEASED)
    assignment.refresh_from_db()
    return assignment


def refuse_sensitive(*, annotator: Annotator, refuses: bool) -> None:
    """Give the annotator no comparison of a sensitive batch from now on, or some again; what they
    hold of these goes back."""
    for lease in sensitive.set_wish(annotator=annotator, refuses=refuses):
        release_lease(assignment=lease)


@transaction.atomic
def skip_comparison(*, assignment: Assignment, reason: str = "") -> Assignment:
    """Give a comparison back; the batch's skip mode says whether it comes again, or is retired.

    Skipping twice is skipping once. Raises Conflict where it was answered.
    """
    reason = reason.strip()
    if len(reason) > MAX_REASON:
        raise BadInput(
            gettext("A reason has at most %(most)s characters, not %(seen)s.")
            % {"most": MAX_REASON, "seen": len(reason)}
        )
    require_storable(reason)
    comparison = lock_comparison(assignment.comparison_id)
    mode = (assignment.stands_in_for or comparison.batch).skip_mode
    state = AssignmentState.LATER if mode == SkipMode.LATER else AssignmentState.SKIPPED
    mine = Assignment.objects.filter(pk=assignment.pk)
    if give_back(mine, state):
        count_skip(annotator_id=assignment.annotator_id)
    assignment.refresh_from_db()
    if assignment.state == AssignmentState.ANSWERED:
        raise Conflict(
            gettext("Assignment %(number)s is answered already.") % {"number": assignment.pk}
        )
    if assignment.skip_reason == "":
        mine.update(state=state, skip_reason=reason)
        assignment.refresh_from_db()
    if mode == SkipMode.RETIRE and assignment.stands_in_for_id is None:
        _retire_if_skipped_enough(comparison, assignment.annotator)
    return assignment


def _retire_if_skipped_enough(comparison: Comparison, last: Annotator) -> None:
    skipped = comparison.assignments.filter(state=AssignmentState.SKIPPED).count()
    if skipped >= comparison.batch.skips_to_retire and comparison.retired_at is None:
        retire_comparison(comparison=comparison, by=last.user, reason=f"skipped by {skipped}")


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
    """Store an answer; sent again with its key it returns the first, also under concurrency.

    A lease that was lost counts if a slot is free, else the answer is kept as surplus
    (counted=False). Raises BadRanking if it does not fit what was shown, Conflict for a second
    answer to the assignment, one after a skip, or a key that belongs to another answer: what was
    changed before it was sent again must not pass for stored.
    """
    now = now or timezone.now()
    if not 1 <= len(key) <= MAX_KEY:
        raise BadInput(f"A key has 1 to {MAX_KEY} characters, not {len(key)}.")
    require_storable(key)
    answer = answers.checked(
        Answer(rankings=rankings, judgments=judgments, note=note, ideal=ideal),
        scheme=assignment.scheme,
        presented_order=assignment.presented_order,
    )
    try:
        preference = _answer(assignment, answer, key, now)
    except IntegrityError:  # an answer with this key is there
        if first := _first_with(key, assignment, answer):
            return first
        raise
    if preference.comparison.purpose in CHECKED:
        _release_if_stopped(assignment.annotator_id)
    return preference


def sweep_expired_leases(*, now: datetime | None = None) -> int:
    """Release every expired lease, of all projects; returns how many."""
    return release_all_expired(now or timezone.now())


@transaction.atomic
def _answer(assignment: Assignment, answer: Answer, key: str, now: datetime) -> Preference:
    comparison = lock_comparison(assignment.comparison_id)
    state, counted, leased_at = _STATE(pk=assignment.pk)[0]
    if state in (AssignmentState.ANSWERED, AssignmentState.SKIPPED):
        if first := _first_with(key, assignment, answer):
            return first
        raise Conflict(f"Assignment {assignment.pk} is {state} already.")
    if not counted and comparison.open_slots > 0 and comparison.retired_at is None:
        Comparison.objects.filter(pk=comparison.pk).update(open_slots=F("open_slots") - 1)
        counted = True
    assignment.state, assignment.holds_slot = AssignmentState.ANSWERED, False
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE annotation_assignment SET state = %s, holds_slot = %s WHERE id = %s",
            [AssignmentState.ANSWERED.value, False, assignment.pk],
        )
    preference = Preference(
        project_id=assignment.project_id,
        comparison=comparison,
        annotator=assignment.annotator,
        assignment=assignment,
        scheme=assignment.scheme,
        guideline=assignment.guideline,
        presented_order=assignment.presented_order,
        counted=counted,
        idempotency_key=key,
        note=answer.note,
        seconds=max(0.0, (now - leased_at).total_seconds()),
    )
    insert(preference)
    answers.store(preference, answer)
    is_alone = comparison.answers_wanted == 1 and counted  # but for surplus and imported ones
    if not is_alone or len(_VALID(comparison=comparison.pk)) > 1:
        look_again(comparison.pk)
    standing.score_answer(preference, comparison.purpose, now)
    if comparison.full_overlap is not None:
        settle(comparison.pk)
    return preference


def _release_if_stopped(annotator_id: int) -> None:
    """Give back what a stopped annotator holds: each lease by itself, after the answer is stored,
    for a transaction takes one comparison's row alone."""
    held = Assignment.objects.filter(
        annotator=annotator_id, annotator__standing=AnnotatorStanding.STOPPED, holds_slot=True
    )
    for lease in held:
        release_lease(assignment=lease)


def _first_with(key: str, assignment: Assignment, answer: Answer) -> Preference | None:
    first = _WITH_KEY.first(key=key)
    if first is None:
        return None
    if first.assignment_id != assignment.pk or not answers.says(first, answer):
        raise Conflict(f"Key {key!r} belongs to another answer.")
    return first
