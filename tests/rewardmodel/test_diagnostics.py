"""rewardmodel.diagnostics: slices, ceilings, correlations, best of n, by hand and by slow loops."""

import itertools
import random
import statistics
from dataclasses import replace
from types import SimpleNamespace

import pytest
from scipy.stats import spearmanr

from policy.comparisons import parse_row
from policy.ensemble import Scored
from policy.score_scale import ScoreScale
from rewardmodel.diagnostics import (
    against,
    best_of_n,
    ceiling,
    correlations,
    drift,
    pair_points,
    slices,
)
from rewardmodel.evaluate import Evaluation


def row(number, rankings, texts, **fields):
    """A comparison; rankings: groups of places, best first, or (axis, groups)."""
    return parse_row(
        {
            "id": f"c{number}",
            "split": "dev",
            "group": f"g{number}",
            "prompt": f"Question {number}",
            "completions": [
                {"id": f"x{i}", "text": text, "model": None} for i, text in enumerate(texts)
            ],
            "votes": [
                {
                    "axis": axis,
                    "ranking": [[f"x{i}" for i in group] for group in ranking],
                    "strength": None,
                    "weight": None,
                    "annotator": f"a{place}",
                    "kind": "human",
                }
                for place, (axis, ranking) in enumerate(
                    each if isinstance(each, tuple) else ("helpful", each) for each in rankings
                )
            ],
            **fields,
        },
        line=1,
    )


class Told:
    """A scorer that says what it was told, comparison after comparison."""

    def __init__(self, scores, deviation=1.0):
        self.scores = scores
        self.model = SimpleNamespace(config=SimpleNamespace())
        self.scale = ScoreScale(deviation=deviation)

    def encode(self, prompt, text):
        return type("Encoded", (), {"ids": [0], "dropped_turns": 0})

    def scored_ids(self, ids):
        assert len(ids) == len(self.scores)
        return [Scored(score) for score in self.scores]


def evaluated(comparisons, scores, **more):
    return Evaluation.of(Told([s for each in scores for s in each], **more), comparisons)


UP, DOWN = [[0], [1]], [[1], [0]]


def test_parts_are_told_apart_by_what_rows_and_votes_say():
    made = evaluated(
        [
            row(0, [UP], ["aaaa", "a"], language="en", subset="chat"),
            row(1, [UP, UP, DOWN], ["aa", "bb"], language="zh", subset="chat"),
            row(2, [DOWN, DOWN], ["a" * 10, "b" * 8], language="en", attributes={"topic": "law"}),
            row(3, [("helpful", UP), ("safe", DOWN)], ["aaa", "bbbb"], language="en", source=""),
        ],
        [[2.0, 1.0], [3.0, 1.0], [1.0, 0.0], [0.5, 0.0]],
    )
    found = slices(made)

    def parts(by):
        return {each["part"]: (each["n"], each["accuracy"]) for each in found[by]}

    assert parts("language") == {
        "en": (3, pytest.approx((1 + 0 + 0.5) / 3)),
        "zh": (1, pytest.approx(2 / 3)),
    }
    assert parts("subset") == {"chat": (2, pytest.approx((1 + 2 / 3) / 2))}
    assert parts("topic") == {"law": (1, 0.0)}
    assert parts("axis") == {"helpful": (4, pytest.approx((1 + 2 / 3 + 0 + 1) / 4)), "safe": (1, 0)}
    assert parts("agreement") == {
        "one vote": (1, 1.0),
        "less than three quarters": (2, pytest.approx((2 / 3 + 0.5) / 2)),
        "all of several votes": (1, 0.0),
    }
    assert parts("length") == {
        "shorter": (1, 0.0),
        "about as long": (1, pytest.approx(2 / 3)),
        "over twice as long": (1, 1.0),
    }
    assert "source" not in found


def test_margins_are_in_the_units_of_log_odds_and_their_bins_hold_as_many_pairs():
    comparisons = [row(n, [UP], ["a", "bb"]) for n in range(10)]
    scores = [[n / 10, 0.0] for n in range(10)]
    made = evaluated(comparisons, scores, deviation=3.0)
    margins = [point.margin for point in pair_points(made)]
    assert margins == pytest.approx([0.3 * n for n in range(10)])
    bins = slices(made)["margin"]
    assert [each["n"] for each in bins] == [2] * 5
    assert bins[0]["part"] == "0.00 to 0.30 nats"
    assert [each["accuracy"] for each in bins] == [0.75, 1, 1, 1, 1]


