"""What needs no answer comes in as if it had waited for one."""

from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
from django.utils import timezone

from annotation.sequential import running_interval
from annotation.standings import Battle
from annotation.trials import ALIKE, ASKED, ByItself, Trial, in_turn

NOW = timezone.now()
TIE = ByItself(Battle(left="a", right="b", score=0.5, group="g", annotator=None), ALIKE)


def answer(score: float, minute: int = 1) -> Trial:
    return Trial("a", "b", score, NOW + timedelta(minutes=minute))


@pytest.mark.parametrize(
    ("drawn", "answers", "scores"),
    [
        ("", [], []),
        ("==", [], [0.5, 0.5]),  # nobody is to be asked
        ("==?", [], []),
        ("==?=?", [1], [0.5, 0.5, 1]),
        ("==?=?", [1, 0], [0.5, 0.5, 1, 0.5, 0]),
        ("?==", [1], [1, 0.5, 0.5]),
        ("?==?", [1], [1]),
        ("??=", [1], [1]),
        ("?=", [1, 0], [1, 0.5, 0]),  # a question asked twice
    ],
)
def test_a_tie_comes_in_with_the_answer_before_which_it_was_drawn(drawn, answers, scores):
    slots = [TIE if one == "=" else None for one in drawn]
    found = in_turn(slots, [answer(one, at) for at, one in enumerate(answers)], NOW)
    assert [trial.score for trial, _ in found] == scores
    assert [trial.how == ASKED for trial, _ in found] == [battle is None for _, battle in found]
    times = [trial.at for trial, _ in found]
    assert times == sorted(times)


def test_what_has_come_in_is_never_reordered():
    """Whoever looks after each answer sees the same beginning each time."""
    generator = np.random.default_rng(0)
    drawn = [TIE if one else None for one in generator.random(40) < 0.4]
    answers = [answer(float(one), at) for at, one in enumerate(generator.integers(2, size=30))]
    answers = answers[: drawn.count(None)]
    looks = [in_turn(drawn, answers[:count], NOW) for count in range(len(answers) + 1)]
    for earlier, later in pairwise(looks):
        assert later[: len(earlier)] == earlier
    assert len(looks[-1]) == 40


def test_with_three_in_ten_ties_by_themselves_the_interval_holds_at_all_looks():
    """1,000 jobs of 300 prompts of which people prefer one side in four of five: the mean is 0.71,
    and each job is looked at after every answer. Ties at once would move the mean."""
    generator = np.random.default_rng(1)
    truth = 0.3 * 0.5 + 0.7 * 0.8
    wrong = at_once = 0
    for _ in range(1000):
        alike = generator.random(300) < 0.3
        answers = [answer(float(one)) for one in generator.random(int((~alike).sum())) < 0.8]
        drawn = [TIE if one else None for one in alike]
        in_order = [trial.score for trial, _ in in_turn(drawn, answers, NOW)]
        found = running_interval(in_order)
        wrong += bool(((found.low > truth) | (found.high < truth)).any())
        block = running_interval(sorted(in_order, key=lambda score: score != 0.5))
        at_once += bool(((block.low > truth) | (block.high < truth)).any())
    assert wrong / 1000 <= 0.05
    assert at_once / 1000 > 0.5
