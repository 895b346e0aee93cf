"""rewardmodel.objective: each loss is Bradley-Terry where theory says so, and each is learned."""

import dataclasses
import itertools
import json
import math
import random

import pytest
import torch
from safetensors.torch import load_file

from policy.comparisons import parse_row, read_comparisons
from policy.config import BadInput
from policy.scoring import load_scorer
from rewardmodel.config import RewardConfig
from rewardmodel.objective import CONFIG_KEY, Objective
from rewardmodel.strength import Strengths
from rewardmodel.survey import Survey
from rewardmodel.targets import TargetBatch, TargetRule
from rewardmodel.train import train


def row(number, votes, k, split="train", texts=None, **fields):
    return {
        "id": f"{split}{number}",
        "split": split,
        "prompt": [{"role": "user", "content": f"Question {number}?"}],
        "completions": [
            {"id": f"x{i}", "text": texts[i] if texts else f"Answer {i}.", "model": None}
            for i in range(k)
        ],
        "votes": [
            {"axis": "a", "ranking": ranking, "strength": strength, "weight": None}
            | {"annotator": f"a{at}", "kind": "person"}
            | more
            for at, (ranking, strength, more) in enumerate(votes)
        ],
    } | fields


def strict(order, strength=None, **more):
    return [[f"x{i}"] for i in order], strength, more


PAIRS = [
    parse_row(row(0, [strict([0, 1], [1]), strict([1, 0], [1]), strict([0, 1], [1])], 2), line=1),
    parse_row(row(1, [strict([1, 0], [1])], 2), line=2),
]
LISTS = [
    parse_row(row(2, [strict([2, 0, 3, 1])], 4), line=3),
    parse_row(row(3, [strict([1, 2, 0]), strict([1, 0, 2])], 3), line=4),
]


def cost(comparisons, scores, *, log_nu=None, strengths=None, plain=False, **settings):
    config = RewardConfig(**settings)
    rule = TargetRule.of(config, survey := Survey.of(comparisons))
    if strengths:
        rule = dataclasses.replace(rule, strengths=strengths)
    objective = Objective(config, survey, rule).double()
    if log_nu is not None:
        objective.log_nu.data.fill_(log_nu)
    counts = [len(each.texts) for each in comparisons]
    starts = list(itertools.accumulate(counts, initial=0))[:-1]
    batch = TargetBatch.of(
        [rule.targets(each) for each in comparisons], starts, [1.0] * len(counts)
    )
    return objective(scores, batch, num_comparisons=len(comparisons), plain=plain)


def drawn(comparisons, seed=0):
    count = sum(len(each.texts) for each in comparisons)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dtype=torch.float64, generator=generator)


