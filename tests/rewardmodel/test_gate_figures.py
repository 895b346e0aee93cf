"""What a gate asks beside accuracy: the reliability slope, length bias, and batch invariance."""

import math
import random
from types import SimpleNamespace

import pytest

from policy.backbone import save_model, score_model_from
from policy.comparisons import parse_row
from policy.ensemble import Scored
from policy.score_scale import ScoreScale
from policy.scoring import load_scorer
from rewardmodel.calibration import (
    AGAINST,
    COOLEST,
    TOO_MODEST,
    TOO_SURE,
    LogOdds,
    reliability_slope,
)
from rewardmodel.evaluate import NUM_PROBED, Evaluation
from rewardmodel.invariance import IN_ONE_BATCH, invariance_of
from rewardmodel.length_bias import LengthBias


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def clustered(seed, *, scale, groups=40, alike=4):
    """Votes that follow sigmoid(z), each said `alike` times over in its group, for a model that
    claims scale x z."""
    draw = random.Random(seed)
    log_odds, votes, names = [], [], []
    for number in range(groups):
        z = draw.gauss(0, 1.5)
        vote = float(draw.random() < sigmoid(z))
        log_odds += [scale * z] * alike
        votes += [vote] * alike
        names += [f"g{number}"] * alike
    return LogOdds.of(log_odds, votes, [1.0] * len(votes)), names


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_slope_is_what_the_model_should_be_multiplied_by_and_its_interval_draws_groups(scale):
    found = [reliability_slope(*clustered(seed, scale=scale)) for seed in range(60)]
    held = [each.interval[0] <= 1 / scale <= each.interval[1] for each in found]
    # pairs taken for independent would give half the width, and hold it in 67 of a hundred
    assert sum(held) / len(held) > 0.85
    surest = sum(each.finding == TOO_SURE for each in found)
    assert surest > 50 if scale > 1 else surest < 6
    assert reliability_slope(*clustered(0, scale=scale, groups=4000)).slope == pytest.approx(
        1 / scale, rel=0.1
    )


def test_a_slope_without_an_interval_says_so():
    alone = LogOdds.of([1.0, -1.0, 0.5], [1.0, 1.0, 0.0], [1.0] * 3)
    assert reliability_slope(alone, ["g"] * 3).interval is None
    right = LogOdds.of([1.0, 2.0], [1.0, 1.0], [1.0] * 2)  # the surer the better
    found = reliability_slope(right, ["a", "b"])
    assert (found.slope, found.interval) == (1 / COOLEST, None)
    assert found.finding is None  # two groups tell nothing


@pytest.mark.parametrize(
    ("scale", "finding"),
    [
        (300.0, TOO_SURE),  # 1 / 300 is below all that is searched
        (1e-3, TOO_MODEST),
        (-1.0, AGAINST),
        (-300.0, AGAINST),
        (0.0, None),  # it says nothing
    ],
)
def test_a_slope_at_the_end_of_what_is_searched_has_a_finding_all_the_same(scale, finding):
    found = [reliability_slope(*clustered(seed, scale=scale)) for seed in range(20)]
    assert {each.interval for each in found} == {None}
    assert sum(each.finding == finding for each in found) > 17


@pytest.mark.parametrize("scale", [300.0, -1.0])
def test_scores_that_have_nothing_to_do_with_the_votes_are_seldom_against_them(scale):
    """Half of them lean the wrong way, by chance."""
    found = []
    for seed in range(200):
        points, names = clustered(seed, scale=scale, groups=40, alike=1)
        draw = random.Random(seed)
        votes = [float(draw.random() < 0.5) for _ in names]
        told = LogOdds.of(points.log_odds.tolist(), votes, [1.0] * len(votes))
        found.append(reliability_slope(told, names).finding)
    assert found.count(AGAINST) < 15  # of 200, and 2.5 % are 5


class Told:
    """A scorer that says what it was told."""

    def __init__(self, scores):
        self.scores = scores
        self.model = SimpleNamespace(config=SimpleNamespace())
        self.scale = ScoreScale(deviation=2.0)

    def encode(self, prompt, text):
        return SimpleNamespace(ids=[len(text)], dropped_turns=0)

    def scored_ids(self, ids):
        return [Scored(score) for score in self.scores]


