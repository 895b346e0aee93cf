"""A new head on a frozen reward model, from features that are computed once: seconds, not hours.

    python -m rewardmodel features --model DIR --data FILE --out features.safetensors
    python -m rewardmodel refit --model DIR --features features.safetensors --data FILE --out DIR2

The loss is Bradley-Terry on soft targets, or Davidson's with ties: convex in the head, and taken to
its minimum (rewardmodel/newton.py). Nothing goes through the model but a few texts that show
whether the new scores are those of the file: the trunk is as it was, so that scores of anchors and
dev are products of features and head. N = completions, D = width of the features, P = pairs.
"""

import argparse
import copy
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from policy.backbone import save_model
from policy.comparisons import Comparison, read_comparisons
from policy.config import load_config, require, require_all_positive
from policy.data import content_hash
from policy.run import Run, add_config_arguments, device_from
from policy.score_scale import SAME_SCORE, forget
from rewardmodel.anchors import Anchor, Anchors, anchors_among, read_anchors
from rewardmodel.features import Backbone, Features, KnownScorer
from rewardmodel.losses import ranking_loss
from rewardmodel.newton import Fitted, fit_head
from rewardmodel.normalise import NUM_TRIED, normalise
from rewardmodel.objective import CONFIG_KEY
from rewardmodel.targets import Pair, TargetRule

RIDGES: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Tried where none is given and there are dev rows, the strongest first."""
RIDGE_WITHOUT_DEV = 1e-3
LOSSES = ("bradley_terry", "davidson")
"""Those that are convex in the head."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefitConfig:
    loss: str = "bradley_terry"
    """`bradley_terry` on the pairs of a ranking, or `davidson`, which learns from ties too."""
    ridge: float | None = None
    """Half of it times the head's squared norm, features at deviation 1, is added to the loss. Null
    takes what dev's log loss asks for, 0.001 without dev rows."""
    axis: str | None = None
    """Only votes on this axis; null keeps all of them."""
    max_newton_steps: int = 100
    """For each ridge that is tried; some ten are usual."""
    num_anchors: int = 256
    """As in training; 0 leaves scores as fitted."""

    def __post_init__(self) -> None:
        require_all_positive(self, "max_newton_steps")
        require(self.loss in LOSSES, f"loss must be one of {', '.join(LOSSES)}: {self.loss!r}")
        require(self.ridge is None or self.ridge >= 0, f"ridge must be >= 0: {self.ridge}")
        require(
            self.num_anchors == 0 or self.num_anchors >= 2,
            f"num_anchors must be 0 or >= 2: {self.num_anchors}",
        )


@dataclass(slots=True)
class Table:
    """Answers over features: what fits a head, and what measures one. Columns as in ranking_loss,
    indices into the N rows of features; ties is None where they are no answers."""

    features: Tensor
    """(N, D) float64."""
    pairs: Tensor
    targets: Tensor
    weights: Tensor
    ties: Tensor | None
    num_comparisons: int
    num_left_out: int
    """Comparisons without an answer on completions that have features."""

    @classmethod
    def of(
        cls,
        comparisons: Iterable[Comparison],
        features: Features,
        loss: str,
        *,
        weighted: bool = False,
    ) -> "Table":
        """loss: which answers the comparisons' votes are (rewardmodel/targets.py). weighted: by the
        comparisons' own weights, at a mean of 1, as training does; those of weight 0 are left out.
        """
        rule = TargetRule(loss=loss)
        rows: dict[int, int] = {}  # of the file -> of this table
        found: list[Pair] = []
        num_used = num_left_out = 0
        total = 0.0
        for comparison in comparisons:
            weight = comparison.weight if weighted else 1.0
            keys = [Anchor(comparison.prompt, text).sha256 for text in comparison.texts]
            kept = [index for index, key in enumerate(keys) if key in features.places]
            if len(kept) < len(keys):  # too long for the model: as in training
                comparison, keys = comparison.among(kept), [keys[index] for index in kept]
            pairs = rule.targets(comparison).pairs
            if not pairs or not weight:
                num_left_out += 1
                continue
            num_used += 1
            total += weight
            places = [rows.setdefault(features.places[key], len(rows)) for key in keys]
            found += [
                pair._replace(
                    first=places[pair.first],
                    second=places[pair.second],
                    weight=pair.weight * weight,
                )
                for pair in pairs
            ]

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)

        return cls(
            features=features.rows(list(rows)).double(),
            pairs=torch.tensor(
                [(one.first, one.second) for one in found], dtype=torch.long
            ).reshape(-1, 2),
            targets=column([one.target for one in found]),
            weights=column([one.weight * num_used / total for one in found]),
            ties=column([one.ties for one in found]) if loss == "davidson" else None,
            num_comparisons=num_used,
            num_left_out=num_left_out,
        )

    def fit(self, *, ridge: float, max_steps: int, start: Fitted | None = None) -> Fitted:
        """The head that fits these comparisons; start: the one of another ridge."""
        return fit_head(
            self.features,
            self.pairs,
            self.targets,
            self.weights,
            ties=self.ties,
            num_comparisons=self.num_comparisons,
            ridge=ridge,
            max_steps=max_steps,
            start=start,
        )

    def log_loss(self, fitted: Fitted) -> float:
        """Nats, a mean over comparisons, as `evaluate` measures it."""
        return ranking_loss(
            self.features @ fitted.head,
            self.pairs,
            self.targets,
            self.weights,
            num_comparisons=self.num_comparisons,
            ties=self.ties,
            log_nu=fitted.log_nu,
        ).item()