ONE_LEVEL = Strengths(3.0, {1.0: 0.8}, {1.0: 0})


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "plackett_luce"},
        {"loss": "davidson", "log_nu": -40.0},
        {"strength": "margin", "strengths": ONE_LEVEL},
        {"strength": "soft", "strengths": Strengths(3.0, {1.0: 1 - 1e-15}, {1.0: 0})},
        {"loss": "plackett_luce", "centring": 0.1},
    ],
    ids=str,
)
def test_on_pairs_it_is_bradley_terry(settings):
    scores, centring = drawn(PAIRS), settings.get("centring", 0.0)
    torch.testing.assert_close(
        cost(PAIRS, scores, **settings), cost(PAIRS, scores, centring=centring), rtol=1e-7, atol=0
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"strength": "soft", "strengths": ONE_LEVEL},
        {"loss": "plackett_luce", "label_smoothing": 0.2},
        {"loss": "davidson", "label_smoothing": 0.2, "log_nu": -40.0},
    ],
    ids=str,
)
def test_equal_strengths_and_smoothing_are_bradley_terry_with_flipped_votes(settings):
    scores = drawn(PAIRS)
    smoothed = cost(PAIRS, scores, label_smoothing=0.2)
    assert (smoothed - cost(PAIRS, scores)).abs() > 0.01
    torch.testing.assert_close(cost(PAIRS, scores, **settings), smoothed, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", ["bradley_terry", "davidson", "plackett_luce"])
def test_for_a_look_at_dev_nothing_is_smoothed_or_centred(loss):
    scores = drawn(LISTS)
    bare = cost(LISTS, scores, loss=loss)
    dressed = {"label_smoothing": 0.1, "centring": 0.2, "loss": loss}
    assert cost(LISTS, scores, **dressed) > bare
    torch.testing.assert_close(cost(LISTS, scores, **dressed, plain=True), bare)


def test_plackett_luce_of_lists_is_the_mean_over_choices_then_votes_then_comparisons():
    scores = drawn(LISTS)

    def nats(order):
        worths = [math.exp(scores[i]) for i in order]
        choices = [-math.log(worths[at] / sum(worths[at:])) for at in range(len(order) - 1)]
        return sum(choices) / len(choices)

    first = nats([2, 0, 3, 1])
    second = (nats([5, 6, 4]) + nats([5, 4, 6])) / 2
    found = cost(LISTS, scores, loss="plackett_luce").item()
    assert found == pytest.approx((first + second) / 2, rel=1e-6)


def test_judgments_come_beside_the_rankings_with_their_weight():
    judged = [
        parse_row(row(0, [([["x0"], ["x1"]], None, {"acceptable": 1})], 2), line=1),
        parse_row(row(1, [([], None, {"outcome": "both_bad"})], 2), line=2),
    ]
    scores = torch.tensor([2.0, 0.5, -1.0, 0.0], dtype=torch.float64)
    # One yes of four, half an answer added to each: P(yes) = 1.5 / 5 where the score is 0.
    threshold = math.log(3.5 / 1.5)

    def nats(score, good):
        return math.log1p(math.exp(threshold - score if good else score - threshold))

    points = (nats(2.0, True) + nats(0.5, False)) / 2 + (nats(-1.0, False) + nats(0.0, False)) / 2
    pair = math.log1p(math.exp(-1.5))
    both = cost(judged, scores, pointwise_weight=0.3).item()
    assert both == pytest.approx((pair + 0.3 * points) / 2, rel=1e-6)
    alone = cost(judged, scores, loss="pointwise", pointwise_weight=1.0).item()
    assert alone == pytest.approx(points / 2, rel=1e-6)


def slow_bradley_terry(wins: list[list[int]]) -> list[float]:
    """The maximum-likelihood scores by Zermelo's iteration (Hunter 2004), their mean 0."""
    k = len(wins)
    worths = [1.0] * k
    for _ in range(5000):
        worths = [
            sum(wins[i])
            / sum((wins[i][j] + wins[j][i]) / (worths[i] + worths[j]) for j in range(k) if j != i)
            for i in range(k)
        ]
    logs = [math.log(worth) for worth in worths]
    return [each - sum(logs) / k for each in logs]


def test_free_scores_fitted_to_votes_are_the_bradley_terry_estimate():
    draw, k = random.Random(3), 5
    gold = [draw.gauss(0, 1) for _ in range(k)]
    wins = [[0] * k for _ in range(k)]
    made = []
    for i, j in itertools.combinations(range(k), 2):
        for number in range(12):
            first = draw.random() < 1 / (1 + math.exp(gold[j] - gold[i]))
            winner, loser = (i, j) if first else (j, i)
            wins[winner][loser] += 1
            made.append(parse_row(row(number, [strict([winner, loser])], k), line=1))
    rule = TargetRule()
    objective = Objective(RewardConfig(), Survey(), rule).double()
    batch = TargetBatch.of(
        [rule.targets(each) for each in made], [0] * len(made), [1.0] * len(made)
    )
    scores = torch.zeros(k, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=200, tolerance_grad=1e-12)

    def closure():
        optimizer.zero_grad()
        loss = objective(scores, batch, num_comparisons=len(made))
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted = (scores - scores.mean()).tolist()
    assert fitted == pytest.approx(slow_bradley_terry(wins), abs=1e-6)


WORDS = ["river", "stone", "table", "green", "seven", "candle", "paper", "winter"]


def polite_rows(count, *, seed, split):
    """Two answers; more `please` is better, by two or more it is good enough, as many are tied."""
    draw, rows = random.Random(seed), []
    for number in range(count):
        polite = [draw.randrange(3), draw.randrange(3)]
        texts = [" ".join(draw.sample(WORDS, 3) + ["please"] * times) for times in polite]
        order = sorted(range(2), key=lambda i: -polite[i])
        tied = polite[0] == polite[1]
        ranking = [["x0", "x1"]] if tied else [[f"x{i}"] for i in order]
        good = sum(polite[int(group[0][1])] == 2 for group in ranking)
        strength = None if tied else [abs(polite[0] - polite[1])]
        more = {"acceptable": good, "strength_levels": 2}
        rows.append(row(number, [(ranking, strength, more)], 2, split=split, texts=texts))
    return rows


SMALL = RewardConfig(
    layers=1,
    heads=2,
    width=32,
    context=64,
    vocab_size=300,
    comparisons_per_step=8,
    eval_every=4,
    checkpoint_every=6,
    lr_peak=3e-3,
)


@pytest.fixture
def polite(write_rows):
    train_rows = polite_rows(72, seed=1, split="train")
    return write_rows(train_rows + polite_rows(24, seed=2, split="dev"))


def metrics(directory, phase):
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [each for line in lines if (each := json.loads(line))["phase"] == phase]


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "davidson", "pointwise_weight": 0.5, "strength": "soft"},
        {"loss": "plackett_luce", "label_smoothing": 0.05, "thread_weight": 2.0},
        {"loss": "pointwise", "pointwise_weight": 1.0, "rating": "acceptable"},
        {"strength": "margin", "strength_margin": 0.5},
    ],
    ids=str,
)
def test_every_loss_learns_and_a_resumed_run_equals_one_that_was_not_stopped(
    settings, polite, tmp_path
):
    config = dataclasses.replace(SMALL, epochs=3, eval_every=9, **settings)

    def stop(step, stats):
        if step == 21:
            raise KeyboardInterrupt

    train(config, data=polite, out=tmp_path / "whole", init=None)
    with pytest.raises(KeyboardInterrupt):
        train(config, data=polite, out=tmp_path / "first", init=None, on_step=stop)
    train(config, data=polite, out=tmp_path / "second", init=None, resume_from=[tmp_path / "first"])
    whole, second = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "second")
    )
    assert all(torch.equal(whole[name], second[name]) for name in whole)
    learned = [
        json.loads((tmp_path / name / "config.json").read_text())[CONFIG_KEY]
        for name in ("whole", "second")
    ]
    assert learned[0] == learned[1]
    costs = [each["objective"] for each in metrics(tmp_path / "whole", "dev")]
    assert min(costs) < costs[0]
    assert metrics(tmp_path / "whole", "dev")[-1]["accuracy"] > 0.8


