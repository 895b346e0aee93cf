"""How far a policy may go from its reference: a limit on the smoothed KL, and the way back."""

from typing import Any

from policy.checkpoint import load_tensors, tensors_of
from policy.optim import require_finite
from policy.sharing import copy_of_learning


class KLBudget:
    """Ends a run whose smoothed KL is above the limit, with the newest policy below it."""

    def __init__(self, policy: Any, *, limit_nats: float | None, past: float) -> None:
        """policy: with all that must go back along with it. limit_nats: per response; None = no
        limit. past: weight of the past in smoothing."""
        self.policy, self.limit_nats, self.past = policy, limit_nats, past
        self.within = copy_of_learning(policy)
        """The newest policy whose measured KL was within the limit."""
        self.kl_nats = 0.0
        """Measured last."""
        self.smoothed: float | None = None

    def is_spent(self, kl_nats: float) -> bool:
        """Take in a step's KL; True if the smoothed one is above the limit.

        Raises Diverged for one that is not finite: smoothed, it would never be above any limit.
        """
        require_finite(kl_nats=kl_nats)
        before = kl_nats if self.smoothed is None else self.smoothed
        self.kl_nats, self.smoothed = kl_nats, self.past * before + (1.0 - self.past) * kl_nats
        limit = self.limit_nats
        if limit is not None and self.smoothed > limit:
            return True
        if limit is None or kl_nats <= limit:  # the smoothed figure lags behind a sudden step
            load_tensors(self.within, tensors_of(self.policy))
        return False

    def go_back(self) -> dict[str, float]:
        """Make the policy what it was when its KL was last within the limit; figures to log."""
        load_tensors(self.policy, tensors_of(self.within))
        return {
            "kl_nats": self.kl_nats,
            "kl_smoothed": self.smoothed or 0.0,
            "kl_stop_nats": self.limit_nats or 0.0,
        }
