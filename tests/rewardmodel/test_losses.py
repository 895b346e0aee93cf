"""rewardmodel.losses against hand-made numbers and the definition written as slow loops."""

import itertools
import math

import pytest
import torch

from rewardmodel.losses import (
    NOBODY,
    choice_nats,
    level_logprobs,
    level_nats,
    pair_logprobs,
    pair_nats,
    ranking_loss,
    softened,
)


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


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_davidsons_three_probabilities_are_those_of_his_ratios_and_sum_to_one():
    # Worths 4 and 1, nu = 1/2: 4 : 1/2 sqrt(4) : 1, so 4/6, 1/6, 1/6.
    logprobs = pair_logprobs(double(math.log(4.0)), math.log(0.5))
    assert logprobs.exp().tolist()[0] == pytest.approx([4 / 6, 1 / 6, 1 / 6], abs=1e-15)
    for log_nu in (-30.0, 0.0, 3.0):
        total = pair_logprobs(double(-800.0, -1.0, 0.0, 7.0), log_nu).exp().sum(-1)
        assert total.tolist() == pytest.approx([1.0] * 4, abs=1e-12)


def test_davidson_without_ties_is_bradley_terry_as_nu_goes_to_zero():
    scores, pairs = draw(4, 5), torch.tensor([[0, 1], [2, 3], [3, 0]])
    targets = double(1.0, 0.3, 0.75)
    plain = pair_nats(scores, pairs, targets)
    for log_nu, within in ((-10.0, 1e-4), (-40.0, 1e-14)):
        davidson = pair_nats(scores, pairs, targets, ties=double(0, 0, 0), log_nu=log_nu)
        assert (davidson - plain).abs().max() < within


def test_given_that_it_is_no_tie_davidson_is_bradley_terry_for_any_nu():
    difference = draw(5, 6)
    first, _, second = pair_logprobs(difference, 1.3).exp().unbind(-1)
    torch.testing.assert_close(first / (first + second), torch.sigmoid(difference))


def test_ties_are_best_met_at_the_scores_and_nu_that_have_their_shares():
    # 5 of 10 votes put the first above, 3 tie, 2 put the second above: 0.5 : 0.3 : 0.2.
    difference = math.log(0.5 / 0.2)
    log_nu = torch.tensor(math.log(0.3 / math.sqrt(0.5 * 0.2)), dtype=torch.float64)
    scores = double(difference, 0.0).requires_grad_()
    nats = pair_nats(
        scores,
        torch.tensor([[0, 1]]),
        double(0.65),
        ties=double(0.3),
        log_nu=log_nu.requires_grad_(),
    )
    entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    assert nats.item() == pytest.approx(entropy, abs=1e-14)
    nats.sum().backward()
    assert scores.grad is not None
    assert log_nu.grad is not None
    assert max(scores.grad.abs().max().item(), log_nu.grad.abs().item()) < 1e-14


@pytest.mark.parametrize("smoothing", [0.1, 0.25])
def test_a_smoothed_vote_is_best_met_at_the_log_odds_of_its_smoothing(smoothing):
    scores = double(math.log((1 - smoothing) / smoothing), 0.0).requires_grad_()
    targets = softened(double(1.0), 1 - smoothing)
    pair_nats(scores, torch.tensor([[0, 1]]), targets).sum().backward()
    assert scores.grad is not None
    assert scores.grad.abs().max() < 1e-14


def test_smoothing_flips_votes_and_leaves_ties():
    # 0.5 first, 0.3 ties, 0.2 second, flipped with 0.1: 0.47, 0.3, 0.23.
    assert softened(double(0.65), 0.9).item() == pytest.approx(0.47 + 0.15)
    assert softened(double(0.0, 0.3, 1.0), 1.0).tolist() == [0.0, 0.3, 1.0]


def test_a_margin_is_what_the_better_must_be_ahead_by():
    scores, pairs = double(3.0, 1.0), torch.tensor([[0, 1]])
    nats = pair_nats(scores, pairs, double(1.0), margins=double(1.5))
    assert nats.item() == pytest.approx(math.log1p(math.exp(-0.5)), abs=1e-15)
    unmoved = pair_nats(scores, pairs, double(1.0), margins=double(0.0))
    assert unmoved.item() == pair_nats(scores, pairs, double(1.0)).item()


