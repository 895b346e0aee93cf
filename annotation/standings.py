"""A leaderboard: Bradley-Terry with ties (Davidson 1970), and how sure each place is.

    P(i beats j) = p_i / (p_i + p_j + nu sqrt(p_i p_j)),  P(tie) = nu sqrt(p_i p_j) / (...)

with p = exp(strength). nu is one number for all. A faint prior, as if every player had tied half a
game with a player of strength 0, keeps who never lost at a finite strength. Intervals draw groups
and annotators again, both at once (a pigeonhole bootstrap), for answers share either. What nobody
was asked about has no annotator, and its groups alone are drawn.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 200
STEPS = 100
PRIOR = 0.5
"""Weight of the tie that each player is given with a player of strength 0."""
SCALE = 400 / np.log(10)
"""Of a strength on the scale that chess uses: 400 points are odds of ten to one."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Battle:
    """One annotator's word on two players, or nobody's (None) where the texts speak by themselves.

    score: 1 the left one, 0 the right one, 1/2 a tie.
    """

    left: Hashable
    right: Hashable
    score: float
    group: str
    annotator: Hashable | None
    weight: float = 1.0
    left_length: int = 0
    right_length: int = 0
    """Characters of the two texts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One player's place. points: 0 is the mean of all; low and high bound 95 %."""

    player: Hashable
    points: float
    low: float
    high: float
    at_equal_length: float | None
    """The points if all texts were equally long; None where no battle differs in length."""
    battles: int


@dataclass(frozen=True, slots=True)
class Board:
    """The standings, best first, and the share of each player's wins against each other."""

    standings: list[Standing]
    wins: Mapping[tuple[Hashable, Hashable], tuple[float, int]]
    """(left, right) -> (share that the left one won, a tie half; battles)."""


def board_of(battles: Sequence[Battle], *, seed: int = 0) -> Board:
    """The leaderboard of all players that occur; empty without battles."""
    players = list(dict.fromkeys(name for one in battles for name in (one.left, one.right)))
    if not players:
        return Board([], {})
    place = {name: at for at, name in enumerate(players)}
    left = np.array([place[one.left] for one in battles])  # (N,)
    right = np.array([place[one.right] for one in battles])
    score = np.array([one.score for one in battles])
    weight = np.array([one.weight for one in battles])
    weight = weight / weight.mean()
    count = len(players)

    # what is alike in players and outcome is one row: a resample changes its weight alone
    rows, row_of = np.unique(np.stack([left, right, 2 * score]), axis=1, return_inverse=True)
    of_left, of_right = rows[0].astype(int), rows[1].astype(int)
    outcome = np.asarray(rows[2], dtype=np.float64) / 2
    row_of = row_of.ravel()

    def together(weights: Floats) -> Floats:
        return np.bincount(row_of, weights=weights, minlength=rows.shape[1]).astype(np.float64)

    redrawn = [together(weight * again) for again in _redrawn(battles, seed)]
    strengths = fit(of_left, of_right, outcome, np.array([together(weight), *redrawn]), count)
    points = SCALE * (strengths - strengths.mean(1, keepdims=True))  # (1 + S, P)
    whole, drawn = points[0], points[1:]
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    longer = _longer(battles)
    fair = _at_equal_length(left, right, score, weight, longer, count) if longer.any() else None
    number = np.bincount(np.concatenate([left, right]), minlength=count)
    order = np.argsort(-whole)
    standings = [
        Standing(
            player=players[at],
            points=float(whole[at]),
            low=float(low[at]),
            high=float(high[at]),
            at_equal_length=None if fair is None else float(fair[at]),
            battles=int(number[at]),
        )
        for at in order
    ]
    return Board(standings, _wins(battles))


def fit(left: Ints, right: Ints, score: Floats, weight: Floats, count: int) -> Floats:
    """Strengths and nu by Newton's method on the log likelihood; returns the strengths, (S, P).

    left, right: (N,) players. score: (N,) 1, 1/2 or 0. weight: (S, N) of each of S samples, which
    are fitted side by side.
    """
    beside = np.zeros((len(score), count))  # (N, P) +1 for the left one, -1 for the right one
    rows = np.arange(len(score))
    beside[rows, left] += 1
    beside[rows, right] -= 1
    found = np.zeros((len(weight), count + 1))  # (S, P + 1) strengths, log nu
    going = np.arange(len(weight))  # samples that are not there yet
    for _ in range(STEPS):
        step = np.clip(_newton(found[going], beside, score, weight[going]), -2, 2)
        found[going] += step
        going = going[np.abs(step).max(1) >= 1e-9]
        if not len(going):
            break
    return found[:, :count]


