"""`policy pretrain`: a tokenizer and a tiny GPT from text, by next-token loss.

Data files: `.txt` holds documents separated by blank lines; `.jsonl` holds one document per row, as
`text`, or as `messages` (a conversation that ends with the assistant's answer), which is rendered
by policy/text.py, so that a corpus can teach the chat format. Documents stand one behind the other
in packed windows, each with its end token; or, `packed` false, each is a row of its own.
"""

import argparse
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from policy.backbone import GPTShape, forward_logits, load_tokenizer, new_gpt, save_model
from policy.config import BadInput, PretrainConfig, load_config, require
from policy.data import Message, checked_messages, numbered_rows
from policy.optim import (
    MuonWithAdamW,
    clip_grad_norm,
    lr_at,
    optimizer_for,
    require_finite,
    set_lr,
)
from policy.packing import (
    NO_TOKEN,
    document_rows,
    epoch_windows,
    length_batches,
    pad_right,
    stream,
    windows,
)
from policy.run import Run, add_training_arguments, device_from, generator_for, seed_for
from policy.sampling import sample
from policy.text import decode_completion, encode_document, render_conversation
from policy.tokenizer import train_tokenizer

SAMPLES = "samples"
NUM_SAMPLES = 4
SAMPLE_TOKENS = 64

OnStep = Callable[[int, dict[str, float]], None]
"""Called with the number of steps done and what was logged."""


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of the corpus: a text, or a conversation."""

    text: str | None
    messages: list[Message] | None

    @property
    def texts(self) -> list[str]:
        """What the tokenizer learns from, and what bits-per-byte counts the bytes of."""
        if self.messages is not None:
            return [message["content"] for message in self.messages]
        return [self.text or ""]

    def encode(self, tokenizer: Any) -> list[int]:
        """Token ids with the end token last."""
        if self.messages is not None:
            return render_conversation(tokenizer, self.messages)
        return encode_document(tokenizer, self.text or "")


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is trained on, and the tail that is not."""

    train: list[Document]
    heldout: list[Document]


def read_corpus(paths: Sequence[Path | str], heldout_fraction: float) -> Corpus:
    """Documents of all files; the last heldout_fraction of each file's is held out, rounded down.

    Raises BadInput naming the file (and line) for what cannot be read, and if nothing is there.
    """
    train: list[Document] = []
    heldout: list[Document] = []
    for path in paths:
        documents = read_documents(path)
        require(bool(documents), f"{path} holds no document")
        cut = len(documents) - int(len(documents) * heldout_fraction)
        train += documents[:cut]
        heldout += documents[cut:]
    return Corpus(train, heldout)


