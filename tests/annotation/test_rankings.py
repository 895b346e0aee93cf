"""What an answer may look like; each refusal names the value it saw."""

import pytest

from annotation.errors import BadRanking
from annotation.models import Scheme
from annotation.services.rankings import AxisRanking, checked

SHOWN = [12, 7, 9]
STRICT = {"allow_tie": False, "allow_both_bad": False, "allow_cannot_tell": False}


def check(*rankings, axes=("overall",), **allowances):
    scheme = Scheme(axes=list(axes), **allowances)
    return checked(list(rankings), scheme=scheme, presented_order=SHOWN)


def one(**fields):
    return AxisRanking(**fields)


@pytest.mark.parametrize(
    "ranking",
    [
        one(groups=[[12], [7], [9]]),
        one(groups=[[12], [7, 9]], strengths=[1.5], acceptable=1),
        one(groups=[[7], [9]]),
        one(outcome="equal", groups=[[12, 7]], acceptable=0),
        one(outcome="both_bad"),
        one(outcome="cannot_tell"),
    ],
)
def test_answers_that_fit_pass_unchanged(ranking):
    assert check(ranking) == [ranking]


def test_equal_without_groups_means_all_that_was_shown():
    assert check(one(outcome="equal"))[0].groups == [SHOWN]


def test_axes_come_back_in_the_order_of_the_scheme():
    safe, helpful = one(axis="safe", outcome="equal"), one(axis="helpful", outcome="both_bad")
    assert [r.axis for r in check(safe, helpful, axes=("helpful", "safe"))] == ["helpful", "safe"]


@pytest.mark.parametrize(
    ("ranking", "allowances", "words"),
    [
        (one(groups=[[12], [8]]), {}, "completion 8 was not shown"),
        (one(groups=[[12], ["7"]]), {}, "completion '7' was not shown"),
        (one(groups=[[12], [True]]), {}, "completion True was not shown"),
        (one(groups=[[12], [12]]), {}, "completion 12 has two places"),
        (one(groups=[[12, 12], [7]]), {}, "completion 12 has two places"),
        (one(groups=[[12], [], [7]]), {}, "group 1 is empty"),
        (one(groups=[12, 7]), {}, r"groups are lists of completion ids; seen: \[12, 7\]"),
        (one(groups=[]), {}, r"better than another; seen: \[\]"),
        (one(groups=[[12]]), {}, r"better than another; seen: \[\[12\]\]"),
        (one(groups=[[12, 7, 9]]), {}, "better than another"),
        (one(groups=[[12], [7, 9]]), STRICT, r"does not allow ties; seen: \[7, 9\]"),
        (one(outcome="equal"), STRICT, "does not allow 'equal'"),
        (one(outcome="both_bad"), STRICT, "does not allow 'both_bad'"),
        (one(outcome="cannot_tell"), STRICT, "does not allow 'cannot_tell'"),
        (one(outcome="best"), {}, "not 'best'"),
        (one(outcome="equal", groups=[[12], [7]]), {}, "equal is one group of two or more"),
        (one(outcome="equal", groups=[[12]]), {}, "equal is one group of two or more"),
        (one(outcome="both_bad", groups=[[12], [7]]), {}, "has no groups"),
        (one(outcome="cannot_tell", strengths=[1.0]), {}, "has no groups"),
        (one(groups=[[12], [7]], strengths=[1.0, 2.0]), {}, r"1 gaps .* seen: \[1.0, 2.0\]"),
        (one(groups=[[12], [7]], strengths=[0.0]), {}, "above 0: 0.0"),
        (one(groups=[[12], [7]], strengths=[float("nan")]), {}, "above 0: nan"),
        (one(groups=[[12], [7]], strengths=[float("inf")]), {}, "above 0: inf"),
        (one(groups=[[12], [7]], strengths=["2"]), {}, "above 0: '2'"),
        (one(groups=[[12], [7]], acceptable=3), {}, "from 0 to 2: 3"),
        (one(groups=[[12], [7]], acceptable=-1), {}, "from 0 to 2: -1"),
    ],
)
def test_answers_that_do_not_fit_are_refused(ranking, allowances, words):
    with pytest.raises(BadRanking, match=words):
        check(ranking, **allowances)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (["helpful"], "lacks 'safe'"),
        (["helpful", "safe", "funny"], "no axis 'funny'; the axes are 'helpful', 'safe'"),
        (["helpful", "safe", "safe"], "'safe' is answered 2 times"),
        ([], "lacks 'helpful', 'safe'"),
    ],
)
def test_every_axis_is_answered_once(axes, words):
    rankings = [one(axis=axis, outcome="both_bad") for axis in axes]
    with pytest.raises(BadRanking, match=words):
        check(*rankings, axes=("helpful", "safe"))
