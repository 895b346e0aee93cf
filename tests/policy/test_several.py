"""policy.several: N processes with one exit code, none of which outlives the first."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
START = """
import sys
from policy import several
several.GRACE_SECONDS = 0.5
several.end_with(several.main(sys.argv[1:]))
"""


@pytest.fixture
def start(tmp_path):
    """A function: processes that run this script, started as a command; its stdout is piped."""

    def run(script, *, count="2"):
        (tmp_path / "part.py").write_text("import os, sys, time, signal\n" + script)
        return subprocess.Popen(
            [sys.executable, "-c", START, count, "part", "word"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return run


def test_each_process_knows_its_place_as_torchrun_would_tell_it(start):
    names = "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"
    words = f"[*(os.environ[name] for name in {names!r}), *sys.argv[1:]]"
    said = f"os.write(1, (' '.join({words}) + '\\n').encode())"
    process = start(
        f"{said}\nassert os.environ['MASTER_PORT'] and os.environ['TORCHELASTIC_RUN_ID']"
    )
    out, _ = process.communicate()
    assert process.returncode == 0
    assert sorted(out.splitlines()) == [f"{n} {n} 2 2 127.0.0.1 word" for n in (0, 1)]


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(0, 0, 0), (2, 2, 2), (3, 3, 3), (4, 4, 4), (0, 2, 2), (2, 0, 2)],
)
def test_the_exit_code_is_that_of_the_processes(start, first, second, code):
    process = start(f"sys.exit(({first}, {second})[int(os.environ['RANK'])])")
    process.communicate()
    assert process.returncode == code


def test_who_waits_for_one_that_failed_is_ended_after_the_grace(start):
    waits = "time.sleep(600)"
    process = start(
        f"if os.environ['RANK'] == '1': sys.exit(4)\nprint(os.getpid(), flush=True)\n{waits}"
    )
    out, _ = process.communicate()
    assert process.returncode == 4
    assert not psutil.pid_exists(int(out))


def test_one_that_is_killed_counts_as_a_kill_of_all(start):
    process = start(
        "if os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(600)"
    )
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_sigterm_reaches_all_and_they_say_how_they_ended(start):
    process = start(
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\nos.write(1, b'ready\\n')\n"
        "while True: time.sleep(0.05)"
    )
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    process.terminate()
    process.communicate()
    assert process.returncode == 3


def test_none_outlives_the_first_though_it_be_killed(start):
    listens = "from policy.supervisor import watch_supervisor; watch_supervisor()"
    process = start(f"{listens}\nos.write(1, b'%d\\n' % os.getpid())\ntime.sleep(600)")
    children = [psutil.Process(int(process.stdout.readline())) for _ in range(2)]
    process.kill()
    psutil.wait_procs(children)
    process.communicate()
    assert not any(map(psutil.Process.is_running, children))


@pytest.mark.parametrize("count", ["0", "65", "two", "-1"])
def test_a_number_of_processes_that_is_none_is_refused(start, count):
    process = start("", count=count)
    _, err = process.communicate()
    assert process.returncode == 2
    assert err == f"give a number of processes from 1 to 64 and a module: [{count!r}, 'part']\n"
