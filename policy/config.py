"""Settings of the training commands, and the errors that every laboratory shares.

A stage has one frozen dataclass. It is read from a JSON file and `name=value` words, checked at
birth, and travels as JSON in run.json, in checkpoints and in the ledger's TrainingJob.

    ValueError
      BadInput        what the caller gave cannot be used     -> exit 2
    RuntimeError
      Diverged        a number left the finite ones, or KL its budget  -> exit 4
    Exception
      Stopped         asked to stop; a checkpoint was saved   -> exit 3
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("fp32", "bf16", "auto")


class BadInput(ValueError):
    """What the caller gave cannot be used; the message is one sentence with the value seen."""


class Diverged(RuntimeError):
    """Training left the numbers that make sense (NaN, infinity, KL beyond its budget)."""


class Stopped(Exception):
    """The run was asked to stop; its checkpoint lies on disk."""


def require(condition: bool, message: str) -> None:
    """Raise BadInput(message) unless condition holds."""
    if not condition:
        raise BadInput(message)


def require_all_positive(config: object, *names: str) -> None:
    """Raise BadInput naming the first of these fields that is not above zero."""
    for name in names:
        value = getattr(config, name)
        require(value > 0, f"{name} must be above 0: {value}")


def refuse_idle(config: Any, *names: str, where: str, may_be_off: bool = True) -> None:
    """Raise BadInput for the first of these settings that was given a value though it does nothing.

    Nobody would notice that the value is not heeded. where: when they do nothing, in words that
    name the other setting. may_be_off: 0, false and null say what is so, and may be given.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in names:
        value, default = getattr(config, name), defaults[name]
        require(
            value == default or (may_be_off and not value),
            f"{name} {json.dumps(value)} does nothing {where}; leave it out, or at its default of "
            f"{json.dumps(default)}",
        )


def require_optimizer(name: str) -> None:
    """Raise BadInput for a name that is not in OPTIMIZERS."""
    require(name in OPTIMIZERS, f"optimizer must be one of {', '.join(OPTIMIZERS)}: {name!r}")


def require_precision(name: str) -> None:
    """Raise BadInput for a name that is not in PRECISIONS."""
    require(name in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}: {name!r}")


