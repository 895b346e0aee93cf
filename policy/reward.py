"""The score of an answer: a sum of named parts, reward models with weights and rules.

Every part is in score units, where 1 is the deviation of a reward model's scores on its anchors
(policy/score_scale.py). A reward model of weight 0 is watched: its scores are kept beside, and
nothing learns from them. The reference's own answers are scored by the same sum.

Rules say how much an answer costs, 0 or more; what they cost is taken off:

    length      length_cost x (response tokens above length_limit), the end token not counted
    script      script_cost x (share of its letters in a script that no user turn is written in)
    repetition  repetition_cost x (share of its runs of four tokens that have been there before)

An answer without its end token costs `missing_end` besides (policy/baseline.py).
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policy.config import require
from policy.ensemble import Scored
from policy.ppo_config import PPOConfig
from policy.processes import ALONE, Processes, neighbours
from policy.rollout import PromptTokens, repetition
from policy.text import decode_completion

REWARD_SETTINGS = (
    "reward_weights",
    "length_limit",
    "length_cost",
    "script_cost",
    "repetition_cost",
)
"""What a sum depends on besides its models."""

ScoredFn = Callable[[Sequence[PromptTokens], Sequence[list[int]]], Sequence[Scored]]
"""Scores of completions, given as token ids with the end token, in the order given."""
Row = tuple[dict[str, float], dict[str, float]]
"""Of one answer: its parts, and what is seen beside."""
Rule = Callable[[PromptTokens, list[int]], float]
"""What an answer, as ids with the end token, costs."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is said of some answers, each list in their order."""

    scores: list[float]
    """The sums."""
    parts: dict[str, list[float]]
    """Names -> what each added, its weight in it."""
    seen: dict[str, list[float]]
    """Names -> what adds nothing: spreads of ensembles, axes, watched models."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Judged":
        parts = _columns([own for own, _ in rows])
        seen = _columns([beside for _, beside in rows])
        return cls([sum(own.values()) for own, _ in rows], parts, seen)


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


@dataclass(frozen=True, slots=True)
class RewardModel:
    """One part of the sum."""

    name: str
    weight: float
    scored: ScoredFn
    axes: tuple[str, ...] = ()
    reads_text: bool = False
    """Its tokenizer is another, so that answers may be read cut; their share is kept."""


class Reward:
    """Reward models and rules; called, it gives the sums alone."""

    def __init__(
        self,
        models: Sequence[RewardModel],
        rules: Mapping[str, Rule],
        processes: Processes = ALONE,
    ) -> None:
        """processes: each judges its share of the answers, and all are told of all."""
        self.models = models
        self.rules = rules
        self.processes = processes

    def __call__(
        self, prompts: Sequence[PromptTokens], completions: Sequence[list[int]]
    ) -> list[float]:
        return self.judge(prompts, completions).scores

    def judge(self, prompts: Sequence[PromptTokens], completions: Sequence[list[int]]) -> Judged:
        """The sums and what they are made of."""

        def some(rows: list[int]) -> list[Row]:
            return self._rows([prompts[row] for row in rows], [completions[row] for row in rows])

        groups = neighbours([prompt.ids for prompt in prompts])
        return Judged.of(self.processes.spread(groups, some))

    def _rows(self, prompts: Sequence[PromptTokens], completions: Sequence[list[int]]) -> list[Row]:
        parts: dict[str, list[float]] = {}
        seen: dict[str, list[float]] = {}
        for model in self.models:
            scored = model.scored(prompts, completions)
            if model.weight:
                parts[model.name] = [model.weight * each.score for each in scored]
            else:
                seen[model.name] = [each.score for each in scored]
            if all(each.spread is not None for each in scored):
                seen[f"{model.name}_spread"] = [each.spread or 0.0 for each in scored]
            if model.reads_text:
                seen[f"{model.name}_cut"] = [float(each.was_cut) for each in scored]
            for place, axis in enumerate(model.axes):
                seen[f"{model.name}_{axis}"] = [each.axes[place] for each in scored]
        for name, rule in self.rules.items():
            pairs = zip(prompts, completions, strict=True)
            parts[name] = [0.0 - rule(prompt, ids) for prompt, ids in pairs]
        return [
            (
                {name: values[row] for name, values in parts.items()},
                {name: values[row] for name, values in seen.items()},
            )
            for row in range(len(completions))
        ]


def names_and_weights(config: PPOConfig, count: int) -> list[tuple[str, float]]:
    """Of `count` reward models: reward_model, reward_model_2 ...; each counts once unless
    reward_weights says so. Raises BadInput for another number of weights."""
    weights = config.reward_weights or [1.0] * count
    require(
        len(weights) == count,
        f"reward_weights are {len(weights)}, the reward models {count}",
    )
    names = ["reward_model", *(f"reward_model_{number}" for number in range(2, count + 1))]
    return list(zip(names, weights, strict=True))


def rules_of(config: PPOConfig, tokenizer: Any) -> dict[str, Rule]:
    """The rules that the config switches on, by name."""
    rules: dict[str, Rule] = {}
    if config.length_limit is not None:
        limit = config.length_limit
        rules["length"] = lambda prompt, ids: config.length_cost * max(0, len(ids) - 1 - limit)
    if config.script_cost:
        rules["script"] = lambda prompt, ids: (
            config.script_cost
            * foreign_letters(
                (turn["content"] for turn in prompt.messages if turn["role"] == "user"),
                decode_completion(tokenizer, ids),
            )
        )
    if config.repetition_cost:
        rules["repetition"] = lambda prompt, ids: config.repetition_cost * repetition(ids)
    return rules


def foreign_letters(prompt: Iterable[str], answer: str) -> float:
    """Share of the answer's letters in scripts that the prompt's texts do not hold, in [0, 1].

    A script is what a letter's Unicode name begins with (LATIN, CJK, CYRILLIC ...). 0 where either
    has no letter. Two languages of one script are not told apart.
    """
    known = {script for text in prompt for script in scripts(text)}
    found = scripts(answer)
    if not known or not found:
        return 0.0
    return sum(script not in known for script in found) / len(found)


def scripts(text: str) -> list[str]:
    """The script of each letter, in order."""
    return [unicodedata.name(one, "?").split()[0] for one in text if one.isalpha()]
