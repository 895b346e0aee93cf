"""Two processes that train one model, but for PPO: the losses and weights of one."""

import json
import shutil
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from policy.__main__ import main
from policy.backbone import save_model, score_model_from


@pytest.fixture(params=["pretrain", "masked", "sft", "dpo", "online-dpo"])
def words(request, tmp_path, tiny_policy):
    """A function: the command line for a folder. The last step of an epoch of fine-tuning holds one
    row, and one of DPO one comparison, of which the second process has no part."""
    settings = {"checkpoint_every": 2}
    data = tmp_path / "rows.jsonl"

    def write(rows) -> None:
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    if request.param == "sft":
        rows = [
            ("a", "b", "train"),
            ("c", "d", "dev"),
            *(("e", "fghij"[n], None) for n in range(4)),
        ]
        write(
            {"prompt": f"{a} {b}", "completion": f"{b} {a} " * n, "split": split}
            for n, (a, b, split) in enumerate(rows, 1)
        )
        command = ["sft", "--init", str(tiny_policy("llama"))]
        settings |= {"rows_per_step": 2, "packed": "true"}
    elif request.param == "dpo":
        write(
            {"prompt": "a b", "chosen": c, "rejected": "j " * n, "split": split}
            for n, (c, split) in enumerate(
                [("c", "dev"), ("d", "dev"), *((c, "train") for c in "cdefg")], 1
            )
        )
        command = ["dpo", "--init", str(tiny_policy("llama"))]
        settings |= {"comparisons_per_step": 2, "lr_peak": 3e-3, "patience": 2}
    elif request.param == "online-dpo":
        write({"id": str(n), "prompt": "a b c"[:n]} for n in (1, 3, 5))
        model, tokenizer = score_model_from(tiny_policy(seed=2, name="trunk"), seed=2)
        with torch.no_grad():
            model.score.weight.mul_(30)
        save_model(model, tokenizer, tmp_path / "reward")
        command = ["online-dpo", "--init", str(tiny_policy())]
        command += ["--reward-model", str(tmp_path / "reward")]
        settings |= {"steps": 3, "prompts_per_step": 3, "max_response_tokens": 5, "lr_peak": 3e-3}
    else:
        data = tmp_path / "corpus.txt"
        data.write_text("The parcel will come tomorrow.\n\nToday, or never.\n\n" * 20)
        command = ["pretrain"]
        settings |= {"vocab_size": 300, "width": 16, "layers": 1, "heads": 2, "context": 16}
        settings |= {"steps": 5, "windows_per_step": 3, "packed": "false"}
        settings |= {"eval_every": 5, "heldout_fraction": 0.1, "documents_apart": "false"}
        settings |= {"objective": "masked"} if request.param == "masked" else {"sample_every": 5}
    named = "--prompts" if request.param == "online-dpo" else "--data"
    plain = [*command, named, str(data), "--device", "cpu"]
    plain += [f"--set={name}={value}" for name, value in settings.items()]
    return lambda name: [*plain, "--out", str(tmp_path / name)]


def test_a_disk_without_room_is_told_of_before_the_first_step(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert main(words("out")) == 2
    said = f"the disk of {tmp_path / 'out'} has 0.0 MB free, and this run will need "
    assert said in capsys.readouterr().err
    rows = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(row)["step"] for row in rows} <= {0}


def test_two_processes_learn_as_one(words, run_two, tmp_path):
    assert main(words("one")) == 0
    assert run_two(partial(main, words("two"))) == [0, 0]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-4)
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert any("loss" in row for row in rows[0])
    for mine, other in zip(*rows, strict=True):
        assert other == {
            name: value if isinstance(value, str) else pytest.approx(value, abs=1e-5)
            for name, value in mine.items()
        }
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    assert run_two(partial(main, words("two"))) == [2, 2]  # it holds this run already
