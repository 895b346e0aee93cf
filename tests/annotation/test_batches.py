"""What a lead decides about a batch, and what becomes of its comparisons and leases."""

from datetime import date

import pytest

from annotation.errors import BadInput, Conflict
from annotation.models import AuditEntry, Batch, Comparison
from annotation.services import batches
from annotation.services.batches import (
    bring_in_line,
    change_batch,
    progress_of,
    reopen_comparison,
    retire_comparison,
)
from annotation.services.ledger import add_completion, batch_for, open_comparison
from annotation.services.projects import new_scheme
from annotation.services.queue import claim_comparison, release_lease, submit_preference
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_project,
    make_prompts,
    make_user,
    require_invariant,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def annotator(project):
    return make_annotator(project)


@pytest.fixture
def lead():
    return make_user()


def answer(annotator):
    lease = claim_comparison(annotator=annotator)
    return submit_preference(assignment=lease, rankings=as_shown(lease), key=f"key {lease.pk}")


def change(batch, by=None, **changes):
    return change_batch(batch=batch, changes=changes, by=by)


def slots(project):
    return list(
        Comparison.objects.filter(project=project)
        .order_by("pk")
        .values_list("answers_wanted", "open_slots")
    )


def test_progress_counts_places_of_comparisons_that_are_not_retired(project, annotator):
    first, _second, third = make_comparisons(
        project, 3, answers_wanted=2, language="en", priority=1
    )
    other = make_comparisons(project, batch="second", language="zh")[0].batch
    retire_comparison(comparison=third, by=None, reason="broken")
    answer(annotator)
    claim_comparison(annotator=annotator)
    mine, theirs = progress_of([first.batch, other]).values()
    assert (mine.comparisons, mine.retired, mine.wanted, mine.free, mine.taken) == (3, 1, 4, 2, 2)
    assert (mine.languages, theirs.languages) == ({"en"}, {"zh"})
    assert (theirs.wanted, theirs.free, theirs.taken) == (1, 1, 0)


def test_progress_of_any_number_of_batches_is_one_query(project, django_assert_num_queries):
    made = [make_comparisons(project, batch=name)[0].batch for name in "abc"]
    with django_assert_num_queries(1):
        progress_of(made)


def test_a_new_priority_moves_open_and_full_comparisons(project, annotator, monkeypatch):
    monkeypatch.setattr(batches, "ROWS_AT_ONCE", 2)
    slow = make_comparisons(project, 5)
    [urgent] = make_comparisons(project, batch="second", priority=1)
    change(slow[0].batch, priority=2)
    assert {Comparison.objects.get(pk=one.pk).priority for one in slow} == {2}
    assert claim_comparison(annotator=annotator).comparison in slow
    urgent.refresh_from_db()
    assert urgent.priority == 1


def test_raising_the_overlap_opens_slots_on_all_that_are_not_retired(project, annotator):
    made = make_comparisons(project, 3)
    retire_comparison(comparison=made[2], by=None, reason="broken")
    answered = answer(annotator).comparison_id
    change(made[0].batch, overlap=3)
    assert slots(project) == [
        (1, 1) if one == made[2] else (3, 2) if one.pk == answered else (3, 3) for one in made
    ]
    require_invariant(project)


def test_an_overlap_opens_the_slots_of_comparisons_to_come(project):
    [first] = make_comparisons(project)
    change(first.batch, overlap=2)
    make_comparisons(project)
    assert slots(project) == [(2, 2), (2, 2)]


def test_comparisons_that_came_with_their_answers_want_none(project):
    [imported] = make_comparisons(project, answers_wanted=0)
    change(imported.batch, overlap=4)
    make_comparisons(project, answers_wanted=0)
    assert slots(project) == [(0, 0), (0, 0)]


def test_an_overlap_is_not_lowered(project):
    [one] = make_comparisons(project)
    change(one.batch, overlap=3)
    with pytest.raises(BadInput, match="is 3 and can only be raised: 2"):
        change(one.batch, overlap=2)
    with pytest.raises(BadInput, match="1 to 1000 answers: None"):
        change(one.batch, overlap=None)
    assert slots(project) == [(3, 3)]


def test_a_change_that_was_cut_off_is_finished_by_saving_again(project):
    made = make_comparisons(project, 3)
    batch = change(made[0].batch, overlap=2, priority=4)
    Comparison.objects.filter(pk=made[1].pk).update(priority=0, answers_wanted=1, open_slots=1)
    change(batch, overlap=2, priority=4)
    assert slots(project) == [(2, 2)] * 3
    assert set(Comparison.objects.values_list("priority", flat=True)) == {4}
    assert AuditEntry.objects.filter(action="batch.change").count() == 1
    assert bring_in_line(batch) == 0


