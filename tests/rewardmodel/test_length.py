"""Length learned apart: what votes owe to it is in a weight of its own, and not in the score."""

import dataclasses
import json
import math
import random

import pytest
import torch

from policy.comparisons import parse_row, read_comparisons
from policy.config import BadInput
from policy.scoring import load_scorer
from rewardmodel.config import RewardConfig
from rewardmodel.diagnostics import correlations
from rewardmodel.evaluate import Evaluation
from rewardmodel.losses import explained_by_length, with_length
from rewardmodel.objective import CONFIG_KEY, Objective, fitted_weight
from rewardmodel.survey import Survey
from rewardmodel.targets import TargetBatch, TargetRule
from rewardmodel.train import train


def row(number, votes, texts, split="train"):
    return {
        "id": f"{split}{number}",
        "split": split,
        "prompt": [{"role": "user", "content": f"Question {number}?"}],
        "completions": [
            {"id": f"x{i}", "text": text, "model": None} for i, text in enumerate(texts)
        ],
        "votes": [
            {"axis": axis, "ranking": [[f"x{i}"] for i in order], "strength": None}
            | {"weight": None, "annotator": "a", "kind": "person"}
            for axis, order in votes
        ],
    }


COMPARISONS = [
    parse_row(row(0, [("a", [0, 1]), ("b", [1, 0])], ["four", "twelve signs"]), line=1),
    parse_row(row(1, [("a", [2, 0, 1])], ["x", "yyyyyy", "zzz"]), line=2),
]


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_length_term_is_added_to_each_head_by_its_weight():
    lengths = torch.tensor([1.0, 1.0, 3.0, 3.0])  # two completions with two heads
    found = with_length(torch.tensor([0.0, 1, 2, 3]), lengths, torch.tensor([10.0, -1.0]))
    assert found.tolist() == [10, 0, 32, 0]


PAIRS = torch.tensor([[0, 2], [4, 2], [1, 5], [3, 5]])  # two on each of two heads


def test_what_length_explains_is_the_squared_correlation_at_the_slopes_of_regression():
    scores, weights = drawn(6).requires_grad_(), torch.tensor([0.4, 0.1, 0.3, 0.7]).double()
    lengths = drawn(3).repeat_interleave(2)
    wanted, slopes = torch.zeros(()), []
    for head in range(2):
        top = square = spread = 0.0
        for (i, j), weight in zip(PAIRS.tolist(), weights.tolist(), strict=True):
            if i % 2 == head:
                length, difference = (lengths[i] - lengths[j]), scores[i] - scores[j]
                top += weight * length * difference
                square += weight * length * length
                spread += weight * difference * difference
        correlation = top / (square * spread).sqrt()
        wanted = wanted + correlation.square() * spread / 2
        slopes.append((top / square).item())
    slopes = torch.tensor(slopes, dtype=torch.float64, requires_grad=True)
    found = explained_by_length(scores, lengths, PAIRS, weights, slopes)
    torch.testing.assert_close(found, wanted)
    by_scores, by_slopes = torch.autograd.grad(found, [scores, slopes])
    torch.testing.assert_close(by_scores, torch.autograd.grad(wanted, scores)[0])
    torch.testing.assert_close(by_slopes, torch.zeros(2, dtype=torch.float64))


def test_slopes_climb_to_the_regression_while_the_rest_descends_and_pieces_add_up():
    scores, lengths, weights = drawn(6), drawn(3).repeat_interleave(2), torch.ones(4).double()
    slopes = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    found = explained_by_length(scores, lengths, PAIRS, weights, slopes)
    (gradient,) = torch.autograd.grad(found, slopes)
    for head in range(2):
        top = sum(
            (lengths[i] - lengths[j]) * (scores[i] - scores[j])
            for i, j in PAIRS.tolist()
            if i % 2 == head
        )
        assert gradient[head].item() == pytest.approx(-top.item())
    at = torch.tensor([0.5, -0.2], dtype=torch.float64)
    parts = [
        explained_by_length(scores, lengths, PAIRS[part], weights[part], at)
        for part in (slice(0, 1), slice(1, 4))
    ]
    whole = explained_by_length(scores, lengths, PAIRS, weights, at)
    torch.testing.assert_close(sum(parts), whole)


def objective_of(comparisons, config, axes=()):
    rule = dataclasses.replace(TargetRule.of(config, survey := Survey.of(comparisons)), axes=axes)
    targets = [rule.targets(each) for each in comparisons]
    counts = [len(each.texts) * rule.num_heads for each in comparisons]
    starts = [sum(counts[:place]) for place in range(len(counts))]
    batch = TargetBatch.of(targets, starts, [1.0] * len(counts))
    return Objective(config, survey, rule).double(), batch, targets


@pytest.mark.parametrize("loss", ["bradley_terry", "plackett_luce"])
def test_the_loss_is_that_of_score_and_length_together_and_plain_without_weights(loss):
    scores = drawn(5)
    plain, batch, _ = objective_of(COMPARISONS, RewardConfig(loss=loss))
    wanted = plain(scores, batch, num_comparisons=2)
    config = RewardConfig(loss=loss, length_head=True, length_decorrelation=2.0)
    objective, batch, _ = objective_of(COMPARISONS, config)
    assert objective(scores, batch, num_comparisons=2) == wanted
    objective.length_weights.data.fill_(0.7)
    objective.length_slopes.data.fill_(0.3)
    together = scores + 0.7 * batch.lengths
    seen = plain(together, batch, num_comparisons=2)
    assert not objective.is_bradley_terry
    torch.testing.assert_close(objective(scores, batch, num_comparisons=2, plain=True), seen)
    slopes = objective.length_slopes.detach()
    explained = explained_by_length(scores, batch.lengths, batch.pairs, batch.weights, slopes)
    torch.testing.assert_close(
        objective(scores, batch, num_comparisons=2), seen + 2 * explained / 2
    )