def pair(number, texts, votes):
    rankings = [[["x0"], ["x1"]] if first else [["x1"], ["x0"]] for first in votes]
    row = {
        "id": f"c{number}",
        "split": "dev",
        "group": f"g{number}",
        "prompt": "Question",
        "completions": [{"id": f"x{i}", "text": t, "model": None} for i, t in enumerate(texts)],
        "votes": [
            {"axis": "a", "ranking": ranking, "annotator": f"p{at}", "kind": "human"}
            | {"strength": None, "weight": None}
            for at, ranking in enumerate(rankings)
        ],
    }
    return parse_row(row, line=1)


def test_length_bias_by_hand():
    comparisons = [
        pair(0, ["a" * 9, "b" * 4], [True, True, False]),  # the longer one is the first, 2 of 3
        pair(1, ["a" * 4, "b" * 19], [True]),  # the longer one lost
        pair(2, ["same", "long"], [True]),  # says nothing
    ]
    evaluation = Evaluation.of(Told([1.0, 0.5, 0.0, 0.25, 3.0, 0.0]), comparisons)
    lengths = [math.log(10 / 5), math.log(20 / 5)]
    margins, votes = [2 * 0.5, 2 * 0.25], [2 / 3, 0.0]
    found = LengthBias.of(evaluation)
    figures = found.figures()
    assert figures["num_pairs"] == 2

    def correlation(own):
        together = sum(a * b for a, b in zip(own, lengths))
        return together / math.sqrt(sum(a * a for a in own) * sum(b * b for b in lengths))

    assert figures["correlation"] == pytest.approx(correlation(margins))
    people = correlation([2 * vote - 1 for vote in votes])
    assert figures["correlation_of_votes"] == pytest.approx(people)
    expected = [sigmoid(margin) for margin in margins]
    assert figures["longer_expected"] == pytest.approx(sum(expected) / 2)
    assert figures["longer_preferred"] == pytest.approx(1 / 3)
    assert found.rows() == [
        ("g0", pytest.approx(expected[0] - 2 / 3), 1.0),
        ("g1", pytest.approx(expected[1]), 1.0),
    ]
    assert LengthBias.of(Evaluation.of(Told([1.0, 0.0]), [comparisons[2]])).figures() == {}


def test_a_model_that_calls_all_alike_has_no_correlation():
    evaluation = Evaluation.of(Told([1.0, 1.0]), [pair(0, ["aa", "b"], [True])])
    assert LengthBias.of(evaluation).figures()["correlation"] is None


class Leaking:
    """Each score is moved by how many rows are scored beside it, in batches of one kind alone."""

    def __init__(self, leak, when=lambda rows, tokens: True):
        self.leak, self.when = leak, when

    def score_ids(self, rows, batch_tokens=0):
        leak = self.leak * self.when(rows, batch_tokens)
        return [10.0 + leak * (len(rows) - 1) for _ in rows]


def test_a_score_that_its_neighbours_move_is_told_by_how_much():
    rows = [[1], [2, 3], [4]]
    assert invariance_of(Leaking(0.0), rows).largest_difference == 0
    found = invariance_of(Leaking(0.5), rows)
    assert found.num_completions == 3
    assert found.largest_difference == pytest.approx(0.5 * 2 / 10)
    assert invariance_of(Leaking(math.nan), rows).largest_difference == math.inf
    assert invariance_of(Leaking(0.5), []).largest_difference == 0


@pytest.mark.parametrize(
    "when",
    [
        lambda rows, tokens: len(rows) == 3 and tokens == 0,
        lambda rows, tokens: tokens == IN_ONE_BATCH,
        lambda rows, tokens: len(rows) == 2,
    ],
)
def test_each_kind_of_batch_is_tried(when):
    assert invariance_of(Leaking(0.5, when), [[1], [2, 3], [4]]).largest_difference > 0.04


def test_a_real_models_scores_are_its_own(tiny_lm, tmp_path):
    model, tokenizer = score_model_from(tiny_lm, seed=1)
    model.score.weight.data.mul_(30)
    save_model(model, tokenizer, tmp_path / "reward")
    texts = ["word " * length for length in (1, 30, 2, 17, 5)]
    comparisons = [pair(at, [text, f"{text}!"], [True]) for at, text in enumerate(texts * 4)]
    scorer = load_scorer(tmp_path / "reward")
    evaluation = Evaluation.of(scorer, comparisons)
    assert len(evaluation.probed) == NUM_PROBED
    assert invariance_of(scorer, evaluation.probed).largest_difference < 1e-5
