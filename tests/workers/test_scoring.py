"""workers.scoring: a real (tiny) reward model scores what a strategy asks for."""

from math import exp, log

import pytest

from annotation.errors import BadInput
from annotation.models import Comparison, CompletionScore, TrainingJob
from annotation.services import versions
from annotation.services.batches import change_batch
from annotation.services.ledger import batch_for
from annotation.services.scores import projects_to_score
from policy.score_scale import ScoreScale
from policy.scoring import load_scorer
from tests.annotation.making import make_comparisons
from tests.workers.tiny import tiny_ensemble, tiny_policy, tiny_reward
from workers import model_tasks, tasks
from workers.scoring import disagreement, score_open_comparisons

pytestmark = pytest.mark.django_db


@pytest.fixture
def reward(project, artifacts):
    folder = tiny_reward(artifacts / "models" / "r", tiny_policy(artifacts / "models" / "p"))
    version = versions.register_version(kind="reward", stage="registered", directory=folder)
    versions.promote(project=project, slot="reward", version=version, verdict="registered")
    TrainingJob.objects.all().delete()
    return version


@pytest.fixture
def made(project):
    made = make_comparisons(project, 3, k=3)
    change_batch(batch=made[0].batch, changes={"strategy": "uncertain"}, by=None)
    return made


def test_scores_are_the_reward_models_and_uncertainty_their_least_gap(project, reward, made):
    assert score_open_comparisons(project.pk) == 3
    assert score_open_comparisons(project.pk) == 0
    scorer = load_scorer(versions.directory_of(reward))
    for one in Comparison.objects.all():
        texts = list(one.completions.order_by("pk").values_list("text", flat=True))
        wanted = scorer.score([one.prompt.messages] * 3, texts)
        stored = CompletionScore.objects.filter(completion__entries__comparison=one)
        scores = list(stored.order_by("completion").values_list("score", flat=True))
        assert scores == pytest.approx(wanted, abs=1e-4)
        low, middle, high = sorted(scores)
        assert one.uncertainty == pytest.approx(-min(middle - low, high - middle))


def test_the_spread_of_an_ensemble_is_stored(project, artifacts, made):
    folder = tiny_ensemble(artifacts / "models" / "e")
    version = versions.register_version(kind="reward", stage="registered", directory=folder)
    versions.promote(project=project, slot="reward", version=version, verdict="registered")
    assert score_open_comparisons(project.pk) == 3
    scorer = load_scorer(folder)
    for stored in CompletionScore.objects.select_related("completion__prompt"):
        completion = stored.completion
        row = scorer.encode(completion.prompt.messages, completion.text).ids
        (wanted,) = scorer.scored_ids([row])
        assert stored.score == pytest.approx(wanted.score, abs=1e-4)
        assert stored.spread == pytest.approx(wanted.spread, abs=1e-4)


def test_a_comparison_knows_how_far_the_members_of_an_ensemble_part_on_it(project, artifacts, made):
    folder = tiny_ensemble(artifacts / "models" / "e")
    version = versions.register_version(kind="reward", stage="registered", directory=folder)
    versions.promote(project=project, slot="reward", version=version, verdict="registered")
    score_open_comparisons(project.pk)
    members = [load_scorer(folder / f"member-{number}") for number in range(2)]
    for one in Comparison.objects.all():
        texts = list(one.completions.values_list("text", flat=True))
        by_member = [member.score([one.prompt.messages] * 3, texts) for member in members]
        # of two numbers the standard deviation is half of their distance
        parts = [
            abs(1 / (1 + exp(first[j] - first[i])) - 1 / (1 + exp(second[j] - second[i]))) / 2
            for first, second in [by_member]
            for i in range(3)
            for j in range(i)
        ]
        assert one.disagreement == pytest.approx(max(parts), abs=1e-4)
        assert one.disagreement > 0.001


PLAIN = ScoreScale()


@pytest.mark.parametrize(
    ("members", "scale", "told"),
    [
        # two members: P = 0.75 and 0.25, as 1 / (1 + e^-log 3) = 3 / 4
        ([(log(3), -log(3)), (0.0, 0.0)], PLAIN, 0.25),
        ([(0.0, 0.0), (log(3), -log(3))], PLAIN, 0.25),
        # of four members two say 3/4 and two 1/4
        ([(log(3), log(3), 0.0, 0.0), (0.0, 0.0, log(3), log(3))], PLAIN, 0.25),
        # sure of the same order, by far and by very far: no disagreement, and no overflow
        ([(2000.0, 5000.0), (0.0, 0.0)], PLAIN, 0.0),
        ([(2000.0, -2000.0), (0.0, 0.0)], PLAIN, 0.5),
        # one unit of score is two nats, tempered back to one
        ([(log(3), -log(3)), (0.0, 0.0)], ScoreScale(deviation=2.0, temperature=2.0), 0.25),
        # of three completions the pair that divides most: P of the outer two is 9/10 and 1/10
        ([(log(3), -log(3)), (0.0, 0.0), (-log(3), log(3))], PLAIN, 0.4),
        ([(), ()], PLAIN, None),
        ([(1.0, 2.0), None], PLAIN, None),
    ],
)
def test_disagreement_by_hand(members, scale, told):
    assert disagreement(members, scale) == (None if told is None else pytest.approx(told))


def test_an_ensemble_without_one_of_its_members_is_refused(artifacts):
    folder = tiny_ensemble(artifacts / "models" / "e")
    (folder / "member-1" / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"member-1' holds no .safetensors"):
        versions.register_version(kind="reward", stage="registered", directory=folder)


def test_a_completion_that_is_too_long_leaves_its_comparison_to_chance(project, reward, made):
    completion = made[0].completions.first()
    completion.text = "very " * 200
    completion.save()
    assert score_open_comparisons(project.pk) == 3
    made[0].refresh_from_db()
    assert (made[0].uncertainty, made[0].disagreement) == (None, None)
    assert made[0].scored_by == reward
    assert Comparison.objects.exclude(uncertainty=None).count() == 2


def test_without_a_reward_model_nothing_is_scored(project, made):
    assert score_open_comparisons(project.pk) == 0
    assert projects_to_score() == []


def test_the_task_has_the_name_that_is_sent():
    assert model_tasks.score.name == tasks.SCORE


def test_the_next_policys_batch_is_asked_like_the_one_before(project, made):
    source = project.sources.get()
    like = change_batch(
        batch=made[0].batch, changes={"overlap": 3, "adaptive": True, "priority": 4}, by=None
    )
    new = batch_for(project=project, name="next", source=source, like=like)
    assert (new.strategy, new.overlap, new.adaptive) == ("uncertain", 3, True)
    assert (new.priority, new.paused, new.due_on) == (0, False, None)
