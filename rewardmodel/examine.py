"""`evaluate`: every diagnostic of a reward model on one split of a file, as JSON and as a report.

Reads comparisons, TRL rows and RewardBench's (`prompt`, `chosen`, `rejected`, `subset`; they name
no split, so `--split all`). With --against another model is measured on the same rows, and the
scores of the anchors show how far the two are apart.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from policy.comparisons import Comparison, read_comparisons
from policy.config import require
from policy.data import content_hash
from policy.files import appearing, with_bar
from policy.run import device_from
from policy.scoring import Scorer, load_scorer
from rewardmodel.anchors import Anchors, read_anchors, sample_anchors
from rewardmodel.calibration import calibration, reliability_slope
from rewardmodel.diagnostics import against, best_of_n, ceiling, correlations, drift, slices
from rewardmodel.evaluate import Evaluation
from rewardmodel.invariance import invariance_of
from rewardmodel.length_bias import LengthBias
from rewardmodel.normalise import encoded_anchors
from rewardmodel.report import write_report

CARD = "card"
"""Folder in a model's directory. Files beside the weights would change the model's hash."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="reward-model directory")
    parser.add_argument(
        "--data", type=Path, required=True, help="comparisons, TRL or RewardBench rows, JSONL"
    )
    parser.add_argument(
        "--split",
        choices=("train", "dev", "test", "all"),
        default="dev",
        help="rows of this split (rows without one are train); default dev, for test is sealed",
    )
    parser.add_argument("--axis", help="only votes on this axis")
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="another reward model, on the same rows"
    )
    parser.add_argument(
        "--anchors",
        type=Path,
        metavar="FILE",
        help="with --against: the texts whose scores are compared; by default those that `anchors` "
        "would draw from the data",
    )
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="write a model card with pictures and their data here; train writes one of dev into "
        "the folder `card` of its model",
    )
    parser.add_argument("--per-group", type=Path, help="write one JSONL row per comparison here")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto by default")


def run_command(args: argparse.Namespace) -> int:
    """JSON on stdout. Raises BadInput where the split holds nothing that can be measured."""
    require(args.data.is_file(), f"there is no file {args.data}")
    require(
        args.anchors is None or args.against is not None,
        f"--anchors goes with --against: {args.anchors} would not be looked at",
    )
    device = device_from(args.device)
    scorer = load_scorer(args.model, device)
    evaluation = measured(scorer, args.data, split=args.split, axis=args.axis)
    figures = figures_of(scorer, evaluation, args.model, args.data, args.split)
    drifted: list[tuple[float, float]] = []
    if args.against is not None:
        other = load_scorer(args.against, device)
        old = measured(other, args.data, split=args.split, axis=args.axis)
        figures["against"] = {"model": str(args.against), **against(evaluation, old)}
        anchors = read_anchors(args.anchors) if args.anchors else sample_anchors(args.data)
        drifted = on_both(scorer, other, anchors)
        if len(drifted) >= 2:
            figures["drift"] = {"anchors_sha256": anchors.sha256, **drift(drifted)}
    text = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
    if args.per_group:
        with appearing(args.per_group) as file:
            file.writelines(json.dumps(row._asdict()) + "\n" for row in evaluation.rows)
    if args.report:
        write_report(figures, args.report, drifted=drifted)
    if args.out:
        with appearing(args.out) as file:
            file.write(text)
    sys.stdout.write(text)
    return 0


def figures_of(
    scorer: Scorer, evaluation: Evaluation, model: Path, data: Path, split: str
) -> dict[str, Any]:
    """The JSON of one model."""
    return {
        "model": str(model),
        "data_sha256": content_hash(data),
        "split": split,
        **evaluation.figures(),
        **diagnosed(evaluation),
        "batches": asdict(invariance_of(scorer, evaluation.probed)),
    }


def write_card(
    model: Path, data: Path, *, axis: str | Collection[str] | None = None, device: str = "cpu"
) -> None:
    """The report on dev in a folder of its own beside the weights, which it is no part of; none
    where dev holds nothing to measure."""
    rows = read_comparisons(data, axis=axis)
    scorer = load_scorer(model, device)
    evaluation = Evaluation.of(scorer, (each for each in rows if each.in_split("dev")))
    if evaluation:
        write_report(figures_of(scorer, evaluation, model, data, "dev"), model / CARD)


def measured(
    scorer: Scorer, data: Path, *, split: str, axis: str | Collection[str] | None = None
) -> Evaluation:
    """The rows of a split. Raises BadInput where none has anything that can be measured."""
    splits: Counter[str] = Counter()

    def wanted() -> Iterable[Comparison]:
        for comparison in with_bar(read_comparisons(data, axis=axis), data, "evaluate"):
            splits[comparison.split or "train"] += 1
            if comparison.in_split(split):
                yield comparison

    evaluation = Evaluation.of(scorer, wanted())
    require(
        bool(evaluation),
        f"{data}: no comparison of split {split} has a strict pair that the model can "
        f"score, and none has another answer to measure; rows by split: {dict(splits)}",
    )
    return evaluation


def diagnosed(evaluation: Evaluation) -> dict[str, Any]:
    """Everything that is said of one model beyond accuracy and log loss; of judgments alone there
    is no pair that it could be said of."""
    answers, pairs = evaluation.answers(), evaluation.log_odds()
    slope = reliability_slope(pairs, evaluation.pair_groups()).as_json() if pairs else None
    return {
        "score_scale": asdict(evaluation.scale),
        "calibration": calibration(answers, evaluation.scale.temperature) if answers else None,
        "reliability_slope": slope,
        "length_bias": LengthBias.of(evaluation).figures(),
        "slices": slices(evaluation),
        "ceiling": ceiling(evaluation),
        "correlations": correlations(evaluation),
        "best_of_n": best_of_n(evaluation),
    }


def on_both(new: Scorer, old: Scorer, anchors: Anchors) -> list[tuple[float, float]]:
    """(score by the new model, by the old one) of the anchors that both can take."""
    ids, old_ids = encoded_anchors(new, anchors), encoded_anchors(old, anchors)
    both = [key for key in ids if key in old_ids]
    scores = new.score_ids([ids[key] for key in both])
    return list(zip(scores, old.score_ids([old_ids[key] for key in both]), strict=True))
