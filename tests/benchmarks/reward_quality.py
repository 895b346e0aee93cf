"""How good are reward models trained here? Held-out figures on synthetic and on real answers.

    OMP_NUM_THREADS=1 python tests/benchmarks/reward_quality.py --case gold --data DIR

Cases: `words`, `gold` and `noise` are synthetic, with a known noise (made-up words that add up, and
fresh texts of the demo's grammar with its gold utility, the last with a quarter of the answers
turned round); hh-rlhf, oasst-zh, fine-grained and ukp read DIR, by default CONCORD_SHARED_DATA. On
real answers a recipe stands beside plain Bradley-Terry on the pairs that most answers order: the
same comparisons, initial weights, steps, schedule and dev rows (the weights of the lowest dev loss
are kept, the temperature is fitted there). All recipes are measured on the same test answers, as
`rewardmodel evaluate` does it. Figures are means over seeds; intervals are 95 % over groups, and
differences are paired. What a folder holds already is not trained again. A Markdown table goes to
stdout.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import reward_quality_data as data  # noqa: E402
import reward_quality_table as table  # noqa: E402

from fixtures.evaluation import FIXTURES  # noqa: E402
from policy.comparisons import parse_row  # noqa: E402
from policy.config import PretrainConfig, load_config  # noqa: E402
from policy.data import content_hash  # noqa: E402
from policy.pretrain import train as pretrain  # noqa: E402
from policy.run import is_finished  # noqa: E402
from rewardmodel.config import RewardConfig  # noqa: E402
from rewardmodel.ensemble import train_ensemble  # noqa: E402
from rewardmodel.features import Backbone, write_features  # noqa: E402
from rewardmodel.refit import RefitConfig, refit  # noqa: E402
from rewardmodel.train import train  # noqa: E402

PLAIN = "plain Bradley-Terry"
QUICK = {"layers": 1, "heads": 2, "width": 32, "vocab_size": 300, "epochs": 1, "members": 1}
QUICK_ROWS = {"train": 16, "dev": 8, "test": 8}


@dataclass(frozen=True, kw_only=True)
class Case:
    """read: rows of real answers; sizes, noise, world: of synthetic ones. recipes: settings by
    name; shared: those of all. The trunk is init, below the data's folder, or pretrained on text,
    or random. frozen: a head alone is fitted, to its minimum, which knows no seed."""

    read: Callable[[Path], list[data.Row]] | None = None
    sizes: data.Sizes | None = None
    noise: data.Noise | None = None
    world: data.World = data.demo_world
    recipes: Mapping[str, Mapping[str, Any]]
    shared: Mapping[str, Any]
    init: str | None = None
    text: Callable[[Path], list[data.Row]] | None = None
    frozen: bool = False
    most_seeds: int | None = None


SMALL = {"layers": 2, "width": 128, "context": 256, "comparisons_per_step": 16}
REAL = {"comparisons_per_step": 16, "eval_every": 20}
ENGLISH = "tiny-lm/hf"
"""260,032 parameters, pretrained on simple stories."""

CASES = {
    "words": Case(
        sizes=data.Sizes(train=3000, dev=300, test=1000),
        noise=data.Noise(),
        world=data.word_world,
        recipes={"rankings of seven": {}},
        shared={
            "layers": 1,
            "heads": 2,
            "width": 64,
            "context": 64,
            "vocab_size": 400,
            "comparisons_per_step": 16,
            "lr_peak": 3e-3,
            "epochs": 2,
            "eval_every": 100,
        },
    ),
    "gold": Case(
        sizes=data.Sizes(train=8000, dev=300, test=1000),
        noise=data.Noise(),
        recipes={"rankings of seven": {}},
        shared={"comparisons_per_step": 16, "eval_every": 100},
        text=data.demo_corpus,
        most_seeds=1,
    ),
    "noise": Case(
        sizes=data.Sizes(train=1500, dev=100, test=400, shown=4),
        noise=data.Noise(flipped=0.25),
        recipes={"mean of four models": {"members": 4}},
        shared={**SMALL, "lr_peak": 2e-3},
    ),
    "hh-rlhf": Case(
        read=data.hh_rlhf,
        recipes={
            PLAIN: {},
            "label smoothing 0.2, centring 0.01": {"label_smoothing": 0.2, "centring": 0.01},
        },
        shared=REAL,
        init=ENGLISH,
    ),
    "oasst-zh": Case(
        read=data.oasst_zh,
        recipes={PLAIN: {}, "whole rankings": {}, "Plackett-Luce": {"loss": "plackett_luce"}},
        shared={**REAL, "epochs": 2, "lr_peak": 3e-4},
        text=data.chinese_texts,
    ),
    "fine-grained": Case(
        read=data.fine_grained,
        recipes={PLAIN: {}, "all pairs, Davidson's ties": {"loss": "davidson"}},
        shared={**REAL, "epochs": 2},
        init=ENGLISH,
    ),
    "ukp": Case(
        read=data.ukp,
        recipes={PLAIN: {}, "all votes, Davidson's ties": {"loss": "davidson"}},
        shared=REAL,
        init=ENGLISH,
    ),
    "fine-grained-head": Case(
        read=data.fine_grained,
        recipes={PLAIN: {}, "all pairs": {}},
        shared={},
        init=ENGLISH,
        frozen=True,
    ),
    "ukp-head": Case(
        read=data.ukp,
        recipes={PLAIN: {}, "all votes": {}},
        shared={},
        init=ENGLISH,
        frozen=True,
    ),
}


# --- training -------------------------------------------------------------------------------------


def write(rows: Sequence[data.Row], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def trunk(case: Case, folder: Path, shared: Path, quick: bool) -> str | None:
    """Its folder. What is pretrained here is a GPT of about 1.2 million parameters, on text that no
    case holds."""
    if case.init is not None:
        return None if quick and not case.frozen else str(shared / case.init)
    if case.text is None:
        return None
    out = folder / f"trunk-{case.text.__name__}"
    if not is_finished(out):
        texts = case.text(shared)
        if quick:
            config = PretrainConfig(vocab_size=300, width=32, layers=1, heads=2, steps=2)
        elif case.text is data.demo_corpus:
            config = load_config(PretrainConfig, FIXTURES / "configs" / "pretrain.json", [])
        else:
            config = PretrainConfig(
                vocab_size=4096, width=128, layers=3, heads=4, context=512, steps=200
            )
        pretrain(config, [write(texts[:20] if quick else texts, out.with_suffix(".jsonl"))], out)
    return str(out)


def train_recipe(
    case: Case,
    name: str,
    rows: Sequence[data.Row],
    init: str | None,
    out: Path,
    *,
    num_seeds: int,
    quick: bool,
) -> list[Path]:
    """A model, or an ensemble, for each seed; their folders."""
    trained_on = data.majority_pairs(rows) if name == PLAIN else rows
    settings: dict[str, Any] = {**case.shared, **case.recipes[name]}
    if name == PLAIN:  # as many steps as with whole comparisons
        share = num_train(trained_on) / num_train(rows)
        settings["comparisons_per_step"] = round(settings["comparisons_per_step"] * share)
    if quick:
        members = min(2, settings.get("members", 1))
        settings |= {**QUICK, "members": members, "comparisons_per_step": 8}
    file = write(trained_on, out / "rows.jsonl")
    folders = []
    for seed in range(min(num_seeds, case.most_seeds or num_seeds)):
        folder = out / f"seed-{seed}"
        config = RewardConfig(seed=seed, **settings)
        if not is_finished(folder):
            began = time.monotonic()
            if config.members > 1:
                train_ensemble(config, data=file, out=folder, inits=[init], train_one=train)
            else:
                train(config, data=file, out=folder, init=init)
            print(f"{folder}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        folders.append(folder)
    return folders


def refit_recipe(
    name: str, rows: Sequence[data.Row], model: Path, out: Path, quick: bool
) -> list[Path]:
    """A head on the frozen trunk; its folder."""
    folder, features = out / "seed-0", out.parent / "features.safetensors"
    if not is_finished(folder):
        if not features.is_file():
            file = write(rows, out.parent / "rows.jsonl")
            write_features(Backbone(model, "cpu"), content_hash(model), file, features)
        fitted = data.majority_pairs(rows) if name == PLAIN else rows
        file = write(fitted, out / "rows.jsonl")
        config = RefitConfig(ridge=1.0, max_newton_steps=5) if quick else RefitConfig()
        refit(config, model=model, features=features, data=file, out=folder)
    return [folder]


def num_train(rows: Sequence[data.Row]) -> int:
    return sum(row["split"] == "train" for row in rows)


# --- the table ------------------------------------------------------------------------------------


def run_case(
    name: str, case: Case, folder: Path, shared: Path, *, num_seeds: int, quick: bool
) -> list[list[str]]:
    """Rows of the table."""
    if case.read is None:
        assert case.sizes is not None
        assert case.noise is not None
        sizes = data.Sizes(**QUICK_ROWS, shown=4) if quick else case.sizes
        rows = data.synthetic(case.world, sizes, case.noise, seed=0)
    else:
        rows = case.read(shared)
    if quick:
        splits = {split: [row for row in rows if row["split"] == split] for split in QUICK_ROWS}
        rows = [row for split, some in splits.items() for row in some[: QUICK_ROWS[split]]]
    init = trunk(case, folder, shared, quick)
    models: dict[str, list[Path]] = {}
    for recipe in case.recipes:
        out = folder / name / recipe.replace(" ", "-")
        if case.frozen:
            assert init is not None
            models[recipe] = refit_recipe(recipe, rows, Path(init), out, quick)
        else:
            models[recipe] = train_recipe(
                case, recipe, rows, init, out, num_seeds=num_seeds, quick=quick
            )
        members = [path for one in models[recipe] for path in sorted(one.glob("member-*"))]
        if members:
            models = {"one model": members, **models}
    tested = [row for row in rows if row["split"] == "test"]
    comparisons = [parse_row(row, line=number) for number, row in enumerate(tested)]
    found: dict[str, table.Measured] = {}
    for recipe, folders in models.items():
        found[recipe] = table.Measured()
        for each in folders:
            found[recipe].add(each, comparisons)
    lines = table.table_rows(name, found)
    if case.noise is not None:
        lines.append(table.bayes_row(name, tested, comparisons, case.noise, found))
        return lines + table.true_order_rows(f"{name}, the true order", tested, found)
    return lines + table.ceiling_rows(name, next(iter(found.values())).evaluations[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, action="append", help="by default all")
    parser.add_argument("--data", type=Path, default=os.environ.get("CONCORD_SHARED_DATA"))
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "reward-quality")
    parser.add_argument("--seeds", type=int, default=3, help="of each recipe; of gold always one")
    parser.add_argument("--quick", action="store_true", help="a handful of rows, a tiny model")
    args = parser.parse_args()
    names = args.case or list(CASES)
    if args.data is None and any(CASES[name].noise is None for name in names):
        parser.error("--data or CONCORD_SHARED_DATA names the folder of the real data")
    columns = (
        *("answers", "recipe", "comparisons", "accuracy, %", "log loss", "at its temperature"),
        *("ECE", "at its temperature", "difference, points", "difference in log loss"),
    )
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for name in names:
        settings = {"num_seeds": 1 if args.quick else args.seeds, "quick": args.quick}
        for line in run_case(name, CASES[name], args.folder, args.data, **settings):
            print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    main()
