"""Answers sent back: every step of their state, what is refused, races, the invariant."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from annotation.errors import BadInput, Conflict
from annotation.models import AuditEntry, Preference, SendBack, SendBackState
from annotation.services.projects import annotator_for
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.rankings import AxisRanking
from annotation.services.review import revise_preference, void_preference
from annotation.services.sendbacks import decline, may_be_sent_back, send_back, withdraw
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_member,
    make_project,
    make_user,
    require_invariant,
)

pytestmark = pytest.mark.django_db
BAD = [AxisRanking(outcome="both_bad")]


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def preference(project) -> Preference:
    return answered(project)


def answered(project, **comparison) -> Preference:
    make_comparisons(project, **comparison)
    lease = claim_comparison(annotator=make_annotator(project))
    return submit_preference(assignment=lease, rankings=as_shown(lease), key=f"key {lease.pk}")


def sent(preference, comment="Answer 2 is about another jacket.") -> SendBack:
    return send_back(preference=preference, by=make_user(), comment=comment)


STEPS = {
    "revise": lambda one: revise_preference(
        preference=one.preference, rankings=BAD, cause="edited by the annotator"
    ),
    "decline": lambda one: decline(sent=one, by=make_user(), reply="It is the same jacket."),
    "void": lambda one: void_preference(preference=one.preference, by=make_user(), reason="spam"),
    "withdraw": lambda one: withdraw(sent=one, by=make_user()),
}
ENDS = {"revise": "revised", "decline": "declined", "void": "voided", "withdraw": "withdrawn"}


@pytest.mark.parametrize("step", STEPS)
def test_every_way_out_of_open(preference, step):
    one = sent(preference)
    require_invariant(preference.project)
    assert Preference.objects.get().counted  # it counts as it is until then
    STEPS[step](one)
    one.refresh_from_db()
    assert one.state == ENDS[step]
    assert one.settled_at is not None
    assert not SendBack.objects.open().exists()
    require_invariant(preference.project)


@pytest.mark.parametrize("second", STEPS)
@pytest.mark.parametrize("first", STEPS)
def test_whoever_comes_second_changes_nothing_of_the_outcome(preference, first, second):
    """Two tabs with the same open row; an answer that was declined or withdrawn is still there."""
    one = sent(preference)
    stale = SendBack.objects.select_related("preference").get(pk=one.pk)
    STEPS[first](one)
    still_there = first in ("decline", "withdraw") and second in ("revise", "void")
    if still_there:
        STEPS[second](stale)
    else:
        with pytest.raises(Conflict, match=r"already|was replaced|settled before"):
            STEPS[second](stale)
    one.refresh_from_db()
    assert one.state == ENDS[first]
    require_invariant(preference.project)


def test_a_revision_says_that_it_was_sent_back_and_takes_the_count_along(preference):
    one = sent(preference, "x" * 300)
    new = revise_preference(preference=preference, rankings=BAD, cause="edited by the annotator")
    assert new.cause == "sent back: " + "x" * 189
    assert new.counted
    one.refresh_from_db()
    assert one.revision == new
    again = revise_preference(preference=new, rankings=BAD, cause="edited by the annotator")
    assert again.cause == "edited by the annotator"
    one.refresh_from_db()
    assert one.revision == new


def test_declined_words_are_kept_and_the_answer_stands(preference):
    one = sent(preference)
    decline(sent=one, by=preference.annotator.user, reply=" It is\r\nthe same. ")
    assert one.reply == "It is\nthe same."
    preference.refresh_from_db()
    assert preference.counted
    second = sent(preference, "Read it again, please.")
    assert second.pk != one.pk
    assert SendBack.objects.open().get() == second


def test_a_void_opens_the_slot_of_an_answer_on_its_way_back(preference):
    sent(preference)
    void_preference(preference=preference, by=make_user(), reason="spam")
    preference.comparison.refresh_from_db()
    assert preference.comparison.open_slots == 1
    assert SendBack.objects.get().state == SendBackState.VOIDED


def test_a_void_answer_and_one_that_was_replaced_are_not_sent_back(project):
    first, second = answered(project), answered(project)
    void_preference(preference=first, by=make_user(), reason="spam")
    revise_preference(preference=second, rankings=BAD, cause="Misread")
    for one, why in ((first, "void already"), (second, "replaced by a revision")):
        with pytest.raises(Conflict, match=why):
            sent(one)


def test_one_answer_goes_back_once_at_a_time(preference):
    sent(preference)
    with pytest.raises(Conflict, match="on its way back already"):
        sent(preference)


def test_nobody_is_asked_who_has_no_desk_and_nobody_asks_themselves(project, preference):
    reviewer = make_member(project, "reviewer")
    own = claim_comparison_of(project, reviewer)
    assert not may_be_sent_back(own, reviewer)
    with pytest.raises(Conflict, match="is your own answer"):
        send_back(preference=own, by=reviewer, comment="Hm.")
    preference.annotator.kind = "simulated"
    preference.annotator.save()
    with pytest.raises(Conflict, match="nobody who could be asked again"):
        sent(preference)


def claim_comparison_of(project, user) -> Preference:
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator_for(user=user, project=project))
    return submit_preference(assignment=lease, rankings=as_shown(lease), key="own")


@pytest.mark.parametrize("purpose", ["gold", "qualification", "repeat"])
def test_checks_are_not_sent_back(preference, purpose):
    preference.comparison.purpose = purpose
    preference.comparison.save()
    with pytest.raises(Conflict, match="answers a check"):
        sent(Preference.objects.get())


@pytest.mark.parametrize("words", ["", "  ", "x" * 2001])
def test_comment_and_reply_are_words_of_some_length(preference, words):
    with pytest.raises(
        BadInput, match=f"A comment has 1 to 2000 characters, not {len(words.strip())}"
    ):
        sent(preference, words)
    one = sent(preference)
    with pytest.raises(BadInput, match="A reply has 1 to 2000 characters"):
        decline(sent=one, by=make_user(), reply=words)
    one.refresh_from_db()
    assert one.state == SendBackState.OPEN


def test_the_log_tells_who_did_what(project):
    for step in STEPS:
        one = sent(answered(project))
        STEPS[step](one)
    told = AuditEntry.objects.filter(action__startswith="send_back").order_by("pk")
    assert [entry.action.partition(".")[2] for entry in told] == [
        "new", "new", "declined", "new", "new", "withdrawn",
    ]  # fmt: skip
    assert all(entry.actor for entry in told)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "steps",
    [
        ("revise", "decline"),
        ("void", "decline"),
        ("revise", "void"),
        ("withdraw", "revise"),
        ("revise", "revise"),
    ],
)
def test_of_two_at_the_same_moment_one_wins(project, steps):
    """Both start from the open row in threads of their own; the outcome is one of the two."""
    for _ in range(3):
        one = sent(answered(project))

        def run(step, pk=one.pk):
            try:
                STEPS[step](SendBack.objects.select_related("preference").get(pk=pk))
                return True
            except Conflict:
                return False
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(run, steps))
        one.refresh_from_db()
        winners = [step for step, won in zip(steps, done, strict=True) if won]
        assert winners
        assert one.state in {ENDS[step] for step in winners}
        assert (one.revision is not None) == (one.state == "revised")
        assert Preference.objects.filter(annotator=one.annotator, current=True).count() == 1
        require_invariant(project)
