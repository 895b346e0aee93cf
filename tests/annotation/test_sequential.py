"""Intervals that hold while somebody peeks, and standings against slow definitions."""

import math

import numpy as np
import pytest

from annotation.sequential import answers_for, running_interval
from annotation.standings import PRIOR, SCALE, Battle, board_of, fit


def slow_interval(values, level=0.05):
    """The definition, one value after the other."""
    mean, variance, total, weighted, surprise = 0.5, 0.25, 0.0, 0.0, 0.0
    seen, squares, ends = [], 0.25, []
    for t, value in enumerate(values, 1):
        bet = math.sqrt(2 * math.log(2 / level) / (variance * t * math.log(1 + t)))
        bet = min(bet, 0.5)
        total += bet
        weighted += bet * value
        surprise += (value - mean) ** 2 * (-math.log(1 - bet) - bet)
        half = (math.log(2 / level) + surprise) / total
        ends.append((weighted / total - half, weighted / total + half))
        seen.append(value)
        mean = (0.5 + sum(seen)) / (t + 1)
        squares += (value - mean) ** 2
        variance = squares / (t + 1)
    return max(0, *(low for low, _ in ends)), min(1, *(high for _, high in ends))


def test_the_sequence_is_its_definition():
    values = np.random.default_rng(1).choice([0, 0.5, 1], size=200, p=[0.3, 0.3, 0.4])
    found = running_interval(values)
    assert (found.low[-1], found.high[-1]) == pytest.approx(slow_interval(list(values)))
    assert len(running_interval([]).low) == 0
    with pytest.raises(ValueError, match=r"\[0, 1\]: 0.2 to 1.5"):
        running_interval([0.2, 1.5])


def test_an_interval_of_a_mean_that_moved_is_not_empty():
    found = running_interval([0.5] * 60 + [1.0] * 140)
    assert (found.low <= found.high).all()
    assert found.low[-1] < 0.85 < found.high[-1]


def test_of_equals_looked_at_after_every_answer_hardly_any_are_called_unequal():
    """A/A: 1,000 runs of 1,000 answers, a third of them ties, each looked at 1,000 times."""
    generator = np.random.default_rng(0)
    fooled = peeked = 0
    for _ in range(1000):
        values = generator.choice([0, 0.5, 1], size=1000, p=[0.35, 0.3, 0.35])
        found = running_interval(values)
        fooled += found.low[-1] > 0.5 or found.high[-1] < 0.5
        count = np.arange(1, 1001)
        mean = np.cumsum(values) / count
        error = np.sqrt(np.maximum(np.cumsum(values**2) / count - mean**2, 1e-9) / count)
        peeked += bool((np.abs(mean - 0.5)[20:] > 1.96 * error[20:]).any())
    assert fooled / 1000 <= 0.05
    assert peeked / 1000 > 0.3  # the usual interval, peeked at


def test_a_better_one_is_found_and_the_answers_it_takes_are_foretold():
    values = np.random.default_rng(2).choice([0, 1], size=3000, p=[0.4, 0.6])
    found = running_interval(values)
    assert found.low[-1] > 0.5
    half = (found.high[-1] - found.low[-1]) / 2
    foretold = answers_for(half, 0.49)
    assert foretold is not None
    assert 2000 < foretold < 4500
    assert answers_for(0.0, 0.5) is None
    assert answers_for(0.0001, 0.5) is None


def battle(left, right, score, place=0, annotator="x", **more):
    return Battle(
        left=left, right=right, score=score, group=f"g{place}", annotator=annotator, **more
    )


def test_two_players_strengths_are_the_log_odds():
    """Without ties Davidson's is Bradley-Terry's: 75 to 25 are odds of three, the prior aside."""
    left, right = np.zeros(4000, int), np.ones(4000, int)
    score = np.array([1.0] * 3000 + [0.0] * 1000)
    (found,) = fit(left, right, score, np.ones((1, 4000)), 2)
    assert found[0] - found[1] == pytest.approx(math.log(3), abs=0.01)


def test_strengths_with_ties_are_those_of_a_slow_search():
    battles = [("a", "b", 1.0)] * 6 + [("a", "b", 0.0)] * 2 + [("b", "c", 0.5)] * 4
    battles += [("b", "c", 1.0)] * 3 + [("c", "a", 0.0)] * 5 + [("c", "a", 1.0)] * 1
    place = {"a": 0, "b": 1, "c": 2}
    left = np.array([place[one] for one, _, _ in battles])
    right = np.array([place[other] for _, other, _ in battles])
    score = np.array([score for *_, score in battles])
    (found,) = fit(left, right, score, np.ones((1, len(battles))), 3)

    def likelihood(strengths, log_nu):
        total = -PRIOR * sum(math.log(math.cosh(one / 2)) for one in strengths)
        total -= PRIOR * 2 * math.log(math.cosh(log_nu / 2))
        for one, other, what in zip(left, right, score, strict=True):
            p, q = math.exp(strengths[one]), math.exp(strengths[other])
            tie = math.exp(log_nu) * math.sqrt(p * q)
            total += math.log({1.0: p, 0.0: q, 0.5: tie}[what] / (p + q + tie))
        return total

    best = max(likelihood(found, nu) for nu in np.linspace(-4, 3, 701))
    for step in (0.02, -0.02):
        for at in range(3):
            moved = found.copy()
            moved[at] += step
            assert max(likelihood(moved, nu) for nu in np.linspace(-4, 3, 701)) < best


