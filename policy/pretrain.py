"""`policy pretrain`: a tokenizer and a GPT, or an encoder, from text.

The data files are policy/corpus.py's; how they become rows is policy/orders.py's. A GPT learns the
next token, an encoder (`--objective masked`) those that are hidden from it.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from policy.backbone import GPTShape, load_tokenizer, new_gpt, save_model
from policy.checkpoint import fingerprint, tensors_of
from policy.config import PretrainConfig, load_config, require
from policy.corpus import CorpusFile, Tokens, read_corpus
from policy.heldout import Tail, figures_of
from policy.lines import Lines
from policy.masked import Masking, give_mask_token, new_encoder
from policy.optim import lr_at, optimizer_for, set_lr
from policy.orders import Rows, order_of
from policy.processes import ALONE, Processes, joined, opened, require_room
from policy.reading import Reading, train_step
from policy.run import Run, add_training_arguments, device_from, generator_for, seed_for
from policy.sampling import sample
from policy.text import decode_completion
from policy.tokenizer import train_tokenizer

SAMPLES = "samples"
NUM_SAMPLES = 4
SAMPLE_TOKENS = 64

OnStep = Callable[[int, dict[str, float]], None]
"""Called with the number of steps done and what was logged."""


def train(
    config: PretrainConfig,
    data: Sequence[Path | str],
    out: Path | str,
    *,
    resume_from: Sequence[Path | str] = (),
    device: str = "cpu",
    processes: Processes = ALONE,
    on_step: OnStep | None = None,
) -> None:
    """Train and publish into `out`. Raises BadInput, Stopped or Diverged (policy/config.py)."""
    weights = config.data_weights
    require(
        weights is None or len(weights) == len(data),
        f"data_weights has {len(weights or ())} numbers for {len(data)} data files",
    )
    corpus = read_corpus(data, config.heldout_fraction)
    inputs: dict[str, Path | str] = {f"data.{i}": path for i, path in enumerate(data)}
    if config.tokenizer is not None:
        inputs["tokenizer"] = config.tokenizer
    tokenizer = tokenizer_for(config, corpus)
    files = tokens_of(corpus, tokenizer, apart=weights is not None)
    order = order_of(files, config)
    tails = tails_of(corpus, tokenizer)
    model = new_model(config, tokenizer, device).train()
    lines_of = Read(config, tokenizer)
    optimizer = optimizer_for(
        config.optimizer,
        model,
        lr=config.lr_peak,
        weight_decay=config.weight_decay,
        beta2=config.beta2,
    )
    with opened(
        processes,
        lambda: Run(
            out,
            command="policy pretrain",
            config=config,
            inputs=inputs,
            resume_from=resume_from,
            carried=(SAMPLES,),
            num_processes=processes.count,
        ),
    ) as run:
        reading = Reading(model, config)
        require(
            reading.apart or not config.documents_apart,
            "documents_apart: this model does not read the documents of a window apart",
        )
        require_room(
            processes, run, {"model": model}, total=config.steps, every=config.checkpoint_every
        )
        if run.restored:
            run.restored.restore("model", model)
            optimizer.load_state_dict(run.restored.state["optimizer"])
        else:
            tokens = sum(len(each) for each in files)
            counts = {"documents": sum(file.num_train for file in corpus), "tokens": tokens}
            run.log_step(0, "data", **counts, **reading.described())
        for step in range(run.first_step, config.steps):
            lr = lr_at(
                step,
                total=config.steps,
                peak=config.lr_peak,
                warmup=config.warmup_steps,
                shape=config.schedule,
                final=config.lr_peak * config.lr_final_fraction,
                decay=round(config.steps * config.decay_fraction),
            )
            set_lr(optimizer, lr)
            numbers = train_step(
                reading,
                lines_of.training(order.batch(step), step),
                optimizer,
                max_grad_norm=config.max_grad_norm,
                processes=processes,
            )
            done = step + 1
            run.log_step(done, "train", **numbers, lr=lr)
            if tails and (done % config.eval_every == 0 or done == config.steps):
                found = processes.from_first(lambda: figures_of(reading, tails, config, lines_of))
                run.log_step(done, "heldout", **found)
                numbers |= {f"heldout_{name}": value for name, value in found.items()}
            is_look = config.sample_every and (
                done % config.sample_every == 0 or done == config.steps
            )
            if is_look and config.objective == "causal" and processes.is_first:
                write_samples(reading, tokenizer, run.directory / SAMPLES, done, config)
            run.progress(done, config.steps, "pretrain")
            if on_step is not None:
                on_step(done, numbers)
            should_stop = processes.any(run.should_stop)
            if done < config.steps and (should_stop or done % config.checkpoint_every == 0):
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
        run.finish(lambda folder: save_model(model.eval(), tokenizer, folder), fingerprints)


def new_model(config: PretrainConfig, tokenizer: Any, device: str) -> Any:
    """A GPT or an encoder of the config's shape, with random weights."""
    shape = GPTShape(
        width=config.width, layers=config.layers, heads=config.heads, context=config.context
    )
    make = new_gpt if config.objective == "causal" else new_encoder
    return make(tokenizer, shape, seed=config.seed, device=device)


