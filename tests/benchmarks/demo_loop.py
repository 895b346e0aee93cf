"""Does the demo's loop learn what people want? Several seeds, all shown, and a control.

    .venv/bin/python tests/benchmarks/demo_loop.py --seeds 0 1 2 --out var/demo-loop

Per seed, with the public commands and the settings of fixtures/configs: pretrain, fine-tune, sample
answers to the prompts, let the simulated labelers compare them, train a reward model, run PPO, and
judge both policies by the gold utility on the test prompts. The control trains its reward model on
the first seed's comparisons with the winners drawn by lot: it should gain nothing. The worst seed
counts.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from fixtures import measure  # noqa: E402
from fixtures.evaluation import (  # noqa: E402
    FIXTURES,
    command,
    judge_policy,
    judge_reward_model,
    read_rows,
    write_rows,
)
from fixtures.gold import utility  # noqa: E402
from fixtures.labelers import LABELERS  # noqa: E402

LIST_OF, PAIRS_TO_BEGIN_WITH = 7, 60
"""As annotation/management/commands/load_demo.py opens a prompt's completions."""
POLICY_LISTS = {"train": 456, "dev": 60}
"""Prompts with a list of the policy's own answers."""


def settings(kind: str) -> list[str]:
    """--config for a kind of job, where the demo has settings for it."""
    path = FIXTURES / "configs" / f"{kind}.json"
    return ["--config", str(path)] if path.is_file() else []


def train(kind: str, *arguments: str, out: Path) -> float:
    """Run a training command unless its output is finished; wall seconds, 0 where it was."""
    if (out / "run.json").is_file() and json.loads((out / "run.json").read_text())["finished"]:
        return 0.0
    started = time.monotonic()
    command(*kind.split(), *arguments, "--out", str(out))
    return time.monotonic() - started


