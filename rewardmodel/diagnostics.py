"""Where a reward model is right, how far it could be, and what else its scores follow.

Everything here reads an Evaluation: no model runs. A pair's margin is the log odds that the model
gives it; figures over pairs weigh each comparison once, and intervals draw groups.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from policy.comparisons import PairTable, Vote
from rewardmodel.bootstrap import PairRow, bootstrap
from rewardmodel.correlation import pearson, spearman
from rewardmodel.evaluate import Evaluation, Judged, measure

NUM_MARGIN_BINS = 5
MOST_VALUES = 30
"""Of one label: with more values only those with the most comparisons are listed."""
AGREEMENTS = (
    *("one vote", "all of several votes"),
    *("three quarters or more", "less than three quarters"),
)
LENGTH_BINS = (
    (0.5, "under half as long"),
    (0.9, "shorter"),
    (1.1, "about as long"),
    (2.0, "longer"),
    (math.inf, "over twice as long"),
)
"""Upper end of (characters of the preferred one / of the other), and its name."""


class PairPoint(NamedTuple):
    """One pair of a comparison as the model and the voters see it."""

    row: PairRow
    """Its share of the figures: weights of one comparison sum to 1."""
    margin: float
    """Log odds of the completion that the model prefers, nats, at temperature 1; 0 or more."""
    longer: float | None
    """Characters of the completion that most voters prefer, over the other's; None without one."""
    agreement: float
    """Share of the votes on the pair that go with the majority, in [0.5, 1]."""
    num_votes: int


def pair_points(evaluation: Evaluation) -> list[PairPoint]:
    """The pairs of all comparisons that count, in order."""
    nats = iter(evaluation.log_odds().nats().tolist())
    found = []
    for judged in evaluation.judged:
        voters = _voters(judged.votes)
        for (i, j), target, weight in judged.pairs():
            difference = evaluation.scale.deviation * (judged.scores[i] - judged.scores[j])
            right = 0.5 if difference == 0 else target if difference > 0 else 1 - target
            ratio = judged.chars[i] / judged.chars[j]
            found.append(
                PairPoint(
                    PairRow(judged.group, next(nats), right, weight),
                    abs(difference),
                    None if target == 0.5 else ratio if target > 0.5 else 1 / ratio,
                    max(target, 1 - target),
                    voters[i, j],
                )
            )
    return found


def _voters(votes: Iterable[Vote]) -> dict[tuple[int, int], int]:
    """How many votes decide each pair."""
    counts: dict[tuple[int, int], int] = defaultdict(int)
    for vote in votes:
        for better, worse in vote.strict_pairs():
            counts[min(better, worse), max(better, worse)] += 1
    return counts


# --- slices -------------------------------------------------------------------------------------


