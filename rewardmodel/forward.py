"""How a run asks its model for scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from policy.scoring import scores_of_forest
from policy.shared_prompt import shares_exactly
from rewardmodel.batches import Batch, Example, pieces
from rewardmodel.config import RewardConfig


@dataclass(frozen=True, slots=True)
class Forward:
    """A model, and the way in which comparisons go through it."""

    model: Any
    shared: bool
    """A prompt is read once for all its completions; else once for each."""
    tokens_per_forward: int

    @classmethod
    def of(cls, model: Any, config: RewardConfig, *, max_tokens: int) -> "Forward":
        """The fastest way that is exact for this model, which is found by trying."""
        return cls(
            model=model,
            shared=shares_exactly(model, max_tokens),
            tokens_per_forward=config.tokens_per_forward,
        )

    def batches(self, examples: Sequence[Example]) -> list[Batch]:
        """A step's comparisons, cut into what goes through the model at once."""
        return [
            Batch.of(piece, self.model.config.pad_token_id, self.model.device, shared=self.shared)
            for piece in self.pieces(examples)
        ]

    def pieces(self, examples: Sequence[Example]) -> list[list[Example]]:
        """How a step's comparisons are cut."""
        return pieces(examples, self.tokens_per_forward, shared=self.shared)

    def scores(self, batch: Batch) -> Tensor:
        """(N,) float32, one per completion, with gradient."""
        return scores_of_forest(self.model, batch.forest)

    def described(self) -> dict[str, int]:
        """For the run's log."""
        return {"shared_prompt": int(self.shared)}
