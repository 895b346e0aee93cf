"""What a PPO step says of itself in metrics.jsonl."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from policy.kl import k3
from policy.losses import explained_variance, masked_mean
from policy.rollout import Rollouts, distinct_n
from policy.update import Targets


class Clock:
    """Seconds in each phase of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def reset(self) -> None:
        self.seconds = {}

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[phase] = time.perf_counter() - started

    def metrics(self) -> dict[str, float]:
        return {f"{phase}_seconds": round(spent, 4) for phase, spent in self.seconds.items()}


def rollout_metrics(rollouts: Rollouts) -> dict[str, float]:
    """What can be said of the policy before it is updated."""
    mask = rollouts.mask
    responses = [sample.tokens for sample in rollouts.samples]
    parts = {f"part_{name}": values for name, values in rollouts.parts.items()}
    apart = (rollouts.sampler_logprobs - rollouts.logprobs).abs().exp()
    return {
        "score": rollouts.scores.mean().item(),
        "baseline": rollouts.baselines.mean().item(),
        "score_difference": (rollouts.scores - rollouts.baselines).mean().item(),
        "missing_end": rollouts.missing_end.mean().item(),
        "kl_nats": rollouts.kl_nats,
        "kl_nats_k3": rollouts.sequence_kl(k3).mean().item(),
        "entropy": masked_mean(rollouts.entropy, mask).item(),
        "exp_abs_dlogp": masked_mean(apart, mask).item(),
        "response_tokens": rollouts.num_tokens / len(rollouts),
        "end_rate": statistics.fmean(s.finish == "end" for s in rollouts.samples),
        "distinct_2": distinct_n(responses, 2),
        **{name: statistics.fmean(values) for name, values in {**parts, **rollouts.seen}.items()},
    }


def reward_metrics(targets: Targets) -> dict[str, float]:
    """Of the step's rewards."""
    return {"reward": targets.rewards.sum(dim=1).mean().item()}


def value_metrics(rollouts: Rollouts, targets: Targets) -> dict[str, float]:
    """Of the values that met them."""
    return {
        "return": masked_mean(targets.returns, rollouts.mask).item(),
        "value": masked_mean(rollouts.values, rollouts.mask).item(),
        "explained_variance": explained_variance(rollouts.values, targets.returns, rollouts.mask),
    }
