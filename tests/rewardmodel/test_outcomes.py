"""Ties as a third outcome, and judgments of single completions, as `evaluate` measures them."""

import json
import math
import random
from collections import Counter
from types import SimpleNamespace

import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr

from policy.axes import Axis
from policy.backbone import save_model, score_model_from
from policy.comparisons import parse_row, read_comparisons
from policy.ensemble import Scored
from policy.score_scale import ScoreScale
from policy.scoring import load_scorer
from rewardmodel.__main__ import main
from rewardmodel.calibration import fit_temperature, reliability, tie_reliability
from rewardmodel.evaluate import Evaluation


class Told:
    """A scorer that says what it was told, of a model whose loss learned this."""

    def __init__(self, scores, learned, **scale):
        self.scores = scores
        self.scale = ScoreScale(**scale)
        self.model = SimpleNamespace(config=SimpleNamespace(concord_loss=learned))

    def encode(self, prompt, text):
        return SimpleNamespace(ids=[0], dropped_turns=0)

    def scored_ids(self, ids):
        assert len(ids) == len(self.scores)
        return [
            Scored(sum(score), axes=score) if self.scale.axes else Scored(score)
            for score in self.scores
        ]


def row(number, votes=(), count=2, **fields):
    """votes: (groups of places, best first; weight)."""
    return {
        "id": f"c{number}",
        "split": "dev",
        "group": f"g{number}",
        "prompt": f"Question {number}",
        "completions": [
            {"id": f"x{i}", "text": f"Answer {number} {i}", "model": None} for i in range(count)
        ],
        "votes": [
            {
                "axis": "helpful",
                "ranking": [[f"x{i}" for i in group] for group in ranking],
                "strength": None,
                "weight": weight,
                "annotator": f"a{place}",
                "kind": "human",
            }
            for place, (ranking, weight) in enumerate(votes)
        ],
        **fields,
    }


def evaluated(rows, scores, learned, **scale):
    told = Told([each for one in scores for each in one], learned, **scale)
    return Evaluation.of(told, [parse_row(each, line=1) for each in rows])


UP, DOWN, TIE = [[0], [1]], [[1], [0]], [[0, 1]]
EVEN = {"loss": "davidson", "log_nu": 0.0}
"""nu = 1: equal answers are tied by one annotator in three."""


