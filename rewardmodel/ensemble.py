"""An ensemble: one reward model from several, each trained with a seed of its own.

Members from different pretrained models disagree where they know little more than members that
differ in the fine-tuning's seed alone (arXiv:2312.09244): give several --init, or none at all.
`python -m rewardmodel ensemble` makes one of models that were trained before.
"""

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from policy.axes import shared
from policy.backbone import load_tokenizer
from policy.comparisons import read_comparisons
from policy.config import require
from policy.data import content_hash
from policy.ensemble import RULES, Ensemble, Member, standard_of
from policy.processes import ALONE, Follower, Processes, opened
from policy.run import Run, device_from, is_finished
from policy.score_scale import ScoreScale
from policy.scoring import EnsembleScorer, load_scorer, same_tokenizer
from rewardmodel.anchors import Anchors, read_anchors, sample_anchors
from rewardmodel.config import RewardConfig
from rewardmodel.normalise import anchor_ids, with_dev


def train_ensemble(
    config: RewardConfig,
    *,
    data: Path,
    out: Path,
    inits: Sequence[str | None],
    tokenizer_from: str | None = None,
    anchors: Path | None = None,
    resume_from: Sequence[Path] = (),
    device: str = "cpu",
    processes: Processes = ALONE,
    train_one: Callable[..., None],
) -> None:
    """Train `config.members` models one after the other, each with all processes, and publish them
    as one directory.

    inits: one for all members, or one for each; None is random weights. train_one: the `train` of
    rewardmodel.train. A member that an earlier attempt finished is taken as it is; one that it
    began goes on from its checkpoint. Raises what `train` raises.
    """
    require(
        len(inits) in (1, config.members),
        f"--init once for all members or once for each: {len(inits)} for {config.members} members",
    )
    _require_one_tokenizer(inits)
    require(data.is_file(), f"there is no file {data}")
    named = {f"init.{number}": init for number, init in enumerate(inits)}
    named = {"data": str(data), **named, "tokenizer": tokenizer_from}
    named |= {"anchors": str(anchors) if anchors else None}
    inputs = {name: path for name, path in named.items() if path is not None}
    with opened(
        processes,
        lambda: Run(
            out,
            command="rewardmodel train",
            config=config,
            inputs=inputs,
            resume_from=resume_from,
            num_processes=processes.count,
        ),
    ) as run:
        folders = [out / f"member-{number}" for number in range(config.members)]
        for number, folder in enumerate(folders):
            earlier = [path / folder.name for path in resume_from]
            relay = Relay(run, folder, number, config.members) if processes.is_first else None
            if not processes.from_first(partial(_is_done, folder, earlier)):
                train_one(
                    member_config(config, number),
                    data=data,
                    out=folder,
                    init=inits[number % len(inits)],
                    tokenizer_from=tokenizer_from,
                    anchors=anchors,
                    resume_from=earlier,
                    device=device,
                    processes=processes,
                    on_step=relay,
                )
            if relay:
                relay.copy()
            if processes.any(run.should_stop):
                run.stop_here(number + 1)
        if not processes.is_first:
            return
        ensemble = ensemble_of(
            folders,
            data,
            anchors=read_anchors(anchors) if anchors else sample_anchors(data),
            rule=config.rule,
            uncertainty_weight=config.uncertainty_weight,
            normalised=config.num_anchors > 0,
            axis=config.voted_axes,
            device=device,
        )
        run.log_step(config.members, "scores", **ensemble.scale.figures())
        run.finish(ensemble.save)


def _require_one_tokenizer(inits: Sequence[str | None]) -> None:
    """Before hours of training rather than after: members are given the same ids."""
    folders = [init for init in inits if init is not None]
    require(
        len(folders) in (0, len(inits)),
        "members start from a model each, or all from random weights: --init none beside "
        + ", ".join(folders),
    )
    for folder in folders[1:]:
        require(
            same_tokenizer(load_tokenizer(folder), load_tokenizer(folders[0])),
            f"{folder} has another tokenizer or chat template than {folders[0]}",
        )


def member_config(config: RewardConfig, number: int) -> RewardConfig:
    """A member's own: no two members of one size of ensemble share a seed, whatever the seeds of
    their ensembles."""
    return dataclasses.replace(config, members=1, seed=config.seed * config.members + number)


