"""Gold as pure functions, against tables made by hand."""

from itertools import product

import pytest

from annotation.gold import (
    Constraint,
    Said,
    Says,
    accuracy,
    agreed,
    gap,
    in_short,
    shown_accuracy,
    standing_after,
    verdict_of,
    verdict_on,
)

A, B, C, D = 1, 2, 3, 4
ABOVE = Constraint(axis="overall", better=A, worse=B)
EQUAL = Constraint(axis="overall", says=Says.EQUAL)
BOTH_BAD = Constraint(axis="overall", says=Says.BOTH_BAD)


def ranked(*groups, acceptable=None):
    return Said(outcome="ranked", groups=groups, acceptable=acceptable)


EVEN = Said(outcome="equal", groups=[[A, B]])
EVEN_AND_BAD = Said(outcome="equal", groups=[[A, B]], acceptable=0)
BAD = Said(outcome="both_bad")
UNSURE = Said(outcome="cannot_tell")

TABLE = [
    # what was said, then what it makes of: A above B; equal; both bad
    (ranked([A], [B]), "held", "broken", "broken"),
    (ranked([B], [A]), "broken", "broken", "broken"),
    (ranked([A], [B], acceptable=0), "held", "broken", "held"),
    (ranked([A], [B], acceptable=1), "held", "broken", "broken"),
    (ranked([C], [A], [D], [B]), "held", "broken", "broken"),
    (ranked([A, B], [C]), "broken", "broken", "broken"),
    (ranked([A], [C]), "unsaid", "broken", "broken"),
    (ranked([C], [B]), "unsaid", "broken", "broken"),
    (EVEN, "broken", "held", "broken"),
    (EVEN_AND_BAD, "broken", "held", "held"),
    (BAD, "unsaid", "unsaid", "held"),
    (UNSURE, "unsaid", "unsaid", "unsaid"),
]


@pytest.mark.parametrize(("said", "above", "equal", "both_bad"), TABLE)
def test_an_answer_holds_breaks_or_says_nothing(said, above, equal, both_bad):
    found = [verdict_on(one, {"overall": said}) for one in (ABOVE, EQUAL, BOTH_BAD)]
    assert found == [above, equal, both_bad]


def test_axes_are_kept_apart():
    safe = Constraint(axis="safe", better=B, worse=A)
    answer = {"overall": ranked([A], [B]), "safe": ranked([A], [B])}
    assert verdict_on(ABOVE, answer) == "held"
    assert verdict_on(safe, answer) == "broken"
    assert verdict_on(safe, {"overall": ranked([A], [B])}) == "unsaid"


def test_one_broken_constraint_breaks_an_item_and_one_unsaid_leaves_it_unsaid():
    items = [Constraint(axis="overall", better=A, worse=x) for x in (B, C, D)]
    assert verdict_of(items, {"overall": ranked([A], [B, C, D])}) == "held"
    assert verdict_of(items, {"overall": ranked([A], [B], [C])}) == "unsaid"
    assert verdict_of(items, {"overall": ranked([B], [A], [C])}) == "broken"


def constraints(*answers):
    return [
        (one.axis, one.says, one.better, one.worse)
        for one in agreed([{"overall": said} for said in answers])
    ]


def test_constraints_are_what_all_experts_say():
    assert constraints(ranked([A], [B], [C])) == []  # one expert is not enough
    assert constraints(ranked([A], [B], [C]), ranked([B], [A], [C])) == [
        ("overall", "above", A, C),
        ("overall", "above", B, C),
    ]
    assert constraints(ranked([A], [B, C]), ranked([A], [C], [B])) == [
        ("overall", "above", A, B),
        ("overall", "above", A, C),
    ]
    third = ranked([C], [B], [A])
    assert constraints(ranked([A], [B], [C]), ranked([B], [A], [C]), third) == []


def test_experts_agree_on_equal_and_bad_only_outright():
    assert constraints(EVEN, EVEN) == [("overall", "equal", None, None)]
    assert constraints(BAD, BAD) == [("overall", "both_bad", None, None)]
    assert constraints(EVEN, BAD) == []
    assert constraints(UNSURE, UNSURE) == []
    assert constraints(BAD, ranked([A], [B])) == []


def test_experts_agree_axis_by_axis():
    one = {"helpful": ranked([A], [B]), "safe": BAD}
    two = {"helpful": ranked([B], [A]), "safe": BAD}
    assert [found.axis for found in agreed([one, two])] == ["safe"]