def choices_of(ranking: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A strict ranking, best first, as choices; rows are filled with NOBODY."""
    k = len(ranking)
    rows = [ranking[at:] + [NOBODY] * at for at in range(k - 1)]
    return torch.tensor(ranking[:-1]), torch.tensor(rows)


def test_plackett_luce_is_the_product_of_choices_from_those_left():
    # Worths 1, 2, 3, 4; the order 3, 0, 2, 1: 4/10 * 1/6 * 3/5.
    nats = choice_nats(double(1, 2, 3, 4).log(), *choices_of([3, 0, 2, 1]))
    expected = [-math.log(4 / 10), -math.log(1 / 6), -math.log(3 / 5)]
    assert nats.tolist() == pytest.approx(expected, abs=1e-14)


def test_the_probabilities_of_all_orders_sum_to_one():
    scores = draw(5, 7)
    total = sum(
        math.exp(-choice_nats(scores, *choices_of(list(order))).sum().item())
        for order in itertools.permutations(range(5))
    )
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_choice_from_two_is_bradley_terry(smoothing):
    scores = draw(4, 8)
    winners, contestants = torch.tensor([0, 3]), torch.tensor([[0, 1], [3, 2]])
    targets = softened(double(1.0, 1.0), 1 - smoothing)
    torch.testing.assert_close(
        choice_nats(scores, winners, contestants, smoothing=smoothing),
        pair_nats(scores, contestants, targets),
    )


def test_a_smoothed_choice_gives_equal_parts_to_those_not_chosen():
    # Worths 1, 2, 5; the last is chosen from all, then smoothed by 0.3: 0.7, 0.15, 0.15.
    nats = choice_nats(
        double(1, 2, 5).log(), torch.tensor([2]), torch.tensor([[2, 0, 1]]), smoothing=0.3
    )
    expected = -(0.7 * math.log(5 / 8) + 0.15 * math.log(1 / 8) + 0.15 * math.log(2 / 8))
    assert nats.item() == pytest.approx(expected, abs=1e-14)


def test_the_levels_of_a_rating_have_the_differences_of_the_cumulative_odds():
    thresholds = double(-1.0, 0.5, 2.0)
    probabilities = level_logprobs(double(0.3, -4.0), thresholds).exp()
    for row, score in zip(probabilities.tolist(), (0.3, -4.0), strict=True):
        over = [1.0] + [1 / (1 + math.exp(t - score)) for t in (-1.0, 0.5, 2.0)] + [0.0]
        assert row == pytest.approx([a - b for a, b in itertools.pairwise(over)], abs=1e-14)
        assert sum(row) == pytest.approx(1.0, abs=1e-14)


def test_levels_far_from_the_score_keep_a_gradient():
    scores = double(-700.0, 700.0).requires_grad_()
    nats = level_nats(scores, torch.tensor([1, 1]), double(0.0, 1.0))
    nats.sum().backward()
    # -log(e^-700 (1 - e^-1)) and -log(e^-699 (1 - e^-1))
    expected = [700 - math.log(1 - math.exp(-1)), 699 - math.log(1 - math.exp(-1))]
    assert nats.tolist() == pytest.approx(expected)
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([-1.0, 1.0])


def test_yes_or_no_is_bradley_terry_against_the_threshold():
    scores = double(0.8, -0.2, 1.7)  # the last is the threshold's
    nats = level_nats(scores[:2], torch.tensor([1, 0]), scores[2:])
    against = pair_nats(scores, torch.tensor([[0, 2], [1, 2]]), double(1.0, 0.0))
    torch.testing.assert_close(nats, against)


def test_every_loss_has_the_gradient_of_finite_differences():
    pairs = torch.tensor([[0, 1], [2, 3], [1, 3]])
    targets, ties, margins = double(0.9, 0.55, 0.2), double(0.1, 0.3, 0.0), double(0.0, 0.4, 1.0)
    winners, contestants = choices_of([2, 0, 3, 1])

    def davidson(scores, log_nu):
        return pair_nats(scores, pairs, targets, ties=ties, margins=margins, log_nu=log_nu)

    def plackett_luce(scores):
        return choice_nats(scores, winners, contestants, smoothing=0.1)

    def rated(scores, thresholds):
        return level_nats(scores, torch.tensor([0, 1, 2, 3]), thresholds)

    scores = draw(4, 9).requires_grad_()
    nu, thresholds = double(-0.4).requires_grad_(), double(-1.0, 0.2, 0.9).requires_grad_()
    assert torch.autograd.gradcheck(davidson, (scores, nu))
    assert torch.autograd.gradcheck(plackett_luce, (scores,))
    assert torch.autograd.gradcheck(rated, (scores, thresholds))
