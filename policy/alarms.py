"""The health of a PPO run, looked at after every step: what is out of bounds, and what helps.

An alarm changes nothing. It is a number in metrics.jsonl (phase `alarms`, the step's `alarms` their
count) as long as it lasts, and a line in the log when it begins.
"""

import logging
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policy.ppo_config import PPOConfig
from policy.rollout import Rollouts, distinct_n

FAR = 3.0
"""Standard deviations over the answers of the first step."""
STEPS_BELOW_ZERO = 3
SPREAD = "_spread"
FALL = 0.25
"""Of a watched score from its peak, and rise of the policy's own since, each in deviations over the
answers of the first step."""
PAST = 0.7
"""Weight of the past in the smoothed scores that are compared for that, and in agreements."""
ENTROPY_LOW, ENTROPY_HIGH = 1 / 3, 1.5
"""Shares of the first answers' entropy. What a KL budget takes from short answers is a large part
of it, from long ones a small one: a bound in nats would fit one length alone."""
ENTROPY_LEAST = 0.1
"""Nats per token; a smaller change counts for nothing."""
AGREES, MOVED = 0.1, 0.7
"""A watched model rings below this correlation with the score, once entropy is below this share of
the first answers'. Either alone says little: models of few votes agree badly from the start, and a
policy may go far with good reason."""
LEAST_ANSWERS = 8
"""In a step, for a correlation to say anything."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alarm:
    """One figure out of bounds."""

    name: str
    value: float
    healthy: str
    """Its bounds, in words."""
    help: str

    def __str__(self) -> str:
        return f"{self.name} is {self.value:.4g}, healthy is {self.healthy}. {self.help}"


@dataclass(frozen=True, slots=True)
class Said:
    """What is always said of one kind of alarm."""

    healthy: str
    help: str


@dataclass(frozen=True, slots=True)
class Bound:
    """What a step's metric must stay within."""

    low: float
    high: float
    healthy: str
    help: str


BOUNDS = {
    "ratio_first": Bound(
        1 - 1e-3,
        1 + 1e-3,
        "1",
        "Before its first update the policy must be the one that was sampled from: look for "
        "dropout, positions or a precision that differ between the two passes.",
    ),
    "exp_abs_dlogp": Bound(
        0.0,
        1.05,
        "at most 1.05",
        "The sampler and the trainer do not compute the same probabilities: compute both in fp32, "
        "or sample with temperature alone.",
    ),
    "kl_nats": Bound(
        float("-inf"),
        25.0,
        "at most 25 nats",
        "The policy has left the reference far behind and its scores mean little: raise kl_coef, "
        "set kl_stop_nats, or take the best policy instead of the last.",
    ),
    "approxkl": Bound(
        0.0,
        0.03,
        "0.0005 to 0.01 nats per token",
        "One step moves the policy too far for its rollouts: lower lr_peak or epochs.",
    ),
    "clipfrac": Bound(
        0.0,
        0.3,
        "at most 0.1 of the tokens",
        "Most of what the clip holds back is lost work: lower lr_peak, or take fewer epochs.",
    ),
    "explained_variance": Bound(
        -1.0,
        1.0 + 1e-6,
        "rising above 0.5",
        "The values say less than a constant would: raise value_lr_peak, give value_warmup_steps, "
        "or start the value model from the reward model.",
    ),
}
"""By metric. Where the bounds come from: NeMo-RL and OpenAI's published runs, arXiv:2403.17031."""

DRIFTS = {
    "response_tokens": (
        2.0,
        "Scores may reward length itself: read the longest answers, and set length_limit.",
    ),
    "end_rate": (
        0.1,
        "Answers run into their limit, or stop at once: see missing_end_score and "
        "max_response_tokens.",
    ),
    "distinct_2": (
        0.05,
        "Answers repeat themselves: set repetition_cost, or raise kl_coef.",
    ),
}
"""Of answers against those of the first step: name -> (least deviation to count in, help)."""


