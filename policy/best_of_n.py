"""`policy best-of-n`: n answers to each prompt, scored, the best of them kept; a baseline for PPO.

    OUT/samples.jsonl         every answer with its score
    OUT/demonstrations.jsonl  the best answer to each prompt, which `policy sft` learns from
    OUT/best_of_n.json        what the best of k is worth for every k up to n, and the KL it costs

Fine-tuning on the best (rejection sampling, arXiv:2307.09288, section 3.2.3) is two commands: this
one, and `policy sft --data OUT/demonstrations.jsonl`. An answer that was cut or is blank is no
demonstration, for sft would teach to end where it was cut: it is the best of the others.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policy.answer_figures import over_prompts, scored_of, scorer_for
from policy.backbone import load_causal_lm
from policy.conditions import conditions_now
from policy.config import SampleConfig, load_config, require, to_json
from policy.data import PromptRow, content_hash, read_prompts, trained_on
from policy.files import appearing
from policy.run import add_config_arguments, device_from
from policy.sample import Answer, answers

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class BestOfNConfig(SampleConfig):
    """How the answers are drawn that the best is taken from."""

    n: int = 16
    split: str | None = "train"
    """One of SPLITS; `train` takes rows that name no split too."""

    def __post_init__(self) -> None:
        SampleConfig.__post_init__(self)
        require(self.split in SPLITS, f"split must be one of {', '.join(SPLITS)}: {self.split!r}")
        require(self.temperature > 0, "the best of n greedy answers is one answer: temperature 0")


def kl_bound_nats(n: int) -> float:
    """log n - (n - 1) / n: what the best of n is at most away from the policy, nats per response
    (arXiv:2112.09332). Exact where no two answers have the same probability and score; with few
    likely answers, or ties, the KL is lower (arXiv:2401.01879)."""
    return math.log(n) - (n - 1) / n


def expected_best(scores: Sequence[float], k: int, values: Sequence[float] | None = None) -> float:
    """The value of the best of k draws by score, estimated without bias from n >= k draws.

    The mean over all sets of k of the n (arXiv:2112.09332, appendix I): the i-th lowest score is
    the best of C(i - 1, k - 1) of the C(n, k) sets. values: what the best is worth, by default its
    score; of tied scores the later counts as higher.
    """
    n = len(scores)
    order = sorted(range(n), key=scores.__getitem__)
    worth = scores if values is None else values
    return sum(
        math.comb(place, k - 1) / math.comb(n, k) * worth[row] for place, row in enumerate(order)
    )


def best_of_n(
    config: BestOfNConfig,
    *,
    model: Path | str,
    prompts: Path | str,
    reward_model: Path | str,
    out: Path | str,
    judge: Path | str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Sample, score, and write OUT (see the module); what stands in best_of_n.json.

    judge: another reward model, which says what the best by the first one are worth. Raises
    BadInput.
    """
    rows = [row for row in read_prompts(prompts) if _is_in(row, str(config.split))]
    require(bool(rows), f"{prompts} holds no prompt of the split {config.split!r}")
    policy, tokenizer = load_causal_lm(model, device=device)
    named = {"reward_model": reward_model} | ({} if judge is None else {"judge": judge})
    room = config.max_new_tokens
    scorers = {
        name: scorer_for(path, [tokenizer], rows, max_new_tokens=room, device=device)
        for name, path in named.items()
    }
    drawn = answers(config, policy, tokenizer, rows)
    scored = {name: scored_of(scorer, tokenizer, drawn) for name, scorer in scorers.items()}
    scores = {name: [one.score for one in found] for name, found in scored.items()}
    groups = [range(at, at + config.n) for at in range(0, len(drawn), config.n)]
    kept = [_best(drawn, scores["reward_model"], group) for group in groups]
    inputs = {"model": model, "prompts": prompts, **named}
    figures = {
        "config": to_json(config),
        "inputs": {
            name: {"path": str(path), "sha256": content_hash(path)} for name, path in inputs.items()
        },
        "num_prompts": len(rows),
        "num_prompts_cut": sum(drawn[group[0]].prompt.dropped_turns > 0 for group in groups),
        "num_cut": sum(one.sampled.finish != "end" for one in drawn),
        "num_empty": sum(not one.text.strip() for one in drawn),
        "num_read_cut": {name: sum(one.was_cut for one in found) for name, found in scored.items()},
        "num_demonstrations": sum(at is not None for at in kept),
        "num_not_the_best": sum(
            at is not None and at != max(group, key=scores["reward_model"].__getitem__)
            for at, group in zip(kept, groups, strict=True)
        ),
        "curve": [_point(k, drawn, scores, groups) for k in range(1, config.n + 1)],
        "conditions": conditions_now(),
    }
    _write(Path(out), figures, drawn, scores, rows, kept, config)
    return figures


