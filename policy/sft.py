"""`policy sft`: learn from demonstrations; the loss counts response tokens and the end token.

Rows of split "train", and rows without a split, are trained on; "dev" rows measure the loss after
each epoch; "test" rows are left alone.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from policy.backbone import context_of, load_causal_lm, logits_at, save_model
from policy.config import BadInput, SFTConfig, load_config, require
from policy.data import Demonstration, read_demonstrations, trained_on
from policy.optim import adamw, clip_grad_norm, lr_at, require_finite, set_lr
from policy.packing import length_batches, pad_right
from policy.run import Run, add_training_arguments, device_from, generator_for
from policy.text import encode_completion, render_prompt

OnStep = Callable[[int, dict[str, float]], None]
"""Called with the number of steps done and what was logged."""


@dataclass(frozen=True, slots=True)
class Example:
    """A demonstration as tokens: those from `response_start` on are learned."""

    ids: list[int]
    response_start: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """Examples, and what happened to the rows that did not fit."""

    examples: list[Example]
    too_long: int
    """Rows left out: not even a part of the prompt fits beside the completion."""
    prompts_cut: int
    """Rows whose prompt lost turns or its beginning."""


def encode(tokenizer: Any, rows: Sequence[Demonstration], max_tokens: int) -> Encoded:
    """Rows as examples of at most max_tokens. The completion stays whole; the prompt gives way."""
    examples: list[Example] = []
    too_long = prompts_cut = 0
    for row in rows:
        response = encode_completion(tokenizer, row.completion)
        try:
            prompt = render_prompt(tokenizer, row.messages, max_tokens - len(response))
        except BadInput:
            too_long += 1
            continue
        prompts_cut += prompt.dropped_turns > 0
        examples.append(Example([*prompt.ids, *response], len(prompt.ids)))
    return Encoded(examples, too_long, prompts_cut)


@dataclass(frozen=True, slots=True)
class Batch:
    """B examples, padded on the right to T columns."""

    ids: Tensor  # (B, T)
    mask: Tensor  # (B, T) True = real token
    response_mask: Tensor  # (B, T) True = a token that is learned

    @classmethod
    def of(cls, examples: Sequence[Example], pad: int, device: str = "cpu") -> "Batch":
        """Pad the examples."""
        ids, mask = pad_right([example.ids for example in examples], pad)
        starts = torch.tensor([example.response_start for example in examples])
        response_mask = mask & (torch.arange(ids.shape[1]) >= starts[:, None])
        return cls(ids.to(device), mask.to(device), response_mask.to(device))


def response_nats(model: Any, batch: Batch) -> Tensor:
    """(tokens,) nats of each learned token given what stands before it."""
    learned = batch.response_mask[:, 1:]
    foretell = functional.pad(learned, (0, 1))  # (B, T) places whose next token is learned
    logits = logits_at(model, batch.ids, batch.mask, foretell)  # (tokens, V)
    return functional.cross_entropy(logits, batch.ids[:, 1:][learned], reduction="none")


def train(
    config: SFTConfig,
    data: Path | str,
    init: Path | str,
    out: Path | str,
    *,
    resume_from: Sequence[Path | str] = (),
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> None:
    """Train and publish into `out`. Raises BadInput, Stopped or Diverged (policy/config.py)."""
    rows = read_demonstrations(data)
    model, tokenizer = load_causal_lm(init, device=device)
    max_tokens = min(config.max_tokens, context_of(model))
    encoded = encode(tokenizer, [row for row in rows if trained_on(row.split)], max_tokens)
    dev = encode(tokenizer, [row for row in rows if row.split == "dev"], max_tokens)
    require(
        bool(encoded.examples),
        f"{data} has no row to train on: {len(rows)} rows, {encoded.too_long} of the train split "
        f"too long for {max_tokens} tokens",
    )
    steps_per_epoch = -(-len(encoded.examples) // config.rows_per_step)
    total = config.epochs * steps_per_epoch
    model.train()
    optimizer = adamw(
        model, lr=config.lr_peak, weight_decay=config.weight_decay, beta2=config.beta2
    )
    with Run(
        out,
        command="policy sft",
        config=config,
        inputs={"data": data, "init": init},
        resume_from=resume_from,
    ) as run:
        if run.restored:
            run.restored.restore("model", model)
            optimizer.load_state_dict(run.restored.state["optimizer"])
        else:
            run.log_step(
                0,
                "data",
                rows_trained=len(encoded.examples),
                rows_dev=len(dev.examples),
                rows_too_long=encoded.too_long + dev.too_long,
                prompts_cut=encoded.prompts_cut + dev.prompts_cut,
            )
        lengths = [len(example.ids) for example in encoded.examples]
        for step in range(run.first_step, total):
            epoch, place = divmod(step, steps_per_epoch)
            generator = generator_for(config.seed, epoch, "batches")
            chosen = length_batches(lengths, config.rows_per_step, generator)[place]
            batch = Batch.of(
                [encoded.examples[row] for row in chosen], tokenizer.pad_token_id, device
            )
            lr = lr_at(
                step,
                total=total,
                peak=config.lr_peak,
                warmup=int(total * config.warmup_fraction),
                shape="cosine",
            )
            set_lr(optimizer, lr)
            numbers = train_step(model, batch, optimizer, config)
            done = step + 1
            run.log_step(done, "train", **numbers, lr=lr)
            if dev.examples and done % steps_per_epoch == 0:
                dev_loss = mean_nats(model, dev.examples, tokenizer.pad_token_id, device)
                run.log_step(done, "dev", loss=dev_loss, epoch=epoch + 1)
                numbers["dev_loss"] = dev_loss
            run.progress(done, total, "sft")
            if on_step is not None:
                on_step(done, numbers)
            if done < total and (run.should_stop or done % config.checkpoint_every == 0):
                run.save_checkpoint(
                    done, modules={"model": model}, state={"optimizer": optimizer.state_dict()}
                )
                if run.should_stop:
                    run.stop_here(done)
        run.finish(lambda folder: save_model(model.eval(), tokenizer, folder))


def train_step(
    model: Any, batch: Batch, optimizer: torch.optim.Optimizer, config: SFTConfig
) -> dict[str, float]:
    """One step; the loss is the mean over the batch's learned tokens, in nats."""
    nats = response_nats(model, batch)
    loss = nats.mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    grad_norm = clip_grad_norm(model, config.max_grad_norm)
    require_finite(loss=loss, grad_norm=grad_norm)
    optimizer.step()
    return {"loss": loss.item(), "grad_norm": grad_norm.item(), "tokens": nats.numel()}


@torch.no_grad()
def mean_nats(model: Any, examples: Sequence[Example], pad: int, device: str) -> float:
    """Nats per learned token over all examples (not a mean of batch means)."""
    ordered = sorted(examples, key=lambda example: len(example.ids))
    parts = [
        response_nats(model, Batch.of(ordered[at : at + 32], pad, device)).double()
        for at in range(0, len(ordered), 32)
    ]
    return float(torch.cat(parts).mean())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--data", required=True, type=Path, metavar="FILE")
    parser.add_argument("--init", required=True, metavar="DIR", help="a model folder or hub name")
    add_training_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    """`python -m policy sft`."""
    config = load_config(SFTConfig, args.config, args.overrides)
    train(
        config,
        args.data,
        args.init,
        args.out,
        resume_from=args.resume_from,
        device=device_from(args.device),
    )
    return 0
