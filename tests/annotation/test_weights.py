"""What votes weigh: estimated on what people share, and exactly what the soft targets take."""

import random
from collections import Counter
from statistics import median

import numpy as np
import pytest

from annotation.consensus import DawidSkene
from annotation.errors import BadInput
from annotation.exporters import trl
from annotation.exporters.pseudonyms import Pseudonyms
from annotation.services.snapshots import freeze, path_of, rows_of
from annotation.services.weights import (
    ABOVE,
    BELOW,
    LEAST_UNITS,
    TIED,
    Reliability,
    _right_by_confusion,
    reliabilities,
    words_of,
)
from policy.comparisons import parse_row
from tests.annotation.making import make_project
from tests.annotation.voting import cast, compare, make_voter

pytestmark = pytest.mark.django_db
METHODS = ("dawid_skene", "bradley_terry")


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


@pytest.fixture
def project():
    return make_project()


def crowd(project, *, comparisons=40, split="train", seed=0):
    """Three who are right (the first completion is better), one who answers by lot."""
    good, lot = [make_voter(project) for _ in range(3)], make_voter(project)
    draw = random.Random(seed)
    for _ in range(comparisons):
        comparison = compare(project, split=split)
        for voter in good:
            cast(comparison, voter)
        cast(comparison, lot, order=draw.choice([[[0], [1]], [[1], [0]]]))
    return good, lot


def frozen(project, weights, **query):
    return freeze(project=project, kind="comparisons", query={"weights": weights, **query})


def weights_in(snapshot):
    """Annotator -> the weights of their votes."""
    found = {}
    for row in rows_of(snapshot):
        for vote in row["votes"]:
            found.setdefault(int(vote["annotator"]), set()).add(vote["weight"])
    return found


@pytest.mark.parametrize("method", METHODS)
def test_who_answers_by_lot_weighs_next_to_nothing(project, method):
    good, lot = crowd(project)
    found = weights_in(frozen(project, method))
    assert all(min(found[voter.pk]) > 0.75 for voter in good)
    assert max(found[lot.pk]) < 0.3
    assert all(len(weights) == 1 for weights in found.values())


@pytest.mark.parametrize("method", METHODS)
def test_the_soft_target_moves_by_exactly_what_the_weights_say(project, method):
    """Three say the first, one the second: by hand (g + g + g) / (g + g + g + s)."""
    good, lot = crowd(project)
    against = compare(project)
    for voter in good:
        cast(against, voter)
    cast(against, lot, order=[[1], [0]])
    plain, weighed = frozen(project, "none"), frozen(project, method)
    (before,) = [row for row in rows_of(plain) if row["id"] == str(against.pk)]
    (after,) = [row for row in rows_of(weighed) if row["id"] == str(against.pk)]
    assert parse_row(before, line=1).table.targets == (3 / 4,)
    weight = {int(vote["annotator"]): vote["weight"] for vote in after["votes"]}
    right = sum(weight[voter.pk] for voter in good)
    target = right / (right + weight[lot.pk])
    assert parse_row(after, line=1).table.targets == (pytest.approx(target, abs=1e-12),)
    assert target > 0.89


def test_without_weights_the_query_and_the_file_are_as_ever(project):
    crowd(project, comparisons=3)
    snapshot = frozen(project, "none")
    assert "weights" not in snapshot.query
    assert snapshot.notes == {}
    assert {weight for own in weights_in(snapshot).values() for weight in own} == {1.0}


def test_the_manifest_tells_how_they_came_about(project):
    crowd(project, comparisons=30)
    cast(compare(project))  # by somebody who shares nothing
    notes = frozen(project, "dawid_skene").notes["weights"]
    assert (notes["method"], notes["source"]) == ("dawid_skene", "doi:10.2307/2346806")
    assert notes["axes"]["overall"]["pairs"] == 30
    assert notes["axes"]["overall"]["annotators"] == 4
    assert notes["axes"]["overall"]["with_too_few_pairs"] == 1


def test_who_shares_too_little_has_the_median_weight(project):
    good, lot = crowd(project, comparisons=LEAST_UNITS)
    new = make_voter(project)
    alone = compare(project)
    cast(alone, new)
    shared = compare(project)
    for voter in (new, *good):
        cast(shared, voter)
    found = weights_in(frozen(project, "dawid_skene"))
    known = [max(found[one.pk]) for one in (*good, lot)]
    assert found[new.pk] == {round(median(known), 4)}


def test_with_nobody_to_compare_all_weigh_one(project):
    for _ in range(3):
        cast(compare(project))
    assert set(map(max, weights_in(frozen(project, "bradley_terry")).values())) == {1.0}


