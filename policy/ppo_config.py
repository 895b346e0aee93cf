"""Settings of `python -m policy ppo`."""

from dataclasses import dataclass
from math import isfinite

from policy.config import refuse_idle, require, require_all_positive, require_precision
from policy.kl import ESTIMATORS

MISSING_END = ("subtract", "replace", "off")
ADVANTAGES = ("gae", "rloo", "grpo")
VALUES = ("separate", "head")
LOSS_PER = ("token", "response", "constant")


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOConfig:
    """PPO, RLOO or GRPO against a reward model, for policies of one to three million parameters.

    The clips, gamma, lam and epsilon are those of arXiv:1909.08593 and arXiv:2403.17031; the
    learning rates were found for this size (a 100M policy wants about 1e-5).
    """

    steps: int = 60
    """Steps of rollouts, scores and updates. Steps decide, never seconds."""
    rollouts_per_step: int = 64
    """Answers sampled in one step. Prompts are drawn without replacement within an epoch."""
    answers_per_prompt: int = 1
    """How many of them answer one prompt; `rloo` and `grpo` want 2 or more, 4 to 8 are usual."""
    max_prompt_tokens: int | None = None
    """None: whatever the context leaves beside the response. Oldest turns go first."""
    max_response_tokens: int = 64
    """Longest answer; one that reaches it without its end token is `length`."""
    temperature: float = 0.7
    """Of the sampler and of every log-probability: policy and reference are the tempered ones."""

    lora_rank: int = 0
    """Rank of adapters that learn in the policy's place; published merged. Where the reference is
    --init itself it is the policy without them, and both have one base in memory. 0 = all weights
    learn, and the reference is a copy."""
    frozen_layers: int = 0
    """Embeddings and this many of the lowest layers stand still; the reference shares them, as it
    does with adapters. They have no gradients either."""

    epochs: int = 2
    """Passes over a step's rollouts."""
    minibatches: int = 2
    """Optimizer steps in one epoch."""
    micro_batch_tokens: int = 2048
    """Padded tokens in one forward and backward; bounds memory, changes no gradient."""
    precision: str = "fp32"
    """`fp32`, `bf16` (autocast: weights, heads, losses and optimizers stay fp32), or `auto`: bf16
    where the device multiplies in it. The sampler's log-probs are then off by its rounding (the
    trainer's own are what is learned from), and scores by hundredths of their deviation."""
    lr_peak: float = 2e-4
    """Of the policy; falls linearly to 0 over the steps."""
    value_lr_peak: float = 5e-4
    """Of the value model; the same line."""
    warmup_steps: int = 4
    """Steps in which both learning rates rise to their peak; Adam's first steps are its largest."""
    adam_eps: float = 1e-5
    """Added to Adam's denominator."""
    weight_decay: float = 0.0
    """AdamW's, on matrices alone."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""
    clip: float = 0.2
    """The probability ratio counts within 1 - clip and 1 + clip."""
    value_clip: float = 0.2
    """How far a value may move from the rollout's within one step, score units; 0 = no limit."""
    value: str = "separate"
    """Where values come from: a `separate` model, or a `head` on the policy's own last hidden
    states, which saves a model and its passes. Its loss then moves the trunk that both share."""
    value_coef: float = 0.1
    """Of the value loss beside the policy's, on a shared trunk; separate models have no need."""
    value_warmup_steps: int = 0
    """First steps in which the separate value model learns and the policy does not."""
    gamma: float = 1.0
    """Discount of a reward per token; 1 is none."""
    lam: float = 0.95
    """Of GAE: 1 trusts returns alone, 0 the values alone."""
    advantage: str = "gae"
    """What an answer is held against. `gae`: the value model's guess, token by token. Without a
    value model, the other answers to its prompt: `rloo`, score minus KL penalty less the mean of
    theirs, the answer as one action (arXiv:2402.14740); `grpo`, score less the mean of all of them,
    over their deviation, the KL penalty in the loss (arXiv:2402.03300). The reference's own
    answers cancel in both, so that none are asked for."""
    whiten_advantages: bool = True
    """Mean 0 and variance 1 over the real tokens of the step; of `gae` alone."""
    divide_by_deviation: bool = True
    """Of `grpo` alone. False weighs prompts with nearly equal answers less (arXiv:2503.20783)."""
    loss_per: str | None = None
    """How tokens add up to the policy's loss: the mean over `token`s; the mean over answers of each
    `response`'s mean; or over a `constant`, answers x max_response_tokens, which rewards no length
    (arXiv:2503.20783). None: response for grpo, as published, else token. rloo has one ratio for a
    whole answer, and no choice here."""
    approx_kl_limit: float = 0.03
    """A minibatch whose approxkl (nats per token) is above it ends the policy's epochs."""

    ptx_data: str | None = None
    """A file as `policy pretrain` reads it, whose next-token loss is learned beside the reward (see
    policy/ptx.py); None: none."""
    ptx_coef: float = 1.0
    """Of that loss, in nats per token, beside the policy's."""
    ptx_windows: int = 8
    """Windows of it in each optimizer step."""
    ptx_tokens: int = 256
    """Tokens in a window; never above the policy's context."""

    kl_coef: float = 0.05
    """Score units per nat, the first coefficient if it adapts."""
    kl_estimator: str | None = None
    """k1, k2 or k3. None: k1, in the reward; k3, in grpo's loss, as published. There k3 descends
    KL(reference || policy), at the policy's own tokens; k2 descends KL(policy || reference), and k1
    nothing: its gradient is 0 on average."""
    kl_target_nats: float | None = 6.0
    """Nats per response that the coefficient steers towards; None keeps it fixed."""
    kl_horizon: int = 256
    """Rollouts over which the adaptive coefficient reacts: by at most 0.2 x rollouts / horizon a
    step, and never by more than 0.2. 10000 is published for runs of thousands of steps."""
    kl_stop_nats: float | None = 12.0
    """Smoothed nats per response at which training ends with the last weights below it."""
    kl_smoothing: float = 0.5
    """Weight of the past in that smoothed KL; 0 = the step's own."""

    baseline_samples: int = 4
    """Answers of the reference whose mean score is subtracted, per prompt; 0 = none."""
    baseline_cache: str | None = None
    """Folder in which those scores are kept for later runs; None: only within this run."""
    missing_end: str = "subtract"
    """An answer without end token: `subtract` missing_end_score from its score, `replace` its
    score by minus missing_end_score, or `off`. The reference's answers are treated the same."""
    missing_end_score: float = 1.0
    """What a missing end token costs, score units."""
    reward_weights: list[float] | None = None
    """One for each --reward-model, in order; None: 1 each. One of weight 0 is watched: scored and
    logged, and not learned from."""
    length_limit: int | None = None
    """Response tokens above which an answer pays length_cost for each; None: none does."""
    length_cost: float = 0.05
    """Score units per token above length_limit."""
    script_cost: float = 0.0
    """Score units that an answer loses whose letters are all of scripts the user did not write in;
    in proportion where some are. 0 = off."""
    repetition_cost: float = 0.0
    """Score units that an answer of nothing but repeated runs of four tokens would lose; in
    proportion. 0 = off."""
    allow_weak_reward: bool = False
    """Train even if the reward model's own record says that on dev it may be no better than a coin
    (the lower end of its accuracy's interval is not above one half)."""

    keep_best: bool = True
    """Keep the policy of the best smoothed score within kl_stop_nats, and publish it as OUT/best/
    where it is not the last one and scores higher on the same prompts. The score is a watched
    reward model's where there is one."""
    skips_in_a_row: int = 3
    """Steps with numbers that are not finite, after which training goes back to the last
    checkpoint."""
    checkpoint_every: int = 10
    """Steps between two checkpoints."""
    seed: int = 0
    """Orders the prompts and draws the answers."""

    def __post_init__(self) -> None:
        require_all_positive(
            self,
            *("steps", "rollouts_per_step", "max_response_tokens", "temperature", "epochs"),
            *("minibatches", "micro_batch_tokens", "lr_peak", "value_lr_peak", "adam_eps"),
            *("max_grad_norm", "approx_kl_limit", "kl_horizon", "checkpoint_every"),
            *("skips_in_a_row", "ptx_windows", "ptx_tokens"),
        )
        for name in (
            *("weight_decay", "value_clip", "value_coef", "kl_coef", "missing_end_score"),
            *("warmup_steps", "value_warmup_steps", "length_cost", "script_cost"),
            *("repetition_cost", "lora_rank", "frozen_layers", "ptx_coef"),
        ):
            value = getattr(self, name)
            require(value >= 0, f"{name} must be >= 0: {value}")
        for name in ("max_prompt_tokens", "kl_target_nats", "kl_stop_nats", "length_limit"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be above 0 or null: {value}")
        for name in ("gamma", "lam"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} must be in [0, 1]: {value}")
        weights = self.reward_weights
        require(
            weights is None
            or (
                any(weights)
                and all(isinstance(each, int | float) and isfinite(each) for each in weights)
            ),
            f"reward_weights must be numbers, one of them at least not 0: {weights!r}",
        )
        require_precision(self.precision)
        require(0 < self.clip < 1, f"clip must be in (0, 1): {self.clip}")
        require(0 <= self.kl_smoothing < 1, f"kl_smoothing must be in [0, 1): {self.kl_smoothing}")
        require(
            self.baseline_samples >= 0, f"baseline_samples must be >= 0: {self.baseline_samples}"
        )
        require(
            self.minibatches <= self.rollouts_per_step,
            f"{self.minibatches} minibatches cannot be made of {self.rollouts_per_step} rollouts",
        )
        for name, known, may_be_null in (
            ("kl_estimator", tuple(ESTIMATORS), True),
            ("missing_end", MISSING_END, False),
            ("advantage", ADVANTAGES, False),
            ("value", VALUES, False),
            ("loss_per", LOSS_PER, True),
        ):
            value = getattr(self, name)
            fits = value in known or (value is None and may_be_null)
            require(fits, f"{name} must be one of {', '.join(known)}: {value!r}")
        self._require_groups()
        require(
            not (self.lora_rank and self.frozen_layers),
            f"lora_rank {self.lora_rank} or frozen_layers {self.frozen_layers}, not both: with "
            f"adapters all layers stand still",
        )
        require(
            self.value_warmup_steps == 0 or self.has_value_model,
            "value_warmup_steps are for a separate value model: there is none to warm up alone",
        )
        require(
            self.value_warmup_steps < self.steps,
            f"value_warmup_steps {self.value_warmup_steps} leave the policy none of the "
            f"{self.steps} steps to learn in",
        )
        self._refuse_idle_settings()

    def _refuse_idle_settings(self) -> None:
        """Raise BadInput for a setting that does nothing beside another's value."""
        if self.compares_answers:
            where = f"with advantage {self.advantage}"
            refuse_idle(self, "gamma", "lam", where=where, may_be_off=False)
            refuse_idle(
                self,
                *("value", "value_lr_peak", "value_clip", "value_coef"),
                *("baseline_samples", "baseline_cache"),
                where=where,
            )
        for idle, where, names in (
            (self.value == "separate", "with value separate", ["value_coef"]),
            (not self.baseline_samples, "with baseline_samples 0", ["baseline_cache"]),
            (self.missing_end == "off", "with missing_end off", ["missing_end_score"]),
            (self.length_limit is None, "without a length_limit", ["length_cost"]),
            (not self.length_cost, "with length_cost 0", ["length_limit"]),
            (not self.ptx_data, "without ptx_data", ["ptx_coef", "ptx_windows", "ptx_tokens"]),
            (self.kl_target_nats is None, "with kl_target_nats null", ["kl_horizon"]),
            (not self.kl_coef, "with kl_coef 0", ["kl_target_nats", "kl_horizon", "kl_estimator"]),
        ):
            if idle:
                refuse_idle(self, *names, where=where)

    def _require_groups(self) -> None:
        """Raise BadInput where the answers to a prompt, or the loss over them, do not fit."""
        count, name = self.answers_per_prompt, self.advantage
        least = 2 if self.compares_answers else 1
        require(
            count >= least, f"answers_per_prompt must be >= {least} for advantage {name}: {count}"
        )
        require(
            self.rollouts_per_step % count == 0,
            f"rollouts_per_step must be a multiple of answers_per_prompt: {self.rollouts_per_step} "
            f"and {count}",
        )
        require(
            name != "rloo" or self.loss_per is None,
            f"loss_per is for gae and grpo; rloo takes an answer as one action: {self.loss_per!r}",
        )
        require(
            name != "grpo" or self.kl_estimator != "k1",
            "kl_estimator k1 holds nothing back in grpo's loss: its gradient is 0 on average",
        )

    @property
    def compares_answers(self) -> bool:
        """Whether advantages come from the answers to one prompt, without a value model."""
        return self.advantage != "gae"

    @property
    def has_value_model(self) -> bool:
        """Whether a model of its own gives the values."""
        return not self.compares_answers and self.value == "separate"

    @property
    def loss_unit(self) -> str:
        """`loss_per` with its default; rloo's is the answer as a whole."""
        if self.advantage == "rloo":
            return "answer"
        return self.loss_per or ("response" if self.advantage == "grpo" else "token")

    @property
    def estimator(self) -> str:
        return self.kl_estimator or ("k3" if self.advantage == "grpo" else "k1")
