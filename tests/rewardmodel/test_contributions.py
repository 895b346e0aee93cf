"""rewardmodel.contributions: who votes against the others' truth is harmful, by refits as `refit`
makes them."""

import json
import random
from statistics import fmean

import pytest
import torch

from policy.backbone import save_model, score_model_from
from policy.comparisons import read_comparisons
from policy.config import BadInput
from rewardmodel.__main__ import main
from rewardmodel.bootstrap import PairRow, bootstrap
from rewardmodel.contributions import read_labels
from rewardmodel.features import Backbone, write_features
from tests.rewardmodel.measuring import evaluate_pairs

WORDS = ["red", "blue", "two", "ten", "up", "down", "tea", "milk", "cat", "dog", "yes", "no"]
GOOD, INVERTED, BY_LOT = ("ann", "bob", "cleo"), "ivan", "lot"


@pytest.fixture
def frozen(tiny_lm, tmp_path):
    """A reward model whose features differ clearly, and its features of the words."""
    model, tokenizer = score_model_from(tiny_lm, seed=0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, 0.2, generator=generator)
    save_model(model, tokenizer, tmp_path / "frozen")
    return tmp_path / "frozen"


def vote(number, who, winner, loser, **more):
    return {
        "axis": "overall", "ranking": [[winner], [loser]], "strength": None, "weight": 1.0,
        "annotator": who, "kind": "person", "preference": number, **more,
    }  # fmt: skip


def world(count, *, seed=0, crowd=(*GOOD, INVERTED, BY_LOT)):
    """Comparisons of two words of the prompt's twelve; the earlier word is truly better, and by
    how much says how sure people are of it. Dev is judged by the good ones alone."""
    draw, rows = random.Random(seed), []
    for number in range(count):
        split = "dev" if number % 3 == 0 else "train"
        first, second = sorted(draw.sample(range(12), 2))
        sure = 1 / (1 + 2.718 ** (-0.7 * (second - first)))
        votes = []
        for who in draw.sample(crowd, 3) if split == "train" else draw.sample(GOOD, 2):
            chance = {INVERTED: 1 - sure, BY_LOT: 0.5}.get(who, sure)
            winner, loser = ("a", "b") if draw.random() < chance else ("b", "a")
            votes.append(vote(10 * number + len(votes), who, winner, loser))
        rows.append(
            {
                "id": str(number), "split": split, "group": f"g{number // 2}",
                "prompt": [{"role": "user", "content": f"Say {number % 2}."}],
                "completions": [
                    {"id": name, "text": WORDS[place], "model": None}
                    for name, place in (("a", first), ("b", second))
                ],
                "votes": votes,
            }
        )  # fmt: skip
    return rows


def asked(frozen, data, tmp_path, *settings, labels=None):
    """What the two commands make of a file."""
    out, cached = tmp_path / "found.json", tmp_path / "features.safetensors"
    words = ["--model", str(frozen), "--data", str(data), "--device", "cpu"]
    assert main(["features", *words, "--out", str(cached)]) == 0
    more = ["--labels", str(labels)] if labels else []
    more += [word for setting in settings for word in ("--set", setting)]
    code = main(["contributions", *words, "--features", str(cached), "--out", str(out), *more])
    assert code == 0
    return json.loads(out.read_text())


def test_who_votes_upside_down_is_harmful_and_the_good_ones_help(frozen, write_rows, tmp_path):
    found = asked(frozen, write_rows(world(360)), tmp_path)
    by_name = {one["name"]: one for one in found["contributions"]}
    assert set(by_name) == {*GOOD, INVERTED, BY_LOT}
    assert found["contributions"][0]["name"] == INVERTED
    assert by_name[INVERTED]["high"] < 0
    for name in GOOD:
        assert by_name[name]["nats"] > 0
        assert by_name[name]["nats"] > by_name[BY_LOT]["nats"]
    assert by_name[BY_LOT]["nats"] < 0


