"""Agreement against tables made by hand, published examples, scipy and real data."""

import gzip
import json
import math

import numpy as np
import pytest
from scipy import stats

from annotation.agreement import (
    PairAgreement,
    cohen_kappa,
    concordance,
    fleiss_kappa,
    kendall_tau,
    krippendorff_alpha,
    percent_agreement,
)
from annotation.intervals import (
    Resampling,
    adjusted,
    share,
    two_sided_binomial,
    upper_binomial,
)

PLAIN = Resampling(resamples=0)


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


def rows(*columns):
    """Answers from one string per annotator; a dot is no answer."""
    return {
        unit: {who: mark for who, mark in enumerate(marks) if mark != "."}
        for unit, marks in enumerate(zip(*columns))
    }


def counted(*table):
    """Answers from one row of counts per unit; other annotators for every unit."""
    return {
        unit: dict(enumerate(value for value, count in enumerate(row) for _ in range(count)))
        for unit, row in enumerate(table)
    }


# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: four observers.
KRIPPENDORFF = rows("123321412...", "1233224125.3", ".3332342251.", "12332441251.")

# Fleiss (1971), table 1: 30 patients, 6 of 43 psychiatrists each; 5 diagnoses, so 5 digits each.
FLEISS_TABLE = (
    "000600300301401000060303020400004022031020040000061005011040033001005002031"
    "005013001251000020401020300006010500201320040100410501040002020401050000006"
)
FLEISS = counted(*(map(int, FLEISS_TABLE[at : at + 5]) for at in range(0, 150, 5)))


def test_the_published_example_of_alpha():
    assert krippendorff_alpha(KRIPPENDORFF, PLAIN).value == pytest.approx(0.743, abs=5e-4)
    ordinal = krippendorff_alpha(KRIPPENDORFF, PLAIN, level="ordinal")
    assert ordinal.value == pytest.approx(0.815, abs=5e-4)
    assert ordinal.n == 11  # unit 12 has one answer
    backwards = dict(reversed(KRIPPENDORFF.items()))  # 5 comes up first
    assert krippendorff_alpha(backwards, PLAIN, level="ordinal").value == ordinal.value


def test_the_order_of_ordinal_values_is_the_one_given():
    worded = {"1": "poor", "2": "fair", "3": "good", "4": "fine", "5": "best"}
    answers = {
        unit: {who: worded[mark] for who, mark in given.items()}
        for unit, given in KRIPPENDORFF.items()
    }
    found = krippendorff_alpha(answers, PLAIN, level="ordinal", order=list(worded.values()))
    assert found.value == pytest.approx(0.815, abs=5e-4)
    with pytest.raises(ValueError, match="best"):
        krippendorff_alpha(answers, PLAIN, level="ordinal", order=["poor", "fair", "good", "fine"])


def test_the_published_example_of_fleiss():
    assert fleiss_kappa(FLEISS, PLAIN).value == pytest.approx(0.430, abs=5e-4)
    assert percent_agreement(FLEISS, PLAIN).value == pytest.approx(0.556, abs=5e-4)


def test_fleiss_is_undefined_where_units_have_unequal_counts():
    found = fleiss_kappa(KRIPPENDORFF)
    assert found.value is None
    assert found.undefined.startswith("undefined because units have from 2 to 4 answers")


def test_cohen_by_hand():
    # yes/yes 20, yes/no 5, no/yes 10, no/no 15: seen 0.7, by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    answers = rows("y" * 25 + "n" * 25, "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15)
    found = cohen_kappa(answers, PLAIN)
    assert (found.value, found.n) == (pytest.approx(0.4), 50)


def test_cohen_of_three_weighs_pairs_of_annotators_by_the_units_they_share():
    # 0 and 1 share 10 units and always agree; 1 and 2 share 5 of their own.
    answers = rows("ababababab.....", "ababababab" + "aaaab", ".........." + "aaaba")
    # seen 3/5; both have 4 a and 1 b: by chance 17/25; kappa = (15 - 17) / (25 - 17)
    assert cohen_kappa(answers, PLAIN).value == pytest.approx((10 * 1 + 5 * -0.25) / 15)
    alone = cohen_kappa(answers, PLAIN, least_shared=6)
    assert (alone.value, alone.n) == (1, 10)
    assert cohen_kappa(answers, least_shared=11).undefined == (
        "undefined because no two annotators share 11 units"
    )