def choose_ridge(config: RefitConfig, train: Table, dev: Table) -> tuple[float, Fitted]:
    """(ridge, head): the given one, or the one whose head has the lowest log loss on dev."""
    wanted = RIDGES if dev.num_comparisons else (RIDGE_WITHOUT_DEV,)
    if config.ridge is not None:
        wanted = (config.ridge,)
    heads: list[Fitted] = []
    for ridge in wanted:
        start = heads[-1] if heads else None
        heads.append(train.fit(ridge=ridge, max_steps=config.max_newton_steps, start=start))
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
    learned_from = (row for row in rows if row.in_split("train"))
    train = Table.of(learned_from, cached, config.loss, weighted=True)
    dev = Table.of((row for row in rows if row.in_split("dev")), cached, config.loss)
    require(
        train.num_comparisons > 0,
        f"{data} holds no comparison to fit: {train.num_left_out} have no strict pair or no "
        f"features in {features}",
    )
    inputs: dict[str, Path | str] = {"model": model, "features": features, "data": data}
    inputs |= {"anchors": anchors} if anchors else {}
    with Run(out, command="rewardmodel refit", config=config, inputs=inputs) as run:
        ridge, fitted = choose_ridge(config, train, dev)
        forget(backbone.model)
        learned = {} if fitted.log_nu is None else {"log_nu": fitted.log_nu}
        setattr(backbone.model.config, CONFIG_KEY, {"loss": config.loss, **learned})
        with torch.no_grad():
            backbone.head.weight.copy_(fitted.head[None])
        known = cached.scores(copy.deepcopy(backbone.head).cpu().double())
        _require_same(backbone, known, rows, features)
        scale = normalise(
            backbone.model,
            backbone.tokenizer,
            anchors=_anchors(config, rows, anchors),
            dev=(row for row in rows if row.in_split("dev")),
            scorer_of=partial(KnownScorer, known=known),
        )
        figures = {"train_log_loss": train.log_loss(fitted)}
        if dev.num_comparisons:
            figures["dev_log_loss"] = dev.log_loss(fitted)
        run.log_step(
            0,
            "refit",
            comparisons=train.num_comparisons,
            left_out=train.num_left_out,
            ridge=ridge,
            newton_steps=fitted.num_steps,
            deviation=scale.deviation,
            **figures,
        )
        run.finish(lambda folder: save_model(backbone.model, backbone.tokenizer, folder))


def _require_same(
    backbone: Backbone, known: Mapping[str, float], rows: Sequence[Comparison], features: Path
) -> None:
    """Raise BadInput where the model says something else of a few texts than their features do."""
    texts = (Anchor(row.prompt, text) for row in rows for text in row.texts)
    tried = list(islice((text for text in texts if text.sha256 in known), NUM_TRIED))
    scorer = backbone.scorer
    # The heads, not the scores: the scorer was made on the scale of the head that is gone.
    found = scorer.heads([scorer.encode(each.prompt, each.text).ids for each in tried])[:, 0]
    wanted = torch.tensor([known[each.sha256] for each in tried], dtype=torch.float64)
    apart = (found.double() - wanted).abs().max().item()
    spread = torch.tensor(list(known.values()), dtype=torch.float64).std(correction=0).item()
    require(
        apart <= SAME_SCORE * max(1.0, spread),
        f"{features} gives scores that are up to {apart:.3g} apart from those of the model: they "
        "are of other weights, or of a model whose score is not its head's product",
    )


def _anchors(
    config: RefitConfig, rows: Sequence[Comparison], anchors: Path | None
) -> Anchors | None:
    if config.num_anchors == 0:
        return None
    return read_anchors(anchors) if anchors else anchors_among(lambda: rows, config.num_anchors)


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
