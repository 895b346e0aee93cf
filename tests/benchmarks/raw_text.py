"""From raw Chinese and English text to PPO, with what the model says after each stage.

    .venv/bin/python tests/benchmarks/raw_text.py --data DIR --folder var/raw-text
    .venv/bin/python tests/benchmarks/raw_text.py --data DIR --folder var/tiny --init DIR/tiny-lm/hf

By the public commands, printed as they run: pretrain a GPT on old books, poems and articles in both
languages; fine-tune it on short instructions with answers (Alpaca's, and OpenAssistant's Chinese
ones); train a reward model on people's rankings of OpenAssistant answers (Chinese, and English
trees); run PPO against it; evaluate the result on held-out prompts beside the fine-tuned model.
With --init a model from elsewhere is taken in place of the pretraining. DIR holds the real sets.
Models this small know nothing: what can be seen is that each stage does its work.
"""

import argparse
import contextlib
import gzip
import io
import json
import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from reward_quality_data import Row, _message, _row, _split, oasst_zh  # noqa: E402

from fixtures.evaluation import read_rows, write_rows  # noqa: E402
from policy.__main__ import main as policy_command  # noqa: E402
from policy.run import is_finished  # noqa: E402
from rewardmodel.__main__ import main as reward_command  # noqa: E402

ENGLISH = ("alice_in_wonderland", "tinyshakespeare", "wiki_demo")
CHINESE = ("confucian_classics", "tang_300", "song_ci_300", "shijing", "youmengying")
ASKED = (
    ("en", "What is the capital of France?"),
    ("en", "Write a short poem about the sea."),
    ("zh", "请写一首关于春天的诗。"),
    ("zh", "怎样保持健康？"),
)
"""What every stage is asked for the page; none stands in the data."""
LONGEST_ANSWER = 300
"""Bytes; a Chinese character is three."""
RESPONSE_TOKENS = 64
SETTINGS: dict[str, dict[str, Any]] = {
    "pretrain": {"steps": 500, "vocab_size": 4096, "precision": "bf16"},
    "sft": {"epochs": 4},
    "reward": {"epochs": 2},
    "ppo": {
        "steps": 40,
        "rollouts_per_step": 32,
        "max_response_tokens": RESPONSE_TOKENS,
        "allow_weak_reward": True,
    },
}


def corpus(data: Path, folder: Path, lines: int | None) -> list[Path]:
    """The texts as files that `pretrain` reads, up to so many lines of each."""
    found = []
    for language, names in (("en", ENGLISH), ("zh", CHINESE)):
        for name in names:
            path = folder / f"{language}-{name}.txt"
            packed = data / "text" / language / f"{name}.txt.gz"
            with gzip.open(packed, "rt", encoding="utf-8") as file:
                path.write_text("".join(islice(file, lines)), encoding="utf-8")
            found.append(path)
    return found


def demonstrations(data: Path) -> Iterator[Row]:
    """Instructions with short answers, each with the language it is in. What stands among the test
    rankings is not learned here either."""
    for language in ("zh", "en"):
        path = data / "llama-factory" / f"alpaca_{language}_demo.json.gz"
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from _of_alpaca("alpaca", json.load(file), language)
    path = data / "oasst1" / "oasst_sft_zh.json"
    yield from _of_alpaca("oasst", json.loads(path.read_text(encoding="utf-8")), "zh")


def _of_alpaca(name: str, rows: Sequence[Row], language: str) -> Iterator[Row]:
    for number, row in enumerate(rows):
        asked = "\n".join(part for part in (row["instruction"], row["input"]) if part)
        answer, split = row["output"].strip(), _split(asked)
        if answer and len(answer.encode()) <= LONGEST_ANSWER and not row.get("history"):
            yield {
                "id": f"{name}-{language}-{number}",
                "split": "train" if name == "alpaca" and split == "test" else split,
                "prompt": [_message("user", asked)],
                "completion": answer,
                "language": language,
            }


