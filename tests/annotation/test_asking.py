"""annotation.asking: the mix is checked, kept and told; texts of one length."""

import pytest

from annotation.asking import (
    MADE_AS,
    Asking,
    LengthMatch,
    Pairing,
    closest_in_length,
    label_of,
    selector_of,
)
from annotation.errors import BadInput


def test_nothing_said_is_pairs_of_the_same_policy():
    assert Asking.of({}).shares == {"same": 1, "in_force": 0, "reference": 0, "anchor": 0}
    assert Asking.of({}).as_json() == {}
    assert Asking.of({"same": 1}).as_json() == {}
    assert Asking.of({"length_matched": 0.5}).shares["same"] == 1


def test_a_mix_is_kept_as_it_was_said():
    said = {"same": 0.5, "in_force": 0.2, "reference": 0.2, "anchor": 0.1, "length_matched": 0.3}
    assert Asking.of(said).as_json() == said
    assert Asking.of({"in_force": 1}).shares["same"] == 0


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ([], "A mix is a JSON object of shares: []."),
        (
            {"humans": 1},
            "A mix has same, in_force, reference, anchor, length_matched, not 'humans'.",
        ),
        ({"same": True}, "same is a share from 0 to 1: True."),
        ({"same": "1"}, "same is a share from 0 to 1: '1'."),
        ({"same": 1.2}, "same is a share from 0 to 1: 1.2."),
        ({"same": float("nan")}, "same is a share from 0 to 1: nan."),
        ({"same": 10**400}, "same is a share from 0 to 1: " + "1" + "0" * 39 + "."),
        ({"length_matched": -0.1}, "length_matched is a share from 0 to 1: -0.1."),
        (
            {"same": 0.5, "anchor": 0.4},
            "The shares of a mix sum to 1, these to 0.9: same 0.5, in_force 0, reference 0, "
            "anchor 0.4.",
        ),
    ],
)
def test_what_is_no_mix_is_refused_with_what_was_seen(said, sentence):
    with pytest.raises(BadInput) as caught:
        Asking.of(said)
    assert caught.value.detail == sentence


def test_each_way_to_make_a_comparison_has_a_selector_of_its_own():
    assert selector_of(Pairing.SAME) == "uniform-1"
    assert selector_of(Pairing.SAME, LengthMatch.MATCHED) == "same-length-1"
    assert selector_of(Pairing.REFERENCE, LengthMatch.UNLIKE) == "reference-unlike-1"
    assert len(MADE_AS) == 12
    assert max(map(len, MADE_AS)) <= 20  # the column's
    assert MADE_AS["anchor-1"] == ("anchor", "")
    assert label_of("anchor-length-1") == "the prompt's anchor, of one length"
    assert label_of("uniform-1") == "the same policy"


@pytest.mark.parametrize(
    ("lengths", "wanted", "fixed", "places"),
    [
        ([100, 50, 120, 109], 2, None, [0, 3]),  # 1.09
        ([100, 111], 2, None, []),  # 1.11
        ([100, 110], 2, None, [0, 1]),  # 1.1, the bound itself
        ([10, 100, 10, 100], 2, None, [0, 2]),  # as close, and earlier
        ([100, 105, 110, 300], 3, None, [0, 1, 2]),
        ([100, 105, 90], 1, 95, [0]),  # 1.053, against 1.105 and 1.056
        ([100, 105], 2, 200, []),
        ([100], 2, None, []),
        ([], 1, 5, []),
    ],
)
def test_texts_of_one_length(lengths, wanted, fixed, places):
    texts = [f"{number}" + "x" * (length - 1) for number, length in enumerate(lengths)]
    beside = None if fixed is None else "y" * fixed
    assert closest_in_length(texts, wanted, beside) == places
