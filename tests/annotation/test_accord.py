"""How near answers lie to each other, against a table made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.accord import Said, accord, nearness

A, B, C, D = "ABCD"
TIE, BAD, UNSURE = Said("equal", [[A, B]]), Said("both_bad"), Said("cannot_tell")


def order(text):
    """'A>B=C' as an answer."""
    return Said("ranked", [group.split("=") for group in text.split(">")])


NEAR = [
    # pairs
    (order("A>B"), order("A>B"), 1),
    (order("A>B"), order("B>A"), 0),
    (order("A>B"), TIE, 0.5),
    (TIE, TIE, 1),
    (BAD, BAD, 1),
    (BAD, TIE, 0),
    (BAD, order("A>B"), 0),
    (UNSURE, UNSURE, 1),
    (UNSURE, order("A>B"), 0),
    (UNSURE, BAD, 0),
    # lists: of the pairs AB, AC, BC ...
    (order("A>B>C"), order("A>B>C"), 1),
    (order("A>B>C"), order("A>C>B"), 2 / 3),
    (order("A>B>C"), order("C>B>A"), 0),
    (order("A>B>C"), order("A>B=C"), (1 + 1 + 0.5) / 3),
    (order("A=B>C"), order("A>B=C"), (0.5 + 1 + 0.5) / 3),
    (order("A>B>C"), Said("equal", [[A, B, C]]), 0.5),
    # what one of them left out says nothing
    (order("A>B>C"), order("A>B"), 1),
    (order("A>B>C>D"), order("D>A>B"), (1 + 0 + 0) / 3),
    (order("A>B"), order("C>D"), None),
    (order("A>B"), order("B>C"), None),
]


@pytest.mark.parametrize(("one", "other", "near"), NEAR)
def test_two_answers(one, other, near):
    expected = None if near is None else pytest.approx(near)
    assert nearness(one, other) == expected
    assert nearness(other, one) == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["A>B", "B>A"], 0),
        (["A>B", "A>B", "B>A"], 1 / 3),
        (["A>B", "A>B", "A>B", "B>A"], 1 / 2),
        (["A>B", "A>B", "A>B", "A>B", "B>A"], 6 / 10),
        (["A>B", "A>B", "B>A", "B>A"], 2 / 6),
        (["A>B"], None),
        ([], None),
        (["A>B", "C>D"], None),
        (["A>B", "A>B", "C>D"], 1),  # the third can be compared with nobody
    ],
)
def test_several_answers(answers, expected):
    found = accord([order(text) for text in answers])
    assert found == (None if expected is None else pytest.approx(expected))


@given(st.permutations([A, B, C, D]), st.permutations([A, B, C, D]), st.permutations("abcd"))
def test_names_do_not_matter(one, other, names):
    renamed = dict(zip([A, B, C, D], names, strict=True))
    plain = nearness(Said("ranked", [[x] for x in one]), Said("ranked", [[x] for x in other]))
    new = nearness(
        Said("ranked", [[renamed[x]] for x in one]), Said("ranked", [[renamed[x]] for x in other])
    )
    assert plain == pytest.approx(new)