def tokenizer_for(config: PretrainConfig, corpus: Sequence[CorpusFile]) -> Any:
    """The tokenizer named in the config, or one trained on the corpus (not on its tail)."""
    if config.tokenizer is not None:
        tokenizer = load_tokenizer(config.tokenizer)
        require(
            tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id,
            f"the tokenizer {config.tokenizer} needs a pad token of its own",
        )
    else:
        texts = (text for file in corpus for document in file.train for text in document.texts)
        tokenizer = train_tokenizer(texts, vocab_size=config.vocab_size, context=config.context)
    if config.objective == "masked":
        give_mask_token(tokenizer)
    return tokenizer


def tokens_of(corpus: Sequence[CorpusFile], tokenizer: Any, *, apart: bool) -> list[Tokens]:
    """Of what is trained on: of each file where their shares are given, else of all in one."""

    def encoded(files: Sequence[CorpusFile]) -> Iterator[list[int]]:
        return (document.encode(tokenizer) for file in files for document in file.train)

    groups = [[file] for file in corpus] if apart else [list(corpus)]
    return [Tokens.of(encoded(group)) for group in groups]


def tails_of(corpus: Sequence[CorpusFile], tokenizer: Any) -> list[Tail]:
    """What is held out of each file that has something held out."""
    stems = [file.path.stem for file in corpus]
    tails = []
    for number, file in enumerate(corpus):
        if file.num_heldout:
            name = stems[number] if stems.count(stems[number]) == 1 else f"{number}"
            documents = list(file.heldout)
            tokens = Tokens.of(document.encode(tokenizer) for document in documents)
            tails.append(Tail(name, tokens, sum(each.num_bytes for each in documents)))
    return tails


class Read:
    """Rows of tokens as what the objective makes of them."""

    def __init__(self, config: PretrainConfig, tokenizer: Any) -> None:
        self._config = config
        self._masking = (
            Masking(tokenizer, config.mask_fraction) if config.objective == "masked" else None
        )

    def training(self, rows: Rows, step: int) -> Lines:
        """What a step learns."""
        return self._lines(rows, generator_for(self._config.seed, step, "masks"))

    def heldout(self, rows: Rows, batch: int) -> Lines:
        """What is measured, the same at each look and for every seed."""
        return self._lines(rows, generator_for(0, batch, "heldout masks"))

    def _lines(self, rows: Rows, generator: torch.Generator) -> Lines:
        if self._masking is None:
            return Lines.next_tokens(rows.tokens, rows.documents)
        return self._masking.lines(rows.tokens[:, : self._config.context], generator)


def write_samples(
    reading: Reading, tokenizer: Any, folder: Path, step: int, config: PretrainConfig
) -> None:
    """What the model writes from nothing but the start token, for people to look at."""
    start = tokenizer.bos_token_id
    start = tokenizer.eos_token_id if start is None else start
    length = min(SAMPLE_TOKENS, config.context - 1)
    model = reading.model
    model.eval()  # in training a model that recomputes its layers keeps no cache
    with reading.eagerly():
        rows = sample(
            model,
            tokenizer,
            [[start]] * NUM_SAMPLES,
            temperature=0.7,
            max_new_tokens=length,
            seeds=[seed_for(config.seed, step, "look", row) for row in range(NUM_SAMPLES)],
        )
    model.train()
    texts = [decode_completion(tokenizer, row.tokens) for row in rows]
    (folder / f"step-{step:06d}.txt").write_text("\n---\n".join(texts) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--data", required=True, nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--objective", metavar="NAME", help="causal or masked; short for --set objective=NAME"
    )
    add_training_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    """`python -m policy pretrain`."""
    objective = [f"objective={args.objective}"] if args.objective else []
    config = load_config(PretrainConfig, args.config, [*args.overrides, *objective])
    with joined(device_from(args.device)) as (processes, device):
        train(
            config,
            args.data,
            args.out,
            resume_from=args.resume_from,
            device=device,
            processes=processes,
        )
    return 0