SAYS: dict[str, Said] = {
    **{name: Said(bound.healthy, bound.help) for name, bound in BOUNDS.items()},
    "kl_below_zero": Said(
        "above -0.5 nats but for chance",
        "A KL cannot be negative: the answers do not come from the distribution that is "
        "scored, so look at how they are sampled.",
    ),
    **{
        f"{name}_drift": Said(f"within {FAR:g} deviations of the first answers", help_)
        for name, (_, help_) in DRIFTS.items()
    },
    "entropy_drift": Said(
        f"from {ENTROPY_LOW:.2f} to {ENTROPY_HIGH:g} of the first answers'",
        "Low, the policy says one thing only; high, it has come apart: raise kl_coef, and "
        "read its answers.",
    ),
    "*_spread": Said(
        "at most twice the first answers'",
        "The reward model's members part over these answers, unlike those that they "
        "learned from: stop here, or collect preferences on them.",
    ),
    "*_fallen": Said(
        "no fall from its peak while the score rises",
        "The policy learns what its reward model gets wrong: stop, take the best "
        "policy, and collect preferences on these answers.",
    ),
    "*_against": Said(
        f"a correlation with the score above {AGREES:g}",
        "It no longer calls better what scores higher: what the policy still learns is "
        "its reward model's error. Stop, take the best policy, and collect preferences "
        "on these answers.",
    ),
    "*_not_finite": Said(
        "a number for every answer",
        "Nothing learns from it and training goes on, but what it was to watch is not watched: "
        "look for weights or scales that are not finite in that model.",
    ),
}
"""By an alarm's name; `*` stands for the figure that it rings for."""


def alarm(kind: str, value: float, *, of: str = "", healthy: str = "") -> Alarm:
    """One alarm of a kind in SAYS. of: what `*` is. healthy: its bounds, where they are nearer."""
    said = SAYS[kind]
    return Alarm(kind.replace("*", of), value, healthy or said.healthy, said.help)


