"""The page of quality: agreement by hand-made tables, people to look at, nobody's names."""

import random
import re

import pytest

from annotation import agreement, intervals
from annotation.models import Preference
from annotation.quality import length_bias
from annotation.services.quality import annotators_of, report
from annotation.services.rankings import AxisRanking
from annotation.services.review import revise_preference, void_preference
from annotation.templatetags.figures import why_no_figure
from tests.annotation.making import make_project, make_user
from tests.annotation.voting import cast as vote
from tests.annotation.voting import compare, ids_of, make_voter

FRAGMENT = {"HX-Request": "true"}


def figures(project, axis="overall", **kinds):
    return {one.name: one.statistic for one in report(project, **kinds).agreement[axis]}


def test_agreement_of_pairs_against_a_table_made_by_hand(db):
    """Two people on four pairs: 1 1, 1 1, 2 2, 1 2 (1: the first completion is better)."""
    project = make_project()
    one, two = make_voter(project), make_voter(project)
    for said in ("11", "11", "22", "12"):
        comparison = compare(project)
        for voter, choice in zip((one, two), said, strict=True):
            vote(comparison, voter, order=[[0], [1]] if choice == "1" else [[1], [0]])
    found = figures(project)
    assert found["percent"].value == pytest.approx(0.75)
    assert found["cohen"].undefined  # of four shared pairs nothing is said
    # Krippendorff: 8 values, 5 of the first, 3 of the second; disagreement seen 2, expected 30 / 7
    assert found["alpha"].value == pytest.approx(1 - 2 / (30 / 7))
    assert found["alpha"].n == 4
    # Fleiss: seen 3/4, by chance (5/8)^2 + (3/8)^2
    chance = (5 / 8) ** 2 + (3 / 8) ** 2
    assert found["fleiss"].value == pytest.approx((0.75 - chance) / (1 - chance))
    assert found["tau"].undefined


def test_lists_are_compared_as_orders(db):
    project = make_project()
    one, two = make_voter(project), make_voter(project)
    comparison = compare(project, k=3)
    vote(comparison, one, order=[[0], [1], [2]])
    vote(comparison, two, order=[[0], [2], [1]])
    found = figures(project)
    assert found["tau"].value == pytest.approx(1 / 3)
    assert found["concordance"].value == pytest.approx(2 / 3)
    assert found["percent"].undefined


def test_a_third_answer_that_was_asked_for_because_two_differed_does_not_count(db):
    """Of ten adaptive comparisons two differ, so 8 of 10 pairs agree, whatever the thirds say; one
    that always gets three answers has three pairs, of which one agrees."""
    project = make_project()
    people = [make_voter(project) for _ in range(3)]
    ways = {"1": [[0], [1]], "2": [[1], [0]]}
    for said in (*["11"] * 8, "121", "122"):
        comparison = compare(project)
        comparison.full_overlap = 3
        comparison.save(update_fields=["full_overlap"])
        for voter, choice in zip(people, said, strict=False):
            vote(comparison, voter, order=ways[choice], presented_order=ids_of(comparison))
    assert figures(project)["percent"].value == pytest.approx(8 / 10)
    assert [one.answers for one in annotators_of(project)] == [10, 10, 2]
    full = compare(project)
    for voter, choice in zip(people, "112", strict=True):
        vote(full, voter, order=ways[choice])
    assert figures(project)["percent"].n == 11
    pairs = report(project).rows.axes["overall"].pairs
    assert sorted(len(given) for given in pairs.values()) == [2] * 10 + [3]


def test_first_answers_of_people_that_stand_are_counted(db):
    project = make_project()
    comparison = compare(project)
    first = vote(comparison, make_voter(project))
    second = vote(comparison, make_voter(project), presented_order=ids_of(comparison))
    vote(comparison, make_voter(project, kind="simulated"))
    voided = vote(comparison, make_voter(project))
    void_preference(preference=voided, by=make_user(), reason="spam")
    revise_preference(
        preference=second,
        rankings=[AxisRanking(groups=[[pk] for pk in reversed(ids_of(comparison))])],
        cause="talked to the first",
    )
    found = report(project)
    assert found.rows.answers == 2
    assert figures(project)["percent"].value == 1.0
    assert Preference.objects.filter(current=True, voided_at=None).count() == 3
    assert first.pk


