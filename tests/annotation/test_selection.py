"""Strategies: what comes first, and how likely it was, against counting over many lots."""

import random
from collections import Counter

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from annotation.errors import BadInput
from annotation.models import (
    Comparison,
    CompletionScore,
    ModelVersion,
    Promotion,
    TrainingJob,
)
from annotation.services import selection
from annotation.services.batches import change_batch
from annotation.services.ledger import add_completion, open_comparison
from annotation.services.queue import claim_comparison, skip_comparison, submit_preference
from annotation.services.scores import projects_to_score, record_scores, uncertainty, unscored
from annotation.services.selection import FLOOR, choose
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_project,
    require_invariant,
)

pytestmark = pytest.mark.django_db

SEEDS = 3000


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def annotator(project):
    return make_annotator(project)


def with_strategy(project, strategy, number, **more):
    made = make_comparisons(project, number, **more)
    change_batch(batch=made[0].batch, changes={"strategy": strategy}, by=None)
    places = random.Random(5)
    for place, one in enumerate(made):  # none so near another that SEEDS lots may miss it
        key = (place + places.uniform(0.1, 0.9)) / number
        Comparison.objects.filter(pk=one.pk).update(sort_key=key)
    return [Comparison.objects.get(pk=one.pk) for one in made]


def score_all(made):
    """The earlier, the more by the measure of its strategy; the other one says the reverse."""
    for place, one in enumerate(made):
        up, down = -place / 10, place / 10
        measures = {"uncertainty": up, "disagreement": down}
        if one.strategy == "disputed":
            measures = {"uncertainty": down - 9, "disagreement": 0.5 + up / 10}
        Comparison.objects.filter(pk=one.pk).update(**measures)


def counted(made, annotator):
    """How often each is chosen over many lots, and the propensities that were told."""
    lots = random.Random(7)
    chosen, told = Counter(), {}
    for _ in range(SEEDS):
        choice = choose(made[0], annotator, lots.random)
        chosen[choice.comparison] += 1
        assert told.setdefault(choice.comparison, choice.propensity) == choice.propensity
    return chosen, told


def require_alike(chosen, told):
    """Each frequency lies within five standard deviations of the probability that was told."""
    assert sum(told.values()) == pytest.approx(1)
    for pk, p in told.items():
        assert abs(chosen[pk] / SEEDS - p) <= 5 * (p * (1 - p) / SEEDS) ** 0.5 + 1e-9


def answer(annotator):
    lease = claim_comparison(annotator=annotator)
    submit_preference(assignment=lease, rankings=as_shown(lease), key=f"k{lease.pk}")
    return lease


@pytest.mark.parametrize("strategy", ["uncertain", "disputed"])
@pytest.mark.parametrize("window", [64, 3])
def test_the_closest_or_most_disputed_come_first_above_a_floor_of_chance(
    project, annotator, monkeypatch, window, strategy
):
    monkeypatch.setattr(selection, "TOP", 2)
    monkeypatch.setattr(selection, "WINDOW", window)
    made = with_strategy(project, strategy, 6)
    score_all(made)
    chosen, told = counted(made, annotator)
    require_alike(chosen, told)
    first = {one.pk for one in made[:2]}
    assert set(told) == {one.pk for one in made}
    for pk, p in told.items():
        assert (p > (1 - FLOOR) / 2) == (pk in first)


def test_what_was_had_is_left_out_and_the_rest_takes_its_part(project, annotator, monkeypatch):
    monkeypatch.setattr(selection, "TOP", 2)
    made = with_strategy(project, "uncertain", 6, answers_wanted=2)
    score_all(made)
    had = {answer(annotator).comparison_id for _ in range(2)}
    chosen, told = counted(made, annotator)
    require_alike(chosen, told)
    assert not had & set(told)


@pytest.mark.parametrize("strategy", ["uncertain", "disputed"])
def test_without_scores_it_is_chance_alone(project, annotator, strategy):
    made = with_strategy(project, strategy, 5)
    other = "disagreement" if strategy == "uncertain" else "uncertainty"
    Comparison.objects.update(**{other: 0.25})  # says nothing to this strategy
    require_alike(*counted(made, annotator))
    keys = sorted(one.sort_key for one in made)
    gaps = {key: (key - before) % 1 for before, key in zip([keys[-1], *keys], keys, strict=False)}
    _, told = counted(made, annotator)
    assert told == pytest.approx({one.pk: gaps[one.sort_key] for one in made})


