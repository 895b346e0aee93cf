"""Updates from rollouts whose right answer is known: when the policy stops, what the values owe."""

import math
from dataclasses import replace

import pytest
import torch

from policy.backbone import load_causal_lm
from policy.optim import adamw
from policy.ppo_config import PPOConfig
from policy.reader import Reader
from policy.rollout import PromptTokens, Rollouts, recompute
from policy.sampling import Sampled
from policy.update import (
    minibatches,
    policy_gradient,
    targets_of,
    update_policy,
    value_gradient,
)
from policy.value import ValueHead, value_model_from

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
        policy=Reader(policy, head=value if isinstance(value, ValueHead) else None),
        reference=Reader(policy),
        value=Reader(value) if value is not None and not isinstance(value, ValueHead) else None,
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
        Reader(policy),
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
    loss = value_gradient(Reader(value), rollouts, targets, list(range(6)), config)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_targets_are_rewards_with_their_penalty_gae_and_whitening_as_the_config_says(policy, value):
    """Six ragged rows as plain floats; T1 to T7 and T11 hold each part by itself."""
    rollouts = rollouts_of(policy, value, scores=(1.5, -0.25, 3.0, 0.0, 2.0, 7.0))
    rollouts.ref_logprobs -= 0.1 * torch.arange(4)  # k1 of 0, 0.1, 0.2 and 0.3 nats
    config = replace(CONFIG, gamma=0.9, lam=0.5, whiten_advantages=False)
    found = targets_of(rollouts, config, kl_coef=0.4)
    for row, sampled in enumerate(rollouts.samples):
        n, values = len(sampled.tokens), [*rollouts.values[row].tolist(), 0.0]
        rewards = [-0.4 * 0.1 * t for t in range(n)]
        rewards[-1] += rollouts.scores[row].item()
        values[n] = 0.0
        advantage, expected = 0.0, [0.0] * n
        for t in reversed(range(n)):
            advantage = rewards[t] + 0.9 * values[t + 1] - values[t] + 0.9 * 0.5 * advantage
            expected[t] = advantage
        assert found.rewards[row, :n].tolist() == pytest.approx(rewards, abs=1e-5)
        assert found.advantages[row, :n].tolist() == pytest.approx(expected, abs=1e-5)
        returns = [a + v for a, v in zip(expected, values, strict=False)]
        assert found.returns[row, :n].tolist() == pytest.approx(returns, abs=1e-5)
    whitened = targets_of(rollouts, replace(config, whiten_advantages=True), kl_coef=0.4)
    real = found.advantages[rollouts.mask]
    torch.testing.assert_close(
        whitened.advantages[rollouts.mask], (real - real.mean()) / real.std(correction=0)
    )
    torch.testing.assert_close(whitened.returns, found.returns)


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


def of_two_prompts(**settings) -> PPOConfig:
    return replace(CONFIG, answers_per_prompt=3, **settings)


def drifted(policy) -> Rollouts:
    """Three answers to each of two prompts, of 2, 3 and 4 tokens, each 0.1 nats off per token."""
    rollouts = rollouts_of(policy, None, scores=(1.0, 2.0, 6.0, 0.0, 0.0, 3.0))
    rollouts.ref_logprobs.copy_(rollouts.logprobs - 0.1 * rollouts.mask)
    return rollouts


def test_rloo_compares_scores_less_their_kl(policy):
    """After 0.1 nats for each token: 0.8, 1.7, 5.6 and -0.2, -0.3, 2.6."""
    rollouts = drifted(policy)
    targets = targets_of(rollouts, of_two_prompts(advantage="rloo"), kl_coef=1.0)
    expected = torch.tensor([-2.85, -1.5, 4.35, -1.35, -1.5, 2.85])
    wanted = expected[:, None] * rollouts.mask
    torch.testing.assert_close(targets.advantages, wanted, atol=1e-5, rtol=0)
    assert targets.kl_loss_coef == 0.0


def test_grpo_compares_scores_and_pays_for_kl_in_the_loss(policy):
    rollouts, config = drifted(policy), of_two_prompts(advantage="grpo")
    targets = targets_of(rollouts, config, kl_coef=0.5)
    deviations = [7.0**0.5] * 3 + [3.0**0.5] * 3
    apart = [-2.0, -1.0, 3.0, -1.0, -1.0, 2.0]
    first = torch.tensor([a / d for a, d in zip(apart, deviations, strict=True)])
    torch.testing.assert_close(targets.advantages[:, 0], first, atol=2e-4, rtol=0)
    loss = policy_gradient(Reader(policy), rollouts, targets, list(range(6)), config)
    k3 = math.exp(-0.1) - 1 + 0.1  # at each token; the advantages cancel
    assert float(loss.loss) == pytest.approx(0.5 * k3, abs=1e-5)


@pytest.mark.parametrize(
    ("loss_per", "expected"),
    [
        ("token", -(-2 * 2 - 1 * 3 + 3 * 4 - 2 - 3 + 2 * 4) / 18),
        ("response", 0.0),
        ("constant", -(-2 * 2 - 1 * 3 + 3 * 4 - 2 - 3 + 2 * 4) / (6 * 10)),
    ],
)
def test_tokens_add_up_as_the_config_says(policy, loss_per, expected):
    config = of_two_prompts(
        advantage="grpo", divide_by_deviation=False, loss_per=loss_per, max_response_tokens=10
    )
    for limit in (1024, 16):  # whole, or in micro-batches
        part = replace(config, micro_batch_tokens=limit)
        rollouts = drifted(policy)
        targets = targets_of(rollouts, part, kl_coef=0.0)
        loss = policy_gradient(Reader(policy), rollouts, targets, list(range(6)), part)
        assert float(loss.loss) == pytest.approx(expected, abs=1e-5)


def test_a_head_on_the_trunk_adds_the_gradients_of_both_losses(policy):
    head = ValueHead.on(policy)
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(4))
    apart = head.with_trunk(policy)  # the same values from a model of its own
    config = replace(CONFIG, value="head", value_coef=0.3, whiten_advantages=False)
    rollouts, rows = rollouts_of(policy, head), list(range(6))
    torch.testing.assert_close(rollouts.values, rollouts_of(policy, apart).values)
    targets = targets_of(rollouts, config, kl_coef=0.0)

    def gradients(model, head=None):
        model.zero_grad(set_to_none=True)
        loss = policy_gradient(Reader(model, head=head), rollouts, targets, rows, config)
        return loss, [p.grad for p in model.base_model.parameters()]

    alone, of_policy = gradients(policy)
    both, together = gradients(policy, head)
    value_loss = value_gradient(Reader(apart), rollouts, targets, rows, config)
    of_values = [p.grad for p in apart.base_model.parameters()]
    assert float(both.value_loss) == pytest.approx(value_loss, abs=1e-6)
    assert float(both.loss) == pytest.approx(float(alone.loss) + 0.3 * value_loss, abs=1e-5)
    for one, other, wanted in zip(of_policy, of_values, together, strict=True):
        torch.testing.assert_close(wanted, one + 0.3 * other, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head.weight.grad, 0.3 * apart.score.weight.grad, atol=1e-5, rtol=0)