def orders(ids):
    """Every weak order of three completions, as groups."""
    for places in product(range(len(ids)), repeat=len(ids)):
        if set(places) == set(range(max(places) + 1)) and max(places):
            yield [
                [one for one, place in zip(ids, places, strict=True) if place == wanted]
                for wanted in range(max(places) + 1)
            ]


def test_the_experts_own_answers_hold_what_they_agree_on():
    """For all pairs of orders of three; and only what both of them say is asked for."""
    for first, second in product(orders([A, B, C]), repeat=2):
        said = [{"overall": ranked(*first)}, {"overall": ranked(*second)}]
        found = agreed(said)
        assert all(verdict_of(found, one) == "held" for one in said)
        pairs = {
            (above, below)
            for above, below in product([A, B, C], repeat=2)
            if all(
                [above in g for g in groups].index(True) < [below in g for g in groups].index(True)
                for groups in (first, second)
            )
        }
        assert {(one.better, one.worse) for one in found} == pairs


def test_what_follows_is_left_out_in_short():
    chain = agreed([{"overall": ranked([A], [B], [C], [D])}] * 2)
    assert len(chain) == 6
    assert [(one.better, one.worse) for one in in_short(chain)] == [(A, B), (B, C), (C, D)]
    assert in_short([EQUAL]) == [EQUAL]


def test_nine_completions_ranked_alike_are_thirty_six_constraints():
    groups = [[number] for number in range(9)]
    found = agreed([{"overall": ranked(*groups)}] * 2)
    assert len(found) == 36
    assert verdict_of(found, {"overall": ranked(*groups)}) == "held"
    assert verdict_of(found, {"overall": ranked(*groups[::-1])}) == "broken"


def test_accuracy_counts_what_is_held_with_wilsons_interval():
    found = accuracy(["held"] * 8 + ["broken", "unsaid"])
    assert (found.value, found.n) == (0.8, 10)
    # Wilson at z = 1.96: (8 + 1.92) / 13.84 -+ 1.96 / 13.84 * sqrt(1.6 + 0.96)
    assert (found.low, found.high) == pytest.approx((0.490, 0.943), abs=0.0006)
    assert accuracy([]).value is None


def test_an_own_accuracy_appears_late_in_whole_blocks_and_rounded():
    assert shown_accuracy(["held"] * 19).value is None
    assert shown_accuracy(["held"] * 13 + ["broken"] * 7).value == pytest.approx(0.65)
    before = shown_accuracy(["held"] * 20)
    assert shown_accuracy(["held"] * 20 + ["broken"] * 9) == before
    after = shown_accuracy(["held"] * 20 + ["broken"] * 10)
    assert (after.value, after.n, after.low) == (pytest.approx(0.65), 30, None)


HELD, BROKEN = "held", "broken"
STANDINGS = [
    # before, verdicts oldest first, checks since the warning, after; bar 75 of 4, 2 more
    ("good", [BROKEN] * 3, 0, "good"),  # fewer than the window decide nothing
    ("good", [HELD, HELD, HELD, BROKEN], 0, "good"),  # 75 is not below 75
    ("good", [HELD, HELD, BROKEN, "unsaid"], 0, "warned"),
    ("good", [BROKEN] * 9 + [HELD] * 4, 0, "good"),  # only the newest four are looked at
    ("warned", [HELD, HELD, BROKEN, BROKEN], 0, "warned"),
    ("warned", [HELD, HELD, BROKEN, BROKEN], 1, "warned"),
    ("warned", [HELD, HELD, BROKEN, BROKEN], 2, "stopped"),
    ("warned", [BROKEN, HELD, HELD, HELD], 2, "good"),  # just in time
    ("warned", [BROKEN] * 3, 5, "good"),  # a contest took one away
    ("stopped", [HELD] * 9, 9, "stopped"),  # a person lifts it
]


@pytest.mark.parametrize(("before", "verdicts", "since", "after"), STANDINGS)
def test_warned_below_the_bar_and_stopped_still_below(before, verdicts, since, after):
    found = standing_after(before, verdicts, since_warning=since, bar_percent=75, window=4, more=2)
    assert found == after


@pytest.mark.parametrize("every", [2, 3, 10, 25])
def test_gaps_spread_evenly_around_their_mean(every):
    found = [gap(every, lot / 10_000) for lot in range(10_000)]
    low, high = every - every // 2, every + every // 2
    assert (min(found), max(found)) == (low, high)
    assert sum(found) / len(found) == pytest.approx(every, abs=0.01)
