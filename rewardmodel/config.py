"""What a reward-model run may vary."""

import math
from dataclasses import dataclass

from policy.config import (
    refuse_idle,
    require,
    require_all_positive,
    require_optimizer,
    require_precision,
)
from policy.ensemble import RULES

LOSSES = ("bradley_terry", "davidson", "plackett_luce", "pointwise")
STRENGTHS = ("ignore", "margin", "soft")


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardConfig:
    epochs: int = 1
    """Passes over the comparisons; more than one soon learns the votes by heart."""
    comparisons_per_step: int = 32
    """Optimizer batch, in comparisons (one prompt with its K completions)."""
    lr_peak: float = 1e-3
    """Highest learning rate, after the warm-up; from there linear to 0. For models of 0.3 to 3
    million parameters; 5e-5 is usual at 100M and 3e-6 from 1B up (arXiv:2403.17031)."""
    optimizer: str = "adamw"
    """`adamw`, or `muon` for the matrices of the layers (policy/optim.py)."""
    warmup_fraction: float = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """AdamW's, on matrices alone."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""
    loss: str = "bradley_terry"
    """`bradley_terry` on the pairs of a ranking; `davidson`, which learns from ties too;
    `plackett_luce` on whole rankings; `pointwise`, from judgments of single completions alone."""
    label_smoothing: float = 0.0
    """Probability that a vote is the wrong way round."""
    strength: str = "ignore"
    """What a vote's strength does: `ignore`; `margin`, the scores must be so far apart; `soft`, the
    vote counts as sure as second annotators agree with votes of that strength."""
    strength_margin: float = 1.0
    """Margin of the highest strength, the weakest has none; Llama 2 tried 1 and 3."""
    pointwise_weight: float = 0.0
    """Of judgments of single completions (ratings, acceptability lines, both bad, thumbs) beside
    the loss on rankings; 0 leaves them out."""
    rating: str | None = None
    """Only this rating of completions; `acceptable` is that of lines and thumbs. Null takes all."""
    thread_weight: float | None = None
    """Comparisons of one group (a thread, or a prompt) count for at most so many together."""
    centring: float = 0.0
    """Coefficient that holds scores near zero; 0.01 is usual, 0 leaves it out."""
    axis: str | None = None
    """Only votes on this axis; null keeps all of them."""
    axes: dict[str, float] | None = None
    """A head for each of these, learned from the votes on it and the ratings of its name alone,
    with its weight in the score: `{"helpful": 1, "safe": 0.5}`. Null is one head for all votes."""
    length_head: bool = False
    """While it learns the score is its own plus a weight x the log of the completion's length, and
    afterwards its own alone: what votes owe to length is not learned as quality."""
    length_decorrelation: float = 0.0
    """With length_head: holds down what length explains of the score's differences (ODIN's L_L); it
    takes good answers' own length away too."""
    max_tokens: int | None = None
    """Longest prompt with completion; null is what the model takes. Kept with the model."""
    tokens_per_forward: int = 2048
    """Padded tokens that go through the model at once; changes memory and speed, no result. Halved
    where a GPU's memory runs out."""
    precision: str = "fp32"
    """`fp32`, `bf16` (autocast: weights, loss and optimizer stay fp32, and the head but for an
    encoder's), or `auto`: bf16 where the device multiplies in it."""
    compile: bool = False
    """torch.compile, where a compiler is found: a minute or more at the start, then faster. The
    bits of a resumed run are promised without it."""
    gradient_checkpointing: bool = False
    """Compute the layers again on the way back instead of keeping them: less memory, a third
    slower."""
    eval_every: int = 20
    """Steps between two looks at the dev split, where there is one."""
    checkpoint_every: int = 50
    """Steps between two checkpoints."""
    keep: str = "best"
    """Which weights are saved: `best` (lowest dev log loss, the last without dev) or `last`."""
    patience: int | None = None
    """Looks at the dev split without a lower log loss after which training ends; null = never."""
    skips_in_a_row: int = 3
    """Steps whose loss or gradient is not finite are skipped; after so many in a row the run goes
    back to its last checkpoint, and ends as diverged where it has been there before."""
    num_anchors: int = 256
    """Texts of the data on which scores get mean 0 and deviation 1 after training, where no
    `--anchors` are given; 0 leaves scores as trained, with them or without."""
    seed: int = 0
    """Orders the comparisons and draws the head, and the whole model with `--init none`."""

    lora_rank: int = 0
    """Of adapters beside the trunk's matrices, which then stand still; 0 trains all weights. 16 is
    usual, with ten times the learning rate of a full training."""
    members: int = 1
    """Models in an ensemble, each with a seed of its own; 4 or 5 are usual (arXiv:2310.02743)."""
    rule: str = "mean"
    """How an ensemble's scores become one: `mean`, `worst` or `uncertainty`."""
    uncertainty_weight: float = 0.5
    """Of the members' variance, in squared deviations, with rule `uncertainty`."""

    layers: int = 4
    """Of the GPT that `--init none` makes; this and the next four mean nothing otherwise."""
    heads: int = 4
    """Of attention; width is a multiple of it."""
    width: int = 128
    """Model dimension D."""
    context: int = 512
    """Longest sequence in tokens."""
    vocab_size: int = 2048
    """Of the byte-level tokenizer learned from the data where no `--tokenizer` is given."""

    @property
    def voted_axes(self) -> str | dict[str, float] | None:
        """Whose votes are read; None is all."""
        return self.axis or self.axes

    @property
    def wants_survey(self) -> bool:
        """Whether the loss starts from a first look through the file."""
        return (
            self.loss == "davidson"
            or self.strength != "ignore"
            or self.pointwise_weight > 0
            or self.length_head
        )

    def __post_init__(self) -> None:
        require_all_positive(
            self,
            *("epochs", "comparisons_per_step", "lr_peak", "max_grad_norm", "tokens_per_forward"),
            *(
                "eval_every",
                "checkpoint_every",
                "skips_in_a_row",
                "layers",
                "heads",
                "width",
                "context",
                "members",
            ),
        )
        for name, known in (("loss", LOSSES), ("strength", STRENGTHS)):
            value = getattr(self, name)
            require(value in known, f"{name} must be one of {', '.join(known)}: {value!r}")
        require(
            0 <= self.label_smoothing < 0.5,
            f"label_smoothing must be in [0, 0.5): {self.label_smoothing}",
        )
        require(
            self.strength == "ignore" or self.loss in ("bradley_terry", "davidson"),
            f"strength {self.strength} goes with bradley_terry or davidson, not {self.loss}",
        )
        require(
            self.loss != "pointwise" or self.pointwise_weight > 0,
            f"loss pointwise wants a pointwise_weight above 0: {self.pointwise_weight}",
        )
        require(
            self.length_head or not self.length_decorrelation,
            f"length_decorrelation {self.length_decorrelation} wants a length_head",
        )
        require(
            self.rating is None or self.pointwise_weight > 0,
            f"rating {self.rating!r} is learned with a pointwise_weight above 0 alone",
        )
        require_axes(self.axes, self.axis)
        require(
            self.thread_weight is None or self.thread_weight > 0,
            f"thread_weight must be null or above 0: {self.thread_weight}",
        )
        for name in (
            *("weight_decay", "centring", "uncertainty_weight", "lora_rank"),
            *("strength_margin", "pointwise_weight", "length_decorrelation"),
        ):
            require(getattr(self, name) >= 0, f"{name} must be >= 0: {getattr(self, name)}")
        require(
            0 <= self.warmup_fraction < 1,
            f"warmup_fraction must be in [0, 1): {self.warmup_fraction}",
        )
        require(
            self.max_tokens is None or self.max_tokens >= 8,
            f"max_tokens must be null or >= 8: {self.max_tokens}",
        )
        require(
            self.num_anchors == 0 or self.num_anchors >= 2,
            f"num_anchors must be 0 or >= 2: {self.num_anchors}",
        )
        require(
            self.patience is None or self.patience >= 1,
            f"patience must be null or >= 1: {self.patience}",
        )
        require_optimizer(self.optimizer)
        require_precision(self.precision)
        require(self.keep in ("best", "last"), f"keep must be best or last: {self.keep!r}")
        require(self.rule in RULES, f"rule must be one of {', '.join(RULES)}: {self.rule!r}")
        require(self.vocab_size >= 300, f"vocab_size must be >= 300: {self.vocab_size}")
        require(
            self.width % self.heads == 0,
            f"width must be a multiple of heads: {self.width} and {self.heads}",
        )
        if self.strength != "margin":
            refuse_idle(self, "strength_margin", where=f"with strength {self.strength}")
        if self.rule != "uncertainty":
            refuse_idle(self, "uncertainty_weight", where=f"with rule {self.rule}")
        if self.loss == "pointwise":
            refuse_idle(self, "label_smoothing", where="with loss pointwise")


def require_axes(axes: dict[str, float] | None, axis: str | None) -> None:
    """Raise BadInput unless the axes are names with weights, beside no single axis."""
    if axes is None:
        return
    require(axis is None, f"axes and axis go apart: {', '.join(axes)} and {axis}")
    require(len(axes) >= 2, f"axes are two or more, one alone is the setting axis: {axes}")
    for name, weight in axes.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        require(
            is_number and math.isfinite(weight), f"axis {name!r} must have a weight: {weight!r}"
        )
    require(any(axes.values()), f"the weights of all axes are 0: {axes}")
