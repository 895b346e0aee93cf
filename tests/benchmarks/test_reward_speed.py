"""Concord's side of the reward benchmarks still runs; how fast is nobody's business here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def ran(script, *words):
    done = subprocess.run(
        [sys.executable, str(HERE / script), "--quick", *words],
        capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.shared_data
def test_the_quick_benchmark_prints_its_table(shared_data, tmp_path):
    words = ["--without-trl", "--folder", str(tmp_path), "--data", str(shared_data)]
    said = ran("reward_speed.py", *words)
    rows = [line.split("|") for line in said if "| Concord" in line]
    assert [(row[1].strip(), row[2].strip()) for row in rows] == [
        ("pairs", "Concord, fp32"),
        ("pairs", "Concord, bf16"),
        ("rankings", "Concord, bf16"),
    ]
    assert all(float(row[3]) > 0 for row in rows)


@pytest.mark.shared_data
def test_scoring_and_refitting_are_measured(shared_data, tmp_path):
    said = ran("score_speed.py", "--folder", str(tmp_path), "--data", str(shared_data))
    rows = [line.split("|")[1].strip() for line in said if line.startswith("| ")]
    assert rows[2:] == [
        "transformers, bf16, sorted, 8 rows at once",
        "transformers, bf16, sorted, 32 rows at once",
        "Concord, fp32",
        "Concord, bf16",
    ]
    off = [float(line.split("|")[3]) for line in said if line.startswith("| ") and "rows" in line]
    assert max(off) < 0.2  # both ways are of one model
    assert any(line.startswith("A head refitted on 50 comparisons") for line in said)
    assert "GFLOP/s" in said[-1]


@pytest.mark.shared_data
def test_the_script_for_a_gpu_runs_on_a_cpu(shared_data, tmp_path):
    words = ["--without-trl", "--device", "cpu", "--folder", str(tmp_path)]
    said = ran("gpu_reward.py", *words, "--data", str(shared_data))
    assert "the gradients differ by 0.0e+00 of their norm" in said[1]
    row = said[-1].split("|")
    assert row[1].strip() == "Concord, bf16"
    assert float(row[2]) > 0
