"""The benchmark of length in small: it still runs and prints a row for each arm."""

import importlib.util
from pathlib import Path

HERE = Path(__file__).resolve().parent


def test_it_prints_a_row_for_each_arm(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("length_bias", HERE / "length_bias.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    words = ["--folder", str(tmp_path / "out"), "--seeds", "1", "--count", "16", "--tied", "0.3"]
    assert bench.main([*words, "--width", "16"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == list(bench.ARMS)
    assert all(0 <= float(row[2]) <= 1 for row in rows)
