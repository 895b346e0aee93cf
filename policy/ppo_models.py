"""What a PPO run loads before its first step: four models, a function that scores, the prompts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from policy.backbone import context_of, load_causal_lm, save_model
from policy.config import require
from policy.data import Message, content_hash, read_prompts, trained_on
from policy.ensemble import Scored
from policy.ppo_config import PPOConfig
from policy.processes import ALONE, Processes
from policy.ptx import Pretraining
from policy.reward import Reward, RewardModel, ScoredFn, names_and_weights, rules_of
from policy.rollout import PromptTokens, ScoreFn
from policy.run import generator_for
from policy.scoring import (
    Scorer,
    encode_ids,
    load_scorer,
    require_room,
    require_room_for_text,
)
from policy.sharing import let_learn, whole
from policy.text import decode_completion, render_prompt
from policy.value import ValueHead, fits_as_value_model, value_model_from

TRIED = 1000
"""Prompts from which it is told how long text is to another tokenizer."""


class OnPolicyConfig(Protocol):
    """What it takes to answer prompts and have the answers scored."""

    @property
    def max_prompt_tokens(self) -> int | None: ...
    @property
    def max_response_tokens(self) -> int: ...
    @property
    def allow_weak_reward(self) -> bool: ...


@dataclass(slots=True)
class Models:
    """Everything with weights, and the function that scores."""

    config: PPOConfig
    tokenizer: Any
    policy: Any
    reference: Any
    value: Any | None
    """A model of its own, a ValueHead, or None where answers are compared with each other."""
    reward: Reward
    text: Pretraining | None = None
    """What is learned beside the reward."""
    scorers: Sequence[Scorer] = ()
    """The reward models themselves."""

    @classmethod
    def load(
        cls,
        config: PPOConfig,
        inputs: Mapping[str, Path | str],
        *,
        score_fn: ScoreFn | None,
        device: str,
        processes: Processes = ALONE,
    ) -> "Models":
        policy, tokenizer = load_causal_lm(inputs["init"], device=device)
        reference = let_learn(policy, config)
        reference_tokenizer = tokenizer
        if reference is None or not same_model(inputs["init"], inputs["reference"]):
            reference, reference_tokenizer = load_causal_lm(inputs["reference"], device=device)
            reference.requires_grad_(False)
        require(
            reference_tokenizer.get_vocab() == tokenizer.get_vocab(),
            f"the reference {inputs['reference']} has another tokenizer than {inputs['init']}",
        )
        max_tokens = context_of(policy)
        value_init = inputs.get("value_init")
        scorers = scorers_of(config, inputs, tokenizer, device=device, precision=config.precision)
        if score_fn is not None:
            reward_models = [RewardModel("score_fn", 1.0, plain(score_fn))]
        else:
            named = names_and_weights(config, len(scorers))
            reward_models = [
                RewardModel(
                    name,
                    weight,
                    scored_fn_of(scorer, tokenizer),
                    axes_named(scorer),
                    reads_text=not scorer.shares_tokenizer(tokenizer),
                )
                for (name, weight), scorer in zip(named, scorers, strict=True)
            ]
        if (
            value_init is None
            and scorers
            and fits_as_value_model(scorers[0], policy, tokenizer, max_tokens=max_tokens)
        ):
            value_init = inputs["reward_model"]
        require(
            config.has_value_model or "value_init" not in inputs,
            f"there is no value model to start from {inputs.get('value_init')}: advantage is "
            f"{config.advantage}, value is {config.value}",
        )
        value: Any | None = None
        if config.has_value_model:
            value = value_model_from(
                value_init or inputs["init"],
                tokenizer=tokenizer,
                max_tokens=max_tokens,
                device=device,
            )
        elif not config.compares_answers:
            value = ValueHead.on(policy)
        reward = Reward(reward_models, rules_of(config, tokenizer), processes)
        text = None
        if "ptx_data" in inputs:
            text = Pretraining(inputs["ptx_data"], tokenizer, config, policy)
        return cls(config, tokenizer, policy, reference, value, reward, text, scorers)

    def save(self, directory: Path) -> None:
        policy = whole(self.policy, self.config)
        save_model(policy, self.tokenizer, directory)
        if self.value is not None:
            head = self.head
            value = self.value if head is None else head.with_trunk(policy)
            (directory / "value").mkdir()
            save_model(value, self.tokenizer, directory / "value")

    @property
    def head(self) -> ValueHead | None:
        """The values', where it stands on the policy's trunk."""
        return self.value if isinstance(self.value, ValueHead) else None

    @property
    def policy_and_head(self) -> nn.Module:
        """The policy, with the head on its trunk where there is one: it reads no other policy's."""
        policy: nn.Module = self.policy
        return policy if self.head is None else nn.ModuleList([policy, self.head])


