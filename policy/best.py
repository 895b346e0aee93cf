"""The best policy that a run has seen, kept apart from the last one."""

import math
from typing import Any

from policy.checkpoint import load_tensors, tensors_of
from policy.sharing import copy_of_learning


class Best:
    """Weights of the policy with the highest smoothed score whose KL was within the budget.

    The score is a watched reward model's where there is one, for what is learned from flatters the
    policy more and more (arXiv:2210.10760); else the run's own.
    """

    def __init__(self, policy: Any, *, limit_nats: float | None, past: float) -> None:
        """limit_nats: per response; None = no limit. past: weight of the past in smoothing."""
        self.model = copy_of_learning(policy)
        self.limit_nats, self.past = limit_nats, past
        self.step = 0
        """Steps that the best policy was trained for."""
        self.score: float | None = None
        self.kl_nats = 0.0
        self.smoothed: float | None = None

    def look(self, policy: Any, *, steps_done: int, score: float, kl_nats: float) -> None:
        """Take in what the policy's rollouts scored, and keep it if none was better.

        A score or a KL that is not finite says nothing: that policy is not the best, and what the
        others scored is smoothed as if it had not been looked at.
        """
        if not (math.isfinite(score) and math.isfinite(kl_nats)):
            return
        before = score if self.smoothed is None else self.smoothed
        self.smoothed = self.past * before + (1.0 - self.past) * score
        if self.is_within(kl_nats) and (self.score is None or self.smoothed > self.score):
            self.take(policy, steps_done=steps_done, score=self.smoothed, kl_nats=kl_nats)

    def is_within(self, kl_nats: float) -> bool:
        return self.limit_nats is None or kl_nats <= self.limit_nats

    def take(self, policy: Any, *, steps_done: int, score: float, kl_nats: float) -> None:
        """This policy is the best from now on."""
        self.step, self.score, self.kl_nats = steps_done, score, kl_nats
        load_tensors(self.model, tensors_of(policy))

    def state(self) -> dict[str, Any]:
        names = ("step", "score", "kl_nats", "smoothed")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