SIZES: dict[str, dict[str, int]] = {
    "tiny": {"width": 160, "layers": 4, "heads": 5, "context": 256},
    "mini": {"width": 384, "layers": 6, "heads": 6, "context": 512},
    "small": {"width": 512, "layers": 9, "heads": 8, "context": 512},
    "base": {"width": 768, "layers": 12, "heads": 12, "context": 1024},
}
"""Shapes by name; without the embeddings 1.3, 12, 31 and 92 million parameters."""
OBJECTIVES = ("causal", "masked")
SCHEDULES = ("cosine", "wsd")


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """Tokenizer and a tiny GPT (Llama-shaped) from plain text. About 1.7 million parameters."""

    tokenizer: str | None = None
    """Directory of a tokenizer to reuse; None trains a byte-level BPE on the data."""
    vocab_size: int = 2560
    """Tokens of the trained tokenizer, the six special ones and 256 bytes included."""
    objective: str = "causal"
    """`causal`: a GPT that foretells the next token. `masked`: an encoder (ModernBERT's shape) that
    restores hidden tokens, for reward models to start from; it cannot be a policy."""
    mask_fraction: float = 0.15
    """Share of the tokens that a masked objective asks for."""
    size: str | None = "tiny"
    """`tiny`, `mini`, `small` or `base`: what the next four are where they are 0. Of a shape that
    is none of these it becomes null, which wants all four."""
    width: int = 0
    """Model dimension D."""
    layers: int = 0
    """Blocks of attention and feed-forward; 0 is what size says, and so with the next two."""
    heads: int = 0
    """Of attention; width is a multiple of twice as many."""
    context: int = 0
    """Longest sequence in tokens; also the length of a packed training window."""
    steps: int = 280
    """Optimizer steps. Steps decide, never seconds, so that a run can be repeated."""
    packed: bool = True
    """True: windows of `context` tokens cut from documents that stand one behind the other.
    False: each document is a row of its own, which teaches short conversations sooner."""
    documents_apart: bool = False
    """In a packed window a token sees its own document alone, positions begin with it, and no
    document's first token is foretold from another."""
    data_weights: list[float] | None = None
    """One for each data file: its expected share of the trained tokens. Null: as long as it is."""
    windows_per_step: int = 8
    """Packed windows, or documents, in one optimizer step."""
    tokens_per_forward: int | None = None
    """Padded tokens that go through the model at once; the gradients of a step's pieces add up.
    Null is the whole step. Changes memory and speed, no result beyond rounding."""
    precision: str = "fp32"
    """`fp32`, `bf16` (autocast: weights, loss and optimizer stay fp32), or `auto`: bf16 where the
    device multiplies in it."""
    compile: bool = False
    """torch.compile, where a compiler is found: a minute or more at the start, then faster. The
    bits of a resumed run are promised without it."""
    gradient_checkpointing: bool = False
    """Compute the layers again on the way back instead of keeping them: less memory, a third
    slower."""
    optimizer: str = "adamw"
    """`adamw`, or `muon` for the matrices of the layers (policy/optim.py)."""
    schedule: str = "cosine"
    """`cosine` falls all the way; `wsd` stays at lr_peak and falls at the end (policy/optim.py)."""
    decay_fraction: float = 0.2
    """Share of the steps over which wsd falls."""
    lr_peak: float = 3e-3
    """For one to three million parameters; a 100M model wants about a tenth."""
    lr_final_fraction: float = 0.05
    """The schedule ends at this fraction of lr_peak."""
    warmup_steps: int = 30
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = 0.1
    """AdamW's, on matrices alone."""
    beta2: float = 0.98
    """AdamW's second-moment decay; short runs want it below 0.999."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""
    heldout_fraction: float = 0.02
    """Share of each file's documents, taken from its end, that bits-per-byte is measured on."""
    eval_every: int = 70
    """Steps between two measurements on the held-out tail (also once at the end)."""
    sample_every: int = 140
    """Steps between two looks at what the model writes; 0 = never."""
    checkpoint_every: int = 50
    """Steps between two checkpoints."""
    seed: int = 0
    """Draws the weights and orders the windows."""

    def __post_init__(self) -> None:
        for name, known in (("objective", OBJECTIVES), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            require(value in known, f"{name} must be one of {', '.join(known)}: {value!r}")
        self._take_shape()
        require_all_positive(
            self,
            *("width", "layers", "heads", "context", "steps", "windows_per_step"),
            *("lr_peak", "max_grad_norm", "eval_every", "checkpoint_every"),
        )
        require_optimizer(self.optimizer)
        require_precision(self.precision)
        require_tokens_per_forward(self.tokens_per_forward)
        require(self.vocab_size >= 270, f"vocab_size must be >= 270 (bytes): {self.vocab_size}")
        require(
            self.width % self.heads == 0,
            f"width must be a multiple of heads: width {self.width}, heads {self.heads}",
        )
        require(
            self.width % (2 * self.heads) == 0,
            f"a head's width must be even, for its positions: {self.width} / {self.heads}",
        )
        require(self.warmup_steps >= 0, f"warmup_steps must be >= 0: {self.warmup_steps}")
        require(self.sample_every >= 0, f"sample_every must be >= 0: {self.sample_every}")
        require(self.weight_decay >= 0, f"weight_decay must be >= 0: {self.weight_decay}")
        for name in ("beta2", "heldout_fraction"):
            require(
                0 <= getattr(self, name) < 1, f"{name} must be in [0, 1): {getattr(self, name)}"
            )
        for name in ("mask_fraction", "decay_fraction"):
            require(0 < getattr(self, name) < 1, f"{name} must be in (0, 1): {getattr(self, name)}")
        require(
            0 <= self.lr_final_fraction <= 1,
            f"lr_final_fraction must be in [0, 1]: {self.lr_final_fraction}",
        )
        require(
            not self.documents_apart or (self.packed and self.objective == "causal"),
            f"documents_apart is for packed windows of a causal model, not packed "
            f"{str(self.packed).lower()}, objective {self.objective}",
        )
        require_weights(self.data_weights)
        if self.tokenizer is not None:
            refuse_idle(self, "vocab_size", where="with a tokenizer that is there already")
        if self.objective == "causal":
            refuse_idle(self, "mask_fraction", where="with objective causal")
        else:
            refuse_idle(self, "sample_every", where="with objective masked")
        if self.schedule == "cosine":
            refuse_idle(self, "decay_fraction", where="with schedule cosine")

    def _take_shape(self) -> None:
        """Make width, layers, heads and context what the run is, for run.json, and size its name.

        What is given of the four wins. Raises BadInput where all four are, and are no such size.
        """
        own = {name: value for name in SIZES["tiny"] if (value := getattr(self, name))}
        said = ", ".join(f"{name} {value}" for name, value in own.items())
        if self.size is None:
            missing = [name for name in SIZES["tiny"] if name not in own]
            require(not missing, f"size null wants all four: {', '.join(missing)} not given")
        else:
            known = f"size must be one of {', '.join(SIZES)}, or null: {self.size!r}"
            require(self.size in SIZES, known)
            shape = SIZES[self.size] | own
            require(
                self.size == "tiny" or shape == SIZES[self.size] or shape != own,
                f"size {self.size} does nothing with {said} given; leave one or the other out",
            )
            for name, value in shape.items():
                object.__setattr__(self, name, value)
            if shape != SIZES[self.size]:
                object.__setattr__(self, "size", None)


@dataclass(frozen=True, kw_only=True, slots=True)
class SFTConfig:
    """Demonstrations; the loss counts response tokens and the end token only."""

    epochs: int = 3
    """Passes over the demonstrations."""
    rows_per_step: int = 16
    """Demonstrations in one optimizer step."""
    max_tokens: int = 256
    """Longest prompt plus completion; a longer prompt loses its oldest turns, a longer
    completion drops the row. Never above the model's own context."""
    packed: bool = False
    """Lay short examples one behind another into lines, each of which sees itself alone: less
    padding, the same loss. A model for which that is not exact reads one example a line."""
    lora_rank: int = 0
    """Of adapters beside the trunk's matrices, which then stand still, as the head does; 0 trains
    all weights. 16 is usual, with ten times the learning rate of a full training."""
    tokens_per_forward: int | None = None
    """Padded tokens that go through the model at once; the gradients of a step's pieces add up.
    Null is the whole step. Changes memory and speed, no result beyond rounding."""
    precision: str = "fp32"
    """`fp32`, `bf16` (autocast: weights, loss and optimizer stay fp32), or `auto`: bf16 where the
    device multiplies in it."""
    compile: bool = False
    """torch.compile, where a compiler is found: a minute or more at the start, then faster. The
    bits of a resumed run are promised without it."""
    gradient_checkpointing: bool = False
    """Compute the layers again on the way back instead of keeping them: less memory, a third
    slower."""
    lr_peak: float = 1e-3
    """For one to three million parameters; 1e-5 to 2e-5 is usual from 100M up."""
    warmup_fraction: float = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = 0.01
    """AdamW's, on matrices alone."""
    beta2: float = 0.98
    """AdamW's second-moment decay; short runs want it below 0.999."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""
    checkpoint_every: int = 50
    """Steps between two checkpoints."""
    seed: int = 0
    """Orders the demonstrations."""

    def __post_init__(self) -> None:
        require_all_positive(
            self,
            *("epochs", "rows_per_step", "max_tokens", "lr_peak"),
            *("max_grad_norm", "checkpoint_every"),
        )
        require_tokens_per_forward(self.tokens_per_forward)
        require_precision(self.precision)
        require(
            0 <= self.warmup_fraction < 1,
            f"warmup_fraction must be in [0, 1): {self.warmup_fraction}",
        )
        for name in ("weight_decay", "lora_rank"):
            require(getattr(self, name) >= 0, f"{name} must be >= 0: {getattr(self, name)}")
        require(0 <= self.beta2 < 1, f"beta2 must be in [0, 1): {self.beta2}")


def require_tokens_per_forward(tokens: int | None) -> None:
    """Raise BadInput unless it is None or above zero."""
    require(tokens is None or tokens > 0, f"tokens_per_forward must be null or above 0: {tokens}")


def require_weights(weights: Sequence[Any] | None) -> None:
    """Raise BadInput unless these are finite numbers from 0 up, one of them above 0; or None."""
    if weights is None:
        return
    for weight in weights:
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        require(
            is_number and math.isfinite(weight) and weight >= 0,
            f"each of data_weights must be a number from 0 up: {weight!r}",
        )
    require(any(weights), f"one of data_weights must be above 0: {list(weights)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """How completions are drawn: temperature only, never top-k or top-p."""

    n: int = 2
    """Completions per prompt."""
    temperature: float = 0.7
    """0 = greedy."""
    max_new_tokens: int = 96
    """Longest answer, in tokens."""
    max_prompt_tokens: int | None = None
    """None: whatever the model's context leaves beside max_new_tokens."""
    rows_per_batch: int = 64
    """Answers written at once; changes memory and speed, no result."""
    split: str | None = None
    """Only prompts of this split; None takes all."""
    seed: int = 0
    """Draws the answers."""

    def __post_init__(self) -> None:
        require_all_positive(self, "n", "max_new_tokens", "rows_per_batch")
        require(self.temperature >= 0, f"temperature must be >= 0: {self.temperature}")
        require(
            self.max_prompt_tokens is None or self.max_prompt_tokens > 0,
            f"max_prompt_tokens must be above 0: {self.max_prompt_tokens}",
        )


Config = TypeVar("Config")


def load_config(cls: type[Config], path: Path | str | None, overrides: Sequence[str]) -> Config:
    """An instance of the dataclass `cls` from a JSON file, then from `name=value` words.

    A word's value is read as JSON and, where that fails, as a string. Raises BadInput for a file
    that is not a JSON object, an unknown key (with the known ones) and a value of a wrong type.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values.update(_read_object(Path(path)))
    for word in overrides:
        name, equals, text = word.partition("=")
        require(bool(equals) and bool(name), f"--set wants name=value, got {word!r}")
        values[name.strip()] = _json_or_string(text)
    return config_from(cls, values)


def config_from(cls: type[Config], values: dict[str, Any]) -> Config:
    """An instance of `cls` from plain JSON values; BadInput for unknown keys and wrong types."""
    hints = typing.get_type_hints(cls)
    for name in values:
        require(
            name in hints,
            f"{cls.__name__} has no setting {name!r}; it has {', '.join(sorted(hints))}",
        )
    return cls(**{name: _typed(hints[name], name, value) for name, value in values.items()})


def to_json(config: Any) -> dict[str, Any]:
    """The dataclass as plain JSON values, fields in order."""
    return dataclasses.asdict(config)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read the config file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the config file {path} is not JSON: {error}") from error
    require(isinstance(value, dict), f"the config file {path} must hold one JSON object")
    return dict(value)


def _json_or_string(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _typed(hint: Any, name: str, value: Any) -> Any:
    """`value` as the annotated type; the only conversion is int to float."""
    wanted = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in wanted:
        return None
    fits = not isinstance(value, int) or abs(value) < 2**63  # what a float and a seed can take
    require(fits, f"{name} must fit into 64 bits: {value!r:.80}")
    if float in wanted and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = any(type(value) is (typing.get_origin(kind) or kind) for kind in wanted)
    names = " or ".join("null" if kind is types.NoneType else kind.__name__ for kind in wanted)
    require(fits, f"{name} must be {names}: {value!r}")
    require(
        not isinstance(value, float) or math.isfinite(value), f"{name} must be finite: {value!r}"
    )
    return value
