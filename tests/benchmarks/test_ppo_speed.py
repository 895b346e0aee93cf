"""Concord's side of the benchmark of PPO still runs; how fast is nobody's business here."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("ppo_speed.py")


@pytest.mark.shared_data
def test_steps_and_answers_are_measured(shared_data, tmp_path):
    spec = importlib.util.spec_from_file_location("ppo_speed", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.prepare(tmp_path, shared_data, quick=True)
    for case in ("head", "grpo"):
        found = benchmark.train_concord(tmp_path, case, "bf16", 2)
        assert (found["count"], found["seconds"] > 0) == (32, True)
        assert {"rollout_seconds", "score_seconds", "update_seconds"} <= set(found["phases"])
    found = benchmark.generate(tmp_path, "fp32", 4, 2)
    assert found["count"] > 4
