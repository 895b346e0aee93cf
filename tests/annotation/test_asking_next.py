"""pages.asking_next: which figures are a reason to ask for something else, and which are none."""

from dataclasses import replace

import pytest

from annotation.asking import Asking, LengthMatch, Pairing, selector_of
from annotation.intervals import share
from annotation.pages.asking_next import Facts, what_next
from annotation.services.asked import DROPS, Came, Drawn
from annotation.services.heldout import HeldOut

NOTHING = share(0, 0)
PLAIN = Facts(
    asking=Asking(),
    heldout_share=0.1,
    came=[],
    drawn=Drawn(jobs=0, asked=0, dropped=dict.fromkeys(DROPS, 0), matched=0, missed=0),
    to_be_had=dict.fromkeys(Pairing, False) | {Pairing.SAME: True},
    heldout=HeldOut(answered=1000, open=0, open_in_all=0),
    more_groups=None,
    has_reward=False,
    open_by_chance=0,
)


def came(pairing="same", length="", *, undecided=NOTHING, longer=NOTHING, right=NOTHING):
    return Came(
        pairing=Pairing(pairing),
        length=LengthMatch(length),
        selector=selector_of(Pairing(pairing), LengthMatch(length)),
        asked=100,
        open=0,
        heldout=0,
        undecided=undecided,
        longer=longer,
        right=right,
    )


def had(*pairings):
    return PLAIN.to_be_had | dict.fromkeys(map(Pairing, pairings), True)


def heldout(answered, still_open):
    return HeldOut(answered=answered, open=still_open, open_in_all=100)


def names(**facts):
    return [one.name for one in what_next(replace(PLAIN, **facts))]


def the_only(**facts):
    (one,) = what_next(replace(PLAIN, **facts))
    return one


def test_where_the_figures_say_nothing_nothing_is_said():
    assert names() == []


def test_a_reward_model_that_can_not_be_judged_wants_held_out_answers():
    one = the_only(heldout=heldout(17, 1))
    assert one.changes == {"heldout_share": 0.3}
    assert "3 are lacking, and 1 are open" in one.sentence
    assert the_only(heldout=heldout(17, 3)).page == "batches"
    assert the_only(heldout=heldout(19, 0)).sentence.count("1 is lacking") == 1
    one = the_only(heldout=heldout(17, 1), heldout_share=0.3)
    assert (one.changes, one.page) == (None, "")
    assert names(heldout=heldout(20, 0)) == []


def test_an_undecided_gate_wants_as_many_as_it_says():
    assert "about 240 more answered" in the_only(heldout=heldout(30, 5), more_groups=240).sentence
    assert the_only(heldout=heldout(30, 240), more_groups=240).page == "batches"


def test_pairs_that_nobody_tells_apart():
    """Wilson's interval of 60 of 100 is [0.502, 0.691], of 45 of 100 [0.356, 0.548]."""
    told = [came(undecided=share(60, 100))]
    assert the_only(came=told).page == "job-new"
    others = [*told, came("in_force")]
    one = the_only(came=others, to_be_had=had("in_force"))
    assert one.changes == {"same": 0.8, "in_force": 0.2, "reference": 0.0, "anchor": 0.0}
    assert "60%" in one.sentence
    worse = [*told, came("in_force", undecided=share(60, 100))]
    assert the_only(came=worse, to_be_had=had("in_force")).page == "job-new"
    assert names(came=[came(undecided=share(45, 100))]) == []
    assert names(came=[came(undecided=share(20, 20))]) == []  # too few
    assert names(came=[came("anchor", undecided=share(90, 100))]) == []


def test_a_share_is_raised_only_at_the_cost_of_pairs_of_the_same_policy():
    told = [came(undecided=share(80, 100)), came("in_force"), came("reference")]
    mix = Asking(same=0.1, in_force=0.15, reference=0.75)
    one = the_only(came=told, to_be_had=had("in_force", "reference"), asking=mix)
    assert one.changes == {"same": 0.05, "in_force": 0.2, "reference": 0.75, "anchor": 0.0}
    mix = Asking(same=0.1, in_force=0.05, reference=0.85)
    facts = {"came": told, "to_be_had": had("in_force", "reference"), "asking": mix}
    assert the_only(**facts).page == "job-new"


