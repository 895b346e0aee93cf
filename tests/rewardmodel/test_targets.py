"""rewardmodel.targets, survey and strength: answers to targets, against hand-made tables."""

import math

import pytest

from policy.comparisons import parse_row
from policy.config import BadInput
from rewardmodel.objective import log_nu_of, thresholds_of
from rewardmodel.strength import StrengthCount, Strengths
from rewardmodel.survey import Survey
from rewardmodel.targets import PLAIN, Choice, Judged, Pair, TargetBatch, TargetRule, Targets


def vote(ranking, annotator="a1", **fields):
    plain = {"axis": "helpful", "strength": None, "weight": None, "kind": "person"}
    return plain | {"ranking": ranking, "annotator": annotator} | fields


def comparison(*votes, k=3, **fields):
    row = {
        "id": "c1",
        "split": "train",
        "prompt": [{"role": "user", "content": "Hello?"}],
        "completions": [{"id": f"x{i}", "text": f"Answer {i}.", "model": None} for i in range(k)],
        "votes": list(votes),
    }
    return parse_row(row | fields, line=1)


AB, BA, TIE = [["x0"], ["x1"]], [["x1"], ["x0"]], [["x0", "x1"]]


def test_plain_targets_are_the_table_of_strict_pairs():
    made = comparison(
        vote([["x2"], ["x0"], ["x1"]]), vote(BA, "a2", weight=2.5), vote([["x0", "x1", "x2"]], "a3")
    )
    targets = PLAIN.targets(made)
    assert [(one.first, one.second) for one in targets.pairs] == list(made.table.pairs)
    assert tuple(one.target for one in targets.pairs) == made.table.targets
    assert tuple(one.weight for one in targets.pairs) == made.table.weights
    assert {(one.ties, one.confidence, one.margin) for one in targets.pairs} == {(0.0, 1.0, 0.0)}
    assert (targets.choices, targets.judged) == ((), ())


def test_davidson_takes_ties_as_answers_that_count_as_much():
    # Two votes for x0, one tie, one vote for x1: 2/4 + half of 1/4.
    made = comparison(vote(AB), vote(AB, "a2"), vote(TIE, "a3"), vote(BA, "a4"), k=2)
    (pair,) = TargetRule(loss="davidson").targets(made).pairs
    assert pair == Pair(0, 1, target=pytest.approx(0.625), ties=0.25, weight=1.0)


def test_the_ties_of_a_ranking_share_its_weight_with_its_strict_pairs():
    made = comparison(vote([["x1"], ["x0", "x2"]]))
    targets = TargetRule(loss="davidson").targets(made)
    assert targets.pairs == (
        Pair(0, 1, target=0.0, ties=0.0, weight=pytest.approx(1 / 3)),
        Pair(0, 2, target=0.5, ties=1.0, weight=pytest.approx(1 / 3)),
        Pair(1, 2, target=1.0, ties=0.0, weight=pytest.approx(1 / 3)),
    )


def test_both_bad_is_no_tie():
    made = comparison(vote([], outcome="both_bad"), k=2)
    assert not TargetRule(loss="davidson").targets(made)


def test_a_ranking_becomes_choices_and_ties_say_nothing_of_each_other():
    made = comparison(vote([["x3"], ["x0", "x2"], ["x1"]]), k=5)
    targets = TargetRule(loss="plackett_luce").targets(made)
    third = pytest.approx(1 / 3)
    assert targets.choices == (
        Choice(0, (0, 1), third),
        Choice(2, (2, 1), third),
        Choice(3, (3, 0, 1, 2), third),
    )
    assert sum(one.weight for one in targets.pairs) == pytest.approx(1.0)