@pytest.mark.parametrize(
    "figure", [percent_agreement, cohen_kappa, fleiss_kappa, krippendorff_alpha]
)
def test_nothing_is_said_without_two_annotators_on_a_unit(figure):
    for answers in ({}, rows("ab.", "..a")):
        found = figure(answers)
        assert found.value is found.low is found.high is None
        assert found.undefined == "undefined because fewer than two annotators share a unit"


@pytest.mark.parametrize("figure", [cohen_kappa, fleiss_kappa, krippendorff_alpha])
def test_what_never_varies_has_no_agreement_beyond_chance(figure):
    found = figure(rows("aaaaaa", "aaaaaa"))
    assert (found.value, found.n) == (None, 6)
    assert found.undefined == "undefined because every answer is the same"


def ranking(marks):
    """ "ab>c" -> [["a", "b"], ["c"]]"""
    return [list(group) for group in marks.split(">")]


def test_tau_b_is_that_of_scipy():
    draw = np.random.default_rng(5)
    expected, rankings = [], {}
    for unit in range(40):
        places = draw.integers(0, 4, (2, 6))
        rankings[unit] = {
            who: [[item for item in range(6) if own[item] == place] for place in range(4)]
            for who, own in enumerate(places)
        }
        expected.append(stats.kendalltau(*places).statistic)
    found = kendall_tau(rankings, PLAIN)
    assert found.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert found.n == 40


def test_tau_b_takes_what_both_ranked_and_leaves_out_who_ties_everything():
    rankings = {
        1: {"x": ranking("a>b>c"), "y": ranking("a>c")},  # 1
        2: {"x": ranking("a>b"), "y": ranking("b>a"), "z": ranking("ab")},  # -1; z has none
        3: {"x": ranking("a>b>c"), "y": ranking("a>c>b"), "z": ranking("a>b>c")},  # 1/3, 1, 1/3
    }
    found = kendall_tau(rankings, PLAIN)
    assert (found.value, found.n) == (pytest.approx((1 - 1 + 5 / 9) / 3), 3)
    # 1 of 1, 0 of 1, 2 + 3 + 2 of 9
    assert concordance(rankings, PLAIN).value == pytest.approx(8 / 11)


@pytest.mark.parametrize("figure", [kendall_tau, concordance])
def test_rankings_without_a_common_order_say_why(figure):
    found = figure({1: {"x": ranking("ab"), "y": ranking("a>b")}, 2: {"x": ranking("a>b")}})
    assert (found.value, found.n) == (None, 0)
    assert found.undefined.startswith("undefined because no two annotators")


def coins(units, annotators, seed):
    draw = np.random.default_rng(seed)
    return {
        unit: {who: int(draw.integers(2)) for who in range(annotators)} for unit in range(units)
    }


def test_an_interval_over_independent_units_is_the_normal_one():
    found = percent_agreement(coins(400, 2, seed=3), Resampling(resamples=2000))
    reach = 1.96 * math.sqrt(found.value * (1 - found.value) / 400)
    assert found.low == pytest.approx(found.value - reach, abs=0.01)
    assert found.high == pytest.approx(found.value + reach, abs=0.01)


def test_units_of_one_group_come_together():
    """Nine copies of a unit are worth one, and look like nine: three times too narrow."""
    answers = coins(400, 2, seed=3)
    copied = {(unit, copy): answers[unit] for unit in range(40) for copy in range(9)}
    one = percent_agreement({unit: answers[unit] for unit in range(40)})
    same = percent_agreement(copied, Resampling(groups={key: key[0] for key in copied}))
    apart = percent_agreement(copied)
    assert (same.low, same.high) == (one.low, one.high)
    assert (same.high - same.low) / (apart.high - apart.low) == pytest.approx(3, rel=0.2)


