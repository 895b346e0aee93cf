"""Train a reward model on comparisons: each token once through the model, the loss on all pairs."""

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from policy import guard
from policy.backbone import save_model
from policy.checkpoint import fingerprint, tensors_of
from policy.comparisons import read_comparisons
from policy.conditions import (
    deterministic,
    generator_states,
    restore_generators,
    seed_generators,
)
from policy.config import Diverged, load_config, refuse_idle, require
from policy.files import with_bar
from policy.lora import merge_adapters
from policy.optim import lr_at, optimizer_for, set_lr
from policy.processes import ALONE, Follower, Processes, joined, opened, require_room
from policy.run import Run, add_training_arguments, device_from
from policy.scoring import Scorer, max_tokens_of
from rewardmodel.anchors import Anchors, read_anchors, sample_anchors
from rewardmodel.batches import (
    Example,
    Examples,
    examples_of_step,
    num_steps,
    require_each_axis,
    weighted,
)
from rewardmodel.config import RewardConfig
from rewardmodel.ensemble import train_ensemble
from rewardmodel.examine import write_card
from rewardmodel.forward import Forward
from rewardmodel.guard import comparisons_of
from rewardmodel.model import starting_model
from rewardmodel.normalise import normalise
from rewardmodel.objective import CONFIG_KEY, Objective
from rewardmodel.step import StepStats, dev_figures, train_step
from rewardmodel.survey import surveyed
from rewardmodel.targets import TargetRule

ADAM_EPS = 1e-5
"""lm-human-preferences and its reproduction (arXiv:2403.17031); PyTorch's 1e-8 makes the first
steps larger."""

BETA2 = 0.98
"""AdamW's second-moment decay."""


OnStep = Callable[[int, StepStats], None]


def train(
    config: RewardConfig,
    *,
    data: Path,
    out: Path,
    init: str | None,
    tokenizer_from: str | None = None,
    anchors: Path | None = None,
    resume_from: Sequence[Path] = (),
    device: str = "cpu",
    processes: Processes = ALONE,
    on_step: OnStep | None = None,
) -> None:
    """Write a directory that `AutoModelForSequenceClassification.from_pretrained` loads.

    Rows of split train, and rows without one, are trained on; dev rows are looked at every
    `eval_every` steps and at the end. Killed at any point, the same call goes on from the last
    checkpoint, and on a CPU under the same conditions (policy/conditions.py) ends with the same
    bits. Raises BadInput, Stopped or Diverged (policy/config.py).
    """
    inputs: dict[str, Path | str] = {"data": data}
    inputs |= {"init": init} if init else {}
    inputs |= {"tokenizer": tokenizer_from} if tokenizer_from else {}
    inputs |= {"anchors": anchors} if anchors else {}
    require(data.is_file(), f"there is no file {data}")
    model, tokenizer = starting_model(
        config,
        init=init,
        tokenizer_from=tokenizer_from,
        texts=lambda: _texts(data),
        device=device,
    )
    survey = surveyed(config, data)
    rule = TargetRule.of(config, survey)
    examples, dev = _read(config, data, model, tokenizer, rule)
    require(
        config.patience is None or bool(dev.items),
        f"patience is {config.patience}, and {data} holds no dev row to look at",
    )
    anchored = _anchors(config, data, anchors)
    with (
        deterministic(device),
        opened(
            processes,
            lambda: Run(
                out,
                command="rewardmodel train",
                config=config,
                inputs=inputs,
                resume_from=resume_from,
                carried=(guard.FOLDER,),
                num_processes=processes.count,
            ),
        ) as run,
    ):
        if run.restored is None:
            counts = examples.counts("train") | dev.counts("dev") | rule.figures()
            run.log_step(0, "data", **counts)
        objective = Objective(config, survey, rule)
        objective.start_length([each.targets for each in examples.items])
        training = Training(
            config,
            run,
            processes,
            model,
            tokenizer,
            weighted(examples.items, config.thread_weight),
            dev.items,
            objective.to(device),
        )
        training.steps(on_step)
        if not processes.is_first:
            return
        model = merge_adapters(training.kept())
        rows = read_comparisons(data, axis=config.voted_axes)
        scale = normalise(
            model,
            tokenizer,
            anchors=anchored,
            dev=(each for each in rows if each.in_split("dev")),
            axis_weights=config.axes,
        )
        run.log_step(training.last_step, "scores", **scale.figures())
        run.finish(lambda folder: save_model(model, tokenizer, folder), training.fingerprints())


