"""The report and the learning curve, from the command line, with tiny real models."""

import csv
import json
import shutil

import pytest

from policy.backbone import save_model, score_model_from
from policy.comparisons import read_comparisons
from policy.data import content_hash
from rewardmodel import plots
from rewardmodel.__main__ import main
from rewardmodel.curve import write_share
from rewardmodel.fonts import families_for
from rewardmodel.plots import slices_plot

PNG = b"\x89PNG"


def table(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def rows(count, split, **fields):
    return [
        {
            "id": f"{split}{i}",
            "split": split,
            "prompt": f"Question {split} {i // 2}",
            "chosen": "yes " * (1 + i % 3),
            "rejected": f"no {i % 5}",
            "subset": ["chat", "safety | 安全"][i % 2],
            **fields,
        }
        for i in range(count)
    ]


@pytest.fixture
def models(tiny_lm, tmp_path):
    """Two reward models with heads of their own."""
    for name, seed in (("new", 1), ("old", 2)):
        model, tokenizer = score_model_from(tiny_lm, seed=seed)
        model.score.weight.data.mul_(30)
        save_model(model, tokenizer, tmp_path / name)
    return tmp_path / "new", tmp_path / "old"


def test_a_report_holds_a_card_the_pictures_and_their_data(models, write_rows, tmp_path, capsys):
    new, old = models
    data, folder = write_rows(rows(12, "dev")), tmp_path / "report"
    words = ["evaluate", "--model", str(new), "--data", str(data), "--against", str(old)]
    assert main([*words, "--report", str(folder)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert json.loads((folder / "evaluation.json").read_text()) == figures
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert pictures == [
        "accuracy-by-agreement.png",
        "accuracy-by-length.png",
        "accuracy-by-margin.png",
        "accuracy-by-subset.png",
        "best-of-n.png",
        "drift.png",
        "reliability.png",
    ]
    card = (folder / "README.md").read_text(encoding="utf-8")
    for name in pictures:
        assert (folder / name).read_bytes()[:4] == PNG
        assert f"]({name})" in card
        assert table(folder / name.replace(".png", ".csv"))
    assert f"| accuracy | {figures['accuracy']:.3f} |" in card
    longer = figures["length_bias"]["longer_preferred"]
    for line in (
        f"| the longer text wins, by the votes | {longer:.3f} |",
        f"less = too sure) | {figures['reliability_slope']['slope']:.3f} |",
        f"in a batch, largest difference of 16 | {figures['batches']['largest_difference']:.1e} |",
    ):
        assert line in card
    assert figures["batches"]["largest_difference"] < 1e-5
    assert r"| safety \| 安全 | 6 |" in card
    assert {each["part"]: each["n"] for each in figures["slices"]["subset"]} == {
        "chat": 6,
        "safety | 安全": 6,
    }
    difference = figures["against"]["accuracy_difference"]
    main(["evaluate", "--model", str(old), "--data", str(data)])
    theirs = json.loads(capsys.readouterr().out)
    assert difference == pytest.approx(figures["accuracy"] - theirs["accuracy"])
    assert figures["drift"]["num_texts"] == len(table(folder / "drift.csv"))
    assert not list(folder.glob("*.part"))


def test_anchors_without_another_model_are_refused(models, write_rows, capsys):
    data = write_rows(rows(4, "dev"))
    words = ["evaluate", "--model", str(models[0]), "--data", str(data), "--anchors", str(data)]
    assert main(words) == 2
    assert "--anchors goes with --against" in capsys.readouterr().err


def test_text_of_the_data_is_drawn_with_a_font_that_has_it_or_not_at_all(tmp_path, monkeypatch):
    part = {"part": "安全 $x$ " * 20, "n": 3, "accuracy": 0.5, "accuracy_interval": None}
    plain = part | {"part": "plain é"}
    drawn = {}

    def slices(name, parts, by):
        slices_plot(parts, by, 0.5, tmp_path / name)  # a sign without a font would be an error
        drawn[name] = (tmp_path / name).read_bytes()
        assert drawn[name][:4] == PNG

    slices("as-it-is.png", [plain, part], "来源")
    monkeypatch.setattr(plots, "families_for", lambda line: families_for(line, wide=()))
    slices("without.png", [plain, part], "来源")
    named = part | {"part": "line 2 of the table"}
    slices("same.png", [plain, named], "a label of the data, see the card")
    assert drawn["without.png"] == drawn["same.png"]


def test_a_font_is_looked_up_for_signs_that_the_own_one_has_not():
    assert families_for("plain é ж") == ["DejaVu Sans"]
    assert families_for("安全", wide=("No Such Font",)) is None
    with_signs = families_for("安全")
    assert with_signs is None or with_signs[0] == "DejaVu Sans"


def test_training_writes_a_card_of_dev_beside_the_weights(write_rows, tmp_path, capsys):
    data, out = write_rows(rows(20, "train") + rows(8, "dev") + rows(6, "test")), tmp_path / "out"
    small = {"layers": 1, "heads": 2, "width": 32, "context": 64, "vocab_size": 300}
    words = ["--data", str(data), "--device", "cpu"]
    settings = [word for k, v in small.items() for word in ("--set", f"{k}={v}")]
    assert main(["train", *words, "--init", "none", "--out", str(out), *settings]) == 0
    written = json.loads((out / "card" / "evaluation.json").read_text())
    assert (written["split"], written["n"]) == ("dev", 8)
    capsys.readouterr()
    before = content_hash(out)
    assert main(["evaluate", *words, "--model", str(out)]) == 0
    assert json.loads(capsys.readouterr().out) == written
    card = (out / "card" / "README.md").read_text(encoding="utf-8")
    assert f"| accuracy | {written['accuracy']:.3f} |" in card
    pictures = [path.name for path in (out / "card").glob("*.png")]
    assert "reliability.png" in pictures
    assert all(f"]({name})" in card for name in pictures)
    shutil.rmtree(out / "card")
    assert content_hash(out) == before  # the card is no part of the model


def test_a_card_of_dev_rows_that_cancel_out_is_written(write_rows, tmp_path):
    """One dev question that two people answered against each other has no slice of its own: the
    model is none the worse for it."""
    (plain,) = rows(1, "dev")
    texts = [{"id": name, "text": plain[name], "model": "m"} for name in ("chosen", "rejected")]
    votes = [
        {
            "axis": "overall",
            "ranking": [[one], [other]],
            "strength": [1],
            "weight": 1.0,
            "annotator": who,
            "kind": "person",
        }
        for who, one, other in (("a", "chosen", "rejected"), ("b", "rejected", "chosen"))
    ]
    dev = {
        "id": "d",
        "split": "dev",
        "prompt": [{"role": "user", "content": "Why?"}],
        "completions": texts,
        "votes": votes,
    }
    train = rows(8, "train")
    small = {"layers": 1, "heads": 2, "width": 32, "context": 64, "vocab_size": 300}
    settings = [word for k, v in small.items() for word in ("--set", f"{k}={v}")]
    words = ["--data", str(write_rows([*train, dev])), "--init", "none", "--device", "cpu"]
    assert main(["train", *words, "--out", str(tmp_path / "out"), *settings]) == 0
    assert (tmp_path / "out" / "card" / "README.md").is_file()


def test_training_without_dev_writes_none(write_rows, tmp_path):
    small = {"layers": 1, "heads": 2, "width": 32, "context": 64, "vocab_size": 300}
    settings = [word for k, v in small.items() for word in ("--set", f"{k}={v}")]
    words = ["--data", str(write_rows(rows(4, "train"))), "--init", "none", "--device", "cpu"]
    assert main(["train", *words, "--out", str(tmp_path / "out"), *settings]) == 0
    assert not (tmp_path / "out" / "card").exists()


def test_smaller_shares_lie_in_the_larger_ones_and_groups_stay_together(write_rows, tmp_path):
    data = write_rows(rows(400, "train") + rows(3, "dev") + rows(3, "test"))
    held = {}
    for share in (8, 4, 2, 1):
        part = tmp_path / f"{share}.jsonl"
        count = write_share(data, part, share)
        read = list(read_comparisons(part))
        assert [each.split for each in read if each.split != "train"] == ["dev"] * 3 + ["test"] * 3
        groups = {each.group for each in read if each.split == "train"}
        assert count == 2 * len(groups) == len(read) - 6
        held[share] = groups
    assert held[8] < held[4] < held[2] < held[1]
    assert len(held[1]) == 200
    assert 10 < len(held[8]) < 45


def test_the_curve_trains_on_each_share_once(write_rows, tmp_path, capsys, monkeypatch):
    data, out = write_rows(rows(60, "train") + rows(8, "dev")), tmp_path / "curve"
    small = {"layers": 1, "heads": 2, "width": 32, "context": 64, "vocab_size": 300}
    words = ["curve", "--data", str(data), "--init", "none", "--out", str(out), "--device", "cpu"]
    words += [word for k, v in small.items() for word in ("--set", f"{k}={v}")]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert json.loads((out / "curve.json").read_text())["curve"] == said
    assert [each["share"] for each in said] == [1 / 8, 1 / 4, 1 / 2, 1]
    assert said[-1]["num_comparisons"] == 60
    assert {each["n"] for each in said} == {8}
    assert (out / "curve.png").read_bytes()[:4] == PNG
    monkeypatch.setattr("rewardmodel.curve.train", None)  # nothing is left to be trained
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == said


@pytest.mark.shared_data
def test_rewardbench_is_read_and_told_apart_by_subset(shared_data, models, capsys):
    data = shared_data / "formats" / "rewardbench" / "sample.jsonl"
    words = ["evaluate", "--model", str(models[0]), "--data", str(data), "--split", "all"]
    assert main(words) == 0
    figures = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    counted = dict.fromkeys({row["subset"] for row in rows}, 0)
    for row in read_comparisons(data):
        counted[row.labels["subset"]] += 1
    assert sum(counted.values()) == len(rows)
    assert {each["part"] for each in figures["slices"]["subset"]} <= set(counted)
