"""`policy dpo`: learn from comparisons without a reward model (DPO, arXiv:2305.18290).

--data takes comparisons, K answers each, and TRL preference rows. Rows of split "train", and rows
without a split, are trained on; "dev" rows are measured; "test" rows are left alone. The
reference's log-probs are computed once and kept in OUT/reference/.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from policy.backbone import context_of, load_causal_lm, save_model
from policy.checkpoint import load_tensors, sync, tensors_of
from policy.comparisons import read_comparisons
from policy.config import load_config, require, require_all_positive
from policy.optim import adamw, lr_at, set_lr
from policy.packing import length_batches
from policy.pairs import Encoded, Example, PairConfig, logprob_sums, measure, train_step
from policy.processes import ALONE, Follower, Processes, joined, opened, require_room
from policy.reader import Reader
from policy.run import Run, add_training_arguments, device_from, generator_for

OnStep = Callable[[int, dict[str, float]], None]
KEPT = Path("reference") / "step-000000.safetensors"
"""In the run's folder; named as what a resumed attempt carries over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DPOConfig(PairConfig):
    """DPO or IPO on comparisons."""

    epochs: int = 1
    comparisons_per_step: int = 16
    """Optimizer batch, in comparisons (one prompt with its K answers)."""
    max_tokens: int = 256
    """Prompt and longest answer; a longer prompt loses its oldest turns, a comparison with a longer
    answer is left out and counted. Never above the model's own context."""
    axis: str | None = None
    """Votes on this axis alone; None takes all."""
    warmup_fraction: float = 0.1
    patience: int | None = None
    """Epochs in which dev's loss may get no better before the run ends; the best epoch is then
    published. None: the last."""

    def __post_init__(self) -> None:
        PairConfig.__post_init__(self)
        require_all_positive(self, "epochs", "comparisons_per_step", "max_tokens")
        require(
            0 <= self.warmup_fraction < 1,
            f"warmup_fraction must be in [0, 1): {self.warmup_fraction}",
        )
        require(
            self.patience is None or self.patience >= 1,
            f"patience must be 1 or more, or null: {self.patience}",
        )


def train(
    config: DPOConfig,
    data: Path | str,
    init: Path | str,
    out: Path | str,
    *,
    reference: Path | str | None = None,
    resume_from: Sequence[Path | str] = (),
    device: str = "cpu",
    processes: Processes = ALONE,
    on_step: OnStep | None = None,
) -> None:
    """Train and publish into `out`. reference: `init` unless given.

    Raises BadInput, Stopped or Diverged (policy/config.py).
    """
    model, tokenizer = load_causal_lm(init, device=device)
    max_tokens = min(config.max_tokens, context_of(model))
    rows = list(read_comparisons(Path(data), axis=config.axis))
    encoded = Encoded.of(tokenizer, (row for row in rows if row.in_split("train")), max_tokens)
    dev = Encoded.of(tokenizer, (row for row in rows if row.in_split("dev")), max_tokens)
    require(
        bool(encoded.examples),
        f"{data} has no comparison to train on: {len(rows)} rows; of the train split "
        f"{encoded.no_strict_pair} without a strict pair, {encoded.too_long} too long for "
        f"{max_tokens} tokens, {encoded.same_tokens} with two answers of the same tokens",
    )
    require(
        config.patience is None or bool(dev.examples), f"patience wants dev rows; {data} has none"
    )
    with opened(
        processes,
        lambda: Run(
            out,
            command="policy dpo",
            config=config,
            inputs={"data": data, "init": init, "reference": reference or init},
            resume_from=resume_from,
            carried=("reference",),
            num_processes=processes.count,
        ),
    ) as run:
        if run.restored is None:
            run.log_step(0, "data", **_counts(encoded, dev))
        known = reference_nats(
            run.directory / KEPT,
            reference or init,
            tokenizer,
            [*encoded.examples, *dev.examples],
            config,
            device,
            processes,
        )
        loop = _Loop(run, model, encoded.examples, dev.examples, known, config, processes)
        loop.train(on_step)
        run.finish(lambda folder: save_model(model.eval(), tokenizer, folder))


