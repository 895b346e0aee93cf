"""A new head on a frozen reward model, from features that are computed once: seconds, not hours.

    python -m rewardmodel features --model DIR --data FILE --out features.safetensors
    python -m rewardmodel refit --model DIR --features features.safetensors --data FILE --out DIR2

The loss is Bradley-Terry on soft targets (rewardmodel/losses.py), convex in the head, and is taken
to its minimum by L-BFGS. N = completions, D = width of the features, P = pairs.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from policy.backbone import save_model
from policy.config import load_config, require, require_all_positive
from policy.data import content_hash
from policy.run import Run, add_config_arguments, device_from
from policy.score_scale import forget
from rewardmodel.anchors import Anchor, Anchors, read_anchors, sample_anchors
from rewardmodel.data import Comparison, read_comparisons
from rewardmodel.evaluate import measure
from rewardmodel.features import Backbone, Features
from rewardmodel.losses import ranking_loss
from rewardmodel.normalise import normalise
from rewardmodel.objective import CONFIG_KEY

RIDGES: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Tried where none is given and there are dev rows, the strongest first."""
RIDGE_WITHOUT_DEV = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class RefitConfig:
    ridge: float | None = None
    """Half of it times the head's squared norm, features at deviation 1, is added to the loss. Null
    takes what dev's log loss asks for, 0.001 without dev rows."""
    axis: str | None = None
    """Only votes on this axis; null keeps all of them."""
    max_iterations: int = 500
    """Of L-BFGS."""
    num_anchors: int = 256
    """As in training; 0 leaves scores as fitted."""

    def __post_init__(self) -> None:
        require_all_positive(self, "max_iterations")
        require(self.ridge is None or self.ridge >= 0, f"ridge must be >= 0: {self.ridge}")
        require(
            self.num_anchors == 0 or self.num_anchors >= 2,
            f"num_anchors must be 0 or >= 2: {self.num_anchors}",
        )


@dataclass(slots=True)
class Table:
    """Comparisons over features: what fits a head, and what measures one."""

    comparisons: list[Comparison]
    places: list[list[int]]
    """Of each comparison's completions, rows of `features`."""
    features: Tensor
    """(N, D) float64."""
    num_left_out: int
    """Comparisons without a strict pair, or with a completion that has no features."""

    @classmethod
    def of(cls, comparisons: Iterable[Comparison], features: Features) -> "Table":
        kept: list[Comparison] = []
        places: list[list[int]] = []
        rows: dict[int, int] = {}  # of the file -> of this table
        num_left_out = 0
        for comparison in comparisons:
            keys = [Anchor(comparison.prompt, text).sha256 for text in comparison.texts]
            if not comparison.table.pairs or any(key not in features.places for key in keys):
                num_left_out += 1
                continue
            kept.append(comparison)
            places.append([rows.setdefault(features.places[key], len(rows)) for key in keys])
        return cls(kept, places, features.rows(list(rows)).double(), num_left_out)

    def fit(self, *, ridge: float, max_iterations: int) -> Tensor:
        """(D,) float64, the head that fits these comparisons."""
        pairs: list[tuple[int, int]] = []
        targets: list[float] = []
        weights: list[float] = []
        for comparison, places in zip(self.comparisons, self.places, strict=True):
            table = comparison.table
            pairs += [(places[i], places[j]) for i, j in table.pairs]
            targets += table.targets
            weights += table.weights
        return fit_head(
            self.features,
            torch.tensor(pairs),
            torch.tensor(targets, dtype=torch.float64),
            torch.tensor(weights, dtype=torch.float64),
            num_comparisons=len(self.comparisons),
            ridge=ridge,
            max_iterations=max_iterations,
        )

    def log_loss(self, head: Tensor) -> float:
        """Nats, a mean over comparisons, as `evaluate` measures it."""
        scores = (self.features @ head).tolist()
        found = [
            measure(comparison.table, [scores[place] for place in places]).log_loss
            for comparison, places in zip(self.comparisons, self.places, strict=True)
        ]
        return sum(found) / len(found)