class Training:
    """The loop's state: what a checkpoint holds."""

    def __init__(
        self,
        config: RewardConfig,
        run: Run | Follower,
        processes: Processes,
        model: Any,
        tokenizer: Any,
        examples: Sequence[Example],
        dev: Sequence[Example],
        objective: Objective,
    ) -> None:
        self.config, self.run, self.processes = config, run, processes
        self.model, self.tokenizer, self.objective = model, tokenizer, objective
        self.examples, self.dev = examples, dev
        self.forward = Forward(model, config, max_tokens=tokenizer.model_max_length)
        if run.restored is None:
            run.log_step(0, "forward", **self.forward.described())
        self.total = num_steps(
            len(examples), per_step=config.comparisons_per_step, num_epochs=config.epochs
        )
        self.optimizer = optimizer_for(
            config.optimizer,
            model,
            lr=config.lr_peak,
            weight_decay=config.weight_decay,
            beta2=BETA2,
            eps=ADAM_EPS,
        )
        self.best_model: nn.Module | None = None
        """Weights at the lowest dev loss; None where the last ones are kept."""
        self.best_objective = copy.deepcopy(objective)
        self.best_step, self.best_log_loss = 0, float("inf")
        self.looks_since_best = 0
        """At the dev split."""
        self.last_step = 0
        """Of training, once it has ended; before `total` where patience ran out."""
        self.guard = guard.Guard(run, most_in_a_row=config.skips_in_a_row)
        if dev and config.keep == "best":
            self.best_model = copy.deepcopy(model)
        seed_generators(config.seed)
        if run.restored:
            self._restore()

    def steps(self, on_step: OnStep | None) -> None:
        config, run = self.config, self.run
        every = config.checkpoint_every
        require_room(self.processes, run, self._modules(), total=self.total, every=every)
        last = run.first_step
        self.forward.warm_up(self.examples)
        for step in range(run.first_step + 1, self.total + 1):
            if config.patience is not None and self.looks_since_best >= config.patience:
                run.log_step(last, "early_stop", best_step=self.best_step)
                break
            last = step
            lr = lr_at(
                step - 1,
                total=self.total,
                peak=config.lr_peak,
                warmup=int(config.warmup_fraction * self.total),
            )
            set_lr(self.optimizer, lr)
            stats = self._step(step, lr)
            if stats is not None:
                known = {name: value for name, value in asdict(stats).items() if value is not None}
                run.log_step(step, "train", **known, lr=lr)
            if self.dev and (step % config.eval_every == 0 or step == self.total):
                self._look_at_dev(step)
            run.progress(step, self.total, "reward model")
            if on_step and stats is not None:
                on_step(step, stats)
            should_stop = self.processes.any(run.should_stop)
            due = step % every == 0 and step < self.total
            if should_stop or (due and stats is not None):
                self._save(step)
            if should_stop and step < self.total:
                run.stop_here(step)
        kept = self.best_step if self.best_model is not None else last
        run.log_step(last, "kept", kept_step=kept)
        self.last_step = last

    def kept(self) -> Any:
        """The model to publish, what its objective learned in its config."""
        best = self.best_model is not None
        model = self.best_model if best else self.model
        learned = (self.best_objective if best else self.objective).as_json()
        setattr(model.config, CONFIG_KEY, learned)  # type: ignore[union-attr]
        return model

    def fingerprints(self) -> dict[str, str]:
        """Of all that a step changes, for comparing two runs bit for bit."""
        return {
            "kept_weights": fingerprint(tensors_of(self.kept())),
            "last_weights": fingerprint(tensors_of(self.model)),
            "objective": fingerprint(self.objective.state_dict()),
            "optimizer": fingerprint(self.optimizer.state_dict()),
            "generators": fingerprint(generator_states()),
        }

    def _step(self, step: int, lr: float) -> StepStats | None:
        """One update; None where it was skipped, or undone, because a number is not finite."""
        batch = self._batch(step)
        try:
            stats = self.forward.within_memory(
                lambda: train_step(
                    self.forward,
                    batch,
                    self.optimizer,
                    self.config,
                    self.objective,
                    self.processes,
                )
            )
        except Diverged as problem:  # the weights have not moved
            self.objective.zero_grad(set_to_none=True)
            back = self.guard.skip(step, problem, comparisons_of(batch, self.forward))
            if back is not None:
                back.restore("model", self.model)
                self.objective.load_state_dict(back.state["objective"])
                self.optimizer.load_state_dict(back.state["optimizer"])
            return None
        self.objective.descend(lr / self.config.lr_peak)
        self.guard.good_step()
        return stats

    def _batch(self, step: int) -> list[Example]:
        config = self.config
        return examples_of_step(
            self.examples, step, per_step=config.comparisons_per_step, seed=config.seed
        )

    def _cursor(self, step: int) -> dict[str, Any]:
        """What comes after `step`: its comparisons by id, as they are cut, and their tokens."""
        if step >= self.total:
            return {"step": step, "pieces": [], "tokens": ""}
        cut = self.forward.pieces(self._batch(step + 1))
        return {
            "step": step,
            "pieces": [[each.id for each in piece] for piece in cut],
            "tokens": fingerprint([[list(row) for row in e.rows] for piece in cut for e in piece]),
        }

    def _look_at_dev(self, step: int) -> None:
        scorer = Scorer(self.model, self.tokenizer, max_tokens=self.tokenizer.model_max_length)
        scorer.shares_prompts = self.forward.shared  # tried once for this model, not at each look
        figures = self.processes.from_first(
            lambda: dev_figures(scorer, self.dev, self.config.tokens_per_forward, self.objective)
        )
        self.run.log_step(step, "dev", **figures)
        self.looks_since_best += 1
        if figures["objective"] < self.best_log_loss:
            self.best_step, self.best_log_loss = step, figures["objective"]
            self.looks_since_best = 0
            if self.best_model is not None:
                self.best_model.load_state_dict(self.model.state_dict())
                self.best_objective.load_state_dict(self.objective.state_dict())

    def _modules(self) -> dict[str, nn.Module]:
        """All whose weights change."""
        best = {} if self.best_model is None else {"best": self.best_model}
        return {"model": self.model, **best}

    def _save(self, step: int) -> None:
        state = {
            "objective": self.objective.state_dict(),
            "best_objective": self.best_objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": generator_states(),
            "cursor": self._cursor(step),
            "best_step": self.best_step,
            "best_log_loss": self.best_log_loss,
            "looks_since_best": self.looks_since_best,
            "guard": self.guard.state(),
        }
        self.run.save_checkpoint(step, modules=self._modules(), state=state)
        self.processes.wait()  # whoever goes back to it must find it

    def _restore(self) -> None:
        restored = self.run.restored
        assert restored is not None
        restored.restore("model", self.model)
        if self.best_model is not None:
            restored.restore("best", self.best_model)
        self.objective.load_state_dict(restored.state["objective"])
        self.best_objective.load_state_dict(restored.state["best_objective"])
        self.optimizer.load_state_dict(restored.state["optimizer"])
        self.best_step = restored.state["best_step"]
        self.best_log_loss = restored.state["best_log_loss"]
        self.looks_since_best = restored.state["looks_since_best"]
        self.guard.restore(restored.state["guard"])
        restore_generators(restored.state["generators"])
        if restored.state["cursor"] != self._cursor(restored.step):
            self.run.resumed_otherwise(
                "the batch that comes next holds other comparisons or tokens"
            )