def slices(evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Accuracy and log loss of parts, by what the parts are of: margin, agreement, length, axis,
    and each label that the rows carry (source, language, subset ...)."""
    points = pair_points(evaluation)
    if not points:
        return {}
    found = {
        "margin": _figures(_by_margin(points)),
        "agreement": _figures(
            _in_order(AGREEMENTS, _grouped((_agreement_name(each), each.row) for each in points))
        ),
        "length": _figures(
            _in_order(
                [name for _, name in LENGTH_BINS],
                _grouped(
                    (_length_name(each.longer), each.row)
                    for each in points
                    if each.longer is not None
                ),
            )
        ),
    }
    axes = _by_axis(evaluation)
    if len(axes) > 1:
        found["axis"] = _figures(axes)
    labelled: dict[str, dict[str, list[PairRow]]] = defaultdict(lambda: defaultdict(list))
    for judged, row in zip(evaluation.judged, evaluation.rows, strict=True):
        for label, value in judged.labels.items():
            labelled[label][value].append(row)
    for label in sorted(labelled):
        values = sorted(labelled[label].items(), key=lambda item: (-len(item[1]), item[0]))
        found[label] = _figures(dict(values[:MOST_VALUES]))
    return found


def _by_margin(points: Sequence[PairPoint]) -> dict[str, list[PairRow]]:
    """Bins of as many pairs each."""
    ordered = sorted(points, key=lambda each: each.margin)
    found = {}
    for held in np.array_split(np.arange(len(ordered)), min(NUM_MARGIN_BINS, len(ordered))):
        low, high = ordered[held[0]].margin, ordered[held[-1]].margin
        found[f"{low:.2f} to {high:.2f} nats"] = [ordered[at].row for at in held]
    return found


def _agreement_name(point: PairPoint) -> str:
    one, every, most, few = AGREEMENTS
    if point.num_votes == 1:
        return one
    if point.agreement == 1:
        return every
    return most if point.agreement >= 0.75 else few


def _length_name(ratio: float) -> str:
    return next(name for end, name in LENGTH_BINS if ratio < end)


def _by_axis(evaluation: Evaluation) -> dict[str, list[PairRow]]:
    found: dict[str, list[PairRow]] = defaultdict(list)
    for judged in evaluation.judged:
        nats = [evaluation.scale.deviation * score for score in judged.scores]
        for axis in sorted({vote.axis for vote in judged.votes if vote.axis is not None}):
            table = PairTable.of([vote for vote in judged.votes if vote.axis == axis])
            if table.pairs:
                found[axis].append(PairRow(judged.group, *measure(table, nats), 1.0))
    return found


def _grouped(named: Iterable[tuple[str, PairRow]]) -> dict[str, list[PairRow]]:
    found: dict[str, list[PairRow]] = defaultdict(list)
    for name, row in named:
        found[name].append(row)
    return found


def _in_order(names: Sequence[str], rows: Mapping[str, list[PairRow]]) -> dict[str, list[PairRow]]:
    return {name: rows[name] for name in names if name in rows}


def _figures(parts: Mapping[str, Sequence[PairRow]]) -> list[dict[str, Any]]:
    found = []
    for name, rows in parts.items():
        means, intervals = bootstrap(rows)
        found.append(
            {
                "part": name,
                "n": len(rows),
                "num_groups": len({row.group for row in rows}),
                "accuracy": means["correct"],
                "accuracy_interval": intervals["correct"],
                "log_loss": means["log_loss"],
            }
        )
    return found


# --- ceilings -----------------------------------------------------------------------------------


def ceiling(evaluation: Evaluation) -> dict[str, Any] | None:
    """What these votes allow, on comparisons where several votes decide a pair; None without any.

    human: how often a vote agrees with the majority of the others on its pairs (leave one out; a
    majority that is even counts one half): what a person with the other answers at hand reaches.
    majority: how often a vote agrees with the majority that it is part of, which no order of the
    completions can beat; too high where votes are few. model: the model's accuracy on the same.
    """
    human, majority, model = [], [], []
    for judged in evaluation.judged:
        left_out = list(_left_out(judged.votes))
        if not left_out:
            continue
        total = sum(weight for weight, _ in left_out)
        right = sum(weight * share for weight, share in left_out) / total
        human.append(PairRow(judged.group, 0.0, right, 1.0))
        most = sum(weight * max(target, 1 - target) for _, target, weight in judged.pairs())
        majority.append(PairRow(judged.group, 0.0, most, 1.0))
        model.append(PairRow(judged.group, 0.0, measure(judged.table, judged.scores).correct, 1.0))
    if not human:
        return None
    found: dict[str, Any] = {"n": len(human), "num_groups": len({row.group for row in human})}
    for name, rows in (("human", human), ("majority", majority), ("model", model)):
        means, intervals = bootstrap(rows)
        found |= {name: means["correct"], f"{name}_interval": intervals["correct"]}
    return found


def _left_out(votes: Sequence[Vote]) -> Iterator[tuple[float, float]]:
    """(weight, share of its pairs that the others' majority orders alike) of each vote that shares
    a pair with another on its axis."""
    strict = [vote.strict_pairs() for vote in votes]
    balance: dict[tuple[str | None, int, int], float] = defaultdict(float)
    count: dict[tuple[str | None, int, int], int] = defaultdict(int)
    for vote, pairs in zip(votes, strict, strict=True):
        for better, worse in pairs:
            balance[vote.axis, better, worse] += vote.weight
            balance[vote.axis, worse, better] -= vote.weight
            count[vote.axis, min(better, worse), max(better, worse)] += 1
    for vote, pairs in zip(votes, strict, strict=True):
        agreed = []
        for better, worse in pairs:
            if count[vote.axis, min(better, worse), max(better, worse)] < 2:
                continue
            others = balance[vote.axis, better, worse] - vote.weight
            even = math.isclose(others, 0.0, abs_tol=1e-9 * vote.weight)
            agreed.append(0.5 if even else float(others > 0))
        if agreed:
            yield vote.weight, sum(agreed) / len(agreed)


# --- what scores follow -------------------------------------------------------------------------


def correlations(evaluation: Evaluation) -> dict[str, Any]:
    """Of a completion's score with its length (characters) and its place in the row.

    within: both as differences from the comparison's mean, so that how easy a prompt is plays no
    part. A place that correlates says that the file's order does, for a model never sees it. None
    where one of the two never varies.
    """
    scores, chars, places, own, lengths, ranks = [], [], [], [], [], []
    for judged in evaluation.judged:
        middle = sum(judged.scores) / len(judged.scores)
        typical = sum(judged.chars) / len(judged.chars)
        half = (len(judged.scores) - 1) / 2
        for place, (score, length) in enumerate(zip(judged.scores, judged.chars, strict=True)):
            scores.append(score)
            chars.append(length)
            places.append(place)
            own.append(score - middle)
            lengths.append(length - typical)
            ranks.append(place - half)
    return {
        "num_completions": len(scores),
        "length": _correlation(scores, chars),
        "length_within": _correlation(own, lengths),
        "position": _correlation(scores, places),
        "position_within": _correlation(own, ranks),
    }


def _correlation(one: Sequence[float], other: Sequence[float]) -> dict[str, float] | None:
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return {
        "pearson": pearson(one, other),
        "spearman": spearman(one, other),
    }


# --- best of n ----------------------------------------------------------------------------------


def best_of_n(evaluation: Evaluation) -> list[dict[str, Any]]:
    """What choosing the highest of n scores is worth to the voters, n = 1, 2 ... K.

    The worth of a completion is the mean share of votes that put it above each of the others of
    its comparison, one half for an undecided pair; n are drawn from K without replacement, in
    expectation over all draws (equal scores share their places). `best` is what knowing the votes
    would reach. n counts comparisons with n completions or more, so later rows are of fewer.
    """
    widest = max((len(judged.scores) for judged in evaluation.judged), default=0)
    found = []
    for n in range(1, widest + 1):
        chosen, best, groups = [], [], []
        for judged in evaluation.judged:
            if len(judged.scores) >= n:
                worths = _worths(judged)
                chosen.append(_expected_best(judged.scores, worths, n))
                best.append(_expected_best(worths, worths, n))
                groups.append(judged.group)
        rows = [PairRow(g, b, c, 1.0) for g, b, c in zip(groups, best, chosen, strict=True)]
        means, intervals = bootstrap(rows)
        found.append(
            {
                "n": n,
                "num_comparisons": len(rows),
                "worth": means["correct"],
                "worth_interval": intervals["correct"],
                "best": means["log_loss"],  # the first of a row's two figures, here the best worth
            }
        )
    return found


def _worths(judged: Judged) -> list[float]:
    count = len(judged.scores)
    worths = [0.5 * (count - 1)] * count
    for (i, j), target, _ in judged.pairs():
        worths[i] += target - 0.5
        worths[j] += 0.5 - target
    return [worth / (count - 1) for worth in worths]


def _expected_best(scores: Sequence[float], worths: Sequence[float], n: int) -> float:
    """Mean worth of the highest of n drawn from all: the r-th highest is it in C(K - r, n - 1) of
    the C(K, n) draws; the worths of equal scores are averaged."""
    same: dict[float, list[float]] = defaultdict(list)
    for score, worth in zip(scores, worths, strict=True):
        same[score].append(worth)
    ranked = [sum(held) / len(held) for _, held in sorted(same.items(), reverse=True) for _ in held]
    draws = math.comb(len(ranked), n)
    return (
        sum(math.comb(len(ranked) - 1 - place, n - 1) * worth for place, worth in enumerate(ranked))
        / draws
    )


# --- two models ---------------------------------------------------------------------------------


def against(new: Evaluation, old: Evaluation) -> dict[str, Any]:
    """Mean differences new - old on the comparisons of which both could score the same completions,
    paired, with their intervals over groups."""
    theirs = {
        (judged.place, judged.kept): row for judged, row in zip(old.judged, old.rows, strict=True)
    }
    both = [
        PairRow(row.group, row.log_loss - other.log_loss, row.correct - other.correct, row.weight)
        for judged, row in zip(new.judged, new.rows, strict=True)
        if (other := theirs.get((judged.place, judged.kept))) is not None
    ]
    if not both:
        return {"n": 0}
    means, intervals = bootstrap(both)
    return {
        "n": len(both),
        "num_groups": len({row.group for row in both}),
        "accuracy_difference": means["correct"],
        "accuracy_difference_interval": intervals["correct"],
        "log_loss_difference": means["log_loss"],
        "log_loss_difference_interval": intervals["log_loss"],
    }


def drift(scores: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """How the scores of fixed texts moved, from pairs (new, old): mean and deviation of new - old,
    and how far their order is the same."""
    new, old = zip(*scores, strict=True)
    moved = np.asarray(new) - np.asarray(old)
    return {
        "num_texts": len(moved),
        "mean": float(moved.mean()),
        "deviation": float(moved.std()),
        "correlation": _correlation(new, old),
    }
