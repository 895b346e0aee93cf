"""Steps with one figure out of bounds: which alarm rings, when, and what the log says."""

import logging

import pytest
import torch

from policy.alarms import Alarms, agreement
from policy.ppo_config import PPOConfig
from policy.rollout import PromptTokens, Rollouts
from policy.sampling import Sampled

HEALTHY = {
    "ratio_first": 1.0,
    "exp_abs_dlogp": 1.00001,
    "kl_nats": 3.0,
    "approxkl": 0.004,
    "clipfrac": 0.06,
    "explained_variance": 0.4,
    "score": 1.0,
}
ANSWERS = [[7, 8, 9, 5, 2], [7, 8, 2], [9, 8, 7, 6, 5, 4, 2], [9, 7, 8]]


def rollouts_of(answers=ANSWERS, entropy=1.0, **seen) -> Rollouts:
    """The answers, each ended if its last token is 2, with this entropy at every token."""
    samples = [
        Sampled(ids, [0.0] * len(ids), "end" if ids[-1] == 2 else "length") for ids in answers
    ]
    rollouts = Rollouts.of(
        step=1,
        prompts=[PromptTokens("p", [], [1])] * len(answers),
        samples=samples,
        seeds=[0] * len(answers),
        pad_id=0,
        scores=torch.zeros(len(answers)),
        baselines=torch.zeros(len(answers)),
        missing_end=torch.zeros(len(answers)),
        device="cpu",
        seen=seen,
    )
    rollouts.entropy.copy_(entropy * rollouts.mask)
    return rollouts


def names(alarms, step, rollouts=None, **metrics) -> list[str]:
    found = alarms.look(step, HEALTHY | metrics, rollouts or rollouts_of())
    assert all(alarm.help.endswith(".") for alarm in found)
    return [alarm.name for alarm in found]


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({}, []),
        ({"ratio_first": 1.002}, ["ratio_first"]),
        ({"exp_abs_dlogp": 1.06}, ["exp_abs_dlogp"]),
        ({"kl_nats": 25.1}, ["kl_nats"]),
        ({"approxkl": 0.031}, ["approxkl"]),
        ({"clipfrac": 0.31}, ["clipfrac"]),
        ({"explained_variance": -1.1}, ["explained_variance"]),
        ({"approxkl": float("nan")}, ["approxkl"]),
    ],
)
def test_a_figure_out_of_bounds_rings(metrics, expected):
    assert names(Alarms(PPOConfig()), 9, **metrics) == expected


def test_values_may_be_poor_while_they_warm_up():
    config = PPOConfig(warmup_steps=2, value_warmup_steps=5)
    assert names(Alarms(config), 5, explained_variance=-9.0) == []
    assert names(Alarms(config), 6, explained_variance=-9.0) == ["explained_variance"]


def test_kl_below_zero_is_chance_until_it_stays_there():
    alarms = Alarms(PPOConfig())
    found = [names(alarms, 1, kl_nats=kl) for kl in (-0.6, -0.6, 0.1, -0.6, -0.6, -0.6)]
    assert found == [[], [], [], [], [], ["kl_below_zero"]]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"entropy": 1.51}, ["entropy_drift"]),  # was 1
        ({"entropy": 0.33}, ["entropy_drift"]),
        ({"entropy": 1.49}, []),
        ({"entropy": 0.34}, []),
        ({"answers": [[7, 8, 9, 5, 4, 6, 3, 1, 0, 2]] * 4}, []),  # 10 tokens; were 4.5 +- 2
        ({"answers": [[*range(20), 2]] * 4}, ["response_tokens_drift"]),
        ({"answers": [[7, 8, 9, 5]] * 4}, []),  # 0 of 4 end; three of four did, +- 0.43
        ({"answers": [[7, 7, 7, 7, 2]] * 4}, ["distinct_2_drift"]),
    ],
)
def test_answers_are_held_against_those_of_the_first_step(changed, expected):
    alarms = Alarms(PPOConfig())
    names(alarms, 1)
    assert names(alarms, 2, rollouts_of(**changed)) == expected


def test_members_that_part_twice_as_far_ring():
    alarms = Alarms(PPOConfig())
    found = [
        names(alarms, step, rollouts_of(reward_model_spread=[spread] * 4))
        for step, spread in enumerate((0.2, 0.39, 0.41))
    ]
    assert found == [[], [], ["reward_model_spread"]]


def test_a_watched_score_that_falls_while_the_score_rises_rings():
    """Its answers deviate by 1 at first; smoothed by 0.3 a step it falls from 1 below 0.75."""
    alarms = Alarms(PPOConfig(), watched=["reward_model_2"])

    def at(step, watched, score):
        scores = [watched - 1.0, watched + 1.0, watched - 1.0, watched + 1.0]
        rollouts = rollouts_of(reward_model_2=scores)
        return names(alarms, step, rollouts, reward_model_2=watched, score=score)

    assert at(1, 1.0, 0.0) == []
    assert at(2, 0.5, 1.0) == []  # 0.85
    assert at(3, 0.5, 2.0) == ["reward_model_2_fallen"]  # 0.745
    assert at(4, 0.5, -9.0) == []  # the score fell too