def read_documents(path: Path | str) -> list[Document]:
    """The documents of one .txt or .jsonl file, in order."""
    suffix = Path(path).suffix
    require(suffix in (".txt", ".jsonl"), f"{path} must end in .txt or .jsonl")
    if suffix == ".txt":
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise BadInput(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
        pieces = (piece.strip("\n") for piece in re.split(r"\n[ \t\r]*\n", text))
        return [Document(piece, None) for piece in pieces if piece.strip()]
    documents: list[Document] = []
    for number, row in numbered_rows(path):
        where = f"{path} line {number}"
        if "messages" in row:
            messages = checked_messages(row["messages"], where)
            require(
                len(messages) > 1 and messages[-1]["role"] == "assistant",
                f"{where}: the messages of a document must end with the assistant's answer",
            )
            documents.append(Document(None, messages))
            continue
        written = row.get("text")
        require(
            isinstance(written, str) and bool(written.strip()),
            f"{where} needs a text that is not empty, or messages; text is {written!r}",
        )
        documents.append(Document(written, None))
    return documents


def train(
    config: PretrainConfig,
    data: Sequence[Path | str],
    out: Path | str,
    *,
    resume_from: Sequence[Path | str] = (),
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> None:
    """Train and publish into `out`. Raises BadInput, Stopped or Diverged (policy/config.py)."""
    corpus = read_corpus(data, config.heldout_fraction)
    inputs: dict[str, Path | str] = {f"data.{i}": path for i, path in enumerate(data)}
    if config.tokenizer is not None:
        inputs["tokenizer"] = config.tokenizer
    tokenizer = tokenizer_for(config, corpus)
    order = order_of([document.encode(tokenizer) for document in corpus.train], config)
    tail = [document.encode(tokenizer) for document in corpus.heldout]
    tail_bytes = sum(len(text.encode()) for doc in corpus.heldout for text in doc.texts)
    shape = GPTShape(
        width=config.width, layers=config.layers, heads=config.heads, context=config.context
    )
    model = new_gpt(tokenizer, shape, seed=config.seed, device=device).train()
    optimizer = optimizer_for(
        config.optimizer,
        model,
        lr=config.lr_peak,
        weight_decay=config.weight_decay,
        beta2=config.beta2,
    )
    with Run(
        out,
        command="policy pretrain",
        config=config,
        inputs=inputs,
        resume_from=resume_from,
        carried=(SAMPLES,),
    ) as run:
        if run.restored:
            run.restored.restore("model", model)
            optimizer.load_state_dict(run.restored.state["optimizer"])
        for step in range(run.first_step, config.steps):
            lr = lr_at(
                step,
                total=config.steps,
                peak=config.lr_peak,
                warmup=config.warmup_steps,
                shape="cosine",
                final=config.lr_peak * config.lr_final_fraction,
            )
            set_lr(optimizer, lr)
            numbers = train_step(model, order.batch(step).to(device), optimizer, config)
            done = step + 1
            run.log_step(done, "train", **numbers, lr=lr)
            if tail and (done % config.eval_every == 0 or done == config.steps):
                bits = heldout_bits(model, tail, tail_bytes, config, device)
                run.log_step(done, "heldout", bits_per_byte=bits)
                numbers["heldout_bits_per_byte"] = bits
            if config.sample_every and (done % config.sample_every == 0 or done == config.steps):
                write_samples(model, tokenizer, run.directory / SAMPLES, done, config)
            run.progress(done, config.steps, "pretrain")
            if on_step is not None:
                on_step(done, numbers)
            if done < config.steps and (run.should_stop or done % config.checkpoint_every == 0):
                run.save_checkpoint(
                    done, modules={"model": model}, state={"optimizer": optimizer.state_dict()}
                )
                if run.should_stop:
                    run.stop_here(done)
        run.finish(lambda folder: save_model(model.eval(), tokenizer, folder))


def tokenizer_for(config: PretrainConfig, corpus: Corpus) -> Any:
    """The tokenizer named in the config, or one trained on the corpus (not on its tail)."""
    if config.tokenizer is not None:
        tokenizer = load_tokenizer(config.tokenizer)
        require(
            tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id,
            f"the tokenizer {config.tokenizer} needs a pad token of its own",
        )
        return tokenizer
    texts = (text for document in corpus.train for text in document.texts)
    return train_tokenizer(texts, vocab_size=config.vocab_size, context=config.context)


class DocumentOrder:
    """Which documents a step sees: a function of the step, as in WindowOrder.

    A model sees nothing but the document itself, so it soon learns to look for an answer's words in
    its own question; in a packed window it first has to learn where the question begins.
    """

    def __init__(self, rows: Sequence[list[int]], config: PretrainConfig) -> None:
        require(bool(rows), "the data holds no document of two tokens")
        self._rows = rows
        self._config = config
        self._epochs: dict[int, list[list[int]]] = {}
        self._per_epoch = -(-len(rows) // config.windows_per_step)

    def batch(self, step: int) -> Tensor:
        """(windows_per_step or fewer, longest) long, NO_TOKEN behind the shorter ones."""
        epoch, place = divmod(step, self._per_epoch)
        if epoch not in self._epochs:
            generator = generator_for(self._config.seed, epoch, "documents")
            lengths = [len(row) for row in self._rows]
            batches = length_batches(lengths, self._config.windows_per_step, generator)
            self._epochs = {epoch: batches}
        chosen = [self._rows[number] for number in self._epochs[epoch][place]]
        return pad_right(chosen, NO_TOKEN)[0]


def order_of(
    documents: Sequence[Sequence[int]], config: PretrainConfig
) -> "DocumentOrder | WindowOrder":
    """The order of training over documents given as token ids."""
    if not config.packed:
        return DocumentOrder(document_rows(documents, config.context), config)
    tokens = stream(documents)
    require(
        len(tokens) > config.context,
        f"the data makes {len(tokens)} tokens, one window takes {config.context + 1}",
    )
    return WindowOrder(tokens, config)


class WindowOrder:
    """Which windows a step sees: a function of the step, so that a resumed run goes on as before.

    Steps take windows one after another through epochs; each epoch is shuffled by its own number.
    """

    def __init__(self, tokens: Tensor, config: PretrainConfig) -> None:
        self._tokens = tokens
        self._config = config
        self._epochs: dict[int, Tensor] = {}
        self._per_epoch = (len(tokens) - 1) // config.context

    def batch(self, step: int) -> Tensor:
        """(windows_per_step, context + 1) long."""
        rows = self._config.windows_per_step
        first = step * rows
        picked = [self._window(number) for number in range(first, first + rows)]
        return torch.stack(picked)

    def _window(self, number: int) -> Tensor:
        epoch, place = divmod(number, self._per_epoch)
        return self._windows_of(epoch)[place]

    def _windows_of(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            generator = generator_for(self._config.seed, epoch, "windows")
            self._epochs = {epoch: epoch_windows(self._tokens, self._config.context, generator)}
        return self._epochs[epoch]


def train_step(
    model: Any,
    batch: Tensor,
    optimizer: "torch.optim.Optimizer | MuonWithAdamW",
    config: PretrainConfig,
) -> dict[str, float]:
    """One step on (B, context + 1) tokens: mean nats per token, and the gradient's norm before."""
    loss = next_token_nats(model, batch).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    grad_norm = clip_grad_norm(model, config.max_grad_norm)
    require_finite(loss=loss, grad_norm=grad_norm)
    optimizer.step()
    return {"loss": loss.item(), "grad_norm": grad_norm.item()}


def next_token_nats(model: Any, batch: Tensor) -> Tensor:
    """(tokens,) nats of each token after the first of every row; NO_TOKEN counts as nothing."""
    real = batch != NO_TOKEN
    ids = batch.clamp(min=0)[:, :-1]
    logits = forward_logits(model, ids, real[:, :-1])  # (B, T, V)
    counts = real[:, 1:]
    return cross_entropy(logits[counts], batch[:, 1:][counts], reduction="none")


@torch.no_grad()
def heldout_bits(
    model: Any,
    tail: Sequence[Sequence[int]],
    tail_bytes: int,
    config: PretrainConfig,
    device: str,
) -> float:
    """Bits per byte of documents that are not trained on, read as training reads."""
    if config.packed:
        return bits_per_byte(model, stream(tail).to(device), tail_bytes, config.context)
    rows = sorted(document_rows(tail, config.context), key=len)
    batches = (pad_right(rows[at : at + 16], NO_TOKEN)[0] for at in range(0, len(rows), 16))
    nats = sum(float(next_token_nats(model, batch.to(device)).double().sum()) for batch in batches)
    return nats / math.log(2) / tail_bytes


@torch.no_grad()
def bits_per_byte(model: Any, tail: Tensor, tail_bytes: int, context: int) -> float:
    """Nats of every token of the tail but its first, in bits, over the bytes of its texts.

    End and role tokens are counted in the sum and have no bytes: a tokenizer cannot hide behind
    its vocabulary. Windows do not see each other, so a token may lack what stood before it.
    """
    whole = windows(tail, context)
    rest = tail[len(whole) * context :]
    nats = sum(
        float(next_token_nats(model, rows).double().sum()) for rows in whole.split(16) if len(rows)
    )
    if len(rest) > 1:
        nats += float(next_token_nats(model, rest[None]).double().sum())
    return nats / math.log(2) / tail_bytes


def write_samples(
    model: Any, tokenizer: Any, folder: Path, step: int, config: PretrainConfig
) -> None:
    """What the model writes from nothing but the start token, for people to look at."""
    start = tokenizer.bos_token_id
    start = tokenizer.eos_token_id if start is None else start
    length = min(SAMPLE_TOKENS, config.context - 1)
    rows = sample(
        model,
        tokenizer,
        [[start]] * NUM_SAMPLES,
        temperature=0.7,
        max_new_tokens=length,
        seeds=[seed_for(config.seed, step, "look", row) for row in range(NUM_SAMPLES)],
    )
    texts = [decode_completion(tokenizer, row.tokens) for row in rows]
    (folder / f"step-{step:06d}.txt").write_text("\n---\n".join(texts) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--data", required=True, nargs="+", type=Path, metavar="FILE")
    add_training_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    """`python -m policy pretrain`."""
    config = load_config(PretrainConfig, args.config, args.overrides)
    train(
        config,
        args.data,
        args.out,
        resume_from=args.resume_from,
        device=device_from(args.device),
    )
    return 0