class _Loop:
    """What changes from step to step."""

    def __init__(
        self,
        run: Run | Follower,
        model: Any,
        examples: Sequence[Example],
        dev: Sequence[Example],
        reference: Sequence[Tensor],
        config: DPOConfig,
        processes: Processes,
    ) -> None:
        self.run, self.model, self.config, self.processes = run, model, config, processes
        self.reader = Reader(model)
        self.examples, self.dev = examples, dev
        self.reference, self.dev_reference = reference[: len(examples)], reference[len(examples) :]
        self.optimizer = adamw(model, lr=config.lr_peak, weight_decay=config.weight_decay)
        self.best = copy.deepcopy(model).requires_grad_(False) if config.patience else None
        self.best_loss = float("inf")
        self.epochs_since = 0
        """Since dev's loss was best."""
        if run.restored:
            run.restored.restore("model", model)
            if self.best is not None:
                run.restored.restore("best", self.best)
            self.optimizer.load_state_dict(run.restored.state["optimizer"])
            self.best_loss = run.restored.state["best_loss"]
            self.epochs_since = run.restored.state["epochs_since"]

    def train(self, on_step: OnStep | None) -> None:
        config, run = self.config, self.run
        per_epoch = -(-len(self.examples) // config.comparisons_per_step)
        total = config.epochs * per_epoch
        modules = self.modules()
        require_room(self.processes, run, modules, total=total, every=config.checkpoint_every)
        lengths = [one.num_tokens for one in self.examples]
        for step in range(run.first_step, total):
            if self.impatient():
                break
            epoch, place = divmod(step, per_epoch)
            generator = generator_for(config.seed, epoch, "batches")
            chosen = length_batches(lengths, config.comparisons_per_step, generator)[place]
            warmup = int(total * config.warmup_fraction)
            lr = lr_at(step, total=total, peak=config.lr_peak, warmup=warmup)
            set_lr(self.optimizer, lr)
            numbers = train_step(
                self.reader,
                self.optimizer,
                [self.examples[at] for at in chosen],
                [self.reference[at] for at in chosen],
                config,
                self.processes,
            )
            done = step + 1
            run.log_step(done, "train", **numbers, lr=lr)
            if self.dev and done % per_epoch == 0:
                self.look_at_dev(done, epoch + 1)
            run.progress(done, total, "dpo")
            if on_step is not None:
                on_step(done, numbers)
            should_stop = self.processes.any(run.should_stop)
            if done < total and (should_stop or done % config.checkpoint_every == 0):
                self.save(done)
                if should_stop:
                    run.stop_here(done)
        if self.best is not None:
            load_tensors(self.model, tensors_of(self.best))

    def look_at_dev(self, done: int, epoch: int) -> None:
        figures = measure(self.reader, self.dev, self.dev_reference, self.config, self.processes)
        self.run.log_step(done, "dev", **figures, epoch=epoch)
        self.epochs_since += 1
        if figures["loss"] < self.best_loss:
            self.best_loss, self.epochs_since = figures["loss"], 0
            if self.best is not None:
                load_tensors(self.best, tensors_of(self.model))

    def impatient(self) -> bool:
        """Whether dev's loss got no better for too long."""
        return self.config.patience is not None and self.epochs_since >= self.config.patience

    def modules(self) -> dict[str, Any]:
        """All whose weights change."""
        best = {} if self.best is None else {"best": self.best}
        return {"model": self.model, **best}

    def save(self, step: int) -> None:
        self.run.save_checkpoint(
            step,
            modules=self.modules(),
            state={
                "optimizer": self.optimizer.state_dict(),
                "best_loss": self.best_loss,
                "epochs_since": self.epochs_since,
            },
        )
        self.processes.wait()


def reference_nats(
    kept: Path,
    reference: Path | str,
    tokenizer: Any,
    examples: Sequence[Example],
    config: DPOConfig,
    device: str,
    processes: Processes,
) -> list[Tensor]:
    """(K,) log-probs of each example's answers under the reference, from `kept` or computed and put
    there. Raises BadInput for a reference with another tokenizer."""
    sizes = [len(one.responses) for one in examples]
    nats = processes.from_first(lambda: load_file(kept)["nats"] if kept.is_file() else None)
    if nats is None:
        model, other = load_causal_lm(reference, device=device)
        require(
            other.get_vocab() == tokenizer.get_vocab(),
            f"the reference {reference} has another tokenizer than the policy",
        )
        nats = torch.cat(logprob_sums(Reader(model), examples, config, processes))
        if processes.is_first:
            staged = kept.with_suffix(".part")
            save_file({"nats": nats}, staged)
            sync(staged)
            staged.replace(kept)
    return list(nats.split(sizes))


def _counts(train: Encoded, dev: Encoded) -> dict[str, int]:
    return {
        "comparisons_trained": len(train.examples),
        "comparisons_dev": len(dev.examples),
        "pairs_trained": train.pairs,
        "ties_left_out": train.ties + dev.ties,
        "no_strict_pair": train.no_strict_pair + dev.no_strict_pair,
        "too_long": train.too_long + dev.too_long,
        "same_tokens": train.same_tokens + dev.same_tokens,
        "prompts_cut": train.prompts_cut + dev.prompts_cut,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--data", required=True, type=Path, metavar="FILE")
    parser.add_argument("--init", required=True, metavar="DIR", help="policy to start from")
    parser.add_argument("--reference", metavar="DIR", help="--init if absent")
    add_training_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    """`python -m policy dpo`."""
    config = load_config(DPOConfig, args.config, args.overrides)
    with joined(device_from(args.device)) as (processes, device):
        train(
            config,
            args.data,
            args.init,
            args.out,
            reference=args.reference,
            resume_from=args.resume_from,
            device=device,
            processes=processes,
        )
    return 0
