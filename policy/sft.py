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
from torch.nn import functional

from policy.backbone import context_of, load_causal_lm, save_model
from policy.checkpoint import fingerprint, tensors_of
from policy.config import BadInput, SFTConfig, load_config, require
from policy.data import Demonstration, read_demonstrations, trained_on
from policy.lines import Lines, packed
from policy.lora import add_adapters, merge_adapters
from policy.optim import adamw, lr_at, set_lr
from policy.packing import NO_TOKEN, length_batches, pad_right
from policy.processes import ALONE, Processes, joined, opened, require_room
from policy.reading import Reading, train_step
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


def lines_of(examples: Sequence[Example], pad: int) -> Lines:
    """One example a line."""
    ids, mask = pad_right([example.ids for example in examples], pad)
    starts = torch.tensor([example.response_start for example in examples])
    learned = mask & (torch.arange(ids.shape[1]) >= starts[:, None])
    targets = functional.pad(ids.masked_fill(~learned, NO_TOKEN)[:, 1:], (0, 1), value=NO_TOKEN)
    return Lines(ids, mask, targets)


def packed_lines(examples: Sequence[Example], pad: int, max_tokens: int) -> Lines:
    """Several examples a line, each apart."""
    rows, starts = zip(*((each.ids, each.response_start) for each in examples), strict=True)
    return packed(rows, starts, max_tokens, pad)


def train(
    config: SFTConfig,
    data: Path | str,
    init: Path | str,
    out: Path | str,
    *,
    resume_from: Sequence[Path | str] = (),
    device: str = "cpu",
    processes: Processes = ALONE,
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
    pad = tokenizer.pad_token_id
    steps_per_epoch = -(-len(encoded.examples) // config.rows_per_step)
    total = config.epochs * steps_per_epoch
    reading = Reading(model, config)
    packs = config.packed and reading.apart
    if config.lora_rank:
        add_adapters(model, rank=config.lora_rank, seed=config.seed, head_learns=False)
    model.train()
    optimizer = adamw(
        model, lr=config.lr_peak, weight_decay=config.weight_decay, beta2=config.beta2
    )
    with opened(
        processes,
        lambda: Run(
            out,
            command="policy sft",
            config=config,
            inputs={"data": data, "init": init},
            resume_from=resume_from,
            num_processes=processes.count,
        ),
    ) as run:
        require_room(processes, run, {"model": model}, total=total, every=config.checkpoint_every)
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
            run.log_step(0, "forward", **reading.described(), packed=int(packs))
        lengths = [len(example.ids) for example in encoded.examples]
        for step in range(run.first_step, total):
            epoch, place = divmod(step, steps_per_epoch)
            generator = generator_for(config.seed, epoch, "batches")
            chosen = length_batches(lengths, config.rows_per_step, generator)[place]
            examples = [encoded.examples[row] for row in chosen]
            lines = packed_lines(examples, pad, max_tokens) if packs else lines_of(examples, pad)
            lr = lr_at(
                step,
                total=total,
                peak=config.lr_peak,
                warmup=int(total * config.warmup_fraction),
                shape="cosine",
            )
            set_lr(optimizer, lr)
            numbers = train_step(
                reading, lines, optimizer, max_grad_norm=config.max_grad_norm, processes=processes
            )
            numbers["tokens"] = lines.num_learned
            done = step + 1
            run.log_step(done, "train", **numbers, lr=lr)
            if dev.examples and done % steps_per_epoch == 0:
                dev_loss = processes.from_first(lambda: mean_nats(reading, dev.examples, pad))
                run.log_step(done, "dev", loss=dev_loss, epoch=epoch + 1)
                numbers["dev_loss"] = dev_loss
            run.progress(done, total, "sft")
            if on_step is not None:
                on_step(done, numbers)
            should_stop = processes.any(run.should_stop)
            if done < total and (should_stop or done % config.checkpoint_every == 0):
                run.save_checkpoint(
                    done, modules={"model": model}, state={"optimizer": optimizer.state_dict()}
                )
                processes.wait()
                if should_stop:
                    run.stop_here(done)
        fingerprints = {
            "weights": fingerprint(tensors_of(model)),
            "optimizer": fingerprint(optimizer.state_dict()),
        }
        run.finish(
            lambda folder: save_model(merge_adapters(model).eval(), tokenizer, folder), fingerprints
        )


@torch.no_grad()
def mean_nats(reading: Reading, examples: Sequence[Example], pad: int) -> float:
    """Nats per learned token over all examples (not a mean of batch means)."""
    ordered = sorted(examples, key=lambda example: len(example.ids))
    device = reading.model.device
    with reading.eagerly():
        parts = [
            reading.nats(lines_of(ordered[at : at + 32], pad).to(device)).double()
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
    with joined(device_from(args.device)) as (processes, device):
        train(
            config,
            args.data,
            args.init,
            args.out,
            resume_from=args.resume_from,
            device=device,
            processes=processes,
        )
    return 0
