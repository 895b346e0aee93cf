"""`curve`: what more votes would bring. Trains on 1/8, 1/4, 1/2 and all of the train groups.

Each share holds the smaller ones: a group is in it if its hash is. The rows measured on are the
same for all. A run that was ended goes on where it was: a finished share is not trained again.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from policy.comparisons import parse_row
from policy.config import BadInput, load_config, require
from policy.data import numbered_rows
from policy.files import appearing
from policy.run import add_config_arguments, device_from, is_finished
from policy.scoring import load_scorer
from rewardmodel.config import RewardConfig
from rewardmodel.examine import measured
from rewardmodel.plots import curve_plot
from rewardmodel.train import train

SHARES = (8, 4, 2, 1)
"""One in so many train groups."""
FIGURES = ("n", "num_groups", "accuracy", "accuracy_interval", "log_loss", "log_loss_interval")


def learning_curve(
    config: RewardConfig,
    *,
    data: Path,
    out: Path,
    init: str | None,
    split: str = "dev",
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """A row for each share: comparisons trained on, and accuracy and log loss on `split`.

    Writes out/curve.json, out/curve.png and a model directory for each share. dev rows watch every
    run, as in `train`. Raises BadInput where a share has nothing to train on.
    """
    require(split in ("dev", "test"), f"a curve is measured on dev or test: {split!r}")
    require(data.is_file(), f"there is no file {data}")
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for share in SHARES:
        part, model = out / f"train-1-of-{share}.jsonl", out / f"model-1-of-{share}"
        count = write_share(data, part, share)
        if not is_finished(model):
            train(config, data=part, out=model, init=init, device=device)
        scorer = load_scorer(model, device)
        found = measured(scorer, data, split=split, axis=config.voted_axes).figures()
        rows.append(
            {
                "share": 1 / share,
                "num_comparisons": count,
                **{name: found[name] for name in FIGURES},
            }
        )
    with appearing(out / "curve.json") as file:
        json.dump({"split": split, "curve": rows}, file, indent=2)
    curve_plot(rows, out / "curve.png")
    return rows


def write_share(data: Path, part: Path, share: int) -> int:
    """Copy all rows but the train ones whose group's hash falls outside the share; how many train
    rows are left. Groups, so that answers to one prompt come or stay away together."""
    count = 0
    with appearing(part) as file:
        for line, row in numbered_rows(data):
            try:
                comparison = parse_row(row, line=line)
            except BadInput as problem:
                raise BadInput(f"{data} line {line}: {problem}") from problem
            if comparison.in_split("train"):
                digest = hashlib.sha256(f"curve\x1f{comparison.group}".encode()).digest()
                if int.from_bytes(digest[:8], "big") % share:
                    continue
                count += 1
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="comparisons or TRL rows, JSONL")
    parser.add_argument(
        "--init", required=True, help="model directory to start from, or none for random weights"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--split", choices=("dev", "test"), default="dev", help="measured on; dev by default"
    )
    add_config_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    """The rows as JSON on stdout."""
    rows = learning_curve(
        load_config(RewardConfig, args.config, args.overrides),
        data=args.data,
        out=args.out,
        init=None if args.init == "none" else args.init,
        split=args.split,
        device=device_from(args.device),
    )
    sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    return 0