def test_whoever_answers_by_lot_or_by_side_is_named_and_the_others_are_not(db):
    project, draw = make_project(), random.Random(3)
    good = [make_voter(project) for _ in range(4)]
    lot, side = make_voter(project), make_voter(project)
    for _ in range(60):
        comparison = compare(project)
        ids = ids_of(comparison)
        for voter in (*good, lot, side):
            shown = draw.sample(ids, 2)
            better = ids[0] if voter in good and draw.random() < 0.95 else ids[1]
            winner = draw.choice(ids) if voter == lot else shown[0] if voter == side else better
            place = ids.index(winner)
            vote(comparison, voter, order=[[place], [1 - place]], presented_order=shown)
    named = {one.pseudonym: one.reasons for one in annotators_of(project) if one.reasons}
    assert set(named) == {lot.pseudonym, side.pseudonym}
    assert "random" in named[lot.pseudonym]
    assert "one_side" in named[side.pseudonym]


def test_the_page_comes_at_once_and_its_figures_after_it(cast, enter):
    comparison = compare(cast.project)
    for _ in range(2):
        vote(comparison, make_voter(cast.project))
    client = enter(cast.reviewer)
    html = client.get("/p/shop/quality/").content.decode()
    assert 'hx-get="/p/shop/quality/?whose=people"' in html
    assert "alpha" not in html
    figures = client.get("/p/shop/quality/", headers=FRAGMENT).content.decode()
    assert "Krippendorff&#x27;s alpha" in figures
    assert "2 first answers" in figures
    assert "<html" not in figures
    assert 'hx-get="/p/shop/quality/?whose=people&amp;of=annotators"' in figures
    assert "voter-" not in figures
    lines = client.get("/p/shop/quality/?of=annotators", headers=FRAGMENT).content.decode()
    assert "voter-" in lines
    assert "<html" not in lines
    empty = client.get("/p/shop/quality/?whose=models", headers=FRAGMENT).content.decode()
    assert "Nobody of these has answered yet." in empty
    other = client.get("/p/shop/quality/?whose=<b>").content.decode()
    assert "?whose=people" in other


def test_reading_takes_a_fixed_number_of_queries(cast, enter, django_assert_max_num_queries):
    client = enter(cast.reviewer)
    for _ in range(5):
        comparison = compare(cast.project)
        for _ in range(3):
            vote(comparison, make_voter(cast.project))
    with django_assert_max_num_queries(9):
        client.get("/p/shop/quality/", headers=FRAGMENT)
    with django_assert_max_num_queries(8):  # the answers are there
        client.get("/p/shop/quality/?of=annotators", headers=FRAGMENT)


def test_what_is_kept_is_read_anew_once_anything_has_changed(cast, enter):
    client, counts = enter(cast.reviewer), []

    def look():
        html = client.get("/p/shop/quality/", headers=FRAGMENT).content.decode()
        counts.append(re.search(r"(\d+) first answer", html).group(1))

    comparison = compare(cast.project)
    votes = [vote(comparison, make_voter(cast.project)) for _ in range(2)]
    look()
    look()
    votes.append(vote(comparison, make_voter(cast.project)))
    look()
    void_preference(preference=votes[0], by=cast.reviewer, reason="spam")
    look()
    assert counts == ["2", "2", "3", "2"]


def same(units):
    """Two people who say the same of so many units."""
    return {f"u{n}": {"a": "x", "b": "x"} for n in range(units)}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (agreement.percent_agreement({}), "No figure: no question has the answers of two people."),
        (agreement.krippendorff_alpha(same(9)), "No figure: every answer is the same."),
        (
            agreement.cohen_kappa(same(4)),
            "No figure: no two people have answered 5 of the same questions.",
        ),
        (
            agreement.fleiss_kappa({**same(2), "u9": {"a": "x", "b": "x", "c": "x"}}),
            "No figure: it needs equally many answers to every question, and they have from 2 to "
            "3. Read Krippendorff's alpha instead.",
        ),
        (
            agreement.kendall_tau({}),
            "No figure: no two people have ordered the same list of three or more.",
        ),
        (
            agreement.concordance({}),
            "No figure: no two people have put the same two of a list in an order.",
        ),
        (intervals.share(0, 0), "No figure: there is nothing to count yet."),
        (
            length_bias([]),
            "No figure: no answer chose between texts of different length.",
        ),
    ],
)
def test_a_missing_figure_says_what_it_lacks(found, words):
    assert why_no_figure(found.undefined) == words


def test_no_row_of_the_page_says_undefined(cast, enter):
    comparison = compare(cast.project)
    for _ in range(2):
        vote(comparison, make_voter(cast.project))
    client = enter(cast.reviewer)
    html = "".join(
        client.get(f"/p/shop/quality/{part}", headers=FRAGMENT).content.decode()
        for part in ("", "?of=annotators")
    )
    assert "undefined" not in html
    assert html.count("No figure: ") >= 5