@pytest.mark.parametrize("loss", ["bradley_terry", "plackett_luce"])
def test_centring_holds_the_score_itself_and_not_what_length_adds(loss):
    config = RewardConfig(loss=loss, length_head=True)
    scores = drawn(5)
    bare, batch, _ = objective_of(COMPARISONS, config)
    held, _, _ = objective_of(COMPARISONS, dataclasses.replace(config, centring=0.3))
    for objective in (bare, held):
        objective.length_weights.data.fill_(0.7)
    wanted = sum(
        weight * (scores[i] + scores[j]) ** 2
        for (i, j), weight in zip(batch.pairs.tolist(), batch.weights, strict=True)
    )
    found = held(scores, batch, num_comparisons=2) - bare(scores, batch, num_comparisons=2)
    torch.testing.assert_close(found, 0.3 * wanted / 2)


def test_a_judgment_is_of_the_score_without_length():
    drawn_line = row(0, [("a", [0, 1])], ["four", "twelve signs"])
    drawn_line["votes"][0]["acceptable"] = 1
    judged = [parse_row(drawn_line, line=1)]
    config = RewardConfig(loss="pointwise", pointwise_weight=1.0, length_head=True)
    scores = drawn(2)
    objective, batch, _ = objective_of(judged, config)
    before = objective(scores, batch, num_comparisons=1)
    assert before > 0.1
    objective.length_weights.data.fill_(0.7)
    assert objective(scores, batch, num_comparisons=1) == before


def test_lengths_are_logs_in_units_of_their_spread_within_a_comparison():
    logs = [math.log(5), math.log(13), math.log(2), math.log(7), math.log(4)]
    squares = [(logs[i] - logs[j]) ** 2 for i, j in [(0, 1), (2, 3), (2, 4), (3, 4)]]
    unit = math.sqrt(sum(squares) / 4)
    config = RewardConfig(length_head=True)
    assert Survey.of(COMPARISONS).length_unit == pytest.approx(unit)
    _, batch, _ = objective_of(COMPARISONS, config)
    assert batch.lengths.tolist() == pytest.approx([each / unit for each in logs])
    _, batch, _ = objective_of(COMPARISONS, config, axes=("a", "b"))
    assert batch.lengths.tolist() == pytest.approx([each / unit for each in logs for _ in "ab"])


def test_the_weight_starts_at_the_log_odds_that_votes_show():
    differences, targets = torch.tensor([1.0, -1.0, 2.0]), torch.tensor([0.75, 0.25, 0.9])
    weights = torch.tensor([1.0, 2.0, 3.0])
    # sigmoid(b) = 3/4 and sigmoid(2 b) = 9/10 both at b = log 3
    assert fitted_weight(differences, targets, weights) == pytest.approx(math.log(3), abs=0.01)
    assert 3 < fitted_weight(torch.ones(4), torch.ones(4), torch.ones(4)) < 7  # all longer won


def test_each_head_has_a_weight_from_its_own_votes():
    rows = [
        row(n, [("a", [0, 1] if n < 6 else [1, 0]), ("b", [1, 0])], ["aaaaaaaa", "a"])
        for n in range(8)
    ]
    comparisons = [parse_row(each, line=1) for each in rows]
    config = RewardConfig(length_head=True)
    objective, _, targets = objective_of(comparisons, config, axes=("a", "b"))
    objective.start_length(targets)
    first, second = objective.length_weights.tolist()
    assert first == pytest.approx(math.log(3), abs=0.02)
    assert -7 < second < -3


def test_answers_of_one_length_cannot_be_learned_from(write_rows, tmp_path):
    data = write_rows([row(0, [("a", [0, 1])], ["red", "sea"])])
    with pytest.raises(BadInput, match="answers of different lengths"):
        train(RewardConfig(length_head=True), data=data, out=tmp_path / "out", init=None)


WORDS = ["river", "stone", "table", "green", "seven", "candle"]


def biased_rows(count, split):
    """Voters take the longer answer three times of four, whatever it says."""
    draw = random.Random(split)
    rows = []
    for number in range(count):
        lengths = draw.sample([2, 3, 5, 8], 2)
        texts = [" ".join(draw.choice(WORDS) for _ in range(n)) for n in lengths]
        longer = 0 if lengths[0] > lengths[1] else 1
        first = longer if draw.random() < 0.75 else 1 - longer
        rows.append(row(number, [("a", [first, 1 - first])], texts, split))
    return rows


def test_votes_for_length_leave_the_published_score_without_it(write_rows, tmp_path):
    data = write_rows(biased_rows(160, "train") + biased_rows(80, "test"))
    small = RewardConfig(
        layers=1, heads=2, width=32, context=96, vocab_size=300, comparisons_per_step=16,
        epochs=2, lr_peak=1e-2,
    )  # fmt: skip
    found = {}
    for length_head in (False, True):
        config = dataclasses.replace(small, length_head=length_head)
        out = tmp_path / str(length_head)
        train(config, data=data, out=out, init=None)
        unseen = (each for each in read_comparisons(data) if each.in_split("test"))
        told = correlations(Evaluation.of(load_scorer(out), unseen))
        found[length_head] = told["length_within"]["spearman"]
    assert found[False] > 0.8
    assert abs(found[True]) < 0.6
    with pytest.raises(BadInput, match="wants a length_head"):
        RewardConfig(length_decorrelation=1.0)
    kept = json.loads((tmp_path / "True" / "config.json").read_text("utf-8"))[CONFIG_KEY]
    assert kept["length"]["weights"][0] > 0.5
