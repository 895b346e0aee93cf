"""Correlations against a trusted library."""

import numpy as np
import pytest
import scipy.stats

from rewardmodel.correlation import pearson, ranks, spearman


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("values", [3, 10**6])
def test_they_are_scipys_with_ties_and_without(seed, values):
    generator = np.random.default_rng(seed)
    one = generator.integers(values, size=40).tolist()
    other = [each + float(noise) for each, noise in zip(one, generator.integers(values, size=40))]
    assert pearson(one, other) == pytest.approx(scipy.stats.pearsonr(one, other).statistic)
    assert spearman(one, other) == pytest.approx(scipy.stats.spearmanr(one, other).statistic)


def test_ties_share_the_mean_of_their_places():
    assert ranks([5.0, 1.0, 5.0, 9.0, 5.0]) == [3, 1, 3, 5, 3]


def test_what_goes_together_exactly_is_one_and_no_more():
    numbers = [0.1, 0.2, 0.30000000000000004, 0.7]
    assert pearson(numbers, [3 * each for each in numbers]) == 1.0
    assert spearman(numbers, [-each for each in numbers]) == -1.0
