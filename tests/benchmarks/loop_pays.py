"""Does the loop pay? Equal labels and equal KL to the root: asked in four rounds, or all at once.

    .venv/bin/python tests/benchmarks/loop_pays.py --folder var/loop-pays --seeds 1 2 3 4 5

In the world of overoptimisation_world.py, whose gold utility is known, per seed:

- online: four rounds. Each asks for 500 noisy votes about pairs of answers of the newest policy,
  trains the reward model anew, from the root and on all votes so far, and goes on with PPO from the
  newest policy. KL is measured to the root, the fine-tuned model, in every round.
- ramp: the same, with a quarter of the KL target in the first round and the whole in the last, so
  that no policy goes far from what was asked about.
- offline: 2,000 votes about the root's answers, one reward model, and one run of PPO from the root
  with as many steps as the four rounds have together.

All are steered towards the same KL by the product's own adaptive coefficient. Where they end is
measured on fresh answers; as the KLs still differ, offline is trained for several targets around
that one, and its gold utility at exactly another policy's KL is read from the line through them.
Printed: each round's policy, the last one's difference to offline at its KL, and the mean of that
over the seeds with a 95 % interval (Student's t). points.csv holds every policy measured.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
import overoptimisation_world as world  # noqa: E402
from scipy.stats import t as student  # noqa: E402

from policy.backbone import load_causal_lm  # noqa: E402
from policy.reader import Reader  # noqa: E402
from policy.response_logprobs import response_logprobs  # noqa: E402
from policy.sampling import sample  # noqa: E402
from policy.text import decode_completion, render_prompt  # noqa: E402

ROUNDS, LABELS = 4, 500
OFFLINE = (0.8, 1.0, 1.3)
"""Targets of the offline runs, as shares of the online one's."""
STEPS = 30
"""Of PPO in a round."""
EPOCHS = 4
"""Of a reward model. After one it has not yet told answers of several policies apart: on 2,000
votes of four rounds its scores go with gold by 0.3 on the root's answers, after four by 0.8."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A policy by fresh answers of its own."""

    kl_nats: float
    """To the root, per answer (k1)."""
    gold: float


def measured(policy: Path, root: Path, *, each: int, seed: int) -> Measured:
    """By `each` answers to every prompt."""
    model, tokenizer = load_causal_lm(policy)
    texts = [world.said(prompt) for prompt in world.PROMPTS for _ in range(each)]
    prompts = [render_prompt(tokenizer, text).ids for text in texts]
    drawn = sample(
        model,
        tokenizer,
        prompts,
        temperature=1.0,
        max_new_tokens=world.LENGTH + 1,
        seeds=[(1_000_000 + seed) * len(prompts) + row for row in range(len(prompts))],
    )
    tokens = [one.tokens for one in drawn]
    own, of_root = (
        response_logprobs(Reader(each_model), prompts, tokens)
        for each_model in (model, load_causal_lm(root)[0])
    )
    kl = fmean(float((p - q).sum()) for p, q in zip(own, of_root, strict=True))
    return Measured(kl, fmean(world.gold(decode_completion(tokenizer, ids)) for ids in tokens))


