"""Hidden checks: when one is due, whose, and that nothing tells it from real work."""

from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotation.api.desk import AssignmentOut, PreferenceOut
from annotation.errors import BadInput, NothingToDo
from annotation.funnel import Bucket, VoteQuery
from annotation.models import Assignment, Comparison, GoldCheck, GoldItem, Preference
from annotation.services.checkrules import change_checks
from annotation.services.gold import completion_ids, make_gold, retire_gold, vote_on_gold
from annotation.services.projects import annotator_for, new_scheme
from annotation.services.queue import (
    claim_comparison,
    release_lease,
    skip_comparison,
    sweep_expired_leases,
)
from annotation.services.rankings import AxisRanking
from annotation.services.review import revise_preference, void_preference
from annotation.services.snapshots import freeze
from tests.annotation.golden import answer, in_order, make_experts, make_item, make_items
from tests.annotation.making import (
    make_annotator,
    make_comparisons,
    make_project,
    require_invariant,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def experts(project):
    return make_experts(project)


def rule(project, **changes):
    project.refresh_from_db()
    project.checks = change_checks(project=project, changes=changes, by=None).checks


def work(annotator, number, **more):
    """The purposes of the next comparisons, each answered."""
    return [answer(claim_comparison(annotator=annotator), **more).comparison for _ in range(number)]


def purposes(comparisons):
    return [one.purpose for one in comparisons]


def test_a_check_comes_once_in_so_many_comparisons_at_uneven_distances(project, experts):
    make_items(experts, project, 20)
    make_comparisons(project, 90)
    rule(project, gold_every=6)
    done = purposes(work(make_annotator(project), 60))
    places = [place for place, purpose in enumerate(done, start=1) if purpose == "gold"]
    gaps = [after - before for before, after in zip([0, *places], places)]
    assert len(set(gaps)) > 2
    assert min(gaps) >= 3
    assert max(gaps) <= 9
    require_invariant(project)


def test_two_annotators_are_checked_at_different_places(project, experts):
    make_items(experts, project, 20)
    make_comparisons(project, 60, answers_wanted=2)
    rule(project, gold_every=6)
    first, second = (purposes(work(make_annotator(project), 40)) for _ in range(2))
    assert first != second


def test_a_project_without_gold_pays_no_query(project):
    make_comparisons(project, 3)
    annotator = make_annotator(project)
    answer(claim_comparison(annotator=annotator))
    user = annotator.user
    with CaptureQueriesContext(
        connection,
    ) as caught:
        lease = claim_comparison(annotator=annotator_for(user=user, project=project))
        answer(lease)
    tables = [one["sql"] for one in caught.captured_queries if "annotation_gold" in one["sql"]]
    assert tables == []
    assert not any('UPDATE "annotation_annotator"' in one["sql"] for one in caught.captured_queries)


def test_nobody_gets_a_check_twice_and_the_least_shown_goes_first(project, experts):
    items = make_items(experts, project, 4)
    make_comparisons(project, 60, answers_wanted=3)
    rule(project, gold_every=2)
    for _ in range(3):
        done = work(make_annotator(project), 20)
        checks = [one.pk for one in done if one.purpose == "gold"]
        assert sorted(checks) == sorted(one.comparison_id for one in items)
    assert set(GoldItem.objects.values_list("num_shown", flat=True)) == {3}
    require_invariant(project)


def test_checks_rotate(project, experts):
    make_items(experts, project, 6)
    make_comparisons(project, 60, answers_wanted=1)
    rule(project, gold_every=2)
    for _ in range(9):
        work(make_annotator(project), 4)
    shown = Counter(GoldItem.objects.values_list("num_shown", flat=True))
    assert max(shown) - min(shown) <= 1


def test_a_check_is_in_the_annotators_language_and_skill(project, experts):
    make_items(experts, project, 2, language="zh", batch="zh")
    make_items(experts, project, 2, language="en", batch="law", skill="law")
    [fits] = make_items(experts, project, 1, language="en", batch="en")
    make_comparisons(project, 20, language="en")
    rule(project, gold_every=2)
    done = work(make_annotator(project, languages=["en"]), 12)
    assert [one.pk for one in done if one.purpose == "gold"] == [fits.comparison_id]


def test_who_knows_the_question_is_not_checked_with_it(project, experts):
    origins = make_comparisons(project, 3)
    rule(project, gold_every=2)
    annotator = make_annotator(project)
    seen = answer(claim_comparison(annotator=annotator)).comparison
    for origin in origins:
        make_item(experts, origin)
    make_comparisons(project, 20, batch="more")
    had, checked = {seen.pk}, set()
    for comparison in work(annotator, 15):
        if comparison.purpose == "gold":
            checked.add(comparison.gold.origin_id)
            assert comparison.gold.origin_id not in had
        else:
            had.add(comparison.pk)
    assert seen.pk not in checked
    expert = annotator_for(user=experts[0], project=project)
    make_comparisons(project, 20, batch="still more")
    assert set(purposes(work(expert, 10))) == {"production"}


def test_only_live_items_are_asked(project, experts):
    [retired, live] = make_items(experts, project, 2)
    retire_gold(item=retired, by=experts[0], reason="too easy", is_wrong=False)
    [origin] = make_comparisons(project, answers_wanted=0, batch="draft")
    make_gold(comparison=origin, use="hidden", by=experts[0])
    make_items(experts, project, 2, "practice")
    make_comparisons(project, 20)
    rule(project, gold_every=2)
    done = work(make_annotator(project), 12)
    assert [one.pk for one in done if one.purpose == "gold"] == [live.comparison_id]


def test_a_check_looks_like_any_other_comparison(project, experts):
    make_items(experts, project, 4)
    make_comparisons(project, 10)
    rule(project, gold_every=2)
    annotator, seen = make_annotator(project), {}
    for _ in range(6):
        lease = claim_comparison(annotator=annotator)
        shown = AssignmentOut(lease).data
        given = PreferenceOut(answer(lease)).data
        seen[lease.comparison.purpose] = (
            {key: type(value) for key, value in shown.items()},
            {key: type(value) for key, value in given.items()},
            given["counted"],
            "gold" in str(shown) + str(given),
        )
    assert seen["gold"] == seen["production"]
    assert seen["gold"][3] is False


def test_a_check_is_asked_under_the_scheme_of_the_work_around_it(project, experts):
    make_items(experts, project, 3)
    new = new_scheme(project=project, by=None, axes=["overall", "safe"])
    make_comparisons(project, 20, batch="newer")
    rule(project, gold_every=2)
    annotator = make_annotator(project)
    schemes = set()
    for _ in range(10):
        lease = claim_comparison(annotator=annotator)
        schemes.add(lease.scheme)
        answer(lease)
    assert schemes == {new}
    assert set(GoldCheck.objects.values_list("verdict", flat=True)) == {"held"}


def test_a_scheme_under_which_the_answer_cannot_be_given_gets_no_check(project, experts):
    make_items(experts, project, 3)
    new_scheme(project=project, by=None, axes=["safe"])
    make_comparisons(project, 20, batch="newer")
    rule(project, gold_every=2)
    assert set(purposes(work(make_annotator(project), 10))) == {"production"}


def test_no_check_where_there_is_no_work(project, experts):
    make_items(experts, project, 3)
    rule(project, gold_every=2)
    annotator = make_annotator(project)
    for _ in range(6):
        with pytest.raises(NothingToDo) as caught:
            claim_comparison(annotator=annotator)
        assert caught.value.reason == "done"


def next_check(annotator, **more):
    while True:
        lease = claim_comparison(annotator=annotator, **more)
        if lease.comparison.purpose == "gold":
            return lease
        answer(lease)


def test_a_check_can_be_skipped_released_and_late_and_slots_add_up(project, experts):
    [item] = make_items(experts, project, 1)
    make_comparisons(project, 60, answers_wanted=1)
    rule(project, gold_every=2)
    skip_comparison(assignment=next_check(make_annotator(project)), reason="harmful")
    require_invariant(project)
    release_lease(assignment=next_check(make_annotator(project)))
    require_invariant(project)
    now = timezone.now()
    late = next_check(make_annotator(project), now=now)
    sweep_expired_leases(now=now + timedelta(hours=1))
    require_invariant(project)
    assert answer(late).counted
    require_invariant(project)
    comparison = Comparison.objects.get(pk=item.comparison_id)
    assert comparison.answers_wanted == 1  # the slot that was given back was taken again
    assert GoldCheck.objects.get().preference.assignment == late


def test_a_prefetched_comparison_may_be_a_check(project, experts):
    make_items(experts, project, 5)
    make_comparisons(project, 20)
    rule(project, gold_every=2)
    annotator = make_annotator(project)
    found = set()
    for _ in range(8):
        lease = claim_comparison(annotator=annotator)
        ahead = claim_comparison(annotator=annotator, kind="prefetched")
        found.add(ahead.comparison.purpose)
        answer(lease)
        assert claim_comparison(annotator=annotator) == ahead
        answer(ahead)
    assert found == {"gold", "production"}
    require_invariant(project)


def test_an_answer_is_scored_once_follows_a_revision_and_leaves_with_a_void(project, experts):
    make_items(experts, project, 2)
    make_comparisons(project, 20)
    rule(project, gold_every=2)
    annotator = make_annotator(project)
    given = answer(next_check(annotator), right=False)
    check = GoldCheck.objects.get()
    assert (check.verdict, check.attempt, check.counts) == ("broken", 0, True)
    ids = completion_ids(given.comparison)
    better = revise_preference(preference=given, rankings=in_order(ids), cause="slipped")
    check.refresh_from_db()
    assert (check.verdict, check.preference_id) == ("held", better.pk)
    void_preference(preference=better, by=experts[0], reason="asleep")
    vote_on_gold(item=check.item, by=experts[0], rankings=in_order(ids))
    check.refresh_from_db()
    assert check.counts is False  # nor does scoring it anew bring it back
    require_invariant(project)


def test_a_change_of_the_experts_mind_scores_answers_anew(project, experts):
    [item] = make_items(experts, project, 1)
    make_comparisons(project, 10)
    rule(project, gold_every=2)
    answer(next_check(make_annotator(project)))
    ids = completion_ids(item.comparison)
    for expert in experts:
        vote_on_gold(item=item, by=expert, rankings=in_order(ids[::-1]))
    assert GoldCheck.objects.get().verdict == "broken"
    vote_on_gold(item=item, by=experts[0], rankings=[AxisRanking(outcome="equal")])
    assert GoldCheck.objects.get().counts is False
    vote_on_gold(item=item, by=experts[0], rankings=in_order(ids[::-1]))
    assert GoldCheck.objects.get().counts is True


def test_gold_never_trains_and_the_buckets_sum(project, experts, settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    make_items(experts, project, 3)
    make_comparisons(project, 20)
    rule(project, gold_every=2)
    work(make_annotator(project), 8)
    snapshot = freeze(project=project, kind="comparisons", query=VoteQuery().as_json())
    gold = Preference.objects.filter(comparison__purpose="gold").count()
    assert snapshot.counts[Bucket.GOLD] == gold > 0
    assert sum(snapshot.counts.values()) == Preference.objects.count() == 8


def test_rules_are_checked(project):
    for changes, words in [
        ({"gold_every": 1}, "1 would leave no real work"),
        ({"gold_every": -1}, "from 0 to 1000: -1"),
        ({"gold_every": True}, "True"),
        ({"bar_percent": 70}, "A bar needs hidden checks"),
        ({"gold_every": 5, "bar_window": 4}, "from 5 to 200: 4"),
        ({"honey": 1}, "'honey'"),
        ({"qualification_items": 3}, "there are 0"),
        ({"qualification_skill": " law"}, "' law'"),
    ]:
        with pytest.raises(BadInput, match=words):
            change_checks(project=project, changes=changes, by=None)


def test_an_expired_check_may_come_again_with_the_same_order(project, experts):
    make_items(experts, project, 1)
    make_comparisons(project, 60)
    rule(project, gold_every=2)
    annotator, now = make_annotator(project), timezone.now()
    first = next_check(annotator, now=now)
    again = next_check(annotator, now=now + timedelta(hours=1))
    assert (again.pk, again.presented_order) == (first.pk, first.presented_order)
    assert Assignment.objects.filter(comparison__purpose="gold").count() == 1
    require_invariant(project)
