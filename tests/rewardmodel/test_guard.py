"""rewardmodel.guard, patience and what training looks at: bad numbers, bad turns and test rows."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import rewardmodel.train
from policy.config import BadInput, Diverged
from rewardmodel.__main__ import main
from rewardmodel.config import RewardConfig
from rewardmodel.train import train

TINY = RewardConfig(
    layers=1,
    heads=2,
    width=32,
    context=64,
    vocab_size=300,
    comparisons_per_step=2,
    eval_every=100,
    checkpoint_every=2,
    num_anchors=0,
    keep="last",
)


def pairs(count: int, split: str = "train", **changes) -> list[dict]:
    return [
        {
            "id": f"{split}{number}",
            "split": split,
            "prompt": f"Say {number}.",
            "chosen": f"yes {number}",
            "rejected": f"no {number}",
        }
        | changes
        for number in range(count)
    ]


def rows_of(directory: Path, *phases: str) -> list[dict]:
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for line in lines if (row := json.loads(line))["phase"] in phases]


@pytest.fixture
def spoiled(monkeypatch):
    """A function: the gradient of these backward passes, counted from 1, holds a NaN."""

    def spoil(*passes: int) -> list[int]:
        seen: list[int] = []
        make = rewardmodel.train.starting_model

        def with_hook(*args, **kwargs):
            model, tokenizer = make(*args, **kwargs)

            def hook(gradient):
                seen.append(len(seen) + 1)
                return gradient * float("nan") if len(seen) in passes else gradient

            model.score.weight.register_hook(hook)
            return model, tokenizer

        monkeypatch.setattr("rewardmodel.train.starting_model", with_hook)
        return seen

    return spoil


def test_a_step_that_is_not_finite_is_skipped_counted_and_shown(write_rows, tmp_path, spoiled):
    spoiled(3)
    weights = {}

    def on_step(step, stats):
        weights[step] = stats.loss

    train(TINY, data=write_rows(pairs(12)), out=tmp_path / "out", init=None, on_step=on_step)
    assert list(weights) == [1, 2, 4, 5, 6]
    assert [row["step"] for row in rows_of(tmp_path / "out", "train")] == [1, 2, 4, 5, 6]
    assert rows_of(tmp_path / "out", "skipped") == [
        {"step": 3, "phase": "skipped", "num_skipped": 1, "in_a_row": 1, "rolled_back_to": -1}
    ]
    tensors = load_file(tmp_path / "out" / "model.safetensors").values()
    assert all(torch.isfinite(tensor).all() for tensor in tensors)
    (dumped,) = (tmp_path / "out" / "skipped").iterdir()
    said = json.loads(dumped.read_text())
    assert (dumped.name, said["step"]) == ("step-000003.json", 3)
    assert said["why"] == "grad_norm is not finite: nan"
    assert len(said["comparisons"]) == 2
    for comparison in said["comparisons"]:
        assert comparison["id"].startswith("train")
        assert all(isinstance(score, float) for score in comparison["scores"])


def test_a_skipped_step_moves_neither_weights_nor_optimizer(write_rows, tmp_path, spoiled):
    """All steps from the second on are skipped: what is left is what one step alone leaves."""
    data = write_rows(pairs(8))
    config = dataclasses.replace(TINY, skips_in_a_row=9, checkpoint_every=50)
    spoiled(2, 3, 4)
    train(config, data=data, out=tmp_path / "out", init=None)
    seen = []
    with pytest.raises(KeyboardInterrupt):
        train(
            dataclasses.replace(config, checkpoint_every=1),
            data=data,
            out=tmp_path / "one",
            init=None,
            on_step=lambda step, stats: seen.append(step) or stop_at_two(step),
        )
    left = load_file(tmp_path / "out" / "model.safetensors")
    one = load_file(tmp_path / "one" / "checkpoints" / "step-000001" / "model.safetensors")
    assert all(torch.equal(left[name], one[name]) for name in left)


def stop_at_two(step: int) -> None:
    if step == 2:
        raise KeyboardInterrupt


def test_after_several_in_a_row_it_goes_back_and_on_with_what_comes_next(
    write_rows, tmp_path, spoiled
):
    data = write_rows(pairs(20))  # ten steps; a checkpoint after 2, 4 ...
    spoiled(6, 7, 8)
    train(TINY, data=data, out=tmp_path / "out", init=None)
    assert [(r["step"], r["rolled_back_to"]) for r in rows_of(tmp_path / "out", "skipped")] == [
        (6, -1),
        (7, -1),
        (8, 4),
    ]
    assert [row["step"] for row in rows_of(tmp_path / "out", "train")] == [1, 2, 3, 4, 5, 9, 10]


def test_a_run_that_went_back_and_is_killed_then_ends_the_same(write_rows, tmp_path, spoiled):
    data = write_rows(pairs(24))
    config = dataclasses.replace(TINY, checkpoint_every=3)
    seen = spoiled(5, 6, 7)
    train(config, data=data, out=tmp_path / "whole", init=None)

    def stop(step, stats):
        if step == 11:
            raise KeyboardInterrupt

    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        train(config, data=data, out=tmp_path / "cut", init=None, on_step=stop)
    seen[:] = range(9)  # passes of the steps up to the checkpoint
    train(
        config,
        data=data,
        out=tmp_path / "cut-2",
        init=None,
        resume_from=[tmp_path / "cut"],
    )
    cut, whole = (
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("cut-2", "whole")
    )
    assert cut["resumed_at_step"] == 9
    assert cut["fingerprints"] == whole["fingerprints"]
    assert rows_of(tmp_path / "cut-2", "skipped") == rows_of(tmp_path / "whole", "skipped")
    names = [path.name for path in sorted((tmp_path / "cut-2" / "skipped").iterdir())]
    assert names == [f"step-00000{step}.json" for step in (5, 6, 7)]


@pytest.mark.parametrize(
    ("passes", "said"),
    [
        (range(1, 99), "in 3 steps in a row and no checkpoint to go back to"),
        (range(6, 99), "in 3 steps in a row and again since the checkpoint"),
    ],
)
def test_where_going_back_is_of_no_use_it_has_diverged(write_rows, tmp_path, spoiled, passes, said):
    spoiled(*passes)
    with pytest.raises(Diverged, match=said) as problem:
        train(TINY, data=write_rows(pairs(40)), out=tmp_path / "out", init=None)
    assert str(tmp_path / "out" / "skipped") in str(problem.value)


def test_diverged_is_exit_code_4(write_rows, tmp_path, capsys):
    """A learning rate that no model survives, by the public command."""
    words = ["train", "--data", str(write_rows(pairs(40))), "--init", "none"]
    for name in ("layers", "heads", "width", "context", "vocab_size", "comparisons_per_step"):
        words += ["--set", f"{name}={getattr(TINY, name)}"]
    words += ["--out", str(tmp_path / "out"), "--set", "lr_peak=1e30", "--device", "cpu"]
    assert main([*words, "--set", "warmup_fraction=0"]) == 4
    assert "is not finite" in capsys.readouterr().err


def test_training_ends_when_dev_has_not_got_better_for_the_patience(write_rows, tmp_path):
    """Dev rows that want the opposite: their log loss only rises."""
    dev = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs(8, "dev")]
    data = write_rows(pairs(40) + dev)
    config = dataclasses.replace(
        TINY, keep="best", patience=2, eval_every=2, checkpoint_every=3, warmup_fraction=0.0
    )
    config = dataclasses.replace(config, lr_peak=1e-2)
    train(config, data=data, out=tmp_path / "out", init=None)
    looks = rows_of(tmp_path / "out", "dev")
    losses = [row["log_loss"] for row in looks]
    best = losses.index(min(losses))
    assert len(losses) == best + 3  # two looks that were no better
    (ended,) = rows_of(tmp_path / "out", "early_stop")
    assert ended["step"] == looks[-1]["step"] < 20
    assert ended["best_step"] == looks[best]["step"]
    assert rows_of(tmp_path / "out", "kept")[0]["kept_step"] == looks[best]["step"]

    # A kill before the end changes nothing of it.
    def stop(step, stats):
        if step == ended["step"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, data=data, out=tmp_path / "cut", init=None, on_step=stop)
    train(config, data=data, out=tmp_path / "cut", init=None)
    cut, whole = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("cut", "out"))
    assert cut == whole


def test_patience_without_dev_rows_is_refused(write_rows, tmp_path):
    config = dataclasses.replace(TINY, patience=1)
    data = write_rows(pairs(4) + pairs(2, "test"))
    with pytest.raises(BadInput, match=r"patience is 1, and .* holds no dev row"):
        train(config, data=data, out=tmp_path / "out", init=None)
    assert not (tmp_path / "out").exists()


def test_test_rows_are_never_looked_at(write_rows, tmp_path):
    """Other test rows, or none: the same tokenizer, weights and figures to the last bit."""
    shared = pairs(12) + pairs(4, "dev")
    files = {
        "none": shared,
        "some": shared + pairs(6, "test"),
        "others": pairs(9, "test", chosen="zebra zebra", rejected="quokka") + shared,
    }
    config = dataclasses.replace(TINY, keep="best", eval_every=2, num_anchors=4, vocab_size=320)
    ends = []
    for name, rows in files.items():
        out = tmp_path / name
        train(config, data=write_rows(rows, f"{name}.jsonl"), out=out, init=None)
        ends.append(
            [
                json.loads((out / "run.json").read_text())["fingerprints"],
                (out / "metrics.jsonl").read_text(),
                (out / "tokenizer.json").read_text(),
                (out / "config.json").read_text(),
            ]
        )
    assert ends[0] == ends[1] == ends[2]


def test_a_disk_without_room_is_told_of_before_the_first_step(write_rows, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(BadInput, match=r"has 0\.0 MB free, and this run will need .* 2 x "):
        train(TINY, data=write_rows(pairs(8)), out=tmp_path / "out", init=None)
    assert rows_of(tmp_path / "out", "train") == []