def test_leases_follow_the_newer_scheme_and_answers_in_hand_their_own(project, annotator):
    first, _second = make_comparisons(project, 2, answers_wanted=2)
    old = first.batch.scheme
    newer = new_scheme(project=project, by=None, axes=["overall"], allow_tie=False)
    in_hand = claim_comparison(annotator=annotator)
    other = make_annotator(project)
    given_back = claim_comparison(annotator=other)
    release_lease(assignment=given_back)
    change(first.batch, scheme=newer)
    preference = submit_preference(assignment=in_hand, rankings=as_shown(in_hand), key="k")
    assert preference.scheme == old
    again = claim_comparison(annotator=other)
    assert (again.pk, again.scheme) == (given_back.pk, newer)
    assert claim_comparison(annotator=annotator).scheme == newer


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"priority": 40_000}, "from -32767 to 32767: 40000"),
        ({"priority": True}, "whole number"),
        ({"due_on": "tomorrow"}, "a date or none: 'tomorrow'"),
        ({"scheme": None}, "no such scheme: None"),
        ({"overlap": 0}, "1 to 1000 answers: 0"),
        ({"skip_mode": "never"}, "others, later, retire: 'never'"),
        ({"skips_to_retire": 0}, "1 to 100 skips"),
        ({"name": "x"}, "not 'name'"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_changes(project, changes, words):
    [one] = make_comparisons(project)
    with pytest.raises(BadInput, match=words):
        change(one.batch, **{"priority": 3, **changes})
    one.batch.refresh_from_db()
    assert one.batch.priority == 0


def test_another_projects_scheme_is_refused(project):
    [one] = make_comparisons(project)
    with pytest.raises(BadInput, match="has no such scheme"):
        change(one.batch, scheme=make_project().schemes.get())


def test_a_change_is_written_down_with_what_it_changed(project, lead):
    [one] = make_comparisons(project)
    change(one.batch, by=lead, due_on=date(2026, 12, 1), priority=0)
    entry = AuditEntry.objects.get(action="batch.change")
    assert (entry.actor, entry.target) == (lead, f"batch:{one.batch_id}")
    assert entry.data == {"before": {"due_on": None}, "after": {"due_on": "2026-12-01"}}


def test_a_retired_comparison_is_not_handed_out_until_it_is_opened_again(project, lead):
    [one] = make_comparisons(project, answers_wanted=2)
    answer(make_annotator(project))
    retire_comparison(comparison=one, by=lead, reason="The prompt is cut off")
    require_invariant(project)
    with pytest.raises(Conflict, match="retired already"):
        retire_comparison(comparison=one, by=lead, reason="again")
    reopen_comparison(comparison=one, by=lead)
    with pytest.raises(Conflict, match="is not retired"):
        reopen_comparison(comparison=one, by=lead)
    assert answer(make_annotator(project)).counted
    require_invariant(project)
    assert list(
        AuditEntry.objects.filter(action__startswith="comparison.").values_list("action", flat=True)
    ) == ["comparison.retire", "comparison.reopen"]


def test_retiring_needs_a_reason(project):
    [one] = make_comparisons(project)
    with pytest.raises(BadInput, match="Retiring needs a reason"):
        retire_comparison(comparison=one, by=None, reason=" ")


def test_a_batch_without_comparisons_has_no_progress(project):
    batch = batch_for(project=project, name="empty", source=project.sources.get())
    assert progress_of([batch])[batch.pk].wanted == 0


def test_a_chats_batch_wants_no_second_answer(project):
    """Nobody else is asked about a turn, so the place would stay free for ever."""
    [turn] = make_comparisons(project, batch="live", purpose="live")
    with pytest.raises(BadInput, match="one answer"):
        change_batch(batch=turn.batch, changes={"overlap": 2}, by=None)


def test_what_is_put_back_has_the_priority_that_its_batch_was_given_meanwhile(project):
    [comparison] = make_comparisons(project)
    retire_comparison(comparison=comparison, by=None, reason="a slip")
    change_batch(batch=comparison.batch, changes={"priority": 7}, by=None)
    assert reopen_comparison(comparison=comparison, by=None).priority == 7


def test_what_opens_follows_the_batch_as_it_stands_not_as_it_was_read(project):
    [first] = make_comparisons(project)
    as_read = Batch.objects.get(pk=first.batch_id)
    due = date(2031, 5, 6)
    change_batch(batch=first.batch, changes={"priority": 7, "due_on": due, "overlap": 3}, by=None)
    [prompt] = make_prompts(project, ["train"])
    texts = [
        add_completion(prompt=prompt, source=as_read.source, text=text)[0] for text in ("a", "b")
    ]
    comparison, _ = open_comparison(
        batch=as_read, prompt=prompt, completions=texts, answers_wanted=1
    )
    assert comparison.priority == 7
    assert comparison.due_day == due.toordinal()
    assert comparison.answers_wanted == 3


def test_whoever_still_brings_an_older_priority_in_line_leaves_the_newer_one(project):
    [comparison] = make_comparisons(project)
    older = Batch.objects.get(pk=comparison.batch_id)
    older.priority = 3
    change(older, priority=7)
    assert bring_in_line(older) == 0
    assert Comparison.objects.get().priority == 7