def rankings(data: Path, languages: Sequence[str]) -> list[Row]:
    """People's orders of two or more answers, three in ten of them for the test."""
    found = oasst_zh(data) if "zh" in languages else []
    if "en" in languages:
        with gzip.open(data / "oasst1" / "en_trees.jsonl.gz", "rt", encoding="utf-8") as file:
            for line in file:
                tree = json.loads(line)
                found += _of_tree(tree["message_tree_id"], [], tree["prompt"])
    return found


def _of_tree(group: str, before: list[dict[str, str]], message: dict[str, Any]) -> Iterator[Row]:
    """Each turn of the prompter with the answers that were all ranked."""
    role = "user" if message["role"] == "prompter" else "assistant"
    prompt = [*before, _message(role, message["text"])]
    ranked = [one for one in message["replies"] if one.get("rank") is not None]
    ranked.sort(key=lambda one: one["rank"])
    texts = list(dict.fromkeys(one["text"].strip() for one in ranked))
    if role == "user" and len(texts) > 1:
        order = [[place] for place in range(len(texts))]
        row = _row(f"en-{message['message_id']}", _split(group), prompt, texts, [order])
        yield row | {"group": group}
    for reply in message["replies"]:
        yield from _of_tree(group, prompt, reply)


def command(laboratory: str, *arguments: str) -> str:
    """Standard output of a public command, run in this process."""
    main_of = {"policy": policy_command, "rewardmodel": reward_command}[laboratory]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main_of(list(arguments))
    if code:
        sys.exit(code)
    return said.getvalue()


class Stages:
    """Runs commands in a folder, prints them, and lets the models speak."""

    def __init__(self, folder: Path, changed: Mapping[str, Sequence[str]]) -> None:
        """changed: stage -> `name=value` words beside or in place of SETTINGS."""
        self.folder, self.changed = folder, changed
        self.asked = folder / "asked.jsonl"
        rows = [{"id": str(at), "prompt": text} for at, (_, text) in enumerate(ASKED)]
        write_rows(self.asked, rows)

    def run(self, stage: str, *arguments: str | Path) -> dict[str, Row]:
        """A training command, unless it was finished before; its last figures, by phase."""
        settings = {name: json.dumps(value) for name, value in SETTINGS[stage].items()}
        settings |= dict(word.split("=", 1) for word in self.changed.get(stage, []))
        words = [*map(str, arguments), "--out", str(self.folder / stage)]
        for name, value in settings.items():
            words += ["--set", f"{name}={value}"]
        print(f"\n$ python -m {shlex.join(words)}".replace(f"{self.folder}/", ""), flush=True)
        if not is_finished(self.folder / stage):
            command(*words)
        rows = read_rows(self.folder / stage / "metrics.jsonl")
        return {row["phase"]: row for row in rows}

    def say(self, stage: str) -> None:
        """Answers to ASKED."""
        out = self.folder / f"{stage}-says.jsonl"
        words = ["--model", str(self.folder / stage), "--prompts", str(self.asked)]
        words += ["--set", f"max_new_tokens={RESPONSE_TOKENS}", "--out", str(out), "--n", "1"]
        command("policy", "sample", *words)
        for row in read_rows(out):
            print(f"  {ASKED[int(row['prompt_id'])][1]} -> {row['text']!r}")


def of(figures: Row, *names: str) -> str:
    return ", ".join(f"{name} {figures[name]:.3f}" for name in names)


def shown(mean: Row) -> str:
    """With its interval, where there is one."""
    low, high = mean["interval"] or (math.nan, math.nan)
    return f"{mean['mean']:.3f} [{low:.3f}, {high:.3f}]"


