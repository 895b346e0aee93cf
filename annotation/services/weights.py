"""What each annotator's votes weigh in a dataset, estimated from the ledger up to a position.

Everything is estimated on pairs of completions that two annotators or more put in an order or tied,
on train and dev prompts whatever their purpose: test stays sealed. Votes of one annotator alone say
nothing of them. A weight is 2a - 1, held to [0, 1], with a the probability that the annotator
orders two completions rightly: 1 for who is always right, 0 for a coin or worse.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import Any

from annotation.consensus import DawidSkene, crowd_bradley_terry, dawid_skene
from annotation.funnel import WEIGHTS
from annotation.models import Outcome, Project, Ranking, Split
from annotation.services.positions import Position, voids_at, votes_at

NONE, DAWID_SKENE, BRADLEY_TERRY = WEIGHTS
SOURCES = {DAWID_SKENE: "doi:10.2307/2346806", BRADLEY_TERRY: "doi:10.1145/2433396.2433420"}
LEAST_UNITS = 20
"""Shared pairs an annotator needs; who has fewer gets the median weight of those who have."""
DECIMALS = 4
"""Kept, so that two machines that differ in the last bits write the same file."""
ABOVE, BELOW, TIED = 1, -1, 0

Unit = tuple[Any, Any, Any]
"""Comparison and two of its completions, the lower id first."""
Words = dict[Unit, dict[int, int]]
"""Unit -> annotator -> ABOVE, BELOW or TIED: how the first stands to the second."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Of every annotator on every axis, and how they came about."""

    of: Mapping[tuple[int, str], float] = field(default_factory=dict)
    """(annotator, axis) -> weight; who is not named weighs `fallback`."""
    fallback: Mapping[str, float] = field(default_factory=dict)
    """Axis -> the weight of who shares too few pairs with others."""
    how: Mapping[str, Any] = field(default_factory=dict)
    """For a manifest; empty where nothing is weighed."""

    def weight(self, annotator: int, axis: str) -> float:
        return self.of.get((annotator, axis), self.fallback.get(axis, 1.0))


@dataclass(frozen=True, slots=True)
class Reliability:
    """One annotator on one axis."""

    right: float
    """Probability of ordering two completions rightly."""
    units: int
    """Pairs shared with others."""

    @property
    def weight(self) -> float:
        return round(min(1.0, max(0.0, 2 * self.right - 1)), DECIMALS)


def weights_at(project: Project, method: str, kinds: Sequence[str], position: Position) -> Weights:
    """The weights of annotators of these kinds, by what was said up to a position."""
    if method == NONE:
        return Weights()
    of: dict[tuple[int, str], float] = {}
    fallback, axes = {}, {}
    for axis, words in sorted(_words_at(project, kinds, position).items()):
        found = reliabilities(words, method)
        known = {who: one for who, one in found.items() if one.units >= LEAST_UNITS}
        of |= {(who, axis): one.weight for who, one in known.items()}
        fallback[axis] = round(median([one.weight for one in known.values()] or [1.0]), DECIMALS)
        everybody = {who for said in words.values() for who in said}
        axes[axis] = {
            "pairs": sum(len(said) > 1 for said in words.values()),
            "annotators": len(known),
            "with_too_few_pairs": len(everybody) - len(known),
            "their_weight": fallback[axis],
        }
    return Weights(
        of,
        fallback,
        {
            "method": method,
            "source": SOURCES[method],
            "weight": "2a - 1 in [0, 1], a = probability of ordering two completions rightly",
            "estimated_on": "valid votes on train and dev prompts, pairs that two or more ordered",
            "least_pairs": LEAST_UNITS,
            "axes": axes,
        },
    )