def same_model(one: Path | str, other: Path | str) -> bool:
    return Path(one) == Path(other) or content_hash(one) == content_hash(other)


def scorers_of(
    config: OnPolicyConfig,
    inputs: Mapping[str, Path | str],
    tokenizer: Any,
    *,
    device: str,
    precision: str = "fp32",
) -> list[Scorer]:
    """The reward models among the inputs, in order. Raises BadInput for one that will not do."""
    scorers: list[Scorer] = []
    for name, path in inputs.items():
        if not name.startswith("reward_model"):
            continue
        scorer = load_scorer(path, device=device, precision=precision)
        require_better_than_a_coin(scorer, config, path)
        if scorer.shares_tokenizer(tokenizer):
            require_room(scorer, config.max_response_tokens, "max_response_tokens")
        scorers.append(scorer)
    return scorers


def require_text_fits(
    scorers: Iterable[Scorer],
    tokenizer: Any,
    prompts: Iterable[Sequence[Message]],
    longest: int,
    name: str,
) -> None:
    """Raise BadInput where answers to these prompts are, by their text, too long for one of the
    reward models that have another tokenizer than the policy."""
    tried = list(islice(prompts, TRIED))
    for scorer in scorers:
        if not scorer.shares_tokenizer(tokenizer):
            texts = (turn["content"] for prompt in tried for turn in prompt)
            require_room_for_text(scorer, tokenizer, texts, longest, name)


def plain(score_fn: ScoreFn) -> ScoredFn:
    """A function of scores alone, as one that may know more."""
    return lambda prompts, completions: [Scored(score) for score in score_fn(prompts, completions)]


def axes_named(scorer: Scorer) -> tuple[str, ...]:
    return tuple(axis.name for axis in scorer.scale.axes)


def scored_fn_of(scorer: Scorer, tokenizer: Any) -> ScoredFn:
    """The reward model over the policy's answers: their ids as they are where it reads the same
    tokens, else as text, cut where that is too long for it."""

    def by_tokens(
        prompts: Sequence[PromptTokens], completions: Sequence[list[int]]
    ) -> Sequence[Scored]:
        pairs = zip(prompts, completions, strict=True)
        rows = [
            encode_ids(scorer.tokenizer, prompt.messages, ids, max_tokens=scorer.max_tokens).ids
            for prompt, ids in pairs
        ]
        return scorer.scored_ids(rows)

    def by_text(
        prompts: Sequence[PromptTokens], completions: Sequence[list[int]]
    ) -> Sequence[Scored]:
        texts = [decode_completion(tokenizer, ids) for ids in completions]
        return scorer.scored_cut([prompt.messages for prompt in prompts], texts)

    return by_tokens if scorer.shares_tokenizer(tokenizer) else by_text


def require_better_than_a_coin(scorer: Scorer, config: OnPolicyConfig, path: Path | str) -> None:
    """Raise BadInput for a reward model whose record says that it may be none."""
    why = scorer.scale.why_weak()
    require(
        why is None or config.allow_weak_reward,
        f"the reward model {path} is too weak to learn from: {why}; allow_weak_reward=true takes "
        f"it all the same",
    )


def prompt_tokens(
    path: Path | str, tokenizer: Any, config: OnPolicyConfig, context: int
) -> list[PromptTokens]:
    """Train-split prompts of the file as ids that leave room for a whole response."""
    room = context - config.max_response_tokens
    require(
        room >= 1,
        f"max_response_tokens {config.max_response_tokens} leaves no room for a prompt "
        f"in a context of {context}",
    )
    limit = min(room, config.max_prompt_tokens or room)
    rows = [row for row in read_prompts(path) if trained_on(row.split)]
    require(bool(rows), f"{path} holds no prompt of the train split")
    prompts: list[PromptTokens] = []
    for row in rows:
        rendered = render_prompt(tokenizer, row.messages, max_tokens=limit)
        prompts.append(PromptTokens(row.id, row.messages, rendered.ids, rendered.dropped_turns))
    return prompts


def draw(
    prompts: Sequence[PromptTokens], count: int, *, seed: int, step: int
) -> list[PromptTokens]:
    """The prompts of step 1, 2 ...: epoch after epoch of all of them, each epoch shuffled by
    counter, so that a step's prompts follow from its number alone."""
    drawn: list[PromptTokens] = []
    place = (step - 1) * count
    while len(drawn) < count:
        epoch, first = divmod(place + len(drawn), len(prompts))
        order = torch.randperm(len(prompts), generator=generator_for(seed, epoch, "prompts"))
        chosen = order[first : first + count - len(drawn)].tolist()
        drawn += [prompts[i] for i in chosen]
    return drawn
