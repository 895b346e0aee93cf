"""What kills.py kills: four training commands, each on a little data of its own.

Checkpoints are large beside the steps, so that many kills hit a save: random words, tiny batches, a
model of millions of parameters.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.__main__ import main as policy
from policy.backbone import GPTShape, new_gpt, save_model, score_model_from
from policy.tokenizer import train_tokenizer
from rewardmodel.__main__ import main as rewardmodel

WORDS = ["river", "stone", "table", "green", "seven", "candle", "paper", "winter", "please"]
VOCABULARY = 300
CONTEXT = 64
SMALL_WIDTH = 32
"""Of models that are trained in no time."""


@dataclass(frozen=True)
class Command:
    """The public command but for its --out, and how long a step of it counts."""

    main: Callable[[list[str]], int]
    words: list[str]
    step_phase: str
    """The phase in metrics.jsonl of which each step has one row."""


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    width: int
    steps: int
    checkpoint_every: int


def reward(folder: Path, size: Size) -> Command:
    """A reward model of its own, a comparison a step."""
    rows = []
    for number, (one, other, prompt) in enumerate(drawn_words(3, size.steps * 10 // 9 + 1)):
        vote = {"axis": "a", "ranking": [["0"], ["1"]], "strength": None, "weight": None}
        rows.append(
            {
                "id": str(number),
                "split": "dev" if number % 10 == 0 else "train",
                "prompt": said(prompt),
                "completions": [
                    {"id": str(place), "text": text, "model": None}
                    for place, text in enumerate((one, other))
                ],
                "votes": [{**vote, "annotator": "x", "kind": "simulated"}],
            }
        )
    data = written(folder / "comparisons.jsonl", rows)
    settings = shape_of(size.width) | {"comparisons_per_step": 1, "eval_every": 20}
    return command(rewardmodel, "train", folder, size, settings, data=data, init="none")


def pretrain(folder: Path, size: Size) -> Command:
    """A GPT of its own, with looks at held-out text and at what it writes."""
    texts = [{"text": " ".join(words)} for words in drawn_words(4, 60)]
    data = written(folder / "texts.jsonl", texts)
    settings = shape_of(size.width) | {
        "steps": size.steps, "windows_per_step": 1, "eval_every": 5, "sample_every": 10,
        "warmup_steps": 2,
    }  # fmt: skip
    return command(policy, "pretrain", folder, size, settings, data=data)


def sft(folder: Path, size: Size) -> Command:
    """Demonstrations, one a step."""
    rows = [
        {
            "id": str(number),
            "split": "dev" if number % 10 == 0 else "train",
            "prompt": said(prompt),
            "completion": answer,
        }
        for number, (prompt, answer) in enumerate(drawn_words(2, size.steps * 10 // 9 + 1))
    ]
    data, init = written(folder / "demonstrations.jsonl", rows), new_policy(folder, size.width)
    settings = {"epochs": 1, "rows_per_step": 1}
    return command(policy, "sft", folder, size, settings, data=data, init=init)


def ppo(folder: Path, size: Size) -> Command:
    """Policy and value model of that width against a small reward model, in 3 epochs of 3."""
    init, judge = new_policy(folder, size.width), folder / "reward"
    model, tokenizer = score_model_from(new_policy(folder, SMALL_WIDTH), seed=1)
    save_model(model, tokenizer, judge)
    rows = [{"id": word, "prompt": said(word)} for word in WORDS]
    settings = {
        "steps": size.steps, "rollouts_per_step": 8, "max_response_tokens": 8, "temperature": 1.0,
        "epochs": 3, "minibatches": 3, "baseline_samples": 1, "approx_kl_limit": 9.0,
        "kl_target_nats": 0.5,
    }  # fmt: skip
    prompts = written(folder / "prompts.jsonl", rows)
    inputs: dict[str, Any] = {"init": init, "value-init": init, "reward-model": judge}
    return command(policy, "ppo", folder, size, settings, **inputs, prompts=prompts)


COMMANDS: dict[str, Callable[[Path, Size], Command]] = {
    "reward": reward,
    "pretrain": pretrain,
    "sft": sft,
    "ppo": ppo,
}
LARGE = {
    "reward": Size(width=512, steps=45, checkpoint_every=10),
    "pretrain": Size(width=512, steps=60, checkpoint_every=10),
    "sft": Size(width=512, steps=12, checkpoint_every=1),
    "ppo": Size(width=384, steps=10, checkpoint_every=1),
}
"""Two layers: 7 million parameters at 512, 110 MB a checkpoint of weights and two moments."""


def command(
    main: Callable[[list[str]], int],
    name: str,
    folder: Path,
    size: Size,
    settings: dict[str, Any],
    **inputs: Any,
) -> Command:
    config = folder / "config.json"
    every = {"checkpoint_every": size.checkpoint_every}
    config.write_text(json.dumps(settings | every), encoding="utf-8")
    words = [name, "--config", str(config), "--device", "cpu"]
    for option, value in inputs.items():
        words += [f"--{option}", str(value)]
    return Command(main, words, "ppo" if name == "ppo" else "train")


def shape_of(width: int) -> dict[str, int]:
    return {
        "width": width,
        "layers": 2,
        "heads": 2,
        "context": CONTEXT,
        "vocab_size": VOCABULARY,
    }


def new_policy(folder: Path, width: int) -> Path:
    """A GPT with random weights that has read nothing."""
    directory = folder / f"gpt-{width}"
    tokenizer = train_tokenizer(WORDS, vocab_size=VOCABULARY, context=CONTEXT)
    shape = GPTShape(width=width, layers=2, heads=2, context=CONTEXT)
    save_model(new_gpt(tokenizer, shape, seed=0), tokenizer, directory)
    return directory


def drawn_words(each: int, count: int) -> list[list[str]]:
    """`count` rows of `each` different words."""
    draw = random.Random(0)
    return [draw.sample(WORDS, each) for _ in range(count)]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def results_of(out: Path) -> dict[str, str]:
    """sha256 by name: what run.json says of weights, optimizers and other state, and every file
    that the run left. How long a step took and what the folder is called are left out."""
    ended = json.loads((out / "run.json").read_text(encoding="utf-8"))
    found = dict(ended["fingerprints"])
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_file() and name not in ("run.json", "progress.json", ".lock"):
            content = path.read_bytes().replace(str(out).encode(), b"OUT")
            if path.suffix == ".jsonl":
                content = "\n".join(without_times(content)).encode()
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def without_times(lines: bytes) -> Iterator[str]:
    for line in lines.splitlines():
        row = json.loads(line)
        yield json.dumps({name: row[name] for name in row if not name.endswith("_seconds")})