def test_texts_dropped_for_likeness():
    dropped = dict.fromkeys(DROPS, 0) | {"identical_dropped": 30, "alike_caught": 20}
    drawn = replace(PLAIN.drawn, asked=50, dropped=dropped)
    one = the_only(drawn=drawn)
    assert (one.name, one.page) == ("alike", "job-new")
    assert "50%" in one.sentence
    assert names(drawn=replace(drawn, asked=150)) == []  # 25 %, so its interval reaches below
    blank = dict.fromkeys(DROPS, 0) | {"blank_dropped": 50}
    assert names(drawn=replace(drawn, dropped=blank)) == []


@pytest.mark.parametrize(("number", "said"), [(999, "99.9%"), (1000, "100%"), (600, "60%")])
def test_what_is_nearly_all_is_not_called_all(number, said):
    assert f"{said} of the answers" in the_only(came=[came(undecided=share(number, 1000))]).sentence


def test_longer_texts_that_win():
    """Wilson's interval of 70 of 100 is [0.604, 0.781], of 69 of 100 [0.594, 0.772]."""
    one = the_only(came=[came(longer=share(70, 100))])
    assert one.changes == {"length_matched": 0.3}
    assert names(came=[came(longer=share(69, 100))]) == []
    missed = replace(PLAIN.drawn, matched=10, missed=30)
    assert names(came=[came(longer=share(70, 100))], drawn=missed) == ["missed"]
    assert names(came=[came(longer=share(70, 100))], asking=Asking(length_matched=0.3)) == []
    assert names(came=[came(length="length", longer=share(70, 100))]) == []


def test_where_the_reward_model_is_wrong_more_often():
    """Wilson's interval of 50 of 100 is [0.404, 0.596], of 75 of 100 [0.657, 0.825]."""
    told = [came(right=share(75, 100)), came("reference", right=share(50, 100))]
    one = the_only(came=told, to_be_had=had("reference"))
    assert one.name == "wrong-reference"
    assert one.changes == {"same": 0.8, "in_force": 0.0, "reference": 0.2, "anchor": 0.0}
    half = Asking(same=0.6, reference=0.4)
    one = the_only(came=told, to_be_had=had("reference"), asking=half)
    assert one.changes == {"same": 0.5, "in_force": 0.0, "reference": 0.5, "anchor": 0.0}
    half = Asking(same=0.5, reference=0.5)
    assert names(came=told, to_be_had=had("reference"), asking=half) == []
    told = [came(right=share(75, 100)), came("reference", right=share(65, 100))]
    assert names(came=told, to_be_had=had("reference")) == []
    told = [came(right=share(50, 100)), came("reference", right=share(75, 100))]
    assert names(came=told, to_be_had=had("reference")) == []  # of its own pairs it has most


def test_what_was_never_asked_though_it_could_be():
    facts = {"came": [came()]}
    assert names(**facts, to_be_had=had("in_force", "reference", "anchor")) == ["untied-in_force"]
    assert names(**facts, to_be_had=had("reference", "anchor")) == [
        "untied-reference",
        "untied-anchor",
    ]
    asked = [came(), came("in_force"), came("reference"), came("anchor")]
    assert names(came=asked, to_be_had=had("in_force", "reference", "anchor")) == []
    mix = Asking(same=0.9, in_force=0.1)
    assert names(asking=mix, to_be_had=had("in_force")) == []


@pytest.mark.parametrize("pairing", ["in_force", "reference", "anchor"])
def test_what_is_asked_for_and_can_not_be_had(pairing):
    assert names(asking=Asking(**{"same": 0.5, pairing: 0.5})) == [f"none-{pairing}"]


def test_lengths_that_are_not_met():
    assert names(drawn=replace(PLAIN.drawn, matched=10, missed=30)) == ["missed"]
    assert names(drawn=replace(PLAIN.drawn, matched=20, missed=22)) == []


def test_open_questions_may_be_picked_by_the_model():
    assert the_only(has_reward=True, open_by_chance=40).page == "batches"
    assert names(has_reward=True, open_by_chance=39) == []
    assert names(open_by_chance=1000) == []