def reliabilities(words: Words, method: str) -> dict[int, Reliability]:
    """Annotator -> reliability, of those who share a pair with somebody; none where nobody does."""
    shared = {unit: said for unit, said in words.items() if len(said) > 1}
    counts: dict[int, int] = defaultdict(int)
    for said in shared.values():
        for who in said:
            counts[who] += 1
    right: Mapping[int, float] = {}
    if method == DAWID_SKENE and shared:
        right = _right_by_confusion(dawid_skene(_both_ways(shared)))
    elif wins := _wins(shared):
        right = crowd_bradley_terry(wins).reliability
    return {who: Reliability(value, counts[who]) for who, value in right.items()}


def _both_ways(words: Words) -> dict[tuple[Unit, int], dict[int, int]]:
    """Every pair as it is and turned round. Which of two is called the first means nothing, but a
    model that may learn how often the first is better, and who says so, would believe whoever
    says it seldom where it is always the first (an import of chosen and rejected)."""
    return {
        (unit, way): {who: way * said for who, said in by_who.items()}
        for unit, by_who in words.items()
        for way in (1, -1)
    }


def words_of(rankings: Iterable[tuple[int, int, str, list[list[int]]]]) -> Words:
    """Pairs of completions as (comparison, annotator, outcome, groups) puts them; both bad and
    cannot tell order nothing."""
    words: Words = defaultdict(dict)
    for comparison, who, outcome, groups in rankings:
        if outcome not in (Outcome.RANKED, Outcome.EQUAL):
            continue
        place = {pk: number for number, group in enumerate(groups) for pk in group}
        for a, b in combinations(sorted(place), 2):
            said = ABOVE if place[a] < place[b] else BELOW if place[a] > place[b] else TIED
            words[comparison, a, b][who] = said
    return words


def _words_at(project: Project, kinds: Sequence[str], position: Position) -> dict[str, Words]:
    """Axis -> what valid votes in force at a position said."""
    voided = {
        int(target.partition(":")[2])
        for target in voids_at(project, position).values_list("target", flat=True)
        if target.startswith("preference:")
    }
    votes = votes_at(project, position).filter(
        annotator__kind__in=kinds, comparison__prompt__split__in=(Split.TRAIN, Split.DEV)
    )
    newest: dict[tuple[int, int], int] = {}
    for pk, comparison, who in votes.order_by("revision", "pk").values_list(
        "pk", "comparison_id", "annotator_id"
    ):
        newest[comparison, who] = pk
    kept = set(newest.values()) - voided
    rows: dict[str, list[tuple[int, int, str, list[list[int]]]]] = defaultdict(list)
    said = Ranking.objects.filter(preference__in=votes).order_by("preference_id", "pk")
    for axis, vote, comparison, who, outcome, groups in said.values_list(
        "axis",
        "preference_id",
        "preference__comparison_id",
        "preference__annotator_id",
        "outcome",
        "groups",
    ).iterator():
        if vote in kept:
            rows[axis].append((comparison, who, outcome, groups))
    return {axis: words_of(of_axis) for axis, of_axis in rows.items()}


def _right_by_confusion(model: DawidSkene) -> dict[int, float]:
    """How often each annotator orders two completions as they are, of what they order strictly."""
    strict = [value for value in (ABOVE, BELOW) if value in model.values]
    place = {value: model.values.index(value) for value in strict}
    mass = sum(model.prior[place[value]] for value in strict)
    if len(strict) < 2 or mass == 0:
        return {}
    found = {}
    for who, confusion in model.confusion.items():
        shares = [
            confusion[place[true], place[true]]
            / sum(confusion[place[true], place[said]] for said in strict)
            for true in strict
        ]
        prior = [model.prior[place[true]] / mass for true in strict]
        found[who] = float(sum(p * share for p, share in zip(prior, shares, strict=True)))
    return found


def _wins(words: Words) -> list[tuple[int, Any, Any]]:
    """(annotator, winner, loser) of what was ordered strictly."""
    return [
        (who, a, b) if said == ABOVE else (who, b, a)
        for (_comparison, a, b), by_who in words.items()
        for who, said in by_who.items()
        if said != TIED
    ]
