"""Does reinforcement learning end where theory says? Answers few enough to list every one of them.

    .venv/bin/python tests/benchmarks/closed_form.py --folder var/closed-form --seeds 5

A world of three letters, an end token and answers of at most three tokens has 40 answers to each of
its three prompts. Every answer has a score, drawn at random; the policy is a small real GPT. What a
KL penalty of weight b makes of a reference q is known: p*(y) is proportional to q(y) exp(r(y) / b)
(arXiv:1909.08593, section 2.2; r with what a missing end token costs). Printed, per seed, from the
weights on disk and by listing all answers: KL(p || p*) in nats per answer, mean over the prompts.
An objective that falls short of its maximum by e is e / b nats away from p*, so nothing is hidden.

Best of n has a closed form too: with F(y) the reference's mass of scores up to r(y), n draws give
y with probability F(y)^n - (F(y) - q(y))^n. Printed: how far answers that were drawn lie from it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import log
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from policy.backbone import GPTShape, load_causal_lm, new_gpt, save_model  # noqa: E402
from policy.config import load_config  # noqa: E402
from policy.ppo import train  # noqa: E402
from policy.ppo_config import PPOConfig  # noqa: E402
from policy.rollout import PromptTokens  # noqa: E402
from policy.sampling import sample  # noqa: E402
from policy.text import END, PAD  # noqa: E402

LETTERS = "abc"
PROMPTS = {"a b": [2, 3], "b c": [3, 4], "c a": [4, 2]}
"""And their ids. Two letters each: where all tokens so far are one and the same, a model with
rotary positions cannot tell how many there are, and no weights would reach the optimum."""
END_ID, FIRST_LETTER = 1, 2
"""PAD is 0."""
LONGEST = 3
ANSWERS = [
    letters
    for length in range(LONGEST + 1)
    for letters in product(range(FIRST_LETTER, FIRST_LETTER + len(LETTERS)), repeat=length)
]
"""Letters of each answer; the end token stands behind those shorter than LONGEST, the others are
cut there."""
IS_CUT = torch.tensor([len(letters) == LONGEST for letters in ANSWERS])
SHAPE = GPTShape(width=64, layers=2, heads=2, context=16)
SETTINGS = {
    "steps": 200,
    "rollouts_per_step": 512,
    "max_response_tokens": LONGEST,
    "epochs": 2,
    "minibatches": 1,
    "micro_batch_tokens": 8192,
    "lr_peak": 2e-3,
    "warmup_steps": 30,
    "clip": 0.1,
    "kl_coef": 1.0,
    "kl_target_nats": None,
    "kl_stop_nats": None,
    "checkpoint_every": 10_000,
}


@dataclass(frozen=True, slots=True)
class World:
    """A reference on disk and the score of every answer to every prompt."""

    folder: Path
    scores: Tensor
    """(prompts, answers)"""

    @classmethod
    def make(cls, folder: Path, seed: int) -> "World":
        """Write the reference and the prompts; both and the scores follow from the seed."""
        folder.mkdir(parents=True)
        tokenizer = letters_tokenizer()
        model = new_gpt(tokenizer, SHAPE, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        save_model(model, tokenizer, folder / "reference")
        rows = [{"id": prompt, "prompt": prompt} for prompt in PROMPTS]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "prompts.jsonl").write_text(text, encoding="utf-8")
        return cls(folder, torch.randn(len(PROMPTS), len(ANSWERS), generator=generator))

    def score(
        self, prompts: Sequence[PromptTokens], completions: Sequence[Sequence[int]]
    ) -> list[float]:
        """As PPO asks: a completion's ids with the end token."""
        return [
            float(self.scores[ORDER.index(prompt.id), PLACE[tuple(ids[:-1])]])
            for prompt, ids in zip(prompts, completions, strict=True)
        ]

    def optimum(self, config: PPOConfig) -> Tensor:
        """(prompts, answers) log-probs of what the config's objective is highest at."""
        assert config.missing_end == "subtract"
        rewards = self.scores - config.missing_end_score * IS_CUT
        reference = log_probs(self.folder / "reference", config.temperature)
        return (reference + rewards.double() / config.kl_coef).log_softmax(1)


ORDER = list(PROMPTS)
PLACE = {letters: place for place, letters in enumerate(ANSWERS)}


