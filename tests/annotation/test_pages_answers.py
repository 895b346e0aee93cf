"""From the fields of the labeling form to rankings by completion ids."""

import pytest

from annotation.errors import BadRanking
from annotation.pages.answers import letters, rankings_from

PAIR = [71, 42]
FOUR = [50, 20, 90, 10]


@pytest.mark.parametrize(
    ("choice", "outcome", "groups"),
    [
        ("1", "ranked", [[71], [42]]),
        ("2", "ranked", [[42], [71]]),
        ("tie", "equal", [[71, 42]]),
        ("both_bad", "both_bad", []),
        ("cannot_tell", "cannot_tell", []),
    ],
)
def test_a_pair(choice, outcome, groups):
    (ranking,) = rankings_from({"axis0-choice": choice}, ["overall"], PAIR)
    assert (ranking.axis, ranking.outcome, ranking.groups) == ("overall", outcome, groups)


@pytest.mark.parametrize(
    "fields",
    [
        {"axis0-choice": "1", "axis0-line": "9" * 5000},
        {"axis0-choice": "", "axis0-place-A": "9" * 5000},
    ],
)
def test_thousands_of_digits_are_no_number(fields):
    """Python refuses to read them."""
    order = PAIR if fields["axis0-choice"] else FOUR
    with pytest.raises(BadRanking, match="999"):
        rankings_from(fields, ["overall"], order)


def test_a_strength_of_thousands_of_digits_is_none():
    (ranking,) = rankings_from({"axis0-choice": "1+" + "9" * 5000}, ["overall"], PAIR)
    assert ranking.strengths == []


@pytest.mark.parametrize(
    ("places", "outcome", "groups"),
    [
        ("1234", "ranked", [[50], [20], [90], [10]]),
        ("4321", "ranked", [[10], [90], [20], [50]]),
        ("2113", "ranked", [[20, 90], [50], [10]]),
        ("1144", "ranked", [[50, 20], [90, 10]]),
        ("2222", "equal", [[50, 20, 90, 10]]),
        ("1-2-", "ranked", [[50], [90]]),
        ("-4--1"[1:], "ranked", [[10], [50]]),
        ("33--", "equal", [[50, 20]]),
    ],
)
def test_four_by_places(places, outcome, groups):
    fields = {
        f"axis0-place-{letter}": place.replace("-", "") for letter, place in zip("ABCD", places)
    }
    (ranking,) = rankings_from(fields, ["overall"], FOUR)
    assert (ranking.outcome, ranking.groups) == (outcome, groups)


def test_the_radio_for_places_changes_nothing():
    fields = {"axis0-choice": "ranked", "axis0-place-A": "2", "axis0-place-B": "1"}
    (ranking,) = rankings_from(fields, ["overall"], FOUR)
    assert ranking.groups == [[20], [50]]


@pytest.mark.parametrize("choice", ["both_bad", "cannot_tell"])
def test_four_without_an_order(choice):
    (ranking,) = rankings_from({"axis0-choice": choice}, ["overall"], FOUR)
    assert (ranking.outcome, ranking.groups) == (choice, [])


def test_one_answer_per_axis():
    fields = {"axis0-choice": "1", "axis1-choice": "both_bad"}
    helpful, safe = rankings_from(fields, ["helpful", "safe"], PAIR)
    assert (helpful.axis, helpful.groups) == ("helpful", [[71], [42]])
    assert (safe.axis, safe.outcome) == ("safe", "both_bad")


@pytest.mark.parametrize(
    ("fields", "order"),
    [
        ({}, PAIR),
        ({"axis0-choice": "3"}, PAIR),
        ({"axis0-choice": "ranked"}, PAIR),
        ({}, FOUR),
        ({"axis0-place-A": "1"}, FOUR),
        ({"axis0-place-A": "0", "axis0-place-B": "1"}, FOUR),
        ({"axis0-place-A": "5", "axis0-place-B": "1"}, FOUR),
        ({"axis0-place-A": "-1", "axis0-place-B": "1"}, FOUR),
        ({"axis0-place-A": "1.5", "axis0-place-B": "1"}, FOUR),
        ({"axis0-place-A": "²", "axis0-place-B": "1"}, FOUR),
        ({"axis0-choice": "both_bad", "axis0-place-B": "1"}, FOUR),
        ({"axis0-choice": "tie"}, FOUR),
    ],
)
def test_nonsense_is_refused(fields, order):
    with pytest.raises(BadRanking):
        rankings_from(fields, ["overall"], order)


def test_names_on_the_page():
    assert letters(2) == ["1", "2"]
    assert letters(4) == ["A", "B", "C", "D"]
    assert letters(9)[-1] == "I"
