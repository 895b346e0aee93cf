"""Log-probabilities of whole responses under a model, by its own forward pass.

n rows of a micro-batch, R response columns, N response tokens of all rows.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from policy.losses import token_logprobs
from policy.reader import Reader
from policy.rollout import Padded, pad, response_logits
from policy.value import ValueHead


def padded_logprobs(model: Any, padded: Padded, *, temperature: float = 1.0) -> Tensor:
    """(n, R) nats of each response token under softmax(logits / temperature), 0 in padding; with
    gradient where the model has it."""
    logits = response_logits(model, padded)  # (N, V)
    return padded.in_rows(token_logprobs(logits, padded.response_ids, temperature=temperature))


def response_logprobs(
    reader: Reader,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    max_tokens: int = 4096,
) -> list[Tensor]:
    """Of each response its tokens' log-probs, (tokens,) on the CPU, in the order given; without
    gradient.

    max_tokens: as of `Reader.read`. No prompt and no response is empty.
    """
    found: dict[int, Tensor] = {}

    def num_tokens(rows: Sequence[int]) -> int:
        return len(prompts[rows[0]]) + sum(len(responses[row]) for row in rows)

    def look(model: Any, _: ValueHead | None, rows: list[int]) -> None:
        padded = pad(
            [prompts[row] for row in rows],
            [responses[row] for row in rows],
            pad_id=model.config.pad_token_id,
            device=model.device,
            shared=reader.shared,
        )
        logprobs = padded_logprobs(model, padded, temperature=temperature).cpu()
        for row, values in zip(rows, logprobs, strict=True):
            found[row] = values[: len(responses[row])].clone()

    lines = reader.lines(range(len(responses)), prompts.__getitem__, num_tokens, max_tokens)
    reader.read(look, lines, num_tokens, max_tokens)
    return [found[row] for row in range(len(responses))]