def test_chances_on_the_ring_by_hand(project, annotator, monkeypatch):
    """Two rows are looked at. Keys .1 .3 .5 .7 .9, of which .3 and .5 were had: .7 comes where the
    point falls after .3, and from .1 to .3 nothing is found."""
    monkeypatch.setattr(selection, "WINDOW", 2)
    made = with_strategy(project, "uncertain", 5)
    for place, one in enumerate(made):
        Comparison.objects.filter(pk=one.pk).update(sort_key=(2 * place + 1) / 10)
    for one in made[1:3]:
        one.assignments.create(
            project=project,
            annotator=annotator,
            scheme=one.batch.scheme,
            presented_order=[],
            state="skipped",
            holds_slot=False,
            leased_at=one.created_at,
            expires_at=one.created_at,
        )
    told = {}
    for hundredth in range(100):
        choice = choose(made[0], annotator, lambda u=hundredth / 100 + 0.005: u)
        key = choice.comparison if choice else None
        told.setdefault(key, []).append(choice and choice.propensity)
    assert {key: len(found) for key, found in told.items()} == {
        made[0].pk: 20,
        None: 20,
        made[3].pk: 40,
        made[4].pk: 20,
    }
    for key, found in told.items():
        assert key is None or found == pytest.approx([len(found) / 100] * len(found))


def test_where_a_long_stretch_is_all_ones_own_nothing_is_told(project, annotator, monkeypatch):
    monkeypatch.setattr(selection, "WINDOW", 2)
    with_strategy(project, "uncertain", 4, answers_wanted=2)
    for _ in range(3):
        answer(annotator)
    lease = claim_comparison(annotator=annotator)
    assert lease.selector in ("ring-1", "uncertain-1")
    assert (lease.propensity is None) == (lease.selector == "ring-1")


def test_the_fewest_answers_come_first(project, annotator):
    made = with_strategy(project, "fewest", 4, answers_wanted=3)
    others = [make_annotator(project) for _ in range(3)]
    seen = Counter()
    for one in others:
        for _ in range(4):
            lease = answer(one)
            before = seen[lease.comparison_id]
            open_to_them = {other.pk for other in made} - had(one, lease)
            assert before == min(seen[pk] for pk in open_to_them)
            seen[lease.comparison_id] += 1
            assert lease.selector == "fewest-1"
            assert 0 < lease.propensity <= 1
    assert set(seen.values()) == {3}
    require_invariant(project)


def had(annotator, lease):
    """Comparisons that the annotator had before this lease."""
    leases = annotator.assignments.exclude(pk=lease.pk)
    return set(leases.values_list("comparison_id", flat=True))


def test_fewest_is_drawn_as_it_tells(project, annotator):
    made = with_strategy(project, "fewest", 6, answers_wanted=3)
    begun = {answer(make_annotator(project)).comparison_id for _ in range(2)}
    chosen, told = counted(made, annotator)
    require_alike(chosen, told)
    assert set(told) == {one.pk for one in made} - begun


@pytest.mark.parametrize("strategy", ["uncertain", "disputed"])
def test_the_lease_keeps_selector_and_propensity(project, annotator, strategy):
    made = with_strategy(project, strategy, 3)
    score_all(made)
    lease = claim_comparison(annotator=annotator)
    assert lease.selector == f"{strategy}-1"
    assert 0 < lease.propensity <= 1
    lease.refresh_from_db()
    assert lease.selector == f"{strategy}-1"


def test_the_walk_tells_its_name_and_no_propensity(project, annotator):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator)
    assert (lease.selector, lease.propensity) == ("ring-1", None)


def test_a_batch_without_a_strategy_costs_no_query_more(project, annotator):
    make_comparisons(project, 3)
    with CaptureQueriesContext(connection) as queries:
        claim_comparison(annotator=annotator)
    assert not [one for one in queries if "uncertainty IS NOT NULL" in one["sql"]]
    assert not [one for one in queries if ".strategy = '" in one["sql"]]


@pytest.mark.parametrize("strategy", ["uncertain", "disputed"])
def test_evaluation_is_never_picked_by_a_model(project, strategy):
    [one] = make_comparisons(project, purpose="evaluation")
    with pytest.raises(BadInput, match="production comparisons alone"):
        change_batch(batch=one.batch, changes={"strategy": strategy}, by=None)
    with pytest.raises(IntegrityError), transaction.atomic():
        Comparison.objects.filter(pk=one.pk).update(strategy=strategy)
    with pytest.raises(IntegrityError), transaction.atomic():
        type(one.batch).objects.filter(pk=one.batch_id).update(strategy=strategy)


def test_evaluation_in_a_batch_that_a_model_picks_stays_by_chance(project):
    [one] = with_strategy(project, "disputed", 1)
    kept, _ = open_comparison(
        batch=one.batch,
        prompt=one.prompt,
        completions=[
            add_completion(prompt=one.prompt, source=one.prompt.source, text=text)[0]
            for text in ("Yes.", "No.")
        ],
        answers_wanted=1,
        purpose="evaluation",
    )
    assert (one.strategy, kept.strategy) == ("disputed", "random")


