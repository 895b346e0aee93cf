"""Orders: places balanced over annotators, and no telling which comes next."""

from collections import Counter
from itertools import permutations

import pytest

from annotation.orders import order_of


@pytest.mark.parametrize("k", range(2, 10))
def test_after_any_number_of_annotators_places_differ_by_one_at_most(k):
    ids = list(range(10, 10 + k))
    seen = [Counter() for _ in ids]
    for number in range(3 * k + 1):
        order = order_of(ids, seed="a", number=number)
        assert sorted(order) == ids
        for place, one in enumerate(order):
            seen[place][one] += 1
        for counts in seen:
            assert max(counts.values()) - min(counts[one] for one in ids) <= 1


def test_two_in_a_block_see_two_orders():
    for block in range(20):
        first, second = (order_of([1, 2], seed="a", number=2 * block + n) for n in range(2))
        assert first == second[::-1]


def test_every_order_comes_up_as_a_blocks_first():
    firsts = Counter(tuple(order_of([1, 2, 3], seed=str(s), number=0)) for s in range(600))
    assert set(firsts) == set(permutations([1, 2, 3]))
    assert 60 <= min(firsts.values()) <= max(firsts.values()) <= 140  # 100 each, five deviations


def test_the_same_question_again_gives_the_same_order():
    assert order_of([4, 5, 6], seed="b", number=7) == order_of([4, 5, 6], seed="b", number=7)