def shown_together(
    samples: list[dict[str, Any]], rng: random.Random
) -> list[tuple[str, list[str]]]:
    """(prompt id, texts) as the demo opens its comparisons: the fixtures' pairs and lists, and the
    policy's own answers as lists."""
    splits = {row["id"]: row["split"] for row in read_rows(FIXTURES / "prompts.jsonl")}
    fixture: dict[str, list[str]] = {}
    policy: dict[str, list[str]] = {}
    for written, rows in ((fixture, read_rows(FIXTURES / "completions.jsonl")), (policy, samples)):
        for row in rows:
            texts = written.setdefault(row["prompt_id"], [])
            if splits[row["prompt_id"]] != "test" and row["text"].strip() not in ("", *texts):
                texts.append(row["text"])
    found = [
        (prompt_id, texts[start : start + LIST_OF])
        for prompt_id, texts in fixture.items()
        for start in range(0, len(texts) - 1, LIST_OF)
    ]
    trained = [prompt_id for prompt_id in fixture if splits[prompt_id] == "train"]
    for place in range(PAIRS_TO_BEGIN_WITH):
        prompt_id = trained[place * len(trained) // PAIRS_TO_BEGIN_WITH]
        found.append((prompt_id, [fixture[prompt_id][0], fixture[prompt_id][-1]]))
    for split, wanted in POLICY_LISTS.items():
        of_split = [name for name in sorted(policy) if splits[name] == split]
        found += [(name, policy[name]) for name in rng.sample(of_split, min(wanted, len(of_split)))]
    return [(prompt_id, texts) for prompt_id, texts in found if len(texts) > 1]


def comparisons(
    samples: list[dict[str, Any]], *, seed: int, shuffled: bool
) -> list[dict[str, Any]]:
    """Rows with one simulated answer each; shuffled: the order by lot."""
    rng = random.Random(f"comparisons {seed}")
    prompts = {row["id"]: row for row in read_rows(FIXTURES / "prompts.jsonl")}
    rows = []
    for number, (prompt_id, texts) in enumerate(shown_together(samples, rng)):
        row = prompts[prompt_id]
        shown = rng.sample(texts, len(texts))
        labeler = LABELERS[number % len(LABELERS)]
        name = f"{row['split']}-{number}"
        worth = [utility(row, text).total for text in shown]
        groups = labeler.rank(worth, labeler.rng_for(name, seed))
        if shuffled:
            groups = [[place] for place in rng.sample(range(len(shown)), len(shown))]
        rows.append(
            {
                "id": name,
                "split": row["split"],
                "group": prompt_id,
                "prompt": row["prompt"],
                "completions": [
                    {"id": str(place), "text": text, "model": ""}
                    for place, text in enumerate(shown)
                ],
                "votes": [
                    {
                        "axis": "overall",
                        "ranking": [[str(place) for place in group] for group in groups],
                        "strength": None,
                        "weight": 1.0,
                        "annotator": labeler.name,
                        "kind": "simulated",
                    }
                ],
            }
        )
    return rows


def one_run(out: Path, *, seed: int, shuffled: bool, split: str) -> dict[str, Any]:
    """All stages of one seed; its figures."""
    base = out / f"seed-{seed}"
    base.mkdir(parents=True, exist_ok=True)
    seeded = ["--set", f"seed={seed}"]
    corpus, demonstrations = FIXTURES / "corpus.jsonl", FIXTURES / "demonstrations.jsonl"
    seconds = {
        "pretrain": train(
            "policy pretrain", "--data", str(corpus), *settings("pretrain"), *seeded,
            out=base / "pretrain",
        ),
        "sft": train(
            "policy sft", "--data", str(demonstrations), "--init", str(base / "pretrain"),
            *settings("sft"), *seeded, out=base / "sft",
        ),
    }  # fmt: skip
    ppo_config = json.loads((FIXTURES / "configs" / "ppo.json").read_text())
    temperature = ppo_config.get("temperature", 0.7)
    longest = ppo_config.get("max_response_tokens", 64)
    samples = base / "samples.jsonl"
    if not samples.is_file():
        command(
            "policy", "sample", "--model", str(base / "sft"), "--prompts",
            str(FIXTURES / "prompts.jsonl"), "--out", str(samples), "--n", str(LIST_OF), *seeded,
            "--set", f"temperature={temperature}", "--set", f"max_new_tokens={longest}",
        )  # fmt: skip
    work = base / ("control" if shuffled else "run")
    work.mkdir(exist_ok=True)
    votes = work / "comparisons.jsonl"
    write_rows(votes, comparisons(read_rows(samples), seed=seed, shuffled=shuffled))
    seconds["reward"] = train(
        "rewardmodel train", "--data", str(votes), "--init", str(base / "sft"),
        *settings("reward"), *seeded, out=work / "reward",
    )  # fmt: skip
    seconds["ppo"] = train(
        "policy ppo", "--init", str(base / "sft"), "--reward-model", str(work / "reward"),
        "--prompts", str(FIXTURES / "prompts.jsonl"), *settings("ppo"), *seeded, out=work / "ppo",
    )  # fmt: skip
    sampling: dict[str, Any] = {
        "temperature": temperature,
        "max_new_tokens": longest,
        "split": split,
    }
    reward = judge_reward_model(work / "reward", work, split=split)
    before = judge_policy(base / "sft", work, **sampling)
    after = judge_policy(work / "ppo", work, **sampling)
    metrics = [json.loads(line) for line in (work / "ppo" / "metrics.jsonl").open()]
    kl = [row["kl_nats"] for row in metrics if "kl_nats" in row][-1]
    gain = measure.paired_gain(before.utilities, after.utilities)
    wins = measure.win_rate(before.utilities, after.utilities)
    return {
        "run": f"seed {seed}" + (", shuffled labels" if shuffled else ""),
        "held-out answers": reward.answers,
        "RM accuracy": f"{reward.accuracy:.3f}",
        "gold accuracy": f"{reward.gold_accuracy:.3f}",
        "gap in points": f"{100 * reward.gap.mean:+.1f} "
        f"[{100 * reward.gap.low:+.1f}, {100 * reward.gap.high:+.1f}]",
        "utility before": f"{before.utility:+.3f}",
        "utility after": f"{after.utility:+.3f}",
        "paired gain": str(gain),
        "win rate": f"{wins.mean:.3f} [{wins.low:.3f}, {wins.high:.3f}]",
        "KL nats": f"{kl:.2f}",
        "no end token": f"{before.without_end:.3f} {after.without_end:.3f}",
        "distinct-2": f"{before.distinct_2:.3f} {after.distinct_2:.3f}",
        "seconds": " ".join(f"{name} {spent:.0f}" for name, spent in seconds.items()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "demo-loop")
    parser.add_argument("--no-control", action="store_true")
    parser.add_argument(
        "--split", choices=("dev", "test"), default="test", help="dev while settings are sought"
    )
    arguments = parser.parse_args()
    runs = [(seed, False) for seed in arguments.seeds]
    if not arguments.no_control:
        runs.append((arguments.seeds[0], True))
    for seed, shuffled in runs:
        figures = one_run(arguments.out, seed=seed, shuffled=shuffled, split=arguments.split)
        for name, value in figures.items():
            print(f"{name:<18} {value}", flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