@dataclass(frozen=True, slots=True)
class Plan:
    """What both ways have in common."""

    root: Path
    seed: int
    target_nats: float
    labels: int
    """Of one round."""
    answers: int
    """To each prompt, of a policy that is asked about."""
    measured_on: int
    """Answers to each prompt."""
    overrides: Sequence[str]

    def votes(self, policy: Path, count: int, round_: int) -> list[dict[str, Any]]:
        """About answers of this policy; ids are those of the round."""
        answers = world.answers_of(policy, self.answers, 10 * self.seed + round_)
        rows = world.comparisons(answers, count, f"{self.seed} {round_}")
        return [row | {"id": f"{round_}-{row['id']}"} for row in rows]

    def reward_model(self, folder: Path, votes: list[dict[str, Any]]) -> Path:
        """From the root, on these votes."""
        return world.trained_on(
            folder, "reward", votes, init=self.root, seed=self.seed, epochs=EPOCHS
        )

    def improved(
        self, folder: Path, reward: Path, *, init: Path, target: float, steps: int
    ) -> Path:
        """The policy that PPO makes of `init`."""
        settings = {
            "steps": steps,
            "kl_target_nats": target,
            "kl_horizon": 64,
            "kl_stop_nats": None,
            "keep_best": False,
        }
        world.drive(
            folder / "policy",
            reference=self.root,
            init=init,
            rewards=[reward],
            seed=self.seed,
            settings=settings,
            overrides=self.overrides,
        )
        return folder / "policy"

    def measure(self, policy: Path) -> Measured:
        return measured(policy, self.root, each=self.measured_on, seed=self.seed)

    def online(self, folder: Path, steps: int, *, way: str) -> list[Measured]:
        """The policy of each round."""
        policy, votes, found = self.root, list[dict[str, Any]](), list[Measured]()
        for round_ in range(1, ROUNDS + 1):
            place = folder / f"{way}-{round_}"
            place.mkdir(parents=True)
            votes += self.votes(policy, self.labels, round_)
            reward = self.reward_model(place, votes)
            target = self.target_nats * (round_ / ROUNDS if way == "ramp" else 1.0)
            policy = self.improved(place, reward, init=policy, target=target, steps=steps)
            found.append(self.measure(policy))
        return found

    def offline(self, folder: Path, steps: int) -> list[Measured]:
        """A policy for each of the targets OFFLINE, from one set of votes."""
        (folder / "offline").mkdir(parents=True)
        votes = self.votes(self.root, self.labels * ROUNDS, 0)
        reward = self.reward_model(folder / "offline", votes)
        found = []
        for share in OFFLINE:
            place = folder / f"offline-{share}"
            place.mkdir(parents=True)
            policy = self.improved(
                place,
                reward,
                init=self.root,
                target=share * self.target_nats,
                steps=steps * ROUNDS,
            )
            found.append(self.measure(policy))
        return found


def at_kl(points: Sequence[Measured], kl_nats: float) -> float:
    """Gold on the line through the points; beyond them, that of the nearest."""
    line = sorted(points, key=lambda point: point.kl_nats)
    return float(np.interp(kl_nats, [p.kl_nats for p in line], [p.gold for p in line]))


def with_interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval by Student's t."""
    mean = fmean(values)
    if len(values) < 2:
        return f"{mean:+.3f}"
    reach = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{mean:+.3f} [{mean - reach:+.3f}, {mean + reach:+.3f}]"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="an empty one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--target", type=float, default=10.0, help="nats per answer")
    parser.add_argument("--labels", type=int, default=LABELS, help="votes of a round")
    parser.add_argument("--steps", type=int, default=STEPS, help="of PPO in a round")
    parser.add_argument("--answers", type=int, default=400, help="to each prompt, to vote on")
    parser.add_argument("--measured-on", type=int, default=500, help="answers to each prompt")
    parser.add_argument("--demonstrations", type=int, default=world.DEMONSTRATIONS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of PPO")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    root = world.make_reference(args.folder, demonstrations=args.demonstrations)
    names = ["seed", "way", "gold at KL, nats, by round or target", "offline at the last KL",
             "difference"]  # fmt: skip
    print("| " + " | ".join(names) + " |")
    print("| ---: | --- | --- | ---: | ---: |")
    differences: dict[str, list[float]] = {way: [] for way in ("online", "ramp")}
    with (args.folder / "points.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["seed", "way", "round_or_share", "kl_nats", "gold"])
        for seed in args.seeds:
            plan = Plan(
                root=root,
                seed=seed,
                target_nats=args.target,
                labels=args.labels,
                answers=args.answers,
                measured_on=args.measured_on,
                overrides=args.set,
            )
            folder = args.folder / f"seed-{seed}"
            offline = plan.offline(folder, args.steps)
            ways = {way: plan.online(folder, args.steps, way=way) for way in differences}
            for way, points in {"offline": offline, **ways}.items():
                places = OFFLINE if way == "offline" else range(1, ROUNDS + 1)
                for place, point in zip(places, points, strict=True):
                    figures = (f"{point.kl_nats:.4f}", f"{point.gold:.4f}")
                    table.writerow([seed, way, place, *figures])
                row = [
                    str(seed),
                    way,
                    ", ".join(f"{p.gold:.2f} at {p.kl_nats:.1f}" for p in points),
                ]
                if way == "offline":
                    row += ["", ""]
                else:
                    equal = at_kl(offline, points[-1].kl_nats)
                    differences[way].append(points[-1].gold - equal)
                    row += [f"{equal:.2f}", f"{differences[way][-1]:+.3f}"]
                print("| " + " | ".join(row) + " |", flush=True)
            file.flush()
    for way, found in differences.items():
        print(f"{way} - offline at equal KL: {with_interval(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