def test_annotators_are_resampled_too():
    """Half of ten annotators flip coins: who was asked matters more than which of 500 units."""
    draw = np.random.default_rng(1)
    answers = {
        unit: {who: int(draw.integers(2)) if who < 5 else 1 for who in range(10)}
        for unit in range(500)
    }
    found = percent_agreement(answers)
    assert found.high - found.low > 0.2
    few = percent_agreement(
        {unit: {w: given[w] for w in (3, 4, 5, 6)} for unit, given in answers.items()}
    )
    assert few.high - few.low < 0.1


def test_an_annotator_drawn_twice_is_not_compared_with_himself():
    answers = {unit: {who: who for who in range(6)} for unit in range(20)}
    for figure in (percent_agreement, cohen_kappa):
        found = figure(answers)
        assert (found.value, found.low, found.high) == (0, 0, 0)
    assert krippendorff_alpha(answers).high < 0


def test_the_same_seed_gives_the_same_interval():
    answers = coins(50, 6, seed=8)
    assert krippendorff_alpha(answers) == krippendorff_alpha(answers)
    assert krippendorff_alpha(answers) != krippendorff_alpha(answers, Resampling(seed=1))


def test_one_group_has_no_interval():
    found = percent_agreement(
        coins(9, 3, seed=1), Resampling(groups=dict.fromkeys(range(9), "one"))
    )
    assert found.value is not None
    assert found.low is found.high is None


@pytest.mark.parametrize(("count", "n"), [(0, 7), (3, 10), (50, 80), (80, 80), (700, 2000)])
def test_shares_and_binomial_tests_are_those_of_scipy(count, n):
    test = stats.binomtest(count, n)
    wilson = test.proportion_ci(method="wilson")
    found = share(count, n)
    assert (found.low, found.high) == (pytest.approx(wilson.low), pytest.approx(wilson.high))
    assert two_sided_binomial(count, n) == pytest.approx(test.pvalue, rel=1e-8)
    upper = stats.binomtest(count, n, 0.1, alternative="greater")
    assert upper_binomial(count, n, 0.1) == pytest.approx(upper.pvalue, rel=1e-8, abs=1e-300)


def test_adjusted_p_values_are_those_of_scipy():
    p_values = np.random.default_rng(2).random(40) ** 3
    assert adjusted(p_values) == pytest.approx(stats.false_discovery_control(p_values).tolist())
    assert adjusted([]) == []


@pytest.mark.shared_data
def test_arguments_judged_by_a_crowd(shared_data):
    """Reference: data/README.md."""
    answers, topics = {}, {}
    with gzip.open(shared_data / "ukpconvarg1/pairs.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            unit = row["topic"], row["pair_id"]
            answers[unit] = {vote["worker"]: vote["label"] for vote in row["annotations"]}
            topics[unit] = row["topic"]
    found = krippendorff_alpha(answers, Resampling(groups=topics, resamples=100))
    assert found.value == pytest.approx(0.271, abs=5e-4)
    assert found.n == 11_288
    assert found.low < found.value < found.high


@pytest.mark.shared_data
def test_pairs_judged_by_three(shared_data):
    with gzip.open(shared_data / "pandalm/testset-v1.json.gz", "rt") as file:
        rows = {row["idx"]: {n: row[f"annotator{n}"] for n in (1, 2, 3)} for row in json.load(file)}
    for two, expected in {(1, 2): 0.852, (1, 3): 0.881, (2, 3): 0.861}.items():
        answers = {unit: {n: given[n] for n in two} for unit, given in rows.items()}
        assert cohen_kappa(answers, PLAIN).value == pytest.approx(expected, abs=5e-4)
    assert krippendorff_alpha(rows, PLAIN).value == pytest.approx(0.865, abs=5e-4)


@pytest.mark.shared_data
def test_sites_judged_by_many_spammers(shared_data):
    """The reference takes repeated labels for answers of their own; first ones give 0.316."""
    every, first = {}, {}
    with gzip.open(shared_data / "get-another-label/site-rating/labels.tsv.gz", "rt") as file:
        for number, line in enumerate(file):
            worker, site, label = line.split()
            every.setdefault(site, {})[number] = label
            first.setdefault(site, {}).setdefault(worker, label)
    assert krippendorff_alpha(every, PLAIN).value == pytest.approx(0.314, abs=5e-4)
    assert krippendorff_alpha(first, PLAIN).value == pytest.approx(0.314, abs=3e-3)