@pytest.mark.parametrize("loss", ["bradley_terry", "davidson", "plackett_luce"])
def test_some_of_a_lists_completions_are_worth_what_they_would_be_alone(loss):
    rankings = [
        [["x3"], ["x0", "x1"], ["x2"]],
        [["x1", "x3"], ["x2"], ["x0"]],
        [["x3"], ["x1"]],
        [["x2"], ["x0", "x1", "x3"]],
    ]
    said = [{"annotator": "a1", "completion": f"x{i}", "ratings": {"clear": i}} for i in range(4)]
    made = comparison(*(vote(each) for each in rankings), k=4, judgments=said)
    rule = TargetRule(loss=loss, scales={"clear": (0, 3)}, length_unit=1.0)
    for left_out in range(4):
        kept = [index for index in range(4) if index != left_out]
        votes = [
            vote([each for group in one if (each := [x for x in group if x != f"x{left_out}"])])
            for one in rankings
        ]
        alone = {
            "completions": [
                {"id": f"x{i}", "text": made.texts[i], "model": None} for i in kept
            ],
            "judgments": [said[i] for i in kept],
        }  # fmt: skip
        wanted = comparison(*votes, **alone)
        found = made.among(kept)
        assert (found.texts, found.table) == (wanted.texts, wanted.table)
        assert rule.targets(found) == rule.targets(wanted)
    assert made.among([2]).table.pairs == ()


def test_gaps_around_a_completion_that_is_left_out_still_lie_between_the_others():
    made = comparison(vote([["x1"], ["x0"], ["x2"], ["x3"]], strength=[2, 1, 2]), k=4)
    for strength in ("margin", "soft"):
        rule = graded(strength)
        whole = {(one.first, one.second): one for one in rule.targets(made).pairs}
        for left_out in range(4):
            kept = [index for index in range(4) if index != left_out]
            for one in rule.targets(made.among(kept)).pairs:
                same = whole[kept[one.first], kept[one.second]]
                assert (one.margin, one.confidence) == (same.margin, same.confidence)
                assert one.target == same.target
                assert one.weight == pytest.approx(1 / 3)
    graded_choices = TargetRule(loss="plackett_luce").targets(made.among([1, 2, 3])).choices
    assert [(one.winner, one.contestants) for one in graded_choices] == [
        (0, (0, 1, 2)),
        (1, (1, 2)),
    ]


def test_equal_choices_of_several_votes_are_one_with_their_weights():
    made = comparison(vote(AB, weight=3), vote(AB, "a2", weight=1), vote(BA, "a3", weight=4), k=2)
    choices = TargetRule(loss="plackett_luce").targets(made).choices
    assert choices == (Choice(0, (0, 1), 0.5), Choice(1, (1, 0), 0.5))


FOUR = Strengths(4.0, {1.0: 0.6, 2.0: 0.7, 4.0: 0.9}, {1.0: 9, 2.0: 9, 4.0: 9})


def graded(strength, **fields):
    return TargetRule(strength=strength, strengths=FOUR, **fields)


