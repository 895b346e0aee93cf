"""Figures of a policy's answers: what reward models make of them, KL, length, repetition.

A mean has an interval that draws prompts again, for answers to one prompt are not independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from policy.data import PromptRow
from policy.ensemble import Scored
from policy.intervals import Mean, bootstrap_mean
from policy.kl import KLEstimator, k1, k3
from policy.ppo_models import require_text_fits, scored_fn_of
from policy.reader import Reader
from policy.response_logprobs import response_logprobs
from policy.rollout import REPEATED, distinct_n, repetition
from policy.sample import Answer
from policy.scoring import Scorer, load_scorer, require_room
from policy.text import end_token_id

SURE = 1e-5
"""Scores depend on their batch by this x max(1, |score|): what is closer is a tie."""


@dataclass(slots=True)
class Answered:
    """One policy's answers, in the order of prompts and n, and what was found of each."""

    answers: Sequence[Answer]
    scores: dict[str, list[float]] = field(default_factory=dict)
    """By reward model, one for each answer."""
    num_read_cut: dict[str, int] = field(default_factory=dict)
    """By reward model: answers that were too long for it, and were read cut."""
    kl: dict[str, list[float]] = field(default_factory=dict)
    """By estimator, nats per response."""


def scorer_for(
    path: Path | str,
    tokenizers: Sequence[Any],
    rows: Sequence[PromptRow],
    *,
    max_new_tokens: int,
    device: str,
) -> Scorer:
    """A reward model that can score answers of these tokenizers to these prompts; said before any
    is sampled. Raises BadInput."""
    scorer = load_scorer(path, device)
    for tokenizer in tokenizers:
        if scorer.shares_tokenizer(tokenizer):
            require_room(scorer, max_new_tokens, "max_new_tokens")
        prompts = (row.messages for row in rows)
        require_text_fits([scorer], tokenizer, prompts, max_new_tokens, "max_new_tokens")
    return scorer


def scored_of(scorer: Scorer, tokenizer: Any, answers: Sequence[Answer]) -> Sequence[Scored]:
    """What is made of the answers, each read with its end token. `tokenizer`: the policy's."""
    end = end_token_id(tokenizer)
    whole = [one.sampled.ended(end) for one in answers]
    return scored_fn_of(scorer, tokenizer)([one.prompt for one in answers], whole)


def kl_of(
    policy: Any, reference: Any, answers: Sequence[Answer], *, temperature: float
) -> dict[str, list[float]]:
    """KL(policy || reference) of the tempered distributions by the estimators k1 and k3, summed
    over each answer, nats. The answers were sampled at this temperature, which is not 0."""
    prompts = [one.prompt.ids for one in answers]
    tokens = [one.sampled.tokens for one in answers]
    found = [
        response_logprobs(Reader(model), prompts, tokens, temperature=temperature)
        for model in (policy, reference)
    ]
    return {name: _sums(estimator, *found) for name, estimator in (("k1", k1), ("k3", k3))}


def _sums(estimator: KLEstimator, own: list[Tensor], reference: list[Tensor]) -> list[float]:
    return [float(estimator(p, q).sum()) for p, q in zip(own, reference, strict=True)]


def over_prompts(answers: Sequence[Answer], values: Sequence[float], *, seed: int = 0) -> Mean:
    """Mean of one value per answer, its interval over prompts."""
    rows = [(one.prompt.id, value, 1.0) for one, value in zip(answers, values, strict=True)]
    return bootstrap_mean(rows, seed=seed)


def figures_of(answered: Answered) -> dict[str, Any]:
    """Of one policy, as JSON. Counts are of answers, except the prompts cut."""
    answers = answered.answers
    tokens = [one.sampled.tokens for one in answers]
    means: dict[str, Sequence[float]] = {
        "response_tokens": [float(len(row)) for row in tokens],
        "response_characters": [float(len(one.text)) for one in answers],
        "without_end": [float(one.sampled.finish != "end") for one in answers],
        f"repetition_{REPEATED}": [repetition(row) for row in tokens],
    }
    return {
        "score": [
            {
                "reward_model": name,
                **over_prompts(answers, scores).as_json(),
                "num_read_cut": answered.num_read_cut.get(name, 0),
            }
            for name, scores in answered.scores.items()
        ],
        "kl_nats": {
            name: over_prompts(answers, values).as_json() for name, values in answered.kl.items()
        }
        or None,
        **{name: over_prompts(answers, values).as_json() for name, values in means.items()},
        "distinct_1": distinct_n(tokens, 1),
        "distinct_2": distinct_n(tokens, 2),
        "num_answers": len(answers),
        "num_empty": sum(not one.text.strip() for one in answers),
        "num_prompts_cut": len({one.prompt.id for one in answers if one.prompt.dropped_turns}),
    }


def outcome(score: float, other: float) -> float:
    """1 for the higher score, 0 for the lower, 1/2 for a tie: see SURE."""
    if abs(score - other) <= SURE * max(1.0, abs(score), abs(other)):
        return 0.5
    return float(score > other)


def comparison_of(own: Answered, other: Answered) -> list[dict[str, Any]]:
    """Under each reward model the share of answers that beat the other policy's n-th answer to the
    same prompt, ties as half, and by how much the score is higher."""
    found = []
    for name, scores in own.scores.items():
        pairs = list(zip(scores, other.scores[name], strict=True))
        outcomes = [outcome(*pair) for pair in pairs]
        gains = [score - before for score, before in pairs]
        found.append(
            {
                "reward_model": name,
                "win_rate": over_prompts(own.answers, outcomes).as_json(),
                "gain": over_prompts(own.answers, gains).as_json(),
                "num_wins": outcomes.count(1.0),
                "num_ties": outcomes.count(0.5),
                "num_losses": outcomes.count(0.0),
            }
        )
    return found


def rows_of(answered: Answered, policy: str, temperature: float) -> list[dict[str, Any]]:
    """The answers as rows of a file, each with what was found of it."""
    return [
        {
            "policy": policy,
            **one.row(temperature),
            "scores": {name: scores[at] for name, scores in answered.scores.items()},
            **{f"kl_nats_{name}": values[at] for name, values in answered.kl.items()},
        }
        for at, one in enumerate(answered.answers)
    ]
