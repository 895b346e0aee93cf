"""The quality figures in small: the answers have the noise that they say, and the table comes."""

import importlib.util
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def quality():
    """reward_quality.py with its data, which lie in no package."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        for name in ("reward_quality_data", "reward_quality_table", "reward_quality"):
            spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, name, module)
            spec.loader.exec_module(module)
        yield module


def test_answers_are_as_noisy_as_they_say(quality):
    data = quality.data
    sizes = data.Sizes(train=30, dev=0, test=60, shown=4)
    rows = data.synthetic(data.demo_world, sizes, data.Noise(flipped=0.25), seed=3)
    wrong = []
    for row in rows:
        for vote in row["votes"]:
            best, worst = (int(group[0]) for group in vote["ranking"])
            wrong.append(row["gold"][best] < row["gold"][worst])
    # 1,200 answers of test prompts and up to six for each train prompt, three deviations
    assert len(wrong) > 1300
    assert abs(sum(wrong) / len(wrong) - 0.25) < 3 * (0.25 * 0.75 / len(wrong)) ** 0.5
    assert data.Noise().bayes(1.0, 0.5) == pytest.approx(0.7310586)  # sigmoid(0.5 / 0.5)
    assert data.Noise(flipped=0.25).bayes(0.1, 2.0) == 0.75


def test_a_text_of_made_up_words_is_worth_their_sum_whatever_the_prompt(quality):
    data = quality.data
    sizes = data.Sizes(train=2, dev=0, test=2)
    for row in data.synthetic(data.word_world, sizes, data.Noise(), seed=0):
        for completion, worth in zip(row["completions"], row["gold"], strict=True):
            words = completion["text"].split()
            assert 5 <= len(words) <= 12
            assert worth == pytest.approx(sum(data.WORTHS[word] for word in words))


def test_test_prompts_join_what_no_other_split_joins(quality):
    rows = quality.data.synthetic(
        quality.data.demo_world,
        quality.data.Sizes(train=40, dev=5, test=40),
        quality.data.Noise(),
        seed=0,
    )
    prompts = {split: {str(r["prompt"]) for r in rows if r["split"] == split} for split in
               ("train", "dev", "test")}  # fmt: skip
    assert all(not prompts[a] & prompts[b] for a, b in combinations(prompts, 2))


def test_the_majority_of_votes_makes_pairs_and_an_even_split_none(quality):
    data = quality.data
    texts = ["good", "fair", "bad"]
    rankings = [[[0], [1], [2]], [[0], [2], [1]], [[2], [0]], [[0, 1]]]
    row = data._row("r", "train", [data._message("user", "?")], texts, rankings)
    dev = {**row, "split": "dev"}
    *made, last = data.majority_pairs([row, dev])
    assert last is dev
    # 0 above 1 twice; 0 and 2 two to one, by whole votes; 1 and 2 one to one
    told = [
        [next(c["text"] for c in one["completions"] if c["id"] == group[0]) for group in
         one["votes"][0]["ranking"]]
        for one in made
    ]  # fmt: skip
    assert told == [["good", "fair"], ["good", "bad"]]


def test_the_true_order_ties_equal_utilities(quality):
    data = quality.data
    row = data._row("r", "test", [], ["a", "b", "c"], [[[0], [1]]]) | {"gold": [0.5, 2.0, 0.5]}
    (made,) = data.in_true_order([row])
    assert [vote["ranking"] for vote in made["votes"]] == [[["1"], ["0", "2"]]]


def test_the_gold_utility_is_measured_as_its_noise_predicts(quality):
    """Each of 40 answers in 4 goes against the utility: 3/4 right at log odds of log 3."""
    data = quality.data
    votes = [[[0], [1]]] * 30 + [[[1], [0]]] * 10
    row = data._row("r", "test", [data._message("user", "?")], ["a", "b"], votes)
    row["gold"] = [1.0, 0.0]
    comparison = quality.parse_row(row, line=0)
    noise = data.Noise(flipped=0.25)

    class Right:
        def rows(self):
            return [quality.table.PairRow(comparison.group, 0.6, 0.70, 1.0)]

    line = quality.table.bayes_row("noise", [row], [comparison], noise, {"model": Right()})
    assert line[3:5] == ["75.0", "0.562"]  # -(3/4 log 3/4 + 1/4 log 1/4)
    assert line[-2:] == ["-5.0", "+0.038"]


def test_the_synthetic_case_in_small_prints_its_table(quality, tmp_path):
    lines = quality.run_case(
        "noise", quality.CASES["noise"], tmp_path, None, num_seeds=1, quick=True
    )
    assert [line[1] for line in lines] == [
        "one model",
        "mean of four models",
        "the gold utility itself; from it to the model above",
        "one model",
        "mean of four models",
    ]
    assert len({len(line) for line in lines}) == 1
    assert all(line[3] for line in lines)


@pytest.mark.shared_data
def test_a_case_of_real_answers_in_small_prints_its_table(quality, shared_data, tmp_path):
    lines = quality.run_case(
        "ukp", quality.CASES["ukp"], tmp_path, shared_data, num_seeds=1, quick=True
    )
    assert [line[1] for line in lines] == [
        quality.PLAIN,
        "all votes, Davidson's ties",
        "a vote against the others' majority",
        "no order can beat",
    ]


@pytest.mark.shared_data
def test_no_text_of_the_real_answers_stands_in_two_splits(quality, shared_data):
    data = quality.data
    for read in (data.hh_rlhf, data.oasst_zh, data.fine_grained, data.ukp):
        seen: dict[str, str] = {}
        for row in read(shared_data):
            keys = [row["prompt"][0]["content"]] if read is data.oasst_zh else []
            keys += [c["text"] for c in row["completions"]] if read is data.ukp else []
            for key in keys or [str(row["prompt"])]:
                assert seen.setdefault(key, row["split"]) == row["split"]
