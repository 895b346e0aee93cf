"""Updates from rollouts whose right answer is known: when the policy stops, what the values owe."""

from dataclasses import replace

import pytest
import torch

from policy.backbone import load_causal_lm
from policy.optim import adamw
from policy.ppo_config import PPOConfig
from policy.rollout import PromptTokens, Rollouts, recompute
from policy.sampling import Sampled
from policy.update import minibatches, targets_of, update_policy, value_gradient
from policy.value import value_model_from

CONFIG = PPOConfig(rollouts_per_step=6, minibatches=3, epochs=2, temperature=1.0)
END = 2


def rollouts_of(policy, value, *, scores=(1.0,) * 6, baselines=(0.0,) * 6) -> Rollouts:
    """Six rollouts of two to four tokens, looked at by a policy that is its own reference."""
    prompts = [PromptTokens(f"p{row}", [], [4, 6 + row, 2, 5]) for row in range(6)]
    answers = [[7] * (1 + row % 3) + [END] for row in range(6)]
    rollouts = Rollouts.of(
        step=1,
        prompts=prompts,
        samples=[Sampled(tokens, [0.0] * len(tokens), "end") for tokens in answers],
        seeds=list(range(6)),
        pad_id=0,
        scores=torch.tensor(scores),
        baselines=torch.tensor(baselines),
        missing_end=torch.zeros(6),
        device="cpu",
    )
    recompute(
        rollouts,
        policy=policy,
        reference=policy,
        value_model=value,
        temperature=CONFIG.temperature,
        max_tokens=1024,
    )
    return rollouts


@pytest.fixture
def policy(tiny_policy):
    return load_causal_lm(tiny_policy(name="policy"))[0]


@pytest.fixture
def value(tiny_policy, letters):
    model = value_model_from(tiny_policy(seed=3, name="value"), tokenizer=letters, max_tokens=32)
    with torch.no_grad():
        model.score.weight.normal_(generator=torch.Generator().manual_seed(4))
    return model


@pytest.mark.parametrize(("limit", "steps"), [(0.081, 6), (0.079, 1)])
def test_a_minibatch_above_the_limit_ends_the_epochs_before_it_is_learned(
    policy, value, limit, steps
):
    """The second of six minibatches was sampled 0.4 nats away: its approxkl is 0.4^2 / 2 = 0.08."""
    rollouts = rollouts_of(policy, value)
    first, second, *_ = minibatches(6, CONFIG, step=1)
    rollouts.logprobs[second] -= 0.4
    config = replace(CONFIG, approx_kl_limit=limit)
    done = update_policy(
        policy,
        adamw(policy, lr=1e-9, weight_decay=0.0, eps=1e-5),  # the policy stays where it is
        rollouts,
        targets_of(rollouts, config, kl_coef=0.0),
        config,
    )
    assert done.stopped_early == (steps == 1)
    assert done.optimizer_steps == steps
    if done.stopped_early:
        assert done.tokens == int(rollouts.mask[[*first, *second]].sum())
        seen = int(rollouts.mask[second].sum())
        assert done.approx_kl_sum == pytest.approx(0.08 * seen, rel=1e-4)


@pytest.mark.parametrize(
    ("value_clip", "expected"),
    [
        (0.2, 0.5 * 0.8**2),  # held 0.8 short of the return that the free value meets
        (0.7, 0.5 * 0.3**2),
        (1.5, 0.0),  # within the clip
        (0.0, 0.0),  # no limit
    ],
)
def test_a_value_that_moved_beyond_the_clip_is_held_to_it(policy, value, value_clip, expected):
    rollouts = rollouts_of(policy, value)
    targets = targets_of(rollouts, CONFIG, kl_coef=0.0)
    targets.returns.copy_(rollouts.values)  # what the model says now is right
    rollouts.values -= 1.0  # and one more than it said at the rollout
    config = replace(CONFIG, value_clip=value_clip)
    loss = value_gradient(value, rollouts, targets, list(range(6)), config)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_swapping_the_answer_with_the_references_flips_the_sign(policy, value):  # T24
    answers, theirs = (1.5, -0.25, 3.0, 0.0, 2.0, 7.0), (0.5, 2.0, 3.0, -1.0, 4.0, 6.5)
    forward = targets_of(
        rollouts_of(policy, value, scores=answers, baselines=theirs), CONFIG, kl_coef=0.3
    )
    backward = targets_of(
        rollouts_of(policy, value, scores=theirs, baselines=answers), CONFIG, kl_coef=0.3
    )
    torch.testing.assert_close(forward.rewards, -backward.rewards)
    assert forward.rewards.sum(dim=1).tolist() == pytest.approx([1.0, -2.25, 0.0, 1.0, -2.0, 0.5])
