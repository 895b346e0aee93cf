"""Agreement against a table made by hand."""

from annotation.agreement import PairAgreement


def vote(*groups, axis="overall"):
    return {"axis": axis, "ranking": [list(group) for group in groups]}


def test_agreement_counts_every_two_annotators_and_every_pair_both_order():
    found = PairAgreement()
    # a>b, a>c, b>c against a>c, c>b, a>b: alike on (a,b) and (a,c), not on (b,c)
    found.add([vote("a", "b", "c"), vote("a", "c", "b")])
    assert (found.cases, found.agreeing, found.comparisons) == (3, 2, 1)
    # three annotators, one pair: two of three couples differ
    found.add([vote("a", "b"), vote("a", "b"), vote("b", "a")])
    assert (found.cases, found.agreeing, found.comparisons) == (6, 3, 2)
    assert found.share == 0.5


def test_ties_and_what_was_not_ranked_are_no_case():
    found = PairAgreement()
    found.add([vote("ab"), vote("a", "b")])
    found.add([vote("a", "b"), vote("a", "c")])
    found.add([vote(), vote("a", "b")])
    assert found.cases == 0
    assert found.share is None


def test_tied_groups_are_ordered_against_the_others():
    found = PairAgreement()
    found.add([vote("ab", "c"), vote("c", "ab")])
    assert (found.cases, found.agreeing) == (2, 0)


def test_axes_are_not_mixed():
    found = PairAgreement()
    found.add([vote("a", "b", axis="safe"), vote("b", "a", axis="helpful")])
    assert found.cases == 0
