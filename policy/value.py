"""The value model: one number per token, the score still to come.

It is a transformer of its own, or a head on the policy's trunk. Either is saved in the shape of a
reward model (`AutoModelForSequenceClassification`, one label), but its head is read at every token.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
)

from policy.axes import name_heads
from policy.backbone import context_of, score_model_from
from policy.config import BadInput, require
from policy.ensemble import first_member
from policy.score_scale import forget
from policy.scoring import Scorer


def value_model_from(
    init: Path | str, *, tokenizer: Any, max_tokens: int, device: str = "cpu"
) -> Any:
    """A value model on the backbone of `init`, for the ids of `tokenizer`, its head at zero.

    Zero is the right first guess: a score minus the reference's mean score is 0 on average while
    the policy still is the reference. Of an ensemble its first member is taken, of a model with
    several axes the trunk under all of them. Raises BadInput
    for a backbone that cannot hold max_tokens, has another vocabulary, or has no head per token
    (encoders).
    """
    model, _ = score_model_from(first_member(init), seed=0, tokenizer=tokenizer, device=device)
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear):
        raise BadInput(f"{init} gives no value per token: {type(model).__name__}")
    forget(model)  # a reward model's record says nothing of values
    if head.out_features > 1:  # a value is one number, whatever the score was made from
        model.score = nn.Linear(head.in_features, 1, bias=head.bias is not None, device=device)
        name_heads(model.config, ())
        model.num_labels = 1
    with torch.no_grad():
        for parameter in model.score.parameters():
            parameter.zero_()
    require(
        context_of(model) >= max_tokens,
        f"the value model from {init} takes {context_of(model)} tokens, PPO wants {max_tokens}",
    )
    rows = model.get_input_embeddings().weight.shape[0]
    require(
        rows >= len(tokenizer),
        f"the value model from {init} knows {rows} tokens, the policy {len(tokenizer)}",
    )
    return model


def fits_as_value_model(scorer: Scorer, policy: Any, tokenizer: Any, *, max_tokens: int) -> bool:
    """Whether the reward model's backbone can start the value model: the policy's tokenizer, its
    architecture (so it looks at no later token), and room for prompt and response."""
    return (
        scorer.shares_tokenizer(tokenizer)
        and scorer.model.config.model_type == policy.config.model_type
        and context_of(scorer.model) >= max_tokens
    )


class ValueHead(nn.Linear):
    """Values from the policy's last hidden states, (..., D) -> (..., 1); it starts at 0."""

    @classmethod
    def on(cls, policy: Any) -> "ValueHead":
        """A head for this trunk. Raises BadInput where it could not be saved."""
        require(
            type(policy.config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
            f"{type(policy).__name__} has no form with one number per token: its value model must "
            f"be separate",
        )
        width = policy.get_output_embeddings().in_features
        head = cls(width, 1, bias=False, device=policy.device)
        nn.init.zeros_(head.weight)
        return head

    @torch.no_grad()
    def with_trunk(self, policy: Any) -> Any:
        """A value model of its own that says what this head says over the policy's trunk."""
        config = copy.deepcopy(policy.config)
        name_heads(config, ())
        config.num_labels = 1
        model = AutoModelForSequenceClassification.from_config(config).to(policy.device).eval()
        model.base_model.load_state_dict(policy.base_model.state_dict())
        model.score.weight.copy_(self.weight)
        return model