class Alarms:
    """Looks at one step after the other; its state is small and travels in checkpoints."""

    def __init__(
        self, config: PPOConfig, *, watched: Sequence[str] = (), tells: bool = True
    ) -> None:
        """watched: names in `Rollouts.seen` of reward models that nothing learns from. tells: the
        log is told, by one process of those that look at the same numbers."""
        self.config = config
        self.tells = tells
        self.watched = watched
        self.first: dict[str, list[float]] = {}
        """Of the first step: name -> mean and standard deviation over its answers."""
        self.below_zero = 0
        """Steps in a row with KL below -0.5."""
        self.smoothed: dict[str, float] = {}
        self.peaks: dict[str, list[float]] = {}
        """Watched name -> its highest smoothed score, and the policy's own score then."""
        self.agreements: dict[str, float] = {}
        """Watched name -> smoothed correlation with the policy's own score."""
        self.on: list[str] = []
        """Alarms of the last step."""

    def look(self, step: int, metrics: Mapping[str, float], rollouts: Rollouts) -> list[Alarm]:
        """What is out of bounds; the log is told of what was not a step before."""
        figures = of_answers(rollouts)
        finite = {name: row for name, row in figures.items() if all(map(math.isfinite, row))}
        found = [
            *self._bounds(step, metrics),
            *_no_numbers(figures.keys() - finite.keys()),
            *self._drifts(finite),
            *self._entropy(finite),
            *self._fallen(metrics),
            *self._against(finite, rollouts),
        ]
        for one in found:
            if self.tells and one.name not in self.on:
                log.warning("Step %s: %s", step, one)
        self.on = [one.name for one in found]
        return found

    def state(self) -> dict[str, Any]:
        return {
            "first": self.first,
            "below_zero": self.below_zero,
            "smoothed": self.smoothed,
            "peaks": self.peaks,
            "agreements": self.agreements,
            "on": self.on,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.first = dict(state["first"])
        self.below_zero = state["below_zero"]
        self.smoothed = dict(state["smoothed"])
        self.peaks = dict(state["peaks"])
        self.agreements = dict(state.get("agreements", {}))  # checkpoints from before it hold none
        self.on = list(state["on"])

    def _bounds(self, step: int, metrics: Mapping[str, float]) -> Iterator[Alarm]:
        warm = max(self.config.warmup_steps, self.config.value_warmup_steps)
        for name, bound in BOUNDS.items():
            value = metrics.get(name)
            if value is None or (name == "explained_variance" and step <= warm):
                continue
            if not bound.low <= value <= bound.high:
                yield alarm(name, value)
        self.below_zero = self.below_zero + 1 if metrics["kl_nats"] < -0.5 else 0
        if self.below_zero >= STEPS_BELOW_ZERO:
            yield alarm("kl_below_zero", metrics["kl_nats"])

    def _drifts(self, figures: Mapping[str, Sequence[float]]) -> Iterator[Alarm]:
        """Means over the answers against those of the first step that had any."""
        for name, values in figures.items():
            mean = statistics.fmean(values)
            least, _ = DRIFTS.get(name, (0.0, ""))
            if name not in self.first:
                self.first[name] = [mean, max(statistics.pstdev(values), least)]
            before, deviation = self.first[name]
            if name in DRIFTS and abs(mean - before) > FAR * deviation:
                yield alarm(f"{name}_drift", (mean - before) / deviation)
            elif name.endswith(SPREAD) and mean > 2.0 * before:
                model = name.removesuffix(SPREAD)
                healthy = f"{SAYS['*_spread'].healthy} {before:.4g}"
                yield alarm("*_spread", mean, of=model, healthy=healthy)

    def _entropy_left(self, figures: Mapping[str, Sequence[float]]) -> float:
        """As a share of the first answers'; 1 where it changed by next to nothing or is unknown."""
        if "entropy" not in figures:
            return 1.0
        now, before = statistics.fmean(figures["entropy"]), self.first["entropy"][0]
        if abs(now - before) <= ENTROPY_LEAST:
            return 1.0
        return now / before if before else math.inf

    def _entropy(self, figures: Mapping[str, Sequence[float]]) -> Iterator[Alarm]:
        left = self._entropy_left(figures)
        if not ENTROPY_LOW <= left <= ENTROPY_HIGH:
            yield alarm("entropy_drift", left)

    def _fallen(self, metrics: Mapping[str, float]) -> Iterator[Alarm]:
        """Watched models whose scores fall while those that are learned from rise."""
        known = [name for name in self.watched if math.isfinite(metrics[name])]
        for name in ("score", *known):
            before = self.smoothed.get(name, metrics[name])
            self.smoothed[name] = PAST * before + (1.0 - PAST) * metrics[name]
        for name in known:
            now, own = self.smoothed[name], self.smoothed["score"]
            peak, own_then = self.peaks.setdefault(name, [now, own])
            if now >= peak:
                self.peaks[name] = [now, own]
            elif (
                peak - now > FALL * self.first[name][1]
                and own - own_then > FALL * self.first["score"][1]
            ):
                yield alarm("*_fallen", now - peak, of=name)

    def _against(
        self, figures: Mapping[str, Sequence[float]], rollouts: Rollouts
    ) -> Iterator[Alarm]:
        """Watched models that no longer call better what the policy's own score does.

        Their levels may rise for long after that, with what all models know of the first answers.
        Among the answers of today the two go together only as far as the score still measures
        something that another model, of other votes, finds too.
        """
        moved = self._entropy_left(figures) < MOVED
        own = rollouts.scores.tolist()
        prompts = [prompt.id for prompt in rollouts.prompts]
        for name in self.watched:
            found = agreement(own, figures[name], prompts) if name in figures else None
            if found is None:
                continue
            before = self.agreements.get(name, found)
            now = self.agreements[name] = PAST * before + (1.0 - PAST) * found
            if now < AGREES and moved:
                yield alarm("*_against", now, of=name)


def _no_numbers(names: Iterable[str]) -> Iterator[Alarm]:
    """Figures that nothing is compared with, for some answer's is no number."""
    for name in sorted(names):
        yield alarm("*_not_finite", math.nan, of=name)


def agreement(own: Sequence[float], other: Sequence[float], prompts: Sequence[str]) -> float | None:
    """Pearson's correlation of two models' scores of the same answers, -1 to 1.

    About the means of each prompt where one has several answers, so that no prompt's being easy
    counts; answers that are alone on their prompt are left out there. None where fewer than
    LEAST_ANSWERS are left or a model gives all of them one score.
    """
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    groups = [each for each in rows.values() if len(each) > 1] or [list(range(len(prompts)))]
    if sum(map(len, groups)) < LEAST_ANSWERS:
        return None
    apart = [_about_mean(values, groups) for values in (own, other)]
    squares = [math.fsum(each * each for each in values) for values in apart]
    if min(squares) <= 1e-12:
        return None
    return math.fsum(a * b for a, b in zip(*apart, strict=True)) / math.sqrt(math.prod(squares))


def _about_mean(values: Sequence[float], groups: Iterable[Sequence[int]]) -> list[float]:
    found = []
    for rows in groups:
        mean = statistics.fmean(values[row] for row in rows)
        found += [values[row] - mean for row in rows]
    return found


def of_answers(rollouts: Rollouts) -> dict[str, list[float]]:
    """Figures of each answer by itself; an answer of one token has no pair to repeat."""
    lengths = rollouts.mask.sum(dim=1)
    return {
        "score": rollouts.scores.tolist(),
        "entropy": (rollouts.entropy.sum(dim=1) / lengths).tolist(),
        "response_tokens": [float(len(each.tokens)) for each in rollouts.samples],
        "end_rate": [float(each.finish == "end") for each in rollouts.samples],
        "distinct_2": [
            distinct_n([each.tokens], 2) if len(each.tokens) > 1 else 1.0
            for each in rollouts.samples
        ],
        **{name: list(values) for name, values in rollouts.seen.items()},
    }