def _is_in(row: PromptRow, split: str) -> bool:
    return trained_on(row.split) if split == "train" else row.split == split


def _best(drawn: Sequence[Answer], scores: Sequence[float], group: Sequence[int]) -> int | None:
    """The place of the answer to learn from; None where each was cut or blank."""
    whole = [
        at for at in group if drawn[at].sampled.finish == "end" and bool(drawn[at].text.strip())
    ]
    return max(whole, key=scores.__getitem__, default=None)


def _point(
    k: int,
    drawn: Sequence[Answer],
    scores: Mapping[str, Sequence[float]],
    groups: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """One k of the curve: the mean over prompts by each model, its interval draws prompts."""
    found: dict[str, Any] = {"k": k, "kl_bound_nats": kl_bound_nats(k)}
    for name, values in scores.items():
        means = [
            expected_best(
                [scores["reward_model"][at] for at in group], k, [values[at] for at in group]
            )
            for group in groups
        ]
        firsts = [drawn[group[0]] for group in groups]
        found[name] = over_prompts(firsts, means).as_json()
    return found


def _write(
    out: Path,
    figures: Mapping[str, Any],
    drawn: Sequence[Answer],
    scores: Mapping[str, Sequence[float]],
    rows: Sequence[PromptRow],
    kept: Sequence[int | None],
    config: BestOfNConfig,
) -> None:
    with appearing(out / "samples.jsonl") as file:
        for at, one in enumerate(drawn):
            said = {"score": scores["reward_model"][at]}
            said |= {"judge_score": scores["judge"][at]} if "judge" in scores else {}
            file.write(json.dumps(one.row(config.temperature) | said, ensure_ascii=False) + "\n")
    with appearing(out / "demonstrations.jsonl") as file:
        for row, best in zip(rows, kept, strict=True):
            if best is not None:
                line = {
                    "id": row.id,
                    "split": row.split,
                    "prompt": row.messages,
                    "completion": drawn[best].text,
                    "score": scores["reward_model"][best],
                    "n": drawn[best].n,
                    "seed": drawn[best].seed,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    with appearing(out / "best_of_n.json") as file:
        json.dump(figures, file, indent=1, ensure_ascii=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--model", required=True, metavar="DIR", help="a model folder or hub name")
    parser.add_argument("--prompts", required=True, type=Path, metavar="FILE")
    parser.add_argument("--reward-model", required=True, metavar="DIR", help="says what is best")
    parser.add_argument("--judge", metavar="DIR", help="says what the best are worth")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--n", type=int, help="answers per prompt; wins over --set n")
    add_config_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    """`python -m policy best-of-n`."""
    config = load_config(BestOfNConfig, args.config, args.overrides)
    if args.n is not None:
        config = replace(config, n=args.n)
    figures = best_of_n(
        config,
        model=args.model,
        prompts=args.prompts,
        reward_model=args.reward_model,
        out=args.out,
        judge=args.judge,
        device=device_from(args.device),
    )
    said = {name: value for name, value in figures.items() if name.startswith("num_")}
    said |= {"first": figures["curve"][0], "last": figures["curve"][-1]}
    sys.stdout.write(json.dumps(said, indent=1) + "\n")
    return 0
