"""The benchmark of kills in small: it still runs, and what was killed ends with the same bits."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
STATE = {
    "reward": {"kept_weights", "optimizer", "generators"},
    "pretrain": {"weights", "optimizer"},
    "sft": {"weights", "optimizer"},
    "ppo": {"policy_weights", "value_weights", "best_weights", "optimizers", "kl_coef"},
}
STEPS = {"reward": 36, "pretrain": 20, "sft": 20, "ppo": 4}


@pytest.fixture
def kills(monkeypatch):
    spec = importlib.util.spec_from_file_location("kills", HERE / "kills.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kills", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", STATE)
def test_killed_runs_end_with_the_bits_of_one_that_was_not(kills, tmp_path, command):
    every = 1 if command == "ppo" else 5
    size = kills.Size(width=32, steps=STEPS[command], checkpoint_every=every)
    (kill,) = kills.measure(tmp_path / "kills", command, size, kills=1, seed=0)
    assert set(kill.equal) >= STATE[command] | {"model.safetensors", "metrics.jsonl"}
    assert all(kill.equal.values()), kill
    assert kill.resumed_at % every == 0


def test_a_stack_says_what_a_kill_hit(kills):
    inner = [("losses", "ratio"), ("update", "update_policy"), ("ppo", "update"), ("ppo", "train")]
    assert kills.phase_of(inner) == "PPO's inner epochs, policy"
    saving = [("checkpoint", "save"), ("run", "save_checkpoint"), ("ppo", "train")]
    assert (
        kills.phase_of([("safetensors", "x"), ("torch", "save_file"), *saving]) == "save: writing"
    )
    assert kills.phase_of([("data", "content_hash"), *saving]) == "save: hashing"
    assert kills.phase_of([("shutil", "rmtree"), ("checkpoint", "_remove"), *saving]) == (
        "save: pointing, pruning"
    )
    assert kills.phase_of([("ppo", "train")]) == "start, or between"
