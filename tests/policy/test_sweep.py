"""Sweeps: which combinations, one public run for each, what is kept, and the tables."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from policy import sweep
from policy.__main__ import main
from policy.config import BadInput
from policy.sweep import checked_command, combinations, name_of, read_axes, value_in

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_grid_goes_through_all_and_a_draw_through_some_of_it():
    axes = read_axes(["lr_peak=1e-3,3e-3", "data_weights=[1,2],[2,1]", "seed=0"])
    assert axes == {
        "lr_peak": ["1e-3", "3e-3"], "data_weights": ["[1,2]", "[2,1]"], "seed": ["0"],
    }  # fmt: skip
    grid = combinations(axes, None, 0)
    assert [tuple(each.values()) for each in grid] == [
        ("1e-3", "[1,2]", "0"), ("1e-3", "[2,1]", "0"),
        ("3e-3", "[1,2]", "0"), ("3e-3", "[2,1]", "0"),
    ]  # fmt: skip
    drawn = combinations(axes, 3, 7)
    assert drawn == combinations(axes, 3, 7)
    assert [each for each in grid if each in drawn] == drawn
    assert len(drawn) == len({name_of(each) for each in drawn}) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lr_peak"], "--grid wants name=value,value, got 'lr_peak'"),
        (["a=1", "a=2"], "--grid names a twice"),
        (["a=1,1"], "--grid a has a value twice: 1,1"),
    ],
)
def test_a_grid_that_says_nothing_is_refused(words, said):
    with pytest.raises(BadInput, match=said):
        read_axes(words)


def test_other_refusals():
    with pytest.raises(BadInput, match="from 1 to the 2 combinations of the grid: 3"):
        combinations({"a": ["1", "2"]}, 3, 0)
    with pytest.raises(BadInput, match=r"behind -- stands a command.* got \['os'\]"):
        checked_command(["--", "os"])
    with pytest.raises(BadInput, match="leave it out of the command"):
        checked_command(["--", "policy", "sft", "--out=x"])


def test_a_metric_is_the_last_or_the_best(tmp_path):
    rows = [("dev", 3.0), ("train", 1.0), ("dev", 2.0), ("dev", 2.5), ("dev", None)]
    lines = [json.dumps({"step": n, "phase": p, "loss": v}) for n, (p, v) in enumerate(rows)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    found = [value_in(tmp_path, "dev.loss", best) for best in (None, "min", "max")]
    assert found == [2.5, 2.0, 3.0]
    assert value_in(tmp_path, "dev.accuracy", None) is None
    assert value_in(tmp_path / "nothing", "dev.loss", None) is None


def test_runs_are_made_once_ranked_and_drawn(tmp_path, monkeypatch, capsys):
    """The command itself runs here in this process, to spare two starts of Python."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The parcel will come tomorrow.\n\nToday, or never.\n\n" * 20)
    ran = []

    def here(words):
        ran.append(words)
        return main(words[1:]), False

    monkeypatch.setattr(sweep, "_run", here)
    out = tmp_path / "out"
    small = {"vocab_size": 300, "width": 16, "layers": 1, "heads": 2, "context": 16, "steps": 12}
    small |= {"windows_per_step": 4, "warmup_steps": 0, "sample_every": 0, "heldout_fraction": 0.2}
    command = ["sweep", "--out", str(out), "--grid", "lr_peak=1e-9,1e-2,-1", "--grid", "seed=0"]
    command += ["--metric", "heldout.bits_per_byte", "--", "policy", "pretrain"]
    command += ["--data", str(corpus), *(f"--set={k}={v}" for k, v in small.items())]
    assert main(command) == 0
    assert len(ran) == 3
    table = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0] for row in table[2:]] == ["| 1e-2", "| 1e-9", "| -1"]
    assert [row.split(" | ")[-1] for row in table[2:]] == ["done |", "done |", "exit 2 |"]
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["lr_peak"] for row in rows] == ["1e-9", "1e-2", "-1"]
    assert float(rows[1]["heldout.bits_per_byte"]) < float(rows[0]["heldout.bits_per_byte"])
    assert rows[2]["heldout.bits_per_byte"] == ""
    assert (out / "plot.png").read_bytes()[:4] == b"\x89PNG"
    for row in rows[:2]:
        said = json.loads((out / row["folder"] / "run.json").read_text())
        assert said["config"]["lr_peak"] == float(row["lr_peak"])

    assert main(command) == 0
    assert len(ran) == 4  # the one that had failed
    assert main([word.replace("1e-2", "1e-4") for word in command]) == 2
    assert "holds another sweep" in capsys.readouterr().err


CHILD = """
import signal, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(parents=True)
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append("INT"))
signal.signal(signal.SIGTERM, lambda *_: heard.append("TERM"))
(out / "ready").touch()
while not heard:
    time.sleep(0.01)
for _ in range(20):  # a second signal would come by now
    time.sleep(0.01)
(out / "heard").write_text(" ".join(heard))
sys.exit({code})
"""


@pytest.mark.parametrize(
    ("number", "code", "heard"),
    [
        (signal.SIGINT, 3, "INT"),
        (signal.SIGTERM, -15, "TERM"),
        (signal.SIGHUP, 3, "TERM"),
        (signal.SIGINT, 0, "INT"),
    ],
)
def test_a_sweep_asked_to_stop_tells_its_run_once_and_starts_no_other(
    tmp_path, number, code, heard
):
    """As from a terminal, which signals all processes of the group."""
    (tmp_path / "child.py").write_text(CHILD.replace("{code}", str(code)))
    script = (
        "import sys; from pathlib import Path; from policy.config import Stopped\n"
        "from policy.sweep import run_all\n"
        "runs = [{'seed': '0'}, {'seed': '1'}]\n"
        "try: run_all(['child'], runs, Path('out'), metric='a.b', best=None, lowest_first=True)\n"
        "except Stopped as stopped: sys.exit(str(stopped))\n"
    )
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, **paths},
    )  # fmt: skip
    (tmp_path / "out" / "runs").mkdir(parents=True)
    while not (ready := list((tmp_path / "out" / "runs").glob("*/ready"))):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the same command goes on" in said
    assert (ready[0].parent / "heard").read_text() == heard
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 1
