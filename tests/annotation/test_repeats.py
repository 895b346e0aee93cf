"""Hidden repeats: one's own questions come again, spaced, shuffled, and never train."""

import pytest

from annotation.errors import NothingToDo
from annotation.funnel import Bucket
from annotation.models import Assignment, Comparison, Preference
from annotation.services.batches import bring_in_line, change_batch, progress_of
from annotation.services.checkrules import change_checks
from annotation.services.consistency import agreement_with_self
from annotation.services.quality import PEOPLE
from annotation.services.queue import claim_comparison, release_lease, submit_preference
from annotation.services.rankings import AxisRanking
from annotation.services.review import void_preference
from annotation.services.snapshots import freeze
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_project,
    make_user,
    require_invariant,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    return make_project()


@pytest.fixture
def annotator(project):
    return make_annotator(project)


def with_repeats(project, annotator, every=3, gap=4):
    change_checks(project=project, changes={"repeat_every": every, "repeat_gap": gap}, by=None)
    annotator.refresh_from_db()


def answer(lease, rankings=None):
    return submit_preference(
        assignment=lease, rankings=rankings or as_shown(lease), key=f"key {lease.pk}"
    )


def answer_all(annotator):
    """What was asked, in order."""
    asked = []
    try:
        while True:
            lease = claim_comparison(annotator=annotator)
            asked.append(lease.comparison)
            answer(lease)
    except NothingToDo:
        return asked


def repeats_of(project):
    return Comparison.objects.filter(project=project, purpose="repeat")


def test_a_project_that_asks_for_none_has_none(project, annotator):
    make_comparisons(project, 20)
    answer_all(annotator)
    assert not repeats_of(project).exists()


def test_own_questions_come_again_once_and_never_too_soon(project, annotator):
    make_comparisons(project, 30)
    with_repeats(project, annotator)
    asked = answer_all(annotator)
    repeats = [one for one in asked if one.purpose == "repeat"]
    assert len(asked) == 30 + len(repeats)
    # gaps of 2 to 4 by lot, and none before 5 are answered: of 30 + n claims, the first 5 apart,
    # every second to every fourth is a repeat
    assert 6 <= len(repeats) <= 25
    assert len({one.repeat_of_id for one in repeats}) == len(repeats)
    places = {one.pk: place for place, one in enumerate(asked)}
    for one in repeats:
        assert places[one.pk] - places[one.repeat_of_id] > 4
        assert set(one.completions.all()) == set(one.repeat_of.completions.all())
    require_invariant(project)


def test_a_repeat_looks_like_what_it_stands_in_for_and_is_for_one_alone(project, annotator):
    make_comparisons(project, 12, answers_wanted=2)
    with_repeats(project, annotator)
    while (lease := claim_comparison(annotator=annotator)).comparison.purpose != "repeat":
        answer(lease)
    assert lease.scheme == lease.comparison.batch.scheme
    assert lease.shown_batch == lease.comparison.batch
    others = answer_all(make_annotator(project))
    assert lease.comparison not in others


def test_a_repeat_that_was_given_back_comes_again_when_one_is_due(project, annotator):
    make_comparisons(project, 30)
    with_repeats(project, annotator)
    while (lease := claim_comparison(annotator=annotator)).comparison.purpose != "repeat":
        answer(lease)
    release_lease(assignment=lease)
    assert lease.comparison in answer_all(annotator)
    assert Assignment.objects.filter(comparison=lease.comparison).count() == 1
    require_invariant(project)


def test_repeats_never_train_and_are_no_part_of_the_batch(project, annotator):
    made = make_comparisons(project, 20)
    with_repeats(project, annotator)
    answer_all(annotator)
    number = repeats_of(project).count()
    assert number
    counts = freeze(project=project, kind="comparisons", by=None).counts
    assert counts[Bucket.REPEAT] == number
    assert sum(counts.values()) == Preference.objects.count()
    batch = made[0].batch
    assert progress_of([batch])[batch.pk].comparisons == 20
    batch = change_batch(batch=batch, changes={"overlap": 2, "priority": 3}, by=None)
    assert set(repeats_of(project).values_list("answers_wanted", "open_slots")) == {(1, 0)}
    assert bring_in_line(batch) == 0


def test_agreement_with_oneself_by_hand(project, annotator):
    """The first repeat is answered the other way round, all others alike."""
    make_comparisons(project, 30)
    with_repeats(project, annotator)
    turned = []
    try:
        while True:
            lease = claim_comparison(annotator=annotator)
            ids = sorted(lease.presented_order)
            if lease.comparison.purpose == "repeat" and not turned:
                ids.reverse()
                turned.append(lease)
            answer(lease, [AxisRanking(groups=[[one] for one in ids])])
    except NothingToDo:
        pass
    number = repeats_of(project).count()
    found = agreement_with_self(project, PEOPLE)[annotator.pk]
    assert (found.n, found.value) == (number, pytest.approx((number - 1) / number))
    first = Preference.objects.get(comparison=turned[0].comparison.repeat_of_id)
    void_preference(preference=first, by=make_user(), reason="Wrong")
    found = agreement_with_self(project, PEOPLE)[annotator.pk]
    assert (found.n, found.value) == (number - 1, 1.0)
    assert agreement_with_self(project, ["simulated"]) == {}


def test_no_repeat_where_the_scheme_is_another_now(project, annotator):
    made = make_comparisons(project, 12)
    with_repeats(project, annotator)
    for _ in range(6):
        answer(claim_comparison(annotator=annotator))
    newer = project.schemes.create(version=2)
    change_batch(batch=made[0].batch, changes={"scheme": newer}, by=None)
    before = repeats_of(project).count()
    for _ in range(4):
        answer(claim_comparison(annotator=annotator))
    assert repeats_of(project).count() == before


def test_the_page_shows_it(cast, enter):
    for number in range(14):
        cast.ask(f"{number}?", ["Yes.", "No."])
    lab = make_annotator(cast.project)
    with_repeats(cast.project, lab)
    answer_all(lab)
    html = enter(cast.reviewer).get(
        "/p/shop/quality/?of=annotators", headers={"HX-Request": "true"}
    )
    assert "Agrees with themselves" in html.content.decode()
