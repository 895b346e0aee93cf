"""A synthetic world whose gold utility is known, with a reference, reward models and PPO in it.

Answers are eight letters. Each is worth its weight, `a` by far the most, and every pair of the same
letter costs something: what everybody likes is liked in moderation. The reference, fine-tuned on
letters drawn evenly, hardly ever says a letter four times, so that a reward model trained on a few
noisy comparisons of its answers learns that `a` is good, and little of when there are enough. What
such a model likes best, nothing but `a`, is worth no more than what the reference says.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from policy.backbone import GPTShape, load_causal_lm, new_gpt, save_model
from policy.config import SFTConfig, load_config
from policy.data import Message
from policy.ppo import train as train_policy
from policy.ppo_config import PPOConfig
from policy.sampling import sample
from policy.scoring import load_scorer
from policy.sft import train as fine_tune
from policy.text import CHAT_TEMPLATE, SPECIAL_TOKENS, decode_completion, render_prompt
from rewardmodel.config import RewardConfig
from rewardmodel.ensemble import train_ensemble
from rewardmodel.train import train as train_reward

WEIGHTS = {"a": 1.0, "b": 0.2, "c": 0.1, "d": 0.0, "e": 0.0, "f": -0.1, "g": -0.1, "h": -0.2}
COST = 0.25
"""Of each pair of the same letter."""
LENGTH = 8
PROMPTS = [f"{one} {other}" for one in "ab" for other in "gh"]
SHAPE = GPTShape(width=64, layers=2, heads=2, context=32)
DEMONSTRATIONS = 2048
SFT = {"epochs": 3, "rows_per_step": 32, "lr_peak": 3e-3}
REWARD = {"comparisons_per_step": 16, "keep": "last"}
PPO = {
    "steps": 60,
    "rollouts_per_step": 64,
    "max_response_tokens": LENGTH + 1,
    "temperature": 1.0,
    "micro_batch_tokens": 4096,
    "lr_peak": 5e-4,
    "value_lr_peak": 1e-3,
    "allow_weak_reward": True,
    "checkpoint_every": 10_000,
}
FAR = {
    "kl_coef": 0.0,
    "kl_target_nats": None,
    "kl_stop_nats": None,
    "lr_peak": 1e-3,
    "value_lr_peak": 2e-3,
}
"""Without a leash, and at twice the rate, so that it gets far."""


def gold(text: str) -> float:
    """Utility of an answer."""
    letters = text.split()
    counts = {letter: letters.count(letter) for letter in set(letters)}
    return sum(WEIGHTS[each] * n - COST * n * (n - 1) / 2 for each, n in counts.items())


@dataclass(frozen=True, slots=True)
class Point:
    """Means over the answers of one policy."""

    kl_nats: float
    proxy: float
    gold: float

    @property
    def distance(self) -> float:
        return math.sqrt(max(0.0, self.kl_nats))


def tokenizer_of_letters() -> Any:
    vocabulary = {token: at for at, token in enumerate((*SPECIAL_TOKENS, *WEIGHTS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pad, bos, end, *others = SPECIAL_TOKENS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=pad,
        bos_token=bos,
        eos_token=end,
        additional_special_tokens=others,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def said(prompt: str) -> list[Message]:
    return [{"role": "user", "content": prompt}]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_reference(folder: Path, *, demonstrations: int = DEMONSTRATIONS) -> Path:
    """A policy that answers any prompt with eight letters drawn evenly."""
    tokenizer, draw = tokenizer_of_letters(), Random("demonstrations")
    save_model(new_gpt(tokenizer, SHAPE, seed=0), tokenizer, folder / "init")
    rows = [
        {
            "id": str(number),
            "split": "train",
            "prompt": said(draw.choice(PROMPTS)),
            "completion": " ".join(draw.choices(list(WEIGHTS), k=LENGTH)),
        }
        for number in range(demonstrations)
    ]
    data = write_rows(folder / "demonstrations.jsonl", rows)
    fine_tune(
        load_config(SFTConfig, None, words_of(SFT)), data, folder / "init", folder / "reference"
    )
    return folder / "reference"


def words_of(settings: dict[str, Any]) -> list[str]:
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def answers_of(directory: Path, each: int, seed: int) -> dict[str, list[str]]:
    """`each` answers of a policy to every prompt."""
    model, tokenizer = load_causal_lm(directory)
    prompts = [prompt for prompt in PROMPTS for _ in range(each)]
    drawn = sample(
        model,
        tokenizer,
        [render_prompt(tokenizer, said(prompt)).ids for prompt in prompts],
        temperature=1.0,
        max_new_tokens=LENGTH + 1,
        seeds=[seed * len(prompts) + row for row in range(len(prompts))],
    )
    found: dict[str, list[str]] = {prompt: [] for prompt in PROMPTS}
    for prompt, one in zip(prompts, drawn, strict=True):
        found[prompt].append(decode_completion(tokenizer, one.tokens))
    return found


def comparisons(answers: dict[str, list[str]], count: int, seed: str) -> list[dict[str, Any]]:
    """Rows of two answers and one vote: better with the odds exp(difference of gold)."""
    draw, rows = Random(f"votes {seed}"), list[dict[str, Any]]()
    while len(rows) < count:
        prompt = draw.choice(PROMPTS)
        one, other = draw.sample(answers[prompt], 2)
        if one == other or not one or not other:
            continue
        is_first = draw.random() < 1 / (1 + math.exp(gold(other) - gold(one)))
        vote = {"axis": "overall", "ranking": [["0"], ["1"]] if is_first else [["1"], ["0"]]}
        rows.append(
            {
                "id": str(len(rows)),
                "split": "dev" if len(rows) % 10 == 0 else "train",
                "prompt": said(prompt),
                "completions": [
                    {"id": str(at), "text": text, "model": None}
                    for at, text in enumerate((one, other))
                ],
                "votes": [
                    vote | {"strength": None, "weight": None, "annotator": "v", "kind": "simulated"}
                ],
            }
        )
    return rows


def reward_model(
    folder: Path,
    name: str,
    answers: dict[str, list[str]],
    *,
    init: Path,
    votes: int,
    seed: int,
    members: int = 1,
) -> Path:
    """One trained on `votes` comparisons of its own; or an ensemble, on the same."""
    rows = comparisons(answers, votes, f"{name} {seed}")
    return trained_on(folder, name, rows, init=init, seed=seed, members=members)


def trained_on(
    folder: Path,
    name: str,
    rows: Sequence[dict[str, Any]],
    *,
    init: Path,
    seed: int,
    members: int = 1,
    epochs: int = 1,
) -> Path:
    """A reward model, or an ensemble, from these comparisons."""
    data = write_rows(folder / f"{name}.jsonl", rows)
    words = words_of(REWARD | {"seed": seed, "members": members, "epochs": epochs})
    config = load_config(RewardConfig, None, words)
    out = folder / name
    if members > 1:
        train_ensemble(config, data=data, inits=[str(init)], out=out, train_one=train_reward)
    else:
        train_reward(config, data=data, init=str(init), out=out)
    return out


def drive(
    out: Path,
    *,
    reference: Path,
    rewards: Sequence[Path],
    seed: int,
    settings: dict[str, Any],
    overrides: Sequence[str] = (),
    init: Path | None = None,
) -> None:
    """PPO in this world against the first reward model; the others only watch. init: where the
    policy starts, the reference unless given."""
    prompts = out.parent / "prompts.jsonl"
    write_rows(prompts, [{"id": prompt, "prompt": said(prompt)} for prompt in PROMPTS])
    weights = {"reward_weights": [1.0, *(0.0 for _ in rewards[1:])]}
    words = words_of(PPO | weights | settings | {"seed": seed})
    train_policy(
        load_config(PPOConfig, None, [*words, *overrides]),
        init=init or reference,
        reference=reference,
        prompts=prompts,
        reward_model=rewards,
        out=out,
    )


def run_points(directory: Path) -> list[Point]:
    """Each step of a run by its own rollouts: what the policy was before that step's update."""
    found = []
    for shard in sorted((directory / "rollouts").glob("step-*.jsonl")):
        rows = [json.loads(line) for line in shard.read_text("utf-8").splitlines()]
        found.append(
            Point(
                kl_nats=fmean(row["kl"] for row in rows),
                proxy=fmean(row["score"] for row in rows),
                gold=fmean(gold(row["text"]) for row in rows),
            )
        )
    return found


def point_of(directory: Path, reward: Path, kl_nats: float, *, each: int, seed: int) -> Point:
    """A published policy by `each` answers to every prompt."""
    answers = answers_of(directory, each, seed)
    scorer = load_scorer(reward)
    scores = [
        score
        for prompt, texts in answers.items()
        for score in scorer.score([said(prompt)] * len(texts), texts)
    ]
    golds = [gold(text) for texts in answers.values() for text in texts]
    return Point(kl_nats, fmean(scores), fmean(golds))


def smoothed(values: Sequence[float], reach: int = 2) -> list[float]:
    """Mean with up to `reach` neighbours on each side, so that a peak is no lucky draw."""
    return [fmean(values[max(0, at - reach) : at + reach + 1]) for at in range(len(values))]