def test_the_ceiling_of_five_votes_by_hand():
    # Four for the first, one for the second. Leave one out: each of the four finds 3 : 1 with it,
    # the fifth 0 : 4 against it: 4/5. No order beats 4/5. Two votes that differ: each finds the
    # other against it: 0, and no order beats 1/2.
    made = evaluated(
        [row(0, [UP] * 4 + [DOWN], ["a", "b"]), row(1, [UP, DOWN], ["a", "b"]),
         row(2, [UP], ["a", "b"])],
        [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]],
    )  # fmt: skip
    found = ceiling(made)
    assert (found["n"], found["num_groups"]) == (2, 2)
    assert found["human"] == pytest.approx((0.8 + 0) / 2)
    assert found["majority"] == pytest.approx((0.8 + 0.5) / 2)
    assert found["model"] == pytest.approx((0.2 + 0.5) / 2)
    three = evaluated([row(0, [UP, UP, DOWN], ["a", "b"])], [[0.0, 1.0]])
    # Each of two finds one for and one against: 1/2; the third finds both against: 0.
    assert ceiling(three)["human"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert ceiling(evaluated([row(2, [UP], ["a", "b"])], [[1.0, 0.0]])) is None
    axes = row(0, [("helpful", UP), ("safe", UP)], ["a", "b"])
    assert ceiling(evaluated([axes], [[1.0, 0.0]])) is None  # a vote per axis is no second vote


def test_scores_that_follow_length_show_it_within_comparisons_and_over_all():
    draw = random.Random(0)
    comparisons, scores = [], []
    for n in range(30):
        lengths = draw.sample(range(1, 40), 3)
        comparisons.append(row(n, [[[0], [1], [2]]], ["a" * length for length in lengths]))
        scores.append([10 * n + length + draw.random() for length in lengths])
    found = correlations(evaluated(comparisons, scores))
    flat = [score for each in scores for score in each]
    chars = [len(text) for each in comparisons for text in each.texts]
    assert found["length"]["spearman"] == pytest.approx(spearmanr(flat, chars).statistic)
    assert found["length_within"]["pearson"] > 0.99 > abs(found["length"]["pearson"])
    assert abs(found["position_within"]["spearman"]) < 0.3
    alike = evaluated([row(0, [UP], ["aa", "bb"])], [[1.0, 0.0]])
    assert correlations(alike)["length"] is None


def test_best_of_n_is_the_mean_over_all_draws():
    draw = random.Random(2)
    comparisons, scores, worths = [], [], []
    for n in range(6):
        order = draw.sample(range(4), 4)
        comparisons.append(row(n, [[[place] for place in order]], [f"{n}{i}" for i in range(4)]))
        scores.append([draw.choice([0.0, 1.0, 2.0]) for _ in range(4)])
        worths.append([(3 - order.index(i)) / 3 for i in range(4)])
    found = best_of_n(evaluated(comparisons, scores))
    assert [each["n"] for each in found] == [1, 2, 3, 4]
    assert found[0]["worth"] == pytest.approx(0.5)
    for each in found:
        expected = []
        for own, worth in zip(scores, worths, strict=True):
            for drawn in itertools.combinations(range(4), each["n"]):
                top = max(own[i] for i in drawn)
                expected.append(statistics.fmean(worth[i] for i in drawn if own[i] == top))
        assert each["worth"] == pytest.approx(statistics.fmean(expected), abs=1e-9)
    assert found[3]["best"] == pytest.approx(1.0)


def test_two_models_are_compared_on_the_rows_that_both_could_score():
    comparisons = [row(n, [UP], ["a", "b"]) for n in range(3)]
    new = evaluated(comparisons, [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    old = evaluated(comparisons, [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = against(new, old)
    assert (found["n"], found["accuracy_difference"]) == (3, pytest.approx(1 / 3))
    old.judged.pop(1)
    old.rows.pop(1)
    assert against(new, old)["accuracy_difference"] == 0
    old.judged[0] = replace(old.judged[0], kept=(0, 2))  # other completions of the same list
    assert against(new, old)["n"] == 1
    assert against(new, evaluated([], [])) == {"n": 0}


def test_drift_is_the_mean_and_spread_of_what_scores_moved_by():
    found = drift([(1.0, 0.0), (3.0, 1.0), (2.0, 2.0)])
    assert found["num_texts"] == 3
    assert found["mean"] == pytest.approx(1.0)
    assert found["deviation"] == pytest.approx(statistics.pstdev([1, 2, 0]))
    assert found["correlation"]["spearman"] == pytest.approx(0.5)