def test_priorities_and_languages_hold_before_any_strategy(project, annotator):
    score_all(with_strategy(project, "uncertain", 3))
    [urgent] = make_comparisons(project, batch="urgent", priority=2)
    assert claim_comparison(annotator=annotator).comparison == urgent
    reader = make_annotator(project, languages=["zh"])
    made = with_strategy(project, "uncertain", 2, batch="zh", language="zh", priority=3)
    others = make_comparisons(project, 2, batch="zh", language="en")
    Comparison.objects.filter(batch=made[0].batch).update(uncertainty=-1.0)
    Comparison.objects.filter(pk__in=[one.pk for one in others]).update(uncertainty=0.0)
    assert claim_comparison(annotator=reader).comparison in made


def test_a_strategy_reaches_comparisons_to_come_and_ends_for_all(project, annotator):
    made = with_strategy(project, "fewest", 2)
    [later] = make_comparisons(project)
    assert later.strategy == "fewest"
    change_batch(batch=made[0].batch, changes={"strategy": "random"}, by=None)
    assert set(Comparison.objects.values_list("strategy", flat=True)) == {"random"}
    skip_comparison(assignment=claim_comparison(annotator=annotator))


@pytest.mark.parametrize("strategy", ["fewest", "uncertain", "disputed"])
def test_each_look_is_a_seek_in_its_index(project, annotator, strategy):
    made = with_strategy(project, strategy, 3)
    score_all(made)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            for way in ("seqscan", "sort", "bitmapscan"):
                cursor.execute(f"SET LOCAL enable_{way} = off")
    with CaptureQueriesContext(connection) as queries:
        choose(made[0], annotator, lambda: 0.1)
        choose(made[0], annotator, lambda: 0.9)
    steps = [one["sql"] for one in queries if f".strategy = '{strategy}'" in one["sql"]]
    assert len(steps) >= 4
    names = {
        "fewest": ["comparison_fewest"],
        "uncertain": ["comparison_by_chance", "_uncertain"],
        "disputed": ["comparison_disputed_by_chance", "comparison_disputed"],
    }
    for sql in steps:
        with connection.cursor() as cursor:
            how = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
            cursor.execute(f"{how} {sql}")
            plan = str(cursor.fetchall())
        assert any(name in plan for name in names[strategy]), (sql, plan)
        assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize(
    ("scores", "told"),
    [([1.0, 1.5], -0.5), ([1.5, 1.0], -0.5), ([3.0, 1.0, 1.25], -0.25), ([2.0, 2.0], 0.0)],
)
def test_uncertainty_is_the_least_gap(scores, told):
    assert uncertainty(scores) == told


@pytest.fixture
def reward(project):
    job = TrainingJob.objects.create(project=project, kind="reward")
    version = ModelVersion.objects.create(
        kind="reward", stage="reward", name="r", path="r", sha256="a", job=job
    )
    Promotion.objects.create(project=project, slot="reward", version=version, verdict="first")
    return version


@pytest.mark.parametrize("strategy", ["uncertain", "disputed"])
def test_what_is_to_be_scored_by_the_version_in_force(project, reward, strategy):
    made = with_strategy(project, strategy, 2)
    make_comparisons(project, 2, batch="by chance")
    assert projects_to_score() == [project]
    assert set(unscored(project, reward)) == set(made)
    for one in made:
        record_scores(one, reward, dict(zip(one.completions.values_list("pk", flat=True), [1, 3])))
    assert projects_to_score() == []
    assert CompletionScore.objects.filter(model_version=reward).count() == 4
    one = Comparison.objects.get(pk=made[0].pk)
    assert (one.uncertainty, one.scored_by) == (-2.0, reward)
    newer = ModelVersion.objects.create(
        kind="reward", stage="reward", name="s", path="s", sha256="b"
    )
    Promotion.objects.create(project=project, slot="reward", version=newer, verdict="passed")
    assert projects_to_score() == [project]


def test_one_that_cannot_be_scored_is_left_to_chance(project, reward):
    [one] = with_strategy(project, "uncertain", 1)
    first, second = one.completions.values_list("pk", flat=True)
    record_scores(one, reward, {first: 1.0, second: None})
    one.refresh_from_db()
    assert (one.uncertainty, one.scored_by) == (None, reward)
    assert not unscored(project, reward).exists()


def test_scoring_twice_is_scoring_once(project, reward):
    [one] = with_strategy(project, "uncertain", 1)
    scores = dict.fromkeys(one.completions.values_list("pk", flat=True), 1.0)
    for _ in range(2):
        record_scores(one, reward, scores)
    assert CompletionScore.objects.count() == 2
