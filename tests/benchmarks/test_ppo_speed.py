"""Concord's side of the benchmark of PPO still runs; how fast is nobody's business here."""

import importlib.util
from pathlib import Path

import pytest


def loaded(name):
    script = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.shared_data
def test_steps_and_answers_are_measured(shared_data, tmp_path):
    benchmark = loaded("ppo_speed")
    benchmark.prepare(tmp_path, shared_data, quick=True)
    for case in ("head", "grpo"):
        found = benchmark.train_concord(tmp_path, case, "bf16", 2)
        assert (found["count"], found["seconds"] > 0) == (32, True)
        assert {"rollout_seconds", "score_seconds", "update_seconds"} <= set(found["phases"])
    found = benchmark.generate(tmp_path, "fp32", 4, 2)
    assert found["count"] > 4


@pytest.mark.shared_data
def test_what_is_checked_on_a_gpu_holds_on_a_cpu(shared_data, tmp_path, capsys):
    speed, checks = loaded("ppo_speed"), loaded("gpu_checks")
    speed.prepare(tmp_path, shared_data, quick=True, large=True)
    checks.checks(tmp_path, "cpu")
    said = capsys.readouterr().out
    assert "16 of 16 answers are `generate`'s" in said
    assert "differs from the CPU's by 0.0e+00" in said
    assert said.count("sampled alone is the same: True") == 2