def pretrained(stages: Stages, texts: Sequence[Path]) -> None:
    figures = stages.run("pretrain", "policy", "pretrain", "--data", *texts)
    if "heldout" in figures:  # texts cut short have no tail
        print("held out:", of(figures["heldout"], "bits_per_byte"))
    for sample in sorted((stages.folder / "pretrain" / "samples").glob("*.txt")):
        first = sample.read_text(encoding="utf-8").split("\n---\n")[:2]
        print(f"  {sample.stem}: {first!r}")


def tuned(stages: Stages, base: str | Path, shots: Sequence[Row]) -> None:
    data = stages.folder / "demonstrations.jsonl"
    write_rows(data, list(shots))
    figures = stages.run("sft", "policy", "sft", "--data", data, "--init", base)
    print(of(figures["data"], "rows_trained", "rows_too_long"))
    print("dev, nats per token:", of(figures["dev"], "loss"))
    stages.say("sft")


def rewarded(stages: Stages, ranked: Sequence[Row]) -> None:
    data, reward = stages.folder / "rankings.jsonl", stages.folder / "reward"
    write_rows(data, list(ranked))
    init: list[str | Path] = ["--init", stages.folder / "sft"]
    figures = stages.run("reward", "rewardmodel", "train", "--data", data, *init)
    print(f"{len(ranked)} rankings;", figures["data"])
    words = ["--model", str(reward), "--data", str(data), "--split", "test"]
    found = json.loads(command("rewardmodel", "evaluate", *words))
    print(f"test: accuracy {found['accuracy']:.3f} {found['accuracy_interval']} of {found['n']}")


def improved(stages: Stages, shots: Sequence[Row]) -> None:
    folder = stages.folder
    sft, ppo, reward = folder / "sft", folder / "ppo", folder / "reward"
    write_rows(folder / "prompts.jsonl", [
        {name: row[name] for name in ("id", "split", "prompt")} for row in shots
    ])  # fmt: skip
    shared: list[str | Path] = ["--reward-model", reward, "--prompts", folder / "prompts.jsonl"]
    stages.run("ppo", "policy", "ppo", "--init", sft, *shared)
    words = ["--model", ppo, "--against", sft, "--reference", sft, *shared]
    words += ["--set", f"max_new_tokens={RESPONSE_TOKENS}", "--set", "n=2"]
    command("policy", "evaluate", *map(str, words), "--out", str(folder / "evaluation"))
    found = json.loads((folder / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    (compared,) = found["comparison"]
    print(f"against sft on {found['num_prompts']} dev prompts, by the reward model:")
    for name in ("win_rate", "gain"):
        print(f"  {name} {shown(compared[name])}")
    for role in ("against", "model"):
        figures = found[role]
        kept = ("response_tokens", "without_end", "repetition_4")
        print(f"  {role}: " + ", ".join(f"{name} {figures[name]['mean']:.3f}" for name in kept))
    print(f"  KL {shown(found['model']['kl_nats']['k1'])} nats per answer")
    stages.say("ppo")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="the real sets")
    parser.add_argument("--folder", type=Path, required=True, help="an empty one")
    parser.add_argument("--init", help="a model in place of the pretraining")
    parser.add_argument("--languages", nargs="+", choices=("zh", "en"), default=["zh", "en"])
    parser.add_argument("--rows", type=int, help="at most so many of each set, and lines of texts")
    parser.add_argument(
        "--set", action="append", default=[], metavar="STAGE.NAME=VALUE", help="e.g. ppo.steps=10"
    )
    args = parser.parse_args(arguments)
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    changed: dict[str, list[str]] = {}
    for word in args.set:
        stage, _, setting = word.partition(".")
        changed.setdefault(stage, []).append(setting)
    stages = Stages(folder, changed)
    shots = [row for row in demonstrations(args.data) if row["language"] in args.languages]
    shots = shots[: args.rows]
    if args.init is None:
        pretrained(stages, corpus(args.data, folder, args.rows))
    tuned(stages, args.init or folder / "pretrain", shots)
    rewarded(stages, rankings(args.data, args.languages)[: args.rows])
    improved(stages, shots)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