def test_a_tie_costs_what_davidson_gives_it():
    rows = [row(0, [(UP, 1), (TIE, 1)]), row(1, [(TIE, 1)]), row(2, [(DOWN, 1)])]
    # log odds 2 log 2: e^(d/2) : nu : e^(-d/2) = 2 : 1 : 1/2. Then 0, three equal outcomes.
    scores = [[math.log(2), 0.0], [0.3, 0.3], [0.0, 0.0]]
    found = evaluated(rows, scores, EVEN, deviation=2.0, mean=7.0)
    costs = [-(math.log(4 / 7) + math.log(2 / 7)) / 2, math.log(3), math.log(3)]
    figures = found.figures()
    ties = figures["three_outcomes"]
    assert figures["log_loss"] == ties["log_loss"] == pytest.approx(sum(costs) / 3)
    assert (ties["n"], ties["num_groups"], ties["nu"]) == (3, 3, 1.0)
    assert ties["accuracy"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 3) / 3)
    assert ties["tie_share"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert ties["tie_probability"] == pytest.approx((2 / 7 + 1 / 3 + 1 / 3) / 3)
    assert figures["log_loss_interval"][0] < figures["log_loss"] < figures["log_loss_interval"][1]
    # The strict votes alone: sigmoid(2 log 2) = 4/5, and one half.
    assert figures["strict_log_loss"] == pytest.approx((math.log(5 / 4) + math.log(2)) / 2)
    assert (figures["n"], figures["left_out"]["no_strict_pair"]) == (2, 1)
    assert figures["accuracy"] == pytest.approx((1 + 0.5) / 2)


def test_without_ties_in_its_loss_a_model_is_measured_on_strict_pairs():
    rows = [row(0, [(UP, 1), (TIE, 1)])]
    figures = evaluated(rows, [[1.0, 0.0]], {"loss": "bradley_terry"}).figures()
    assert "three_outcomes" not in figures
    assert figures["log_loss"] == figures["strict_log_loss"] == pytest.approx(0.313262, abs=1e-6)


def drawn(seed, count=60):
    """Comparisons of two to four, one to three votes with ties and weights, and scores."""
    draw = random.Random(seed)
    rows, scores = [], []
    for number in range(count):
        size, votes = draw.randint(2, 4), []
        for _ in range(draw.randint(1, 3)):
            order = draw.sample(range(size), size)
            cut = sorted(draw.sample(range(1, size), draw.randint(0, size - 1)))
            groups = [order[a:b] for a, b in zip([0, *cut], [*cut, size], strict=True)]
            votes.append((groups, draw.choice([0.5, 1, 3])))
        rows.append(row(number, votes, size))
        scores.append([draw.gauss(0, 1.5) for _ in range(size)])
    return rows, scores


def definition(rows, scores, log_nu):
    """Every (log odds, outcome, weight): each vote shares its weight among its pairs."""
    for one, own in zip(rows, scores, strict=True):
        total = sum(vote["weight"] for vote in one["votes"])
        for vote in one["votes"]:
            place = {
                int(name[1:]): at for at, group in enumerate(vote["ranking"]) for name in group
            }
            pairs = [(i, j) for i in place for j in place if i < j]
            for i, j in pairs:
                outcome = 0 if place[i] < place[j] else 1 if place[i] == place[j] else 2
                yield own[i] - own[j], outcome, vote["weight"] / total / len(pairs)


def probabilities(d, log_nu):
    parts = [math.exp(d / 2), math.exp(log_nu), math.exp(-d / 2)]
    return [part / sum(parts) for part in parts]


def test_log_loss_accuracy_and_temperature_follow_the_definition():
    rows, scores = drawn(1)
    learned = {"loss": "davidson", "log_nu": -0.4}
    found = evaluated(rows, scores, learned)
    told = list(definition(rows, scores, -0.4))

    def loss(temperature):
        nats = (-w * math.log(probabilities(d / temperature, -0.4)[o]) for d, o, w in told)
        return sum(nats) / len(rows)

    figures = found.figures()["three_outcomes"]
    assert figures["log_loss"] == pytest.approx(loss(1.0))
    right = sum(w for d, o, w in told if max(p := probabilities(d, -0.4)) == p[o])
    assert figures["accuracy"] == pytest.approx(right / len(rows))
    best = minimize_scalar(loss, bounds=(0.05, 50), method="bounded", options={"xatol": 1e-8})
    assert fit_temperature(found.answers()) == pytest.approx(best.x, rel=1e-3)
    assert found.answers().log_loss(best.x) == pytest.approx(best.fun)


@pytest.mark.parametrize("log_nu", [{"helpful": -0.4, "safe": 0.9}, -0.4])
def test_ties_are_measured_on_each_axis_by_what_its_head_learned_of_them(log_nu):
    helpful, safe = drawn(1), drawn(2)
    rows = []
    for one, other in zip(helpful[0], safe[0], strict=True):
        count = len(one["completions"])
        kept = [
            vote | {"axis": "safe"} for vote in other["votes"]
            if all(int(name[1:]) < count for group in vote["ranking"] for name in group)
        ]  # fmt: skip
        rows.append(one | {"votes": one["votes"] + kept})
    draw = random.Random(4)
    seconds = [[draw.gauss(0, 1) for _ in own] for own in helpful[1]]
    scores = [list(zip(*pair, strict=True)) for pair in zip(helpful[1], seconds, strict=True)]
    axes = (Axis(name="helpful", weight=1.0, deviation=1.5), Axis(name="safe", weight=0.5))
    learned = {"loss": "davidson", "log_nu": log_nu}
    figures = evaluated(rows, scores, learned, axes=axes).figures()
    assert "three_outcomes" not in figures  # the sum of heads has no such number
    for axis, nats, nu in [
        ("helpful", [[1.5 * each for each in own] for own in helpful[1]], -0.4),
        ("safe", seconds, log_nu["safe"] if isinstance(log_nu, dict) else log_nu),
    ]:
        asked = [
            one | {"votes": [vote for vote in one["votes"] if vote["axis"] == axis]} for one in rows
        ]
        told = list(definition(*zip(*[
            pair for pair in zip(asked, nats, strict=True) if pair[0]["votes"]
        ], strict=True), nu))  # fmt: skip
        count = sum(bool(each["votes"]) for each in asked)
        cost = sum(-w * math.log(probabilities(d, nu)[o]) for d, o, w in told) / count
        found = figures["axes"][axis]["three_outcomes"]
        assert (found["n"], found["nu"]) == (count, pytest.approx(math.exp(nu)))
        assert found["log_loss"] == pytest.approx(cost)


def test_a_comparison_that_only_ties_an_axis_counts_there():
    rows = [row(0, [(TIE, 1)]), row(1, [(UP, 1)])]
    axes = (Axis(name="helpful", weight=1.0), Axis(name="safe", weight=1.0))
    learned = {"loss": "davidson", "log_nu": {"helpful": 0.0, "safe": 0.0}}
    scores = [[(0.0, 0.0), (0.0, 0.0)], [(0.0, 0.0), (0.0, 0.0)]]
    figures = evaluated(rows, scores, learned, axes=axes).figures()
    assert figures["n"] == 1
    assert figures["axes"]["safe"] == {"weight": 1.0, "n": 0}
    assert figures["axes"]["helpful"]["three_outcomes"]["n"] == 2
    assert figures["axes"]["helpful"]["three_outcomes"]["log_loss"] == pytest.approx(math.log(3))


def test_reliability_is_of_the_likeliest_of_three_and_of_ties():
    # nu = 1 and log odds 2 log 4: 4 : 1 : 1/4, so 16/21, 4/21, 1/21.
    rows = [row(0, [(UP, 1), (TIE, 1)]), row(1, [(TIE, 1)])]
    points = evaluated(rows, [[2 * math.log(4), 0.0], [0.0, 0.0]], EVEN).answers()
    first, second = reliability(points, num_bins=2).bins
    assert (first.confidence, first.accuracy) == pytest.approx((1 / 3, 1 / 3))
    assert (second.confidence, second.accuracy) == pytest.approx((16 / 21, 1 / 2))
    wide = reliability(points, equal="width", num_bins=2).bins
    assert [(each.low, each.high) for each in wide] == [
        pytest.approx((1 / 3, 2 / 3)),
        pytest.approx((2 / 3, 1.0)),
    ]
    ties = tie_reliability(points)
    held = [(each.confidence, each.accuracy) for each in ties.bins]
    assert held == [pytest.approx((4 / 21, 1 / 2)), pytest.approx((1 / 3, 1.0))]
    assert ties.ece == pytest.approx((abs(4 / 21 - 1 / 2) + abs(1 / 3 - 1)) / 2)


LINES = {"low": 0, "high": 1, "thresholds": [0.5]}
STARS = {"low": 1, "high": 3, "thresholds": [-1.0, 1.0]}


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def test_judgments_have_accuracy_and_log_loss_by_the_thresholds_that_were_learned():
    learned = {"loss": "pointwise", "scales": {"acceptable": LINES, "stars": STARS}}
    thumbs = [
        {"prompt": "Hi", "completion": "Fine.", "label": True, "group": "a"},
        {"prompt": "Hi", "completion": "Bad.", "label": False, "group": "b"},
    ]
    rated = row(
        2,
        judgments=[
            {"annotator": "a1", "completion": "x0", "ratings": {"stars": 3}},
            {"annotator": "a1", "completion": "x1", "ratings": {"stars": 2, "odd": 5}},
        ],
    )
    # In nats: 3 + 2 x score, so 1.5, 1.5, and for the rated ones 2 and -1.5.
    scores = [[-0.75], [-0.75], [-0.5, -2.25]]
    found = evaluated([*thumbs, rated], scores, learned, mean=3.0, deviation=2.0)
    figures = found.figures()
    assert (figures["n"], figures["accuracy"], figures["log_loss"]) == (0, None, None)
    lines, stars = figures["judgments"]["acceptable"], figures["judgments"]["stars"]
    assert (lines["n"], lines["num_judgments"], lines["accuracy"]) == (2, 2, 0.5)
    assert lines["log_loss"] == pytest.approx(
        -(math.log(sigmoid(1.5 - 0.5)) + math.log(1 - sigmoid(1.5 - 0.5))) / 2
    )
    assert (lines["commonest_share"], lines["entropy"]) == (0.5, pytest.approx(math.log(2)))
    assert lines["spearman"] is None  # the scores are the same
    three = sigmoid(2 - 1)
    two = sigmoid(-1.5 + 1) - sigmoid(-1.5 - 1)
    assert (stars["n"], stars["num_judgments"], stars["accuracy"]) == (1, 2, 0.5)
    assert stars["log_loss"] == pytest.approx(-(math.log(three) + math.log(two)) / 2)
    assert figures["judgments"]["odd"] == {"num_judgments": 1, "spearman": None}


def test_a_model_without_thresholds_can_say_only_which_is_higher():
    draw = random.Random(3)
    levels = [draw.randint(1, 5) for _ in range(40)]
    scores = [level + draw.gauss(0, 2) for level in levels]
    rows = [
        row(n, judgments=[{"annotator": "a", "completion": "x0", "ratings": {"stars": level}}])
        for n, level in enumerate(levels)
    ]
    found = evaluated(rows, [[score, 0.0] for score in scores], {"loss": "bradley_terry"})
    assert found.figures()["judgments"] == {
        "stars": {
            "num_judgments": 40,
            "spearman": pytest.approx(spearmanr(scores, levels).statistic),
        }
    }


@pytest.fixture
def taught(tiny_lm, tmp_path):
    """A reward-model directory whose loss learned ties and lines."""
    model, tokenizer = score_model_from(tiny_lm, seed=4)
    model.score.weight.data.mul_(30)
    model.config.concord_loss = {
        "loss": "davidson",
        "log_nu": -0.5,
        "scales": {"acceptable": LINES},
    }
    ScoreScale(mean=0.7, deviation=1.5, folded="bias").keep_in(model)
    save_model(model, tokenizer, tmp_path / "taught")
    return tmp_path / "taught"


MIXED = [row(n, [([UP, DOWN, TIE][n % 3], 1)], judgments=[]) for n in range(9)] + [
    {"split": "dev", "prompt": f"Q {n}", "completion": f"Word {n}", "label": n % 2 == 0}
    for n in range(8)
]


def test_evaluate_prints_them_and_an_ensemble_of_equals_says_what_one_says(
    taught, write_rows, tmp_path, capsys
):
    data = write_rows(MIXED)
    assert main(["evaluate", "--model", str(taught), "--data", str(data)]) == 0
    one = json.loads(capsys.readouterr().out)
    scorer = load_scorer(taught)
    costs, lines = [], []
    for each in read_comparisons(data):
        scores = scorer.score([each.prompt] * len(each.texts), each.texts)
        scores = [0.7 + 1.5 * score for score in scores]
        for vote in each.votes:
            place = vote.places()
            outcome = 0 if place[0] < place[1] else 1 if place[0] == place[1] else 2
            costs.append(-math.log(probabilities(scores[0] - scores[1], -0.5)[outcome]))
        for said in each.judgments:
            good = sigmoid(scores[0] - 0.5)
            lines.append(-math.log(good if said.level else 1 - good))
    assert Counter(map(bool, costs)) == {True: 9}
    assert one["log_loss"] == pytest.approx(sum(costs) / 9, rel=1e-4)
    assert one["judgments"]["acceptable"]["log_loss"] == pytest.approx(sum(lines) / 8, rel=1e-4)
    assert one["calibration"]["outcomes"] == 3
    assert one["calibration"]["pair_log_loss"] == pytest.approx(one["log_loss"])

    both = tmp_path / "both"
    words = ["--member", str(taught), "--member", str(taught), "--data", str(data)]
    assert main(["ensemble", *words, "--out", str(both)]) == 0
    assert main(["evaluate", "--model", str(both), "--data", str(data)]) == 0
    two = json.loads(capsys.readouterr().out)
    for figures in (one, two):
        figures["three_outcomes"].pop("log_loss_interval")
    assert two["three_outcomes"]["log_loss"] == pytest.approx(one["log_loss"], rel=1e-4)
    assert two["judgments"]["acceptable"]["log_loss"] == pytest.approx(
        one["judgments"]["acceptable"]["log_loss"], rel=1e-4
    )


def test_judgments_alone_are_enough_to_evaluate(taught, write_rows, capsys):
    data = write_rows(MIXED[9:])
    assert main(["evaluate", "--model", str(taught), "--data", str(data)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["n"], figures["calibration"], figures["slices"]) == (0, None, {})
    assert figures["judgments"]["acceptable"]["n"] == 8


def test_the_card_of_such_a_model_tells_of_ties_and_judgments(taught, write_rows, tmp_path, capsys):
    for name, held in (("both", MIXED), ("judged", MIXED[9:])):
        data, folder = write_rows(held), tmp_path / name
        words = ["evaluate", "--model", str(taught), "--data", str(data), "--report", str(folder)]
        assert main(words) == 0
        figures = json.loads(capsys.readouterr().out)
        card = (folder / "README.md").read_text(encoding="utf-8")
        lines = figures["judgments"]["acceptable"]
        assert f"| acceptable, 8 judgments: accuracy | {lines['accuracy']:.3f} |" in card
        assert ("![Reliability of ties](tie-reliability.png)" in card) == (name == "both")
    assert (tmp_path / "both" / "tie-reliability.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((tmp_path / "judged").glob("*.png"))
