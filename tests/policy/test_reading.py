"""policy.reading: when the head may be read apart from the model's own forward."""

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from policy.config import SFTConfig
from policy.reading import Reading

SHAPE = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GEMMA = {**SHAPE, "head_dim": 8}


@pytest.mark.parametrize(
    ("model", "whole"),
    [
        (lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)), True),
        (lambda: Gemma2ForCausalLM(Gemma2Config(**GEMMA, final_logit_softcapping=None)), True),
        (lambda: Gemma2ForCausalLM(Gemma2Config(**GEMMA, final_logit_softcapping=30.0)), False),
        (lambda: CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.5)), False),
    ],
)
def test_a_head_whose_logits_are_scaled_or_capped_is_not_read_apart(model, whole):
    """A cap at 30 moves the logits of a fresh model by less than rounding does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = model().eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    assert Reading(made, SFTConfig()).head_alone == whole
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
