"""The desk's benchmark still runs; how fast is nobody's business here."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def test_the_quick_benchmark_runs_and_counts_nothing_wrong(tmp_path):
    words = ["--quick", "--without-label-studio", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(HERE / "desk.py"), *words],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "NOT EXACT" not in done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| Concord")]
    assert {row[2].strip() for row in rows} == {"PostgreSQL", "SQLite"}
    assert all([cell.strip() for cell in row[10:14]] == ["0"] * 4 for row in rows), rows