class Relay:
    """Puts a member's rows and progress into the ensemble's files as they come."""

    def __init__(self, run: Run | Follower, folder: Path, number: int, members: int) -> None:
        self.run, self.folder, self.number, self.members = run, folder, number, members
        self.offset = 0

    def __call__(self, step: int, stats: Any) -> None:
        self.copy()

    def copy(self) -> None:
        with (self.folder / "metrics.jsonl").open(encoding="utf-8") as file:
            file.seek(self.offset)
            lines = file.readlines()
            self.offset = file.tell()
        for line in lines:
            row = json.loads(line)
            step, phase = row.pop("step"), row.pop("phase")
            self.run.log_step(step, f"{self.folder.name} {phase}", **row)
        done = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))
        self.run.progress(
            self.number * done["total"] + done["step"], self.members * done["total"], "ensemble"
        )


def _is_done(folder: Path, earlier: Sequence[Path]) -> bool:
    """Whether the member is there already, from an earlier attempt perhaps."""
    if is_finished(folder):
        return True
    found = next((path for path in earlier if is_finished(path)), None)
    if found is None:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    _copy(found, folder)
    return True


def _copy(source: Path, target: Path) -> None:
    """A copy that appears whole; hidden files stay behind."""
    staged = target.with_name(f".{target.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(source, staged, ignore=shutil.ignore_patterns(".*", "checkpoints"))
    staged.rename(target)


def ensemble_of(
    folders: Sequence[Path],
    data: Path,
    *,
    anchors: Anchors,
    rule: str,
    uncertainty_weight: float,
    normalised: bool,
    axis: str | Collection[str] | None,
    device: str,
) -> Ensemble:
    """The manifest of models that lie beside each other.

    anchors: what members are standardised on, and their combined scores too if `normalised`. data:
    its dev rows give temperature and figures. Raises BadInput for models that cannot be combined.
    """
    scorers = [load_scorer(folder, device) for folder in folders]
    members = []
    for folder, scorer in zip(folders, scorers, strict=True):
        ids = anchor_ids(scorer, anchors)
        require(
            len(ids) >= 2, f"{folder} can take fewer than two of the {len(anchors.items)} anchors"
        )
        mean, deviation = standard_of(scorer.score_ids(ids))
        members.append(
            Member(
                directory=folder.name,
                mean=mean,
                deviation=deviation,
                nats=scorer.scale.deviation,
                sha256=content_hash(folder),
            )
        )
    ensemble = Ensemble(
        rule=rule,
        uncertainty_weight=uncertainty_weight,
        members=tuple(members),
        scale=ScoreScale(
            anchors_sha256=anchors.sha256, axes=shared([scorer.scale.axes for scorer in scorers])
        ),
    )
    if normalised:
        together = EnsembleScorer(ensemble, scorers)
        ids = anchor_ids(together, anchors)
        mean, deviation = standard_of(together.score_ids(ids))
        scale = dataclasses.replace(
            ensemble.scale, mean=mean, deviation=deviation, folded="config", num_anchors=len(ids)
        )
        ensemble = dataclasses.replace(ensemble, scale=scale)
    rows = read_comparisons(data, axis=axis)
    scale = with_dev(
        ensemble.scale,
        EnsembleScorer(ensemble, scorers),
        (each for each in rows if each.in_split("dev")),
    )
    return dataclasses.replace(ensemble, scale=scale)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--member",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="a reward-model directory; given twice or more",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="comparisons or TRL rows, JSONL; its dev rows give the temperature",
    )
    parser.add_argument(
        "--anchors", type=Path, metavar="FILE", help="as in train; by default a sample of the data"
    )
    parser.add_argument("--axis", help="only votes on this axis")
    parser.add_argument("--rule", choices=RULES, default="mean", help="how scores are combined")
    parser.add_argument(
        "--uncertainty-weight",
        type=float,
        default=RewardConfig().uncertainty_weight,
        help="of the variance, with --rule uncertainty",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto by default")


def run_command(args: argparse.Namespace) -> int:
    """Copies of the members and their manifest, a directory that appears whole."""
    require(args.data.is_file(), f"there is no file {args.data}")
    require(not args.out.exists(), f"{args.out} is there already")
    staged = args.out.with_name(f".{args.out.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        folders = [staged / f"member-{number}" for number in range(len(args.member))]
        for source, folder in zip(args.member, folders, strict=True):
            require(source.is_dir(), f"there is no model folder {str(source)!r}")
            _copy(source, folder)
        ensemble = ensemble_of(
            folders,
            args.data,
            anchors=read_anchors(args.anchors) if args.anchors else sample_anchors(args.data),
            rule=args.rule,
            uncertainty_weight=args.uncertainty_weight,
            normalised=True,
            axis=args.axis,
            device=device_from(args.device),
        )
        ensemble.save(staged)
        staged.rename(args.out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    sys.stderr.write(f"{len(folders)} members, combined by {args.rule}\n")
    return 0
