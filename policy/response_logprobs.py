"""Log-probabilities of whole responses under a model, by its own forward pass.

n rows of a micro-batch, R response columns, N response tokens of all rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from policy.losses import token_logprobs
from policy.rollout import Padded, pad, response_logits
from policy.scoring import batches_by_length


def padded_logprobs(model: Any, padded: Padded, *, temperature: float = 1.0) -> Tensor:
    """(n, R) nats of each response token under softmax(logits / temperature), 0 in padding; with
    gradient where the model has it."""
    logits = response_logits(model, padded)  # (N, V)
    return padded.in_rows(token_logprobs(logits, padded.response_ids, temperature=temperature))


@torch.no_grad()
def response_logprobs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    max_tokens: int = 4096,
) -> list[Tensor]:
    """Of each response its tokens' log-probs, (tokens,) on the CPU, in the order given.

    max_tokens: padded tokens in one forward pass. No prompt and no response is empty.
    """
    found: dict[int, Tensor] = {}
    lengths = [len(prompt) + len(one) for prompt, one in zip(prompts, responses, strict=True)]
    for rows in batches_by_length(lengths, max_tokens):
        padded = pad(
            [prompts[row] for row in rows],
            [responses[row] for row in rows],
            pad_id=model.config.pad_token_id,
            device=model.device,
        )
        logprobs = padded_logprobs(model, padded, temperature=temperature).cpu()
        for row, values in zip(rows, logprobs, strict=True):
            found[row] = values[: len(responses[row])].clone()
    return [found[row] for row in range(len(responses))]