def test_four_levels_have_the_margins_of_llama_2():
    assert [FOUR.margin([level]) for level in (1, 2, 3, 4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert FOUR.margin([2, 4]) == pytest.approx(4 / 3)


def test_a_margin_goes_with_the_direction_of_its_vote():
    made = comparison(vote(AB, strength=[4]), vote(BA, "a2", strength=2), vote(AB, "a3"), k=2)
    assert graded("margin", strength_margin=3.0).targets(made).pairs == (
        Pair(0, 1, 1.0, 0.0, pytest.approx(1 / 3)),
        Pair(0, 1, 1.0, 0.0, pytest.approx(1 / 3), margin=pytest.approx(3.0)),
        Pair(1, 0, 1.0, 0.0, pytest.approx(1 / 3), margin=pytest.approx(1.0)),
    )


def test_the_weakest_strength_everywhere_is_plain_bradley_terry():
    votes = vote(AB, strength=[1]), vote(BA, "a2", strength=[1])
    made = comparison(*votes, k=2)
    assert graded("margin").targets(made) == PLAIN.targets(made)


def test_a_soft_vote_is_as_sure_as_its_strength_and_gaps_add_their_log_odds():
    made = comparison(vote([["x0"], ["x2"], ["x1"]], strength=[2, 1]))
    pairs = graded("soft").targets(made).pairs
    odds = (0.7 / 0.3) * (0.6 / 0.4)
    assert [(one.first, one.second, one.target) for one in pairs] == [
        (0, 1, 1.0),
        (0, 2, 1.0),
        (1, 2, 0.0),
    ]
    confidences = [one.confidence for one in pairs]
    assert confidences == pytest.approx([odds / (1 + odds), 0.7, 0.6])


def test_strength_is_how_often_a_second_annotator_agrees_drawn_to_the_guess():
    count = StrengthCount()
    for _ in range(30):  # the strong vote finds agreement, the weak one a tie
        count.add(comparison(vote(AB, strength=[2], strength_levels=2), vote(AB, "a2"), k=2))
        count.add(comparison(vote(AB, strength=[1]), vote(TIE, "a2"), k=2))
    count.add(comparison(vote(AB, strength=[2]), vote(BA, "a1"), k=2))  # the same person
    fitted = count.fitted()
    assert fitted.num_levels == 2
    assert fitted.num_answers == {1.0: 30, 2.0: 30}
    # Guesses of two levels: 2/3 and 5/6, each worth 10 answers.
    weak, strong = (15 + 10 * 2 / 3) / 40, (30 + 10 * 5 / 6) / 40
    assert fitted.confidences == {1.0: pytest.approx(weak), 2.0: pytest.approx(strong)}


def test_a_stronger_vote_is_never_less_sure_than_a_weaker_one():
    count = StrengthCount()
    for _ in range(30):
        count.add(comparison(vote(AB, strength=[1], strength_levels=2), vote(AB, "a2"), k=2))
        count.add(comparison(vote(AB, strength=[2]), vote(TIE, "a2"), k=2))
    weak, strong = (30 + 10 * 2 / 3) / 40, (15 + 10 * 5 / 6) / 40
    pooled = pytest.approx((weak + strong) / 2)  # equal counts
    assert count.fitted().confidences == {1.0: pooled, 2.0: pooled}


def test_without_second_annotators_the_guess_stands():
    count = StrengthCount()
    count.add(comparison(vote(AB, strength=[3], strength_levels=3), k=2))
    count.add(comparison(vote(BA, strength=[1]), k=2))
    assert count.fitted().confidences == {1.0: pytest.approx(5 / 8), 3.0: pytest.approx(7 / 8)}


RATED = {
    "annotator": "a1",
    "kind": "person",
    "completion": "x1",
    "ratings": {"clear": 4},
    "flags": [],
    "scales": {"clear": [1, 5]},
}


def judged(made, *, only=None, **rule):
    survey = Survey.of([made])
    return TargetRule(scales=survey.scales(only), **rule).targets(made).judged


def test_lines_ratings_and_both_bad_become_levels_that_share_one_weight():
    made = comparison(
        vote([["x0"], ["x2"]], acceptable=1),
        vote([], "a2", outcome="both_bad"),
        judgments=[RATED],
    )
    # acceptable: x0 yes by a1 and no by a2; x1 no by a2; x2 no twice. clear: x1 is 4, from 1.
    sixth = pytest.approx(1 / 6)
    assert judged(made) == (
        Judged(0, 0, 0, sixth),
        Judged(0, 0, 1, sixth),
        Judged(1, 0, 0, sixth),
        Judged(1, 1, 3, sixth),
        Judged(2, 0, 0, pytest.approx(1 / 3)),
    )
    assert judged(made, only="clear") == (Judged(1, 0, 3, 1.0),)


def test_a_judgment_weighs_what_its_annotators_votes_weigh():
    other = RATED | {"annotator": "a2", "completion": "x0"}
    made = comparison(vote(AB, weight=3), vote(BA, "a2", weight=1), judgments=[RATED, other], k=2)
    assert [one.weight for one in judged(made)] == pytest.approx([0.25, 0.75])
    silent = comparison(vote(AB, weight=0), judgments=[RATED], k=2)
    assert silent.judgments == ()


def test_lines_belong_to_their_axis_and_ratings_to_all():
    votes = vote(AB, acceptable=1), vote(BA, axis="safe", acceptable=0)
    row = {
        "id": "c1",
        "split": "train",
        "prompt": [{"role": "user", "content": "Hello?"}],
        "completions": [{"id": f"x{i}", "text": f"Answer {i}.", "model": None} for i in range(2)],
        "votes": list(votes),
        "judgments": [RATED],
    }
    found = parse_row(row, line=1, axis="safe").judgments
    assert [(one.completion, one.name, one.level) for one in found] == [
        (1, "acceptable", 0),
        (0, "acceptable", 0),
        (1, "clear", 4),
    ]


def test_a_thumb_is_a_comparison_of_one_without_votes():
    made = parse_row({"prompt": "Hi", "completion": "Good.", "label": True}, line=3)
    assert (made.id, made.texts, made.votes) == ("line-3", ("Good.",), ())
    assert judged(made, loss="pointwise") == (Judged(0, 0, 1, 1.0),)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"judgments": [RATED | {"completion": "x9"}]}, 'that the row has not: "x9"'),
        ({"judgments": [RATED | {"ratings": {"clear": 6}}]}, "is 6 on a scale from 1 to 5"),
        ({"judgments": [RATED | {"scales": {"clear": 5}}]}, "must have two ends: 5"),
        ({"judgments": [RATED | {"ratings": {"clear": 2.5}}]}, "must be a whole number: 2.5"),
        ({"judgments": {}, "weight": -1}, "weight of a row must be 0 or a number"),
        ({"votes": [vote(AB, strength=[1, 2])]}, "of which there are 1: [1, 2]"),
        ({"votes": [vote(AB, strength=[1, None])]}, "of which there are 1: [1, null]"),
        ({"votes": [vote(AB, strength=[0])]}, "of which there are 1: [0]"),
        ({"votes": [vote(AB, strength="much")]}, 'of which there are 1: "much"'),
        ({"votes": [vote(AB, acceptable="1")]}, 'acceptable must be a whole number: "1"'),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_was_seen(fields, said):
    with pytest.raises(BadInput) as refusal:
        comparison(**fields)
    assert said in str(refusal.value)


