"""Shortest paths by a policy that has only seen random walks: how far from what a search finds?

    .venv/bin/python tests/benchmarks/random_walks.py --folder var/random-walks --seeds 0 1 2

A directed graph of 21 places, each edge there with probability 0.1. A GPT with random weights is
fine-tuned on random walks of at most ten places that may end at the goal, and then trained by PPO
on where to begin: a walk scores 1 if it is a shortest path to the goal, 0 if it is as long as
walks may be, and in between by its length; a walk along an edge that is not there, or one that does
not reach the goal, scores 0. What is best is known for every beginning by breadth-first search.
Printed: the mean score (optimality) of 20 answers to each beginning, before and after, and how many
of them are shortest paths. The task is that of trlX (CarperAI), the graph is not.
"""

import argparse
import json
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from policy.backbone import GPTShape, load_causal_lm, new_gpt, save_model  # noqa: E402
from policy.config import SFTConfig, load_config  # noqa: E402
from policy.ppo import train as train_policy  # noqa: E402
from policy.ppo_config import PPOConfig  # noqa: E402
from policy.rollout import PromptTokens  # noqa: E402
from policy.sampling import sample  # noqa: E402
from policy.sft import train as fine_tune  # noqa: E402
from policy.text import END, PAD  # noqa: E402

GOAL = 0
LONGEST = 10
"""Places of a walk, its beginning among them."""
PLACES = "abcdefghijklmnopqrstuvwxyz"
FIRST_PLACE = 2
"""Id of place 0; before it stand PAD and END."""
SHAPE = GPTShape(width=64, layers=2, heads=2, context=16)
SFT = {"epochs": 4, "rows_per_step": 64, "lr_peak": 3e-3}
PPO = {
    "steps": 60,
    "rollouts_per_step": 128,
    "max_response_tokens": LONGEST,
    "temperature": 1.0,
    "epochs": 4,
    "minibatches": 1,
    "micro_batch_tokens": 4096,
    "lr_peak": 1e-3,
    "value_lr_peak": 2e-3,
    "value_clip": 0.0,
    "kl_coef": 0.0,
    "kl_target_nats": None,
    "kl_stop_nats": None,
    "missing_end": "off",
    "baseline_samples": 0,
    "checkpoint_every": 10_000,
}


@dataclass(frozen=True, slots=True)
class Graph:
    """Edges go one way; every place reaches the goal in time, or is no beginning."""

    edges: Mapping[int, Sequence[int]]

    @classmethod
    def draw(cls, seed: int, *, places: int = 21, share: float = 0.1) -> "Graph":
        """The goal has no edge out; every other place has one at least."""
        draw = Random(f"graph {seed}")
        edges: dict[int, list[int]] = {GOAL: []}
        for place in range(1, places):
            others = [other for other in range(places) if other != place]
            edges[place] = [other for other in others if draw.random() < share]
            edges[place] = edges[place] or [draw.choice(others)]
        return cls(edges)

    def distances(self) -> dict[int, int]:
        """Edges of the shortest path to the goal, by beginning, where a walk can be that long."""
        into: dict[int, list[int]] = {place: [] for place in self.edges}
        for place, after in self.edges.items():
            for other in after:
                into[other].append(place)
        found, waiting = {GOAL: 0}, deque([GOAL])
        while waiting:
            place = waiting.popleft()
            for before in into[place]:
                if before not in found:
                    found[before] = found[place] + 1
                    waiting.append(before)
        return {place: far for place, far in found.items() if 0 < far < LONGEST}

    def optimality(self, walk: Sequence[int], distance: int) -> float:
        """1 for a shortest path, falling to 0 at the longest walk; 0 for no path to the goal."""
        steps = list(pairwise(walk))
        if walk[-1] != GOAL or any(after not in self.edges[place] for place, after in steps):
            return 0.0
        return max(0.0, (LONGEST - len(steps)) / (LONGEST - distance))

    def walk(self, begin: int, draw: Random) -> list[int]:
        walk = [begin]
        while walk[-1] != GOAL and len(walk) < LONGEST:
            walk.append(draw.choice(self.edges[walk[-1]]))
        return walk


