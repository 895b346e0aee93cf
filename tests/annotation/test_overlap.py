"""When two answers differ, and how many answers are wanted then: a table made by hand."""

import hashlib

import pytest

from annotation.accord import Said
from annotation.overlap import FULL_SHARE, answers_wanted, differ, is_always_full

A_B, B_A = Said("ranked", [[1], [2]]), Said("ranked", [[2], [1]])
TIE, BOTH_BAD, CANNOT = Said("equal", [[1, 2]]), Said("both_bad"), Said("cannot_tell")


def ranked(*groups):
    return Said("ranked", [list(group) for group in groups])


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        (A_B, A_B, False),
        (A_B, B_A, True),
        (A_B, TIE, True),
        (TIE, TIE, False),
        (BOTH_BAD, BOTH_BAD, False),
        (BOTH_BAD, TIE, True),
        (CANNOT, A_B, True),
        (CANNOT, CANNOT, False),
        # of three: one pair the other way round is 2 of 3; a tie in place of an order is 2.5 of 3
        (ranked([1], [2], [3]), ranked([1], [3], [2]), True),
        (ranked([1], [2], [3]), ranked([1], [2, 3]), False),
        # of four: neighbours swapped is 5 of 6, the ends swapped 1 of 6
        (ranked([1], [2], [3], [4]), ranked([2], [1], [3], [4]), False),
        (ranked([1], [2], [3], [4]), ranked([4], [2], [3], [1]), True),
        # both placed one of the same alone: nothing can be compared
        (ranked([1], [2]), ranked([1], [3]), True),
    ],
)
def test_two_answers_on_one_axis(one, other, differs):
    assert differ({"overall": one}, {"overall": other}) is differs
    assert differ({"overall": other}, {"overall": one}) is differs


def test_one_axis_is_enough_to_differ():
    assert not differ({"helpful": A_B, "safe": TIE}, {"helpful": A_B, "safe": TIE})
    assert differ({"helpful": A_B, "safe": TIE}, {"helpful": A_B, "safe": B_A})
    assert differ({"helpful": A_B}, {"helpful": A_B, "safe": B_A})


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ([], 2),
        ([A_B], 2),
        ([A_B, A_B], 2),
        ([A_B, B_A], 5),
        ([A_B, B_A, A_B], 5),
        ([A_B, A_B, B_A], 2),
    ],
)
def test_answers_wanted(answers, wanted):
    assert answers_wanted([{"overall": one} for one in answers], 5) == wanted


def test_a_tenth_of_all_hashes_is_always_full():
    hashes = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(10_000)]
    assert abs(sum(map(is_always_full, hashes)) / 10_000 - FULL_SHARE) < 0.01
    assert is_always_full("0" * 64)
    assert is_always_full("19999999" + "0" * 56)
    assert not is_always_full("1999999b" + "0" * 56)
