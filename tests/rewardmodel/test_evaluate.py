"""rewardmodel.evaluate: figures against hand-made tables; the interval against the textbook's."""

import math

import pytest

from policy.comparisons import Vote, parse_row
from rewardmodel.bootstrap import PairRow, bootstrap
from rewardmodel.evaluate import measure


def comparison(votes, k=3, **fields):
    row = {
        "id": "c1",
        "split": "test",
        "prompt": [{"role": "user", "content": "Hello?"}],
        "completions": [{"id": f"x{i}", "text": f"Answer {i}.", "model": None} for i in range(k)],
        "votes": [
            {
                "axis": "helpful",
                "ranking": ranking,
                "strength": None,
                "weight": weight,
                "annotator": "a1",
                "kind": "human",
            }
            for ranking, weight in votes
        ],
    }
    return parse_row(row | fields, line=1)


FULL = [["x0"], ["x1"], ["x2"]]


@pytest.mark.parametrize(
    ("votes", "scores", "correct"),
    [
        ([(FULL, None)], [3.0, 2.0, 1.0], 1.0),
        ([(FULL, None)], [1.0, 2.0, 3.0], 0.0),
        ([(FULL, None)], [2.0, 3.0, 1.0], 2 / 3),
        ([(FULL, None)], [1.0, 1.0, 1.0], 1 / 2),
        ([(FULL, None)], [1.0, 1.0, 0.0], (0.5 + 1 + 1) / 3),
        # Two of three votes prefer x0: putting it first is worth 2/3, putting it last 1/3.
        ([([["x0"], ["x1"]], None)] * 2 + [([["x1"], ["x0"]], None)], [1.0, 0.0, 9.0], 2 / 3),
        ([([["x0"], ["x1"]], None)] * 2 + [([["x1"], ["x0"]], None)], [0.0, 1.0, 9.0], 1 / 3),
        # A vote on three pairs and a vote on one count the same: (2/3 + 1) / 2.
        ([(FULL, None), ([["x1"], ["x0"]], None)], [2.0, 3.0, 1.0], (2 / 3 + 1) / 2),
        ([(FULL, 3), ([["x1"], ["x0"]], 1)], [2.0, 3.0, 1.0], (3 * 2 / 3 + 1) / 4),
        # Ties have no say.
        ([([["x0"], ["x1", "x2"]], None)], [2.0, 1.0, 1.5], 1.0),
    ],
)
def test_accuracy_is_the_mean_over_votes_of_the_share_of_their_pairs(votes, scores, correct):
    row = measure(comparison(votes).table, scores)
    assert row.correct == pytest.approx(correct)


def definition(votes: list[Vote], scores: list[float]) -> tuple[float, float]:
    """Log loss and accuracy as the docstring says them, vote by vote."""
    log_loss = correct = total = 0.0
    for vote in votes:
        nats = right = pairs = 0.0
        for place, group in enumerate(vote.ranking):
            for better in group:
                for worse in (index for lower in vote.ranking[place + 1 :] for index in lower):
                    difference = scores[better] - scores[worse]
                    nats += math.log1p(math.exp(-difference))
                    right += 1 if difference > 0 else 0.5 if difference == 0 else 0
                    pairs += 1
        if pairs:
            log_loss += vote.weight * nats / pairs
            correct += vote.weight * right / pairs
            total += vote.weight
    return log_loss / total, correct / total


def test_both_figures_follow_the_definition_where_votes_are_partial_tied_and_weighted():
    votes = [
        ([["x3"], ["x0", "x1"], ["x2"]], 1),
        ([["x0"], ["x3"]], 2.5),
        ([["x0", "x1", "x2", "x3"]], 4),
        ([["x2"], ["x1"], ["x0"]], None),
    ]
    made = comparison(votes, k=4)
    scores = [0.3, -1.2, 0.3, 2.0]
    row = measure(made.table, scores)
    log_loss, correct = definition(list(made.votes), scores)
    assert row.log_loss == pytest.approx(log_loss, abs=1e-12)
    assert row.correct == pytest.approx(correct, abs=1e-12)


def rows(correct: list[float], groups: list[str]) -> list[PairRow]:
    return [PairRow(group, 0.7, value, 1.0) for group, value in zip(groups, correct, strict=True)]


def test_the_interval_of_independent_answers_is_the_binomial_one():
    n, share = 400, 0.7
    made = rows([1.0] * 280 + [0.0] * 120, [str(i) for i in range(n)])
    means, intervals = bootstrap(made, seed=1)
    half = 1.96 * math.sqrt(share * (1 - share) / n)
    assert means["correct"] == pytest.approx(share)
    assert intervals["correct"] == pytest.approx([share - half, share + half], abs=0.006)


def test_answers_of_one_group_move_together_so_their_interval_is_wider():
    # 40 groups of ten equal answers carry what 40 answers carry.
    groups = [str(i // 10) for i in range(400)]
    means, intervals = bootstrap(rows([float(i < 280) for i in range(400)], groups), seed=1)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 40)
    low, high = intervals["correct"]
    assert means["correct"] == pytest.approx(0.7)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_one_group_has_no_interval():
    means, intervals = bootstrap(rows([1.0, 0.0], ["a", "a"]))
    assert means["correct"] == 0.5
    assert intervals == {"log_loss": None, "correct": None}


def test_the_same_seed_gives_the_same_interval():
    made = rows([1.0, 0.0, 1.0, 1.0, 0.0], list("abcde"))
    assert bootstrap(made, seed=3) == bootstrap(made, seed=3)
