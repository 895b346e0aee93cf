"""rewardmodel.losses against hand-made numbers and the definition written as slow loops."""

import math

import pytest
import torch

from rewardmodel.losses import pair_nats, ranking_loss


def test_the_loss_of_one_pair_is_minus_log_sigmoid_of_the_score_difference():
    scores = torch.tensor([1.5, 0.5], dtype=torch.float64)
    nats = pair_nats(scores, torch.tensor([[0, 1], [1, 0]]), torch.ones(2, dtype=torch.float64))
    # -log(1 / (1 + e^-1)) = 0.31326168751822286; the wrong way round it is one nat dearer.
    assert nats.tolist() == pytest.approx([0.31326168751822286, 1.3132616875182228], abs=1e-15)


def test_a_soft_target_is_the_mean_over_the_votes():
    scores = torch.tensor([0.3, -0.9])
    pair, flipped = torch.tensor([[0, 1]]), torch.tensor([[1, 0]])
    one = torch.ones(1)
    three_of_four = pair_nats(scores, pair, torch.tensor([0.75]))
    votes = 0.75 * pair_nats(scores, pair, one) + 0.25 * pair_nats(scores, flipped, one)
    torch.testing.assert_close(three_of_four, votes)


def test_a_soft_target_is_best_met_at_its_log_odds():
    target = 0.8
    scores = torch.tensor([math.log(target / (1 - target)), 0.0], requires_grad=True)
    pair_nats(scores, torch.tensor([[0, 1]]), torch.tensor([target])).sum().backward()
    assert scores.grad is not None
    assert scores.grad.abs().max() < 1e-7


def test_a_huge_difference_gives_neither_infinity_nor_a_lost_gradient():
    scores = torch.tensor([-2000.0, 2000.0], requires_grad=True)
    loss = pair_nats(scores, torch.tensor([[0, 1]]), torch.ones(1)).sum()
    loss.backward()
    assert loss.item() == pytest.approx(4000.0)
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([-1.0, 1.0])


def slow_loss(scores: list[float], rankings: list[list[int]]) -> float:
    """The K-wise loss of strict rankings (best first), as the sentence says it: for each ranking
    the mean of the Bradley-Terry loss over its pairs, then the mean over rankings."""
    total = 0.0
    for ranking in rankings:
        nats, pairs = 0.0, 0
        for better in range(len(ranking)):
            for worse in range(better + 1, len(ranking)):
                difference = scores[ranking[better]] - scores[ranking[worse]]
                nats += math.log1p(math.exp(-difference))
                pairs += 1
        total += nats / pairs
    return total / len(rankings)


def table(rankings: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pairs, weights = [], []
    for ranking in rankings:
        k = len(ranking)
        for better in range(k):
            for worse in range(better + 1, k):
                pairs.append((ranking[better], ranking[worse]))
                weights.append(2 / (k * (k - 1)))
    shape = len(pairs)
    return (
        torch.tensor(pairs),
        torch.ones(shape, dtype=torch.float64),
        torch.tensor(weights, dtype=torch.float64),
    )


def test_the_k_wise_loss_is_the_mean_of_its_pairs_and_every_comparison_counts_once():
    rankings = [[2, 0, 1, 3], [5, 4], [8, 6, 7]]  # K = 4, 2, 3 over nine completions
    scores = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pairs, targets, weights = table(rankings)
    loss = ranking_loss(scores, pairs, targets, weights, num_comparisons=3)
    assert loss.item() == pytest.approx(slow_loss(scores.tolist(), rankings), abs=1e-14)


@pytest.mark.parametrize("centring", [0.0, 0.3])
def test_the_gradient_agrees_with_finite_differences(centring):
    pairs, targets, weights = table([[2, 0, 1, 3], [5, 4]])
    targets = targets * torch.linspace(0.5, 1.0, len(targets)).double()
    scores = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def loss(scores: torch.Tensor) -> torch.Tensor:
        return ranking_loss(scores, pairs, targets, weights, num_comparisons=2, centring=centring)

    assert torch.autograd.gradcheck(loss, scores.requires_grad_())


def test_pieces_of_a_batch_add_up_to_the_batch():
    scores = torch.randn(6, generator=torch.Generator().manual_seed(3)).double()
    pairs, targets, weights = table([[2, 0, 1, 3], [5, 4]])
    whole = ranking_loss(scores, pairs, targets, weights, num_comparisons=2)
    pieces = [
        ranking_loss(scores, pairs[s], targets[s], weights[s], num_comparisons=2)
        for s in (slice(0, 6), slice(6, 7))
    ]
    torch.testing.assert_close(sum(pieces), whole)


def test_centring_pulls_the_mean_to_zero_and_leaves_the_difference_alone():
    scores = torch.tensor([3.0, 3.0], requires_grad=True)
    pairs, weights = torch.tensor([[0, 1]]), torch.ones(1)
    loss = ranking_loss(
        scores, pairs, torch.tensor([0.5]), weights, num_comparisons=1, centring=0.01
    )
    assert loss.item() == pytest.approx(math.log(2) + 0.01 * 36)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([0.12, 0.12])
