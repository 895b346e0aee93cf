"""What the answers say together once every annotator's reliability is taken into account.

U units, A annotators, K values, N answers.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotation.answers import Answers, numbered
from annotation.intervals import Floats, Ints


@dataclass(frozen=True, slots=True)
class DawidSkene:
    """A fitted model of Dawid and Skene."""

    values: tuple[Any, ...]
    prior: Floats
    """(K,) share of units whose true value is each of `values`."""
    posterior: Mapping[Any, Floats]
    """Unit -> (K,) probability of each value being the true one."""
    confusion: Mapping[Any, Floats]
    """Annotator -> (K, K), row true value, column answer; rows sum to 1."""
    accuracy: Mapping[Any, float]
    """Annotator -> probability of the true answer to a unit drawn by the prior."""
    rounds: int
    converged: bool

    def best(self, unit: Any) -> Any:
        """The most probable value; of equals the one that came first in `values`."""
        return self.values[int(self.posterior[unit].argmax())]


def dawid_skene(
    answers: Answers,
    *,
    smoothing: float = 0.01,
    max_rounds: int = 500,
    tolerance: float = 1e-3,
) -> DawidSkene:
    """Fit by EM from the shares of each unit's answers (doi:10.2307/2346806, section 3).

    smoothing: pseudo-answers per cell of a confusion matrix, so that one that was never seen is
    unlikely, not impossible. Stops when no posterior moves by more than `tolerance`.
    Raises ValueError without any answer.
    """
    answers = {unit: given for unit, given in answers.items() if given}
    if not answers:
        raise ValueError("Dawid-Skene needs at least one answer")
    names = numbered(name for given in answers.values() for name in given)
    values = numbered(value for given in answers.values() for value in given.values())
    unit = np.repeat(np.arange(len(answers)), [len(given) for given in answers.values()])
    who = np.array([names[name] for given in answers.values() for name in given])
    said = np.array([values[value] for given in answers.values() for value in given.values()])
    k = len(values)
    posterior = (
        np.bincount(unit * k + said, minlength=len(answers) * k).reshape(-1, k).astype(float)
    )
    posterior /= posterior.sum(axis=1, keepdims=True)
    moved, rounds = np.inf, 0
    while moved > tolerance and rounds < max_rounds:
        prior, confusion = _maximise(posterior, unit, who, said, len(names), smoothing)
        before, posterior = posterior, _expect(prior, confusion, unit, who, said)
        moved, rounds = float(np.abs(posterior - before).max()), rounds + 1
    return DawidSkene(
        values=tuple(values),
        prior=prior,
        posterior=dict(zip(answers, posterior)),
        confusion=dict(zip(names, confusion)),
        accuracy=dict(zip(names, (np.diagonal(confusion, axis1=1, axis2=2) @ prior).tolist())),
        rounds=rounds,
        converged=moved <= tolerance,
    )


def _maximise(
    posterior: Floats, unit: Ints, who: Ints, said: Ints, num_annotators: int, smoothing: float
) -> tuple[Floats, Floats]:
    """Prior (K,) and confusion matrices (A, K, K) under the posterior, (U, K)."""
    k = posterior.shape[1]
    cell = who * k + said
    counts = np.stack(
        [np.bincount(cell, posterior[unit, true], num_annotators * k) for true in range(k)]
    )  # (K, A * K)
    confusion = counts.reshape(k, num_annotators, k).transpose(1, 0, 2) + smoothing
    return posterior.mean(axis=0), confusion / confusion.sum(axis=2, keepdims=True)


def _expect(prior: Floats, confusion: Floats, unit: Ints, who: Ints, said: Ints) -> Floats:
    """Posterior (U, K); in logarithms, since many answers multiply to nothing."""
    num_units = int(unit[-1]) + 1
    evidence = np.log(confusion)[who, :, said]  # (N, K)
    with np.errstate(divide="ignore"):  # a value that no unit has any more stays at zero
        logs = np.log(prior) + np.stack(
            [np.bincount(unit, column, num_units) for column in evidence.T], axis=1
        )
    likely = np.exp(logs - logs.max(axis=1, keepdims=True))
    return likely / likely.sum(axis=1, keepdims=True)


@dataclass(frozen=True, slots=True)
class CrowdBradleyTerry:
    """A fitted Bradley-Terry model with a reliability per annotator."""

    score: Mapping[Any, float]
    """Completion -> score in logits; only differences within one connected set mean something."""
    reliability: Mapping[Any, float]
    """Annotator -> eta, the probability of answering by the scores rather than against them."""
    weight: Mapping[Any, float]
    """Annotator -> 2 eta - 1, clipped to [0, 1]: 1 reliable, 0 a coin or worse."""
    converged: bool


def crowd_bradley_terry(
    wins: Iterable[tuple[Hashable, Hashable, Hashable]],
    *,
    score_spread: float = 3.0,
    answers_right: float = 4.0,
    answers_wrong: float = 1.0,
    max_rounds: int = 20,
) -> CrowdBradleyTerry:
    """Fit Crowd-BT (doi:10.1145/2433396.2433420, section 3) at its posterior mode.

    wins: (annotator, winner, loser) of strict pairs. P(annotator k puts i above j) =
    eta_k sigmoid(s_i - s_j) + (1 - eta_k) sigmoid(s_j - s_i). Priors: s is normal around 0 with
    `score_spread` logits; eta as if `answers_right` and `answers_wrong` had been seen before (a
    Beta prior, its mode taken on the logit of eta), which also settles which way round the scores
    are. One round is a run of L-BFGS; runs follow until one of them changes nothing.
    Raises ValueError without a pair, where a completion meets itself, or where the prior of eta is
    not above a half: all scores 0 would then be a stationary point, and the fit would stay there.
    """
    if answers_right <= answers_wrong:
        raise ValueError(f"Need more right than wrong: {answers_right:g} and {answers_wrong:g}")
    rows = list(wins)
    if not rows or any(winner == loser for _, winner, loser in rows):
        raise ValueError(f"Need pairs of two different completions, got {len(rows)} rows")
    from scipy.optimize import minimize  # half a second that the web process need not spend
    from scipy.special import expit

    names = numbered(name for name, _, _ in rows)
    items = numbered(item for row in rows for item in row[1:])
    who, won, lost = np.array([(names[a], items[b], items[c]) for a, b, c in rows]).T

    def loss(point: Floats) -> tuple[float, Floats]:
        """Negative log posterior in nats, and its slope; point: scores, then logits of eta."""
        score, logit = point[: len(items)], point[len(items) :]
        eta, up = expit(logit), expit(score[won] - score[lost])
        lean = 2 * eta[who] - 1
        likely = (1 - eta[who]) + lean * up
        slope = lean * up * (1 - up) / likely
        by_item = np.bincount(won, slope, len(items)) - np.bincount(lost, slope, len(items))
        by_eta = np.bincount(who, (2 * up - 1) / likely, len(names)) * eta * (1 - eta)
        prior = answers_right * np.logaddexp(0, -logit) + answers_wrong * np.logaddexp(0, logit)
        value = -np.log(likely).sum() + (score**2).sum() / (2 * score_spread**2) + prior.sum()
        to_eta = answers_right * (1 - eta) - answers_wrong * eta
        return value, np.concatenate([score / score_spread**2 - by_item, -by_eta - to_eta])

    start = np.log(answers_right / answers_wrong)
    point = np.concatenate([np.zeros(len(items)), np.full(len(names), start)])
    before, converged = np.inf, False
    for _ in range(max_rounds):
        found = minimize(
            loss, point, jac=True, method="L-BFGS-B",
            options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-6},
        )  # fmt: skip
        point, converged = found.x, bool(before - found.fun <= 1e-9 * max(1.0, abs(found.fun)))
        before = found.fun
        if converged:
            break
    eta = expit(point[len(items) :])
    return CrowdBradleyTerry(
        score=_by_name(items, point[: len(items)]),
        reliability=_by_name(names, eta),
        weight=_by_name(names, np.clip(2 * eta - 1, 0, 1)),
        converged=converged,
    )


def _by_name(names: Sequence[Any] | Mapping[Any, int], values: Floats) -> dict[Any, float]:
    return dict(zip(names, values.tolist()))