def test_the_numbers_of_the_loss_start_where_equal_scores_would_have_them():
    nu = math.exp(log_nu_of(0.2))
    assert nu / (2 + nu) == pytest.approx(0.2)
    # Levels 1, 2, 3 given 2, 0 and 5 times, half an answer added: 2.5, 0.5, 5.5 of 8.5.
    lowest, highest = thresholds_of({1: 2, 2: 0, 3: 5}, 1, 3)
    assert 1 / (1 + math.exp(lowest)) == pytest.approx(6 / 8.5)
    assert 1 / (1 + math.exp(highest)) == pytest.approx(5.5 / 8.5)


def test_a_batch_counts_completions_through_and_weighs_by_comparison():
    one = Targets(
        pairs=(Pair(0, 1, 0.5, 1.0, 1.0, 0.9, 0.2),),
        choices=(Choice(1, (1, 0), 1.0),),
        judged=(Judged(1, 0, 2, 1.0),),
    )
    other = Targets(choices=(Choice(2, (2, 0, 1), 0.5),), judged=(Judged(0, 1, 0, 0.5),))
    batch = TargetBatch.of([one, other], starts=[0, 2], weights=[3.0, 2.0])
    assert batch.pairs.tolist() == [[0, 1]]
    assert (batch.weights.tolist(), batch.ties.tolist()) == ([3.0], [1.0])
    assert batch.confidences.tolist() + batch.margins.tolist() == pytest.approx([0.9, 0.2])
    assert batch.winners.tolist() == [1, 4]
    assert batch.contestants.tolist() == [[1, 0, -1], [4, 2, 3]]
    assert batch.choice_weights.tolist() == [3.0, 1.0]
    assert (batch.judged.tolist(), batch.scales.tolist()) == ([1, 2], [0, 1])
    assert (batch.levels.tolist(), batch.judged_weights.tolist()) == ([2, 0], [3.0, 1.0])