def fit_head(
    features: Tensor,
    pairs: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    num_comparisons: int,
    ridge: float,
    max_iterations: int = 500,
) -> Tensor:
    """The w that minimises ranking_loss(features @ w) + ridge / 2 x |w x deviation|^2; (D,).

    features: (N, D) float64; pairs, targets, weights as in ranking_loss. On one-hot features and
    without a ridge this is the Bradley-Terry maximum-likelihood estimate, up to a constant. The
    features are divided by their deviations first, so that the ridge means the same of all.
    """
    deviation = features.std(0, correction=0)  # (D,)
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    standard = (features - features.mean(0)) / deviation
    head = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [head],
        max_iter=max_iterations,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        nats = ranking_loss(
            standard @ head, pairs, targets, weights, num_comparisons=num_comparisons
        )
        whole = nats + ridge / 2 * head.square().sum()
        whole.backward()
        return whole

    optimizer.step(loss)
    return head.detach() / deviation


def choose_ridge(config: RefitConfig, train: Table, dev: Table) -> tuple[float, Tensor]:
    """(ridge, head): the given one, or the one whose head has the lowest log loss on dev."""
    wanted = RIDGES if dev.comparisons else (RIDGE_WITHOUT_DEV,)
    if config.ridge is not None:
        wanted = (config.ridge,)
    heads = [train.fit(ridge=each, max_iterations=config.max_iterations) for each in wanted]
    if len(heads) == 1:
        return wanted[0], heads[0]
    losses = [dev.log_loss(head) for head in heads]
    best = losses.index(min(losses))
    return wanted[best], heads[best]


def refit(
    config: RefitConfig,
    *,
    model: Path,
    features: Path,
    data: Path,
    out: Path,
    anchors: Path | None = None,
    device: str = "cpu",
) -> None:
    """Write a whole reward-model directory: the model's trunk with the head that fits `data`.

    Raises BadInput for features of another model, or data that has none of them.
    """
    require(data.is_file(), f"there is no file {data}")
    backbone = Backbone(model, device)
    cached = Features.read(features)
    require(
        cached.model_sha256 == content_hash(model),
        f"{features} holds the features of another model than {model}",
    )
    rows = list(read_comparisons(data, axis=config.axis))
    train = Table.of((row for row in rows if row.in_split("train")), cached)
    dev = Table.of((row for row in rows if row.in_split("dev")), cached)
    require(
        bool(train.comparisons),
        f"{data} holds no comparison to fit: {train.num_left_out} have no strict pair or no "
        f"features in {features}",
    )
    inputs: dict[str, Path | str] = {"model": model, "features": features, "data": data}
    inputs |= {"anchors": anchors} if anchors else {}
    with Run(out, command="rewardmodel refit", config=config, inputs=inputs) as run:
        ridge, head = choose_ridge(config, train, dev)
        forget(backbone.model)
        setattr(backbone.model.config, CONFIG_KEY, {"loss": "bradley_terry"})  # whatever it was
        with torch.no_grad():
            backbone.head.weight.copy_(head[None])
        scale = normalise(
            backbone.model,
            backbone.tokenizer,
            anchors=_anchors(config, data, anchors),
            dev=(row for row in rows if row.in_split("dev")),
        )
        figures = {"train_log_loss": train.log_loss(head)}
        if dev.comparisons:
            figures["dev_log_loss"] = dev.log_loss(head)
        run.log_step(
            0,
            "refit",
            comparisons=len(train.comparisons),
            left_out=train.num_left_out,
            ridge=ridge,
            deviation=scale.deviation,
            **figures,
        )
        run.finish(lambda folder: save_model(backbone.model, backbone.tokenizer, folder))


def _anchors(config: RefitConfig, data: Path, anchors: Path | None) -> Anchors | None:
    if config.num_anchors == 0:
        return None
    return read_anchors(anchors) if anchors else sample_anchors(data, config.num_anchors)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=Path, required=True, help="the directory that the features are of"
    )
    parser.add_argument("--features", type=Path, required=True, help="what `features` wrote")
    parser.add_argument("--data", type=Path, required=True, help="comparisons or TRL rows, JSONL")
    parser.add_argument("--anchors", type=Path, metavar="FILE", help="as in train")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_config_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    refit(
        load_config(RefitConfig, args.config, args.overrides),
        model=args.model,
        features=args.features,
        data=args.data,
        out=args.out,
        anchors=args.anchors,
        device=device_from(args.device),
    )
    sys.stderr.write(f"{args.out} holds the model with its new head\n")
    return 0