def letters_tokenizer() -> Any:
    """Five tokens. A prompt is its letters, and the answer follows at once."""
    vocabulary = {token: place for place, token in enumerate((PAD, END, *LETTERS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token=PAD, eos_token=END)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    return tokenizer


@torch.no_grad()
def log_probs(directory: Path, temperature: float) -> Tensor:
    """(prompts, answers) of the policy in a directory, by transformers' own forward."""
    model = AutoModelForCausalLM.from_pretrained(directory).double().eval()
    longest = [letters for letters in ANSWERS if len(letters) == LONGEST]
    found = torch.zeros(len(PROMPTS), len(ANSWERS), dtype=torch.float64)
    for row, prompt in enumerate(PROMPTS.values()):
        ids = torch.tensor([[*prompt, *letters] for letters in longest])
        logits = model(input_ids=ids).logits[:, 1 : 1 + LONGEST] / temperature
        logits[..., 0] = -torch.inf  # never a pad
        after = logits.log_softmax(-1)  # (27, 3, 5): after none, one and two of the letters
        for column, letters in enumerate(ANSWERS):
            begins = next(at for at, each in enumerate(longest) if each[: len(letters)] == letters)
            tokens = letters if len(letters) == LONGEST else (*letters, END_ID)
            found[row, column] = sum(after[begins, at, token] for at, token in enumerate(tokens))
    assert torch.allclose(found.exp().sum(1), torch.ones(len(PROMPTS), dtype=torch.float64))
    return found


def kl_nats(first: Tensor, second: Tensor) -> float:
    """KL(first || second) of log-probs (prompts, answers), mean over the prompts."""
    return float((first.exp() * (first - second)).sum(1).mean())


def best_of_n(reference: Tensor, scores: Tensor, n: int) -> Tensor:
    """(prompts, answers) log-probs of the highest score among n draws; no two scores are equal."""
    order = scores.argsort(1)
    upto = reference.exp().gather(1, order).cumsum(1).clamp(max=1.0)
    below = torch.nn.functional.pad(upto, (1, 0))[:, :-1]
    by_score = upto**n - below**n
    return torch.zeros_like(by_score).scatter(1, order, by_score).log()


def drawn_best_of_n(world: World, n: int, groups: int, temperature: float, seed: int) -> Tensor:
    """(prompts, answers) counts of the best of n answers that the sampler drew, `groups` times."""
    model, tokenizer = load_causal_lm(world.folder / "reference")
    counts = torch.zeros(len(PROMPTS), len(ANSWERS), dtype=torch.float64)
    for row, prompt in enumerate(PROMPTS.values()):
        count = n * groups
        drawn = sample(
            model,
            tokenizer,
            [prompt] * count,
            temperature=temperature,
            max_new_tokens=LONGEST,
            seeds=[(seed * len(PROMPTS) + row) * count + each for each in range(count)],
            rows_per_batch=4096,
        )
        places = [PLACE[tuple(t for t in one.tokens if t != END_ID)] for one in drawn]
        for start in range(0, count, n):
            best = max(places[start : start + n], key=lambda place: float(world.scores[row, place]))
            counts[row, best] += 1
    return counts


def optimum_of_equal_kl(reference: Tensor, scores: Tensor, kl: float) -> Tensor:
    """(prompts, answers) log-probs of reference x exp(score / b), of the b that spends this KL."""
    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = (low * high) ** 0.5
        tilted = (reference + scores.double() / middle).log_softmax(1)
        low, high = (middle, high) if kl_nats(tilted, reference) > kl else (low, middle)
    return tilted


def bound_of_best_of_n(n: int) -> float:
    """Nats that best of n spends at most (arXiv:2009.01325, appendix G.3)."""
    return log(n) - (n - 1) / n


@dataclass(frozen=True, slots=True)
class Found:
    """One run against its optimum, all in nats per answer."""

    before: float
    """KL(reference || p*): where training begins."""
    apart: float
    """KL(p || p*)"""
    spent: float
    """KL(p || reference)"""
    wanted: float
    """KL(p* || reference)"""


def trained(world: World, config: PPOConfig, name: str) -> Found:
    """Train from the reference into the world's folder, and measure what is on disk then."""
    start, out = world.folder / "reference", world.folder / name
    train(config, init=start, prompts=world.folder / "prompts.jsonl", out=out, score_fn=world.score)
    optimum = world.optimum(config)
    reference, policy = (log_probs(each, config.temperature) for each in (start, out))
    return Found(
        before=kl_nats(reference, optimum),
        apart=kl_nats(policy, optimum),
        spent=kl_nats(policy, reference),
        wanted=kl_nats(optimum, reference),
    )


@dataclass(frozen=True, slots=True)
class BestFound:
    drawn: float
    """KL(drawn || exact), nats; by chance alone about half an answer's number / groups."""
    spent: float
    """KL(exact || reference)"""
    apart: float
    """KL(exact || the optimum that spends as much)"""


def best_found(world: World, n: int, groups: int, temperature: float, seed: int) -> BestFound:
    reference = log_probs(world.folder / "reference", temperature)
    exact = best_of_n(reference, world.scores, n)
    counts = drawn_best_of_n(world, n, groups, temperature, seed)
    spent = kl_nats(exact, reference)
    drawn = counts / groups
    optimum = optimum_of_equal_kl(reference, world.scores, spent)
    return BestFound(
        drawn=float(torch.xlogy(drawn, drawn).sub(drawn * exact).sum(1).mean()),
        spent=spent,
        apart=kl_nats(exact, optimum),
    )


ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {"value_lr_peak": 3e-3, "value_clip": 0.0, "lam": 1.0},
    "rloo": {
        "advantage": "rloo",
        "answers_per_prompt": 8,
        "steps": 250,
        "lr_peak": 3e-3,
        "warmup_steps": 10,
        "clip": 0.2,
    },
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="an empty one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--algorithms", nargs="*", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--best-of", type=int, default=4)
    parser.add_argument("--groups", type=int, default=2000, help="of drawn answers, to each prompt")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args(arguments)
    print("| seed | what | KL(reference, p*) | KL(p, p*) | KL(p, reference) | KL(p*, reference) |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for seed in args.seeds:
        world = World.make(args.folder / f"seed-{seed}", seed)
        for name in args.algorithms:
            settings = SETTINGS | ALGORITHMS[name] | {"seed": seed}
            words = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
            found = trained(world, load_config(PPOConfig, None, words + args.set), name)
            figures = (found.before, found.apart, found.spent, found.wanted)
            print(
                f"| {seed} | {name} | " + " | ".join(f"{x:.4f}" for x in figures) + " |", flush=True
            )
        best = best_found(world, args.best_of, args.groups, PPOConfig().temperature, seed)
        print(
            f"| {seed} | best of {args.best_of} | drawn from exact {best.drawn:.4f} | "
            f"{best.apart:.4f} at equal KL | {best.spent:.4f} | "
            f"at most {bound_of_best_of_n(args.best_of):.4f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
