"""`policy evaluate`: how good a policy's answers to held-out prompts are, and a page to read them.

The answers are those of `policy sample` with the same settings. With --against another policy
answers the same prompts with the same seeds. KL is measured where there is a --reference; greedy
answers are no sample, so nothing of KL can be told from them.

    OUT/evaluation.json   all figures, with intervals over prompts
    OUT/answers.jsonl     every answer with its scores
    OUT/samples.html      answers side by side, in one file without a script
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policy.answer_figures import (
    Answered,
    comparison_of,
    figures_of,
    kl_of,
    rows_of,
    scored_of,
    scorer_for,
)
from policy.backbone import load_causal_lm, load_tokenizer
from policy.conditions import conditions_now
from policy.config import SampleConfig, load_config, require, to_json
from policy.data import PromptRow, content_hash, read_prompts
from policy.evaluate_page import page
from policy.files import appearing
from policy.run import add_config_arguments, device_from
from policy.sample import answers

SPLITS = ("dev", "train", "test", "none")
"""`none`: rows that name no split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig(SampleConfig):
    """What is answered, and how."""

    n: int = 1
    split: str | None = "dev"
    """One of SPLITS: the sealed test prompts are answered only where they are asked for by name."""
    shown: int = 24
    """Prompts on the page that are drawn by lot; beside them stand the best and the worst."""

    def __post_init__(self) -> None:
        SampleConfig.__post_init__(self)
        require(self.split in SPLITS, f"split must be one of {', '.join(SPLITS)}: {self.split!r}")
        require(self.shown >= 0, f"shown must be >= 0: {self.shown}")


def evaluate(
    config: EvaluateConfig,
    *,
    model: Path | str,
    prompts: Path | str,
    reward_models: Sequence[Path | str],
    out: Path | str,
    against: Path | str | None = None,
    reference: Path | str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Answer, score, and write OUT (see the module); the figures as in evaluation.json.

    Files of an earlier evaluation in OUT are replaced. Raises BadInput.
    """
    require(bool(reward_models), "an evaluation needs a reward model")
    names = [str(path) for path in reward_models]
    require(len(set(names)) == len(names), f"a reward model was given twice: {', '.join(names)}")
    rows = prompts_of(prompts, str(config.split))
    policies = {"model": model} | ({} if against is None else {"against": against})
    tokenizers = {role: load_tokenizer(path) for role, path in policies.items()}
    if reference is not None and config.temperature > 0:
        for tokenizer in tokenizers.values():
            _require_same_vocabulary(reference, tokenizer)
    room = config.max_new_tokens
    scorers = {
        name: scorer_for(name, list(tokenizers.values()), rows, max_new_tokens=room, device=device)
        for name in names
    }
    found: dict[str, Answered] = {}
    for role, path in policies.items():
        policy, _ = load_causal_lm(path, device=device)
        found[role] = Answered(answers(config, policy, tokenizers[role], rows))
        if reference is not None and config.temperature > 0:
            root, _ = load_causal_lm(reference, device=device)
            sampled = found[role].answers
            found[role].kl = kl_of(policy, root, sampled, temperature=config.temperature)
            del root
        del policy  # one at a time
    weak = {}
    for name, scorer in scorers.items():
        weak[name] = scorer.scale.why_weak()
        for role, answered in found.items():
            scored = scored_of(scorer, tokenizers[role], answered.answers)
            answered.scores[name] = [one.score for one in scored]
            answered.num_read_cut[name] = sum(one.was_cut for one in scored)
    inputs = (
        policies | {"prompts": prompts} | ({} if reference is None else {"reference": reference})
    )
    figures: dict[str, Any] = {
        "config": to_json(config),
        "inputs": {
            name: {"path": str(path), "sha256": content_hash(path)} for name, path in inputs.items()
        },
        "reward_models": [
            {"path": name, "sha256": content_hash(name), "weak": weak[name]} for name in names
        ],
        "split": config.split,
        "num_prompts": len(rows),
        **{role: figures_of(answered) for role, answered in found.items()},
    }
    if "against" in found:
        figures["comparison"] = comparison_of(found["model"], found["against"])
    figures["conditions"] = conditions_now()
    _write(Path(out), figures, found, rows, config)
    return figures


def prompts_of(path: Path | str, split: str) -> list[PromptRow]:
    """The file's prompts of this split; `none` takes rows that name none. Raises BadInput."""
    rows = read_prompts(path)
    chosen = [row for row in rows if (row.split or "none") == split]
    seen = Counter(row.split or "none" for row in rows)
    there = ", ".join(f"{count} {name}" for name, count in sorted(seen.items()))
    require(bool(chosen), f"{path} holds no prompt of the split {split!r}; it holds {there}")
    return chosen


def _require_same_vocabulary(reference: Path | str, tokenizer: Any) -> None:
    require(
        load_tokenizer(reference).get_vocab() == tokenizer.get_vocab(),
        f"KL to the reference {reference} cannot be told: its tokenizer is another",
    )


def _write(
    out: Path,
    figures: dict[str, Any],
    found: dict[str, Answered],
    rows: Sequence[PromptRow],
    config: EvaluateConfig,
) -> None:
    with appearing(out / "answers.jsonl") as file:
        for role, answered in found.items():
            for line in rows_of(answered, role, config.temperature):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    with appearing(out / "samples.html") as file:
        file.write(page(figures, found, rows, shown=config.shown, seed=config.seed))
    with appearing(out / "evaluation.json") as file:
        json.dump(figures, file, indent=1, ensure_ascii=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--model", required=True, metavar="DIR", help="a model folder or hub name")
    parser.add_argument("--prompts", required=True, type=Path, metavar="FILE")
    parser.add_argument(
        "--reward-model",
        required=True,
        action="append",
        metavar="DIR",
        help="a reward model or an ensemble; may be given again",
    )
    parser.add_argument("--against", metavar="DIR", help="another policy, to win or lose against")
    parser.add_argument("--reference", metavar="DIR", help="the policy that KL is measured from")
    parser.add_argument(
        "--split", choices=SPLITS, help="dev by default; none: rows that name no split"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    add_config_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    """`python -m policy evaluate`."""
    config = load_config(EvaluateConfig, args.config, args.overrides)
    if args.split is not None:
        config = replace(config, split=args.split)
    figures = evaluate(
        config,
        model=args.model,
        prompts=args.prompts,
        reward_models=args.reward_model,
        out=args.out,
        against=args.against,
        reference=args.reference,
        device=device_from(args.device),
    )
    shown = {name: figures[name] for name in ("model", "against", "comparison") if name in figures}
    sys.stdout.write(json.dumps(shown, indent=1, ensure_ascii=False) + "\n")
    return 0