def test_a_watched_score_that_falls_rings_only_where_the_score_has_risen_as_far():
    """Scores deviate by 2 at first, so that they must have risen by more than 0.5."""
    alarms = Alarms(PPOConfig(), watched=["reward_model_2"])

    def at(step, score):
        watched = [1.0, 3.0, 1.0, 3.0] if step == 1 else [0.0] * 4
        rollouts = rollouts_of(reward_model_2=watched)
        rollouts.scores.copy_(score + torch.tensor([-2.0, 2.0, -2.0, 2.0]))
        metrics = {"reward_model_2": sum(watched) / 4, "score": score}
        return names(alarms, step, rollouts, **metrics)

    assert [at(1, 0.0), at(2, 0.9), at(3, 1.0)] == [[], [], []]  # 0, 0.27, 0.489
    assert at(4, 1.0) == ["reward_model_2_fallen"]  # 0.642


@pytest.mark.parametrize("spoiled", [1, 2])
def test_a_watched_score_that_is_no_number_rings_and_spoils_no_later_alarm(spoiled):
    alarms = Alarms(PPOConfig(), watched=["reward_model_2"])
    found = []
    for step in range(1, 6):
        watched = float("nan") if step == spoiled else 1.0 if step < 4 else -3.0
        scores = [watched - 1.0, watched + 1.0, watched - 1.0, watched + 1.0]
        rollouts = rollouts_of(reward_model_2=scores)
        found.append(names(alarms, step, rollouts, reward_model_2=watched, score=float(step)))
    expected: list[list[str]] = [[], [], [], ["reward_model_2_fallen"], ["reward_model_2_fallen"]]
    expected[spoiled - 1] = ["reward_model_2_not_finite"]
    assert found == expected


def test_the_log_is_told_when_an_alarm_begins(caplog):
    alarms = Alarms(PPOConfig())
    with caplog.at_level(logging.WARNING):
        for step, share in enumerate((0.4, 0.5, 0.1, 0.6), start=1):
            names(alarms, step, clipfrac=share)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(", healthy")[0] for line in said] == [
        "Step 1: clipfrac is 0.4",
        "Step 4: clipfrac is 0.6",
    ]
    assert "lower lr_peak" in said[0]


def test_alarms_go_on_where_they_were():
    before = Alarms(PPOConfig())
    names(before, 1, kl_nats=-1.0)
    names(before, 2, kl_nats=-1.0)
    after = Alarms(PPOConfig())
    after.restore(before.state())
    assert names(after, 3, kl_nats=-1.0) == ["kl_below_zero"]
    assert names(after, 4, rollouts_of(entropy=2.0)) == ["entropy_drift"]


def test_agreement_is_a_correlation_about_each_prompts_means():
    """Within `a` the two order four answers alike, within `b` the other way round; that `b` is
    easier for both counts for nothing. Sum of products 5 - 2.5, of squares 10 and 5 + 1.25."""
    own = [1.0, 2.0, 3.0, 4.0, 11.0, 12.0, 13.0, 14.0]
    other = [1.0, 2.0, 3.0, 4.0, 24.0, 23.5, 23.0, 22.5]
    prompts = ["a"] * 4 + ["b"] * 4
    assert agreement(own, other, prompts) == pytest.approx(2.5 / (10 * 6.25) ** 0.5)
    one_by_one = [str(at) for at in range(8)]
    assert agreement(own, own, one_by_one) == pytest.approx(1.0)
    assert agreement(own, [-each for each in own], one_by_one) == pytest.approx(-1.0)


def test_agreement_says_nothing_of_few_answers_or_of_one_score():
    assert agreement([0.0, 1.0] * 3, [0.0, 1.0] * 3, ["a"] * 6) is None
    assert agreement([0.0, 1.0] * 4, [2.0] * 8, ["a"] * 8) is None


@pytest.mark.parametrize(("entropy", "rings"), [(0.69, True), (0.71, False)])
def test_a_watched_model_that_no_longer_agrees_rings_once_the_policy_has_moved(entropy, rings):
    """Correlations 1, -1, 1, -1 smoothed by 0.3 a step: 1, 0.4, 0.58, 0.106; then below 0.1."""
    alarms = Alarms(PPOConfig(), watched=["reward_model_2"])
    scores = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    found = []
    for step, sign in enumerate((1.0, -1.0, 1.0, -1.0, -1.0), start=1):
        seen = [sign * each for each in scores]
        left = 1.0 if step == 1 else entropy
        rollouts = rollouts_of(ANSWERS * 2, entropy=left, reward_model_2=seen)
        rollouts.scores.copy_(torch.tensor(scores))
        found.append(names(alarms, step, rollouts, reward_model_2=1.0))
    assert found == [[], [], [], [], ["reward_model_2_against"] if rings else []]