def test_a_board_places_players_and_counts_their_wins():
    generator = np.random.default_rng(3)
    strengths = {"a": 1.0, "b": 0.0, "c": -1.0}
    battles = []
    for place in range(900):
        one, other = generator.permutation(["a", "b", "c"])[:2]
        wins = generator.random() < 1 / (1 + math.exp(strengths[other] - strengths[one]))
        battles.append(battle(one, other, float(wins), place % 300, f"p{place % 7}"))
    board = board_of(battles)
    assert [one.player for one in board.standings] == ["a", "b", "c"]
    for one in board.standings:
        truth = SCALE * strengths[one.player]
        assert one.low < one.points < one.high
        assert one.low - 20 < truth < one.high + 20
        assert one.at_equal_length is None
    share, count = board.wins["a", "b"]
    assert share + board.wins["b", "a"][0] == pytest.approx(1)
    assert 200 < count < 400
    assert board_of([]).standings == []


def test_whoever_wins_by_length_alone_is_no_better_at_equal_length():
    generator = np.random.default_rng(4)
    battles = []
    for place in range(1500):
        long = generator.integers(100, 400)
        short = generator.integers(50, 300)
        longer = np.tanh(np.log((long + 1) / (short + 1)))
        wins = generator.random() < 1 / (1 + math.exp(-3 * longer))
        battles.append(
            battle("wordy", "brief", float(wins), place, left_length=long, right_length=short)
        )
    points = {one.player: one for one in board_of(battles).standings}
    assert points["wordy"].points > 50
    fair = points["wordy"].at_equal_length
    assert fair is not None
    assert abs(fair) < 20


def test_a_propensity_weighs():
    rare = [battle("a", "b", 1.0, place, weight=9.0) for place in range(10)]
    often = [battle("a", "b", 0.0, place) for place in range(10, 20)]
    assert board_of([*rare, *often]).standings[0].player == "a"


def asked_of(num_groups, num_people, generator):
    """Every person on every group's text; a group's answers mostly agree, and so do a person's."""
    of_group = generator.normal(size=num_groups)
    of_person = generator.normal(size=num_people)
    return [
        battle("a", "b", float(of_group[group] + of_person[person] > 0), group, person)
        for group in range(num_groups)
        for person in range(num_people)
    ]


def slow_interval_of_first(battles, times=1000):
    """A pigeonhole bootstrap as it is told: draw groups, draw people, and count every battle as
    often as its group came times as often as its person did. Two players, 95 %."""
    generator = np.random.default_rng(11)
    groups = sorted({one.group for one in battles})
    people = sorted({one.annotator for one in battles if one.annotator is not None})
    points = []
    for _ in range(times):
        drawn_groups = list(generator.choice(groups, size=len(groups)))
        drawn_people = list(generator.choice(people, size=len(people)))
        often = {1.0: 0.0, 0.5: 0.0, 0.0: 0.0}
        for one in battles:
            share = 1 if one.annotator is None else drawn_people.count(one.annotator)
            often[one.score] += drawn_groups.count(one.group) * share
        place = np.zeros(3, int)
        (strengths,) = fit(place, place + 1, np.array([*often]), np.array([[*often.values()]]), 2)
        points.append(SCALE * (strengths[0] - strengths.mean()))
    points.sort()
    return points[int(times * 0.025)], points[int(times * 0.975)]


def test_an_interval_is_that_of_a_slow_pigeonhole_bootstrap():
    battles = asked_of(10, 5, np.random.default_rng(8))
    battles += [battle("a", "b", 0.5, 100 + place, annotator=None) for place in range(8)]
    low, high = slow_interval_of_first(battles)
    found = [
        next(one for one in board_of(battles, seed=seed).standings if one.player == "a")
        for seed in range(6)
    ]
    near = 0.05 * (high - low)
    assert np.mean([one.low for one in found]) == pytest.approx(low, abs=near)
    assert np.mean([one.high for one in found]) == pytest.approx(high, abs=near)


def test_ties_by_themselves_are_not_drawn_as_if_somebody_had_given_them():
    """One person: nobody is drawn, so whose the ties are changes nothing."""
    said = [battle("a", "b", float(place % 4 > 0), place, "one") for place in range(60)]

    def interval(whose):
        ties = [battle("a", "b", 0.5, 60 + place, whose) for place in range(30)]
        first = board_of([*said, *ties]).standings[0]
        return first.player, first.low, first.high

    assert interval(None) == interval("one")
    assert interval(None)[1] > 0
