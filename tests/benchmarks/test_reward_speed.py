"""Concord's side of the reward model's benchmark still runs; how fast is nobody's business here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.shared_data
def test_the_quick_benchmark_prints_its_table(shared_data, tmp_path):
    words = ["--quick", "--without-trl", "--folder", str(tmp_path), "--data", str(shared_data)]
    done = subprocess.run(
        [sys.executable, str(HERE / "reward_speed.py"), *words],
        capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split("|") for line in done.stdout.splitlines() if "| Concord" in line]
    assert [(row[1].strip(), row[2].strip()) for row in rows] == [
        ("pairs", "Concord, fp32"),
        ("pairs", "Concord, bf16"),
        ("rankings", "Concord, fp32"),
        ("rankings", "Concord, bf16"),
    ]
    assert all(float(row[3]) > 0 for row in rows)
