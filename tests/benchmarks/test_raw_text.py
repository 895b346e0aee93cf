"""From raw text to PPO in small, on the real sets, from nothing and from a model made elsewhere."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SMALL = ["--rows", "24", "--set", "sft.epochs=1", "--set", "reward.epochs=1"]
SMALL += ["--set", "ppo.steps=1", "--set", "ppo.rollouts_per_step=4"]


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(HERE))
    spec = importlib.util.spec_from_file_location("raw_text", HERE / "raw_text.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_answers_of_a_tree_are_ordered_at_each_turn(bench):
    def said(text, rank, replies=()):
        role = "prompter" if rank is None else "assistant"
        return {"message_id": text, "role": role, "text": text, "rank": rank, "replies": replies}

    deeper = said("and?", None, [said("w", 0), said("v", 1)])
    tree = said("hello", None, [said("b", 1), said("a", 0, [deeper]), said("c", 2)])
    first, second = bench._of_tree("t", [], tree)
    assert [one["text"] for one in first["completions"]] == ["a", "b", "c"]
    assert [turn["content"] for turn in second["prompt"]] == ["hello", "a", "and?"]
    assert [one["text"] for one in second["completions"]] == ["w", "v"]
    assert first["votes"][0]["ranking"] == [["0"], ["1"], ["2"]]
    assert first["group"] == second["group"] == "t"


@pytest.mark.shared_data
def test_it_runs_in_small(bench, shared_data, tmp_path, capsys):
    words = ["--data", str(shared_data), "--folder", str(tmp_path / "out"), *SMALL]
    small = ["pretrain.steps=1", "pretrain.vocab_size=300", "pretrain.width=32"]
    small += ["pretrain.size=null", "pretrain.layers=1", "pretrain.heads=1", "pretrain.context=160"]
    for word in small:
        words += ["--set", word]
    assert bench.main(words) == 0
    out = capsys.readouterr().out
    assert [line.split()[4] for line in out.splitlines() if line.startswith("$ ")] == [
        "pretrain",
        "sft",
        "train",
        "ppo",
    ]
    assert out.count(f"{bench.ASKED[2][1]} -> ") == 2