def test_a_contribution_is_the_difference_that_refit_and_evaluate_give(
    frozen, write_rows, tmp_path
):
    rows = world(24, seed=4)
    rows[1]["votes"] = [vote(990, "ann", "a", "b"), vote(991, "dora", "b", "a")]
    rows[2]["votes"] = [vote(992, INVERTED, "a", "b")]  # gone without him
    rows[4]["votes"] += [vote(993, "ann", "a", "b", axis="other")]
    rows[5]["votes"] += [vote(994, "ann", "a", "b", weight=0.0)]
    rows[7]["votes"] += [vote(995, "eve", "a", "b") | {"ranking": [["a", "b"]]}]
    batches = {
        each["preference"]: "early" if int(row["id"]) < 12 else "late"
        for row in rows
        for each in row["votes"]
    }
    labels = write_rows([{"preference": n, "batch": b} for n, b in batches.items()], "labels.jsonl")
    data = write_rows(rows)
    settings = ("ridge=0.05", "axis=overall", "least_votes=1")
    found = asked(frozen, data, tmp_path, *settings, labels=labels)

    def losses(name, keeps):
        """Per dev comparison, of the model that `refit` publishes from the rows that are left."""
        left = [
            row | {"votes": [one for one in row["votes"] if row["split"] == "dev" or keeps(one)]}
            for row in rows
        ]
        part, out = write_rows(left, f"{name}.jsonl"), tmp_path / name
        words = ["--model", str(frozen), "--data", str(part), "--device", "cpu"]
        words += ["--features", str(tmp_path / "features.safetensors"), "--out", str(out)]
        words += ["--set", "ridge=0.05", "--set", "axis=overall", "--set", "num_anchors=0"]
        assert main(["refit", *words]) == 0
        dev = (row for row in read_comparisons(part, axis="overall") if row.in_split("dev"))
        return evaluate_pairs(out, dev)

    whole = losses("whole", lambda one: True)
    assert found["dev_log_loss"] == pytest.approx(fmean(row.log_loss for row in whole), abs=1e-5)
    assert found["dev_comparisons"] == len(whole) == 8
    strict = [
        (row["id"], one)
        for row in rows
        for one in row["votes"]
        if row["split"] == "train"
        and one["axis"] == "overall"
        and one["weight"]
        and len(one["ranking"]) == 2
    ]
    parts = {("annotator", one["annotator"]) for _, one in strict}
    parts |= {("batch", batches[one["preference"]]) for _, one in strict}
    assert {(one["by"], one["name"]) for one in found["contributions"]} == parts
    for one in found["contributions"]:
        by, name = one["by"], one["name"]

        def belongs(vote, by=by, name=name):
            return name == (vote["annotator"] if by == "annotator" else batches[vote["preference"]])

        without = losses(f"{by}-{name}", lambda vote: not belongs(vote))
        differences = [
            PairRow(old.group, new.log_loss - old.log_loss, 0.0, 1.0)
            for new, old in zip(without, whole, strict=True)
        ]
        means, intervals = bootstrap(differences)
        assert one["nats"] == pytest.approx(means["log_loss"], abs=1e-5)
        assert [one["low"], one["high"]] == pytest.approx(intervals["log_loss"], abs=1e-5)
        mine = [number for number, vote in strict if belongs(vote)]
        assert (one["votes"], one["comparisons"]) == (len(mine), len(set(mine)))
    assert sum(one["votes"] for one in found["contributions"] if one["by"] == "batch") == len(
        strict
    )


def test_small_parts_are_counted_and_not_measured(frozen, write_rows, tmp_path):
    rows = world(30, seed=1)
    rows[1]["votes"].append(vote(991, "dora", "b", "a"))
    found = asked(frozen, write_rows(rows), tmp_path, "least_votes=2")
    assert "dora" not in {one["name"] for one in found["contributions"]}
    assert found["left_unmeasured"] == 1


def test_where_one_has_given_all_votes_the_rest_knows_nothing(frozen, write_rows, tmp_path):
    rows = world(30, seed=1)
    for row in rows:
        row["votes"] = [one | {"annotator": "ann"} for one in row["votes"]]
    found = asked(frozen, write_rows(rows), tmp_path)
    (one,) = found["contributions"]
    assert one["nats"] == pytest.approx(0.6931 - found["dev_log_loss"], abs=1e-3)


def test_what_says_nothing_is_refused(frozen, write_rows, tmp_path, capsys):
    rows = world(12)
    cached = tmp_path / "features.safetensors"
    backbone = Backbone(frozen, "cpu")
    write_features(backbone, "0" * 64, write_rows(rows), cached)
    words = ["--model", str(frozen), "--features", str(cached), "--out", str(tmp_path / "x")]
    assert main(["contributions", *words, "--data", str(write_rows(rows))]) == 2
    assert "holds the features of another model" in capsys.readouterr().err
    for split, missing in (("train", "dev"), ("dev", "train")):
        data = write_rows([row | {"split": split} for row in rows], f"{split}.jsonl")
        words = ["--model", str(frozen), "--data", str(data), "--device", "cpu"]
        assert main(["features", *words, "--out", str(cached)]) == 0
        words += ["--features", str(cached), "--out", str(tmp_path / "x")]
        assert main(["contributions", *words]) == 2
        assert f"has no {missing} comparison with a strict pair" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    for row, said in (
        ({"preference": "7", "batch": "a"}, "preference must be a whole number"),
        ({"preference": 7, "batch": 3}, "a label is a text"),
        ({"preference": 7, "annotator": "a"}, "and no annotator"),
    ):
        with pytest.raises(BadInput, match=said):
            read_labels(write_rows([row], "labels.jsonl"))