def _newton(found: Floats, beside: Floats, score: Floats, weight: Floats) -> Floats:
    """One step of each sample, (S, P + 1)."""
    strengths, log_nu = found[:, :-1], found[:, -1:]  # (S, P), (S, 1)
    count = strengths.shape[1]
    # against the mean of the two: log chances are half, minus half, log nu, less their sum
    half = strengths @ beside.T / 2  # (S, N)
    logits = np.stack([half, -half, np.broadcast_to(log_nu, half.shape)])  # (3, S, N)
    chances = np.exp(logits - np.logaddexp.reduce(logits, axis=0))
    # d/d strength of the log chance: for a win of the left one 1 - share, share = its part
    share = chances[0] + chances[2] / 2
    tied = chances[2]
    gradient = np.empty_like(found)
    gradient[:, :count] = (weight * (score - share)) @ beside - PRIOR * np.tanh(strengths / 2) / 2
    surplus = np.sum(weight * ((score == 0.5) - tied), axis=1)
    gradient[:, count] = surplus - PRIOR * np.tanh(log_nu[:, 0] / 2)
    hessian = np.empty((len(found), count + 1, count + 1))
    spread = weight * (chances[0] + tied / 4 - share**2)
    hessian[:, :count, :count] = (beside.T * spread[:, None, :]) @ beside
    mixed = (weight * (tied / 2 - tied * share)) @ beside
    hessian[:, :count, count] = hessian[:, count, :count] = mixed
    hessian[:, count, count] = np.sum(weight * tied * (1 - tied), axis=1)
    hessian += (PRIOR / 4 + 1e-6) * np.eye(count + 1)
    step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    return np.asarray(step, dtype=np.float64)


def _at_equal_length(
    left: Ints, right: Ints, score: Floats, weight: Floats, longer: Floats, count: int
) -> Floats:
    """Points with what length explains taken out: a logistic model, ties as half a win each, with
    one more coefficient for how much longer the left text is (as AlpacaEval controls for it)."""
    design = np.zeros((len(score), count + 1))
    rows = np.arange(len(score))
    design[rows, left] += 1
    design[rows, right] -= 1
    design[:, count] = longer / longer.std() if longer.std() else longer
    found = np.zeros(count + 1)
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-design @ found))
        gradient = design.T @ (weight * (score - chance)) - PRIOR / 4 * found
        hessian = (design.T * (weight * chance * (1 - chance))) @ design
        hessian[np.diag_indices(count + 1)] += PRIOR / 4 + 1e-6
        step = np.clip(np.linalg.solve(hessian, gradient), -2, 2)
        found = found + step
        if np.abs(step).max() < 1e-9:
            break
    strengths = found[:count]
    return SCALE * (strengths - strengths.mean())


def _longer(battles: Sequence[Battle]) -> Floats:
    """(N,) how much longer the left text is, as the tangent of a ratio: bounded, 0 where equal."""
    lengths = np.array([(one.left_length, one.right_length) for one in battles]) + 1.0
    return np.asarray(np.tanh(np.log(lengths[:, 0] / lengths[:, 1])))


def _redrawn(battles: Sequence[Battle], seed: int) -> list[Floats]:
    """Weights of each resample: how often its group was drawn times how often its annotator was.

    Nobody is no annotator: were "nobody" drawn among a few, all ties by themselves would go or
    double at once.
    """
    generator = np.random.default_rng(seed)
    groups, num_groups = _places([one.group for one in battles])
    people, num_people = _places([one.annotator for one in battles])
    found = []
    for _ in range(RESAMPLES):
        weights = np.ones(len(battles))
        for places, count in ((groups, num_groups), (people, num_people)):
            if count > 1:
                drawn = np.bincount(generator.integers(count, size=count), minlength=count)
                weights = weights * np.append(drawn, 1)[places]  # at -1 stands nobody
        found.append(weights)
    return found


def _places(names: Sequence[Hashable | None]) -> tuple[Ints, int]:
    """(N,) the number of each name, -1 for None, and how many names there are."""
    distinct = dict.fromkeys(name for name in names if name is not None)
    known = {name: at for at, name in enumerate(distinct)}
    return np.array([-1 if name is None else known[name] for name in names]), len(known)


def _wins(battles: Sequence[Battle]) -> dict[tuple[Hashable, Hashable], tuple[float, int]]:
    sums: dict[tuple[Hashable, Hashable], list[float]] = {}
    for one in battles:
        for pair, score in (
            ((one.left, one.right), one.score),
            ((one.right, one.left), 1 - one.score),
        ):
            sums.setdefault(pair, []).append(score)
    return {pair: (sum(scores) / len(scores), len(scores)) for pair, scores in sums.items()}