def test_what_the_loss_learned_is_kept_with_the_model(polite, tmp_path):
    config = dataclasses.replace(SMALL, loss="davidson", pointwise_weight=1.0)
    train(config, data=polite, out=tmp_path / "out", init=None)
    learned = getattr(load_scorer(tmp_path / "out").model.config, CONFIG_KEY)
    survey = Survey.of(read_comparisons(polite))
    start = Objective(config, survey, TargetRule.of(config, survey)).as_json()
    assert learned["loss"] == "davidson"
    assert 0 < abs(learned["log_nu"] - start["log_nu"]) < 1
    scale, start_scale = learned["scales"]["acceptable"], start["scales"]["acceptable"]
    assert (scale["low"], scale["high"], len(scale["thresholds"])) == (0, 1, 1)
    assert 0 < abs(scale["thresholds"][0] - start_scale["thresholds"][0]) < 1


def test_thumbs_alone_train_a_model(write_rows, tmp_path):
    draw = random.Random(4)
    rows = [
        {"prompt": "Hi", "completion": " ".join(draw.sample(WORDS, 3) + ["please"] * good)}
        | {"label": bool(good)}
        for good in (0, 1) * 60
    ]
    config = dataclasses.replace(SMALL, loss="pointwise", pointwise_weight=1.0, epochs=2)
    train(config, data=write_rows(rows), out=tmp_path / "out", init=None)
    steps = metrics(tmp_path / "out", "train")
    assert "accuracy" not in steps[0]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=0.05)
    scores = load_scorer(tmp_path / "out").score(
        [[{"role": "user", "content": "Hi"}]] * 2, ["stone river seven", "stone river seven please"]
    )
    assert scores[1] > scores[0] + 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss": "hinge"}, "loss must be one of bradley_terry, davidson"),
        ({"strength": "hard"}, "strength must be one of ignore, margin, soft: 'hard'"),
        ({"label_smoothing": 0.5}, r"label_smoothing must be in \[0, 0.5\): 0.5"),
        ({"loss": "plackett_luce", "strength": "soft"}, "strength soft goes with"),
        ({"loss": "pointwise"}, "wants a pointwise_weight above 0: 0.0"),
        ({"rating": "clear"}, "rating 'clear' is learned with"),
        ({"thread_weight": 0.0}, "thread_weight must be null or above 0: 0.0"),
        ({"strength_margin": -1.0}, "strength_margin must be >= 0: -1.0"),
    ],
)
def test_settings_that_make_no_loss_are_refused(settings, said):
    with pytest.raises(BadInput, match=said):
        RewardConfig(**settings)


def test_a_file_without_what_the_loss_wants_is_refused(write_rows, tmp_path):
    data = write_rows([row(0, [strict([0, 1])], 2)])
    for settings, said in (
        ({"strength": "soft"}, "strength is soft, and no train vote"),
        ({"pointwise_weight": 1.0}, "hold no rating of two levels: "),
    ):
        config = dataclasses.replace(SMALL, **settings)
        with pytest.raises(BadInput, match=said):
            train(config, data=data, out=tmp_path / "out", init=None)
    assert not (tmp_path / "out").exists()