@pytest.mark.parametrize("split", ["test"])
def test_sealed_votes_tell_nothing(project, split):
    _good, lot = crowd(project, split=split)
    for _ in range(2):
        cast(compare(project), lot)
    assert weights_in(frozen(project, "dawid_skene", splits=["train"]))[lot.pk] == {1.0}


def test_evaluation_on_dev_tells_of_who_trains(project):
    """Overlap on dev comparisons weighs votes on train ones, which nobody else answered."""
    _good, lot = crowd(project, split="dev")
    cast(compare(project), lot)
    assert max(weights_in(frozen(project, "dawid_skene", splits=["train"]))[lot.pk]) < 0.3


@pytest.mark.parametrize("method", METHODS)
def test_the_same_position_gives_the_same_bytes(project, method):
    good, _lot = crowd(project, comparisons=25)
    snapshot = frozen(project, method)
    data = path_of(snapshot).read_bytes()
    for _ in range(5):
        comparison = compare(project)
        for voter in good:
            cast(comparison, voter, order=[[1], [0]])
    path_of(snapshot).unlink()
    again = frozen(project, method, up_to=snapshot.ledger_position)
    assert again == snapshot
    assert path_of(again).read_bytes() == data


def test_rows_for_trl_sum_to_one_and_leave_out_what_weighs_nothing():
    """Votes of weight 1, 1/2 and 0, one pair each: rows of 2/3 and 1/3."""
    vote = {"axis": "overall", "outcome": "ranked", "kind": "person"}
    row = {
        "id": "7",
        "split": "train",
        "group": "g",
        "language": "en",
        "prompt": [],
        "completions": [{"id": "a", "text": "A"}, {"id": "b", "text": "B"}],
        "votes": [
            {**vote, "ranking": [["a"], ["b"]], "weight": 1.0, "annotator": "1"},
            {**vote, "ranking": [["b"], ["a"]], "weight": 0.5, "annotator": "2"},
            {**vote, "ranking": [["b"], ["a"]], "weight": 0.0, "annotator": "3"},
        ],
    }
    left_out = Counter()
    rows = list(trl.rows(row, Pseudonyms("salt"), left_out))
    assert [one["weight"] for one in rows] == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert left_out["votes_without_weight"] == 1


def test_where_the_first_is_always_better_the_coin_is_not_believed():
    """Four who are right in 17 of 20 and a coin; the better one always has the lower id."""
    draw, words = random.Random(4), {}
    for unit in range(200):
        said = {who: ABOVE if draw.random() < 0.85 else BELOW for who in range(4)}
        words[unit, 2 * unit, 2 * unit + 1] = said | {9: draw.choice([ABOVE, BELOW])}
    for method in METHODS:
        found = reliabilities(words, method)
        assert all(found[who].right > 0.75 for who in range(4)), method
        assert abs(found[9].right - 0.5) < 0.12, method
    assert found[9].units == 200


def test_pairs_of_a_list_and_what_orders_nothing():
    words = words_of(
        [
            (1, 10, "ranked", [[5], [3, 4]]),
            (1, 11, "equal", [[3, 5]]),
            (1, 12, "both_bad", []),
        ]
    )
    assert words == {
        (1, 3, 5): {10: BELOW, 11: TIED},
        (1, 4, 5): {10: BELOW},
        (1, 3, 4): {10: TIED},
    }


def test_right_is_read_off_the_strict_part_of_the_confusion():
    """By hand: (5 * 6/8 + 3 * 3/6) / 8 of who says above of above 6, below 2, tied 2 times ..."""
    model = DawidSkene(
        values=(ABOVE, TIED, BELOW),
        prior=np.array([0.5, 0.2, 0.3]),
        posterior={},
        confusion={1: np.array([[0.6, 0.2, 0.2], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3]])},
        accuracy={},
        rounds=1,
        converged=True,
    )
    assert _right_by_confusion(model)[1] == pytest.approx((0.5 * 0.75 + 0.3 * 0.5) / 0.8)


@pytest.mark.parametrize(("right", "weight"), [(1, 1), (0.75, 0.5), (0.5, 0), (0.2, 0)])
def test_a_weight_is_how_much_better_than_a_coin(right, weight):
    assert Reliability(right, 100).weight == weight


def test_nobody_who_shares_nothing_is_judged():
    assert reliabilities({(1, 2, 3): {10: ABOVE}}, "dawid_skene") == {}
    assert reliabilities({}, "bradley_terry") == {}


def test_an_unknown_method_is_refused(project):
    with pytest.raises(BadInput, match="weights is one of none, dawid_skene, bradley_terry"):
        frozen(project, "majority")
