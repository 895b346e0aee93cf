"""Rows of reward_quality.py's table: what models get right on the same answers, with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import reward_quality_data as data
import torch

from policy.comparisons import Comparison, PairTable, parse_row
from policy.scoring import load_scorer
from rewardmodel.bootstrap import PairRow, bootstrap
from rewardmodel.calibration import LogOdds, reliability
from rewardmodel.diagnostics import ceiling
from rewardmodel.evaluate import Evaluation, measure

ECE_RESAMPLES = 200


@dataclass
class Measured:
    """A recipe's models on the same comparisons, one evaluation for each seed (and member)."""

    evaluations: list[Evaluation] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)

    def add(self, folder: Path, comparisons: Sequence[Comparison]) -> None:
        scorer = load_scorer(folder, "cpu")
        self.evaluations.append(Evaluation.of(scorer, comparisons))
        self.temperatures.append(scorer.scale.temperature)

    def rows(
        self, *, calibrated: bool = False, tables: Sequence[PairTable] | None = None
    ) -> list[PairRow]:
        """Each comparison's figures, the mean over the models. tables: other answers than those
        that were read, on the same completions."""
        tables = tables or [one.table for one in self.evaluations[0].judged]
        per_model = []
        for evaluation, temperature in zip(self.evaluations, self.temperatures, strict=True):
            nats = evaluation.scale.deviation / (temperature if calibrated else 1.0)
            per_model.append(
                [
                    measure(table, [nats * score for score in one.scores])
                    for table, one in zip(tables, evaluation.judged, strict=True)
                ]
            )
        groups = [one.group for one in self.evaluations[0].judged]
        return [
            PairRow(
                group, mean(one.log_loss for one in each), mean(one.correct for one in each), 1.0
            )
            for group, *each in zip(groups, *per_model, strict=True)
        ]

    def ece(self, *, calibrated: bool = False) -> tuple[float, list[float] | None]:
        """Mean over the models of the error over ten bins of equal mass, and its interval."""
        points = [one.log_odds() for one in self.evaluations]
        groups = [one.group for one in self.evaluations[0].judged for _ in one.table.pairs]
        names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
        of = torch.tensor([names[group] for group in groups])
        generator = torch.Generator().manual_seed(0)

        def error(counts: torch.Tensor) -> float:
            found = [
                reliability(
                    LogOdds(each.log_odds, each.targets, each.weights * counts[of]),
                    temperature=temperature if calibrated else 1.0,
                ).ece
                for each, temperature in zip(points, self.temperatures, strict=True)
            ]
            return sum(found) / len(found)

        whole = error(torch.ones(len(names)))
        if len(names) < 2:
            return whole, None
        drawn = torch.randint(len(names), (ECE_RESAMPLES, len(names)), generator=generator)
        errors = [error(torch.bincount(one, minlength=len(names)).double()) for one in drawn]
        ends = torch.tensor(errors).quantile(torch.tensor([0.025, 0.975]))
        return whole, ends.tolist()


def difference(new: Sequence[PairRow], old: Sequence[PairRow]) -> list[PairRow]:
    """new - old, comparison by comparison."""
    return [
        PairRow(a.group, a.log_loss - b.log_loss, a.correct - b.correct, 1.0)
        for a, b in zip(new, old, strict=True)
    ]


def table_rows(title: str, found: Mapping[str, Measured]) -> list[list[str]]:
    """One for each recipe; the first is the one that the others are compared with."""
    first = next(iter(found.values()))
    lines = []
    for recipe, one in found.items():
        raw, cool = bootstrap(one.rows()), bootstrap(one.rows(calibrated=True))
        line = [
            *(title, recipe, str(len(one.evaluations[0].rows))),
            share(raw[0]["correct"], raw[1]["correct"]),
            number(raw[0]["log_loss"], raw[1]["log_loss"]),
            number(cool[0]["log_loss"], cool[1]["log_loss"]),
            number(*one.ece()),
            number(*one.ece(calibrated=True)),
        ]
        if one is first:
            line += ["", ""]
        else:
            means, ends = bootstrap(difference(one.rows(), first.rows()))
            colder = bootstrap(difference(one.rows(calibrated=True), first.rows(calibrated=True)))
            line.append(share(means["correct"], ends["correct"], sign="+"))
            line.append(number(colder[0]["log_loss"], colder[1]["log_loss"], sign="+"))
        lines.append(line)
    return lines


def true_order_rows(
    title: str, rows: Sequence[data.Row], found: Mapping[str, Measured]
) -> list[list[str]]:
    """How far each recipe has the order of the utilities, which 100 % would be."""
    wanted = data.in_true_order(rows)
    tables = [parse_row(row, line=number).table for number, row in enumerate(wanted)]
    first = next(iter(found.values())).rows(tables=tables)
    lines = []
    for recipe, one in found.items():
        own = one.rows(tables=tables)
        means, ends = bootstrap(own)
        apart, between = bootstrap(difference(own, first))
        told = "" if own == first else share(apart["correct"], between["correct"], sign="+")
        value = share(means["correct"], ends["correct"])
        lines.append([title, recipe, str(len(own)), value, *[""] * 4, told, ""])
    return lines


def bayes_row(
    title: str,
    rows: Sequence[data.Row],
    comparisons: Sequence[Comparison],
    noise: data.Noise,
    found: Mapping[str, Measured],
) -> list[str]:
    """What the gold utility reaches on the same answers, and the last recipe's distance from it."""
    best = []
    for row, comparison in zip(rows, comparisons, strict=True):
        odds = [
            noise.prefers_first(row["gold"][i], row["gold"][j]) for i, j in comparison.table.pairs
        ]
        nats = correct = 0.0
        for p, target, weight in zip(
            odds, comparison.table.targets, comparison.table.weights, strict=True
        ):
            nats -= weight * (target * math.log(p) + (1 - target) * math.log(1 - p))
            correct += weight * (target if p > 0.5 else 1 - target)
        best.append(PairRow(comparison.group, nats, correct, 1.0))
    means, ends = bootstrap(best)
    *_, last = found.values()
    apart, between = bootstrap(difference(last.rows(), best))
    return [
        *(title, "the gold utility itself; from it to the model above", str(len(best))),
        share(means["correct"], ends["correct"]),
        number(means["log_loss"], ends["log_loss"]),
        *[""] * 3,
        share(apart["correct"], between["correct"], sign="+"),
        number(apart["log_loss"], between["log_loss"], sign="+"),
    ]


def share(value: float | None, ends: Sequence[float] | None, *, sign: str = "") -> str:
    """A figure in per cent with its interval; empty where there is none."""
    if value is None:
        return ""
    around = "" if ends is None else f" [{100 * ends[0]:{sign}.1f}, {100 * ends[1]:{sign}.1f}]"
    return f"{100 * value:{sign}.1f}{around}"


def number(value: float | None, ends: Sequence[float] | None, *, sign: str = "") -> str:
    """As `share`, as it is."""
    if value is None:
        return ""
    around = "" if ends is None else f" [{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]"
    return f"{value:{sign}.3f}{around}"


def ceiling_rows(title: str, evaluation: Evaluation) -> list[list[str]]:
    """What several votes on a pair allow; none where there are not several."""
    several = ceiling(evaluation)
    lines = []
    for key, words in (
        ("human", "a vote against the others' majority"),
        ("majority", "no order can beat"),
    ):
        if several is not None:
            value = share(several[key], several[f"{key}_interval"])
            lines.append([title, words, str(several["n"]), value, *[""] * 6])
    return lines