def tokenizer_of(places: int) -> Any:
    """One token for each place; a prompt is the place where a walk begins."""
    vocabulary = {token: at for at, token in enumerate((PAD, END, *PLACES[:places]))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=PLACES[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token=PAD, eos_token=END)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    return tokenizer


def text_of(walk: Sequence[int]) -> str:
    return " ".join(PLACES[place] for place in walk)


def walk_of(prompt: Sequence[int], tokens: Sequence[int]) -> list[int]:
    """Places of a prompt and its answer, up to the end token."""
    ids = [*prompt, *(token for token in tokens if token != FIRST_PLACE - 1)]
    return [token - FIRST_PLACE for token in ids]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def measured(directory: Path, graph: Graph, *, answers: int, seed: int) -> tuple[float, float]:
    """(mean optimality, share of shortest paths) of answers to every beginning."""
    model, tokenizer = load_causal_lm(directory)
    distances = graph.distances()
    begins = [begin for begin in distances for _ in range(answers)]
    drawn = sample(
        model,
        tokenizer,
        [[FIRST_PLACE + begin] for begin in begins],
        temperature=PPO["temperature"],
        max_new_tokens=LONGEST,
        seeds=[seed * len(begins) + row for row in range(len(begins))],
    )
    found = [
        graph.optimality(walk_of([FIRST_PLACE + begin], one.tokens), distances[begin])
        for begin, one in zip(begins, drawn, strict=True)
    ]
    return fmean(found), fmean(each == 1.0 for each in found)


def one_run(folder: Path, seed: int, *, walks: int, overrides: Sequence[str]) -> list[float]:
    """Optimality and share of shortest paths after fine-tuning, and after PPO."""
    folder.mkdir(parents=True)
    graph, draw = Graph.draw(seed), Random(f"walks {seed}")
    distances = graph.distances()
    tokenizer = tokenizer_of(len(graph.edges))
    save_model(new_gpt(tokenizer, SHAPE, seed=seed), tokenizer, folder / "new")
    begins = [draw.choice(list(distances)) for _ in range(walks)]
    rows = [
        {"id": str(at), "prompt": text_of(walk[:1]), "completion": text_of(walk[1:])}
        for at, walk in enumerate(graph.walk(begin, draw) for begin in begins)
    ]
    seeded = [f"seed={seed}"]
    words = [f"{name}={json.dumps(value)}" for name, value in SFT.items()]
    data = write_rows(folder / "walks.jsonl", rows)
    fine_tune(load_config(SFTConfig, None, words + seeded), data, folder / "new", folder / "sft")

    def score(prompts: Sequence[PromptTokens], completions: Sequence[Sequence[int]]) -> list[float]:
        walks = [walk_of(p.ids, c) for p, c in zip(prompts, completions, strict=True)]
        return [graph.optimality(walk, distances[walk[0]]) for walk in walks]

    prompts = [{"id": text_of([begin]), "prompt": text_of([begin])} for begin in distances]
    words = [f"{name}={json.dumps(value)}" for name, value in PPO.items()]
    train_policy(
        load_config(PPOConfig, None, [*words, *seeded, *overrides]),
        init=folder / "sft",
        prompts=write_rows(folder / "prompts.jsonl", prompts),
        out=folder / "ppo",
        score_fn=score,
    )
    return [
        figure
        for stage in ("sft", "ppo")
        for figure in measured(folder / stage, graph, answers=20, seed=seed)
    ]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="an empty one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--walks", type=int, default=1000)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of PPO")
    args = parser.parse_args(arguments)
    print("| seed | walks: optimality | shortest | PPO: optimality | shortest |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for seed in args.seeds:
        folder = args.folder / f"seed-{seed}"
        found = one_run(folder, seed, walks=args.walks, overrides=args.set)
        print(f"| {seed} | " + " | ".join(f"{x:.3f}" for x in found) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