def _read(
    config: RewardConfig, data: Path, model: Any, tokenizer: Any, rule: TargetRule
) -> tuple[Examples, Examples]:
    """(train, dev), encoded. Raises BadInput if there is nothing to train on."""
    train_examples, dev_examples = Examples(), Examples()
    max_tokens = max_tokens_of(model, tokenizer)
    rows = read_comparisons(data, axis=config.voted_axes)
    for comparison in with_bar(rows, data, "read"):
        if comparison.in_split("train"):
            train_examples.add(comparison, tokenizer, max_tokens, rule)
        elif comparison.in_split("dev"):
            dev_examples.add(comparison, tokenizer, max_tokens, rule.without_strength())
    require(
        bool(train_examples.items),
        f"{data} holds no comparison to train on: {train_examples.counts('train')}",
    )
    require_each_axis(rule.axes, train_examples.items, data)
    return train_examples, dev_examples


def _anchors(config: RewardConfig, data: Path, anchors: Path | None) -> Anchors | None:
    """Those of the file, else a sample of the data's; None where scores stay as trained."""
    if config.num_anchors == 0:
        return None
    return read_anchors(anchors) if anchors else sample_anchors(data, config.num_anchors)


def _texts(data: Path) -> Iterator[str]:
    """What a tokenizer is learned from: the train rows alone."""
    for comparison in read_comparisons(data):
        if comparison.in_split("train"):
            yield from (message["content"] for message in comparison.prompt)
            yield from comparison.texts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="comparisons or TRL rows, JSONL")
    parser.add_argument(
        "--init",
        action="append",
        required=True,
        help="model directory to start from, or none for random weights; once for each member "
        "of an ensemble, or once for all",
    )
    parser.add_argument("--tokenizer", metavar="DIR", help="with --init none; else it is learned")
    parser.add_argument(
        "--anchors",
        type=Path,
        metavar="FILE",
        help="texts on which scores get mean 0 and deviation 1, as `anchors` writes them; by "
        "default a fixed sample of the data's dev rows",
    )
    add_training_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    config = load_config(RewardConfig, args.config, args.overrides)
    inits = [None if init == "none" else init for init in args.init]
    shared: dict[str, Any] = {
        "data": args.data,
        "out": args.out,
        "tokenizer_from": args.tokenizer,
        "anchors": args.anchors,
        "resume_from": args.resume_from,
    }
    with joined(device_from(args.device)) as (processes, device):
        if config.members > 1:
            train_ensemble(
                config,
                inits=inits,
                train_one=train,
                device=device,
                processes=processes,
                **shared,
            )
        else:
            require(len(inits) == 1, f"one model has one --init, not {len(inits)}")
            refuse_idle(config, "rule", where="with members 1")
            train(config, init=inits[0], device=device, processes=processes, **shared)
        if processes.is_first:
            write_card(args.out, args.data, axis=config.voted_axes, device=device)
    return 0
