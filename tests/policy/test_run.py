"""One output folder: who may write into it, what is carried over, how a run ends."""

import errno
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from policy.backbone import score_model_from
from policy.conditions import git_revision
from policy.config import BadInput, Diverged, SFTConfig, Stopped
from policy.run import (
    Run,
    device_from,
    generator_for,
    is_finished,
    main_guard,
    seed_for,
)
from policy.supervisor import SUPERVISOR_FD

ROOT = Path(__file__).resolve().parents[2]
CONFIG = SFTConfig()


@pytest.fixture
def opened(tmp_path):
    """A function that opens a run over a small data file."""
    data = tmp_path / "data.jsonl"
    data.write_text("{}\n")

    def open_run(name="out", **changes):
        settings = {
            "command": "policy sft",
            "config": CONFIG,
            "inputs": {"data": data},
            "resume_from": (),
            **changes,
        }
        return Run(tmp_path / name, **settings)

    return open_run


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write_model(folder):
    (folder / "config.json").write_text("{}")
    (folder / "value").mkdir()
    (folder / "value" / "config.json").write_text("{}")


def test_a_finished_run_says_what_it_was(opened, tmp_path):
    with opened() as run:
        run.log_step(1, "train", loss=torch.tensor(0.5), lr=1e-3)
        run.log_step(2, "train", loss=float("nan"), tokens=3)
        run.save_checkpoint(1, modules={}, state={})
        run.finish(write_model, {"optimizer": "ab"})
    out = tmp_path / "out"
    assert rows_of(out) == [
        {"step": 1, "phase": "train", "loss": 0.5, "lr": 1e-3},
        {"step": 2, "phase": "train", "loss": None, "tokens": 3},
    ]
    said = json.loads((out / "run.json").read_text())
    assert (said["command"], said["finished"], said["seed"]) == ("policy sft", True, 0)
    assert said["threads"] == torch.get_num_threads()
    assert said["versions"]["torch"] == torch.__version__
    assert len(said["inputs"]["data"]) == 64  # sha256
    assert said["git_revision"] == git_revision()
    assert (said["resumes"], said["fingerprints"]) == ([], {"optimizer": "ab"})
    assert said["final_metrics"]["train"]["step"] == 2
    left = {path.name for path in out.iterdir()}
    assert left == {"run.json", "metrics.jsonl", "config.json", "value", ".lock"}
    assert is_finished(out)


def test_a_finished_run_is_not_run_again(opened, tmp_path):
    with opened() as run:
        assert not is_finished(tmp_path / "out")
        run.finish(write_model)
    with pytest.raises(BadInput, match="holds this run already, finished"):
        opened()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"command": "policy ppo"}, 'its command is "policy sft", not "policy ppo"'),
        ({"config": replace(CONFIG, epochs=9)}, "its config is"),
        ({"inputs": {}}, "its inputs is"),
    ],
)
def test_another_run_is_refused_and_the_folder_left_alone(opened, tmp_path, changes, said):
    with opened() as run:
        run.log_step(1, "train", loss=1.0)
    before = (tmp_path / "out" / "metrics.jsonl").read_bytes()
    with pytest.raises(BadInput, match=said):
        opened(**changes)
    with pytest.raises(BadInput, match=said):
        opened("attempt-2", resume_from=[tmp_path / "out"], **changes)
    assert (tmp_path / "out" / "metrics.jsonl").read_bytes() == before
    assert not (tmp_path / "attempt-2").exists()


def test_a_folder_with_other_things_is_refused_but_a_log_may_lie_there(opened, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "trainer.log").write_text("started\n")
    with opened():
        pass
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(BadInput, match=r"is not empty and holds no run: thesis.txt"):
        opened("other")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="is a file, not a folder"):
        opened("file")
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_two_processes_do_not_write_into_one_folder(opened):
    with opened(), pytest.raises(BadInput, match="another process is writing"):
        opened()
    with opened():
        pass


def killed_after_step_5(run):
    """Steps 1 to 5 with a checkpoint after 3: what a kill in step 6 leaves."""
    folder = run.directory / "rollouts"
    for step in range(1, 6):
        run.log_step(step, "train", loss=step)
        if step == 2:
            run.log_step(step, "dev", loss=0.0)
        (folder / f"step-{step:06d}.jsonl").write_text(str(step))
        if step == 3:
            run.save_checkpoint(step, modules={"m": nn.Linear(1, 1)}, state={"beta": 3})


@pytest.mark.parametrize("same_folder", [True, False])
def test_after_a_kill_each_row_is_there_once(opened, tmp_path, same_folder):
    with opened("attempt-1", carried=("rollouts",)) as run:
        killed_after_step_5(run)
    name = "attempt-1" if same_folder else "attempt-2"
    earlier = [tmp_path / "attempt-0", tmp_path / "attempt-1"]
    with opened(name, resume_from=earlier, carried=("rollouts",)) as run:
        assert (run.first_step, run.restored.state["beta"]) == (3, 3)
        shards = sorted(path.name for path in (run.directory / "rollouts").iterdir())
        assert shards == [f"step-{step:06d}.jsonl" for step in (1, 2, 3)]
        for step in range(run.first_step + 1, 6):
            run.log_step(step, "train", loss=step)
        run.finish(write_model)
    seen = [(row["step"], row["phase"]) for row in rows_of(tmp_path / name)]
    assert seen == [
        (1, "train"), (2, "train"), (2, "dev"), (3, "train"), (4, "train"), (5, "train"),
    ]  # fmt: skip
    said = json.loads((tmp_path / name / "run.json").read_text())
    assert said["final_metrics"]["dev"]["step"] == 2


def test_a_run_without_a_checkpoint_begins_again(opened, tmp_path):
    with opened() as run:
        run.log_step(1, "train", loss=1)
    with opened() as run:
        assert run.first_step == 0
        run.log_step(1, "train", loss=1)
    assert len(rows_of(tmp_path / "out")) == 1


def test_a_kill_while_publishing_is_finished_by_the_same_command(opened, tmp_path):
    def killed(folder):
        write_model(folder)
        raise KeyboardInterrupt

    with opened() as run:
        run.save_checkpoint(4, modules={}, state={})
        with pytest.raises(KeyboardInterrupt):
            run.finish(killed)
    assert not is_finished(tmp_path / "out")
    with opened() as run:
        assert run.first_step == 4
        run.finish(write_model)
    assert is_finished(tmp_path / "out")
    assert not (tmp_path / "out" / ".staging").exists()


class Killed(BaseException):
    """What a SIGKILL is to a test in one process: nothing below it is cleaned up."""


def count_steps(opened, total=5):
    """A run whose weight counts its steps, with a checkpoint after each second one."""
    with opened() as run:
        weight = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(weight.weight)
        if run.restored:
            run.restored.restore("m", weight)
        for step in range(run.first_step + 1, total + 1):
            weight.weight.data += 1
            run.log_step(step, "train", loss=step)
            if step % 2 == 0:
                run.save_checkpoint(step, modules={"m": weight}, state={})
            run.progress(step, total, "train")
        run.finish(lambda folder: (folder / "weight").write_text(str(weight.weight.item())))


def killed_at(patch, fatal):
    """Raise Killed in place of the file operation of this number, counted from 1."""
    seen = itertools.count(1)

    def counting(real):
        def counted(*args, **kwargs):
            if next(seen) == fatal:
                raise Killed
            return real(*args, **kwargs)

        return counted

    patch.setattr(os, "fsync", counting(lambda handle: None))  # a process's end loses no write
    for module, name in [(os, "rename"), (os, "replace"), (shutil, "rmtree")]:
        patch.setattr(module, name, counting(getattr(module, name)))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # whoever is killed closes nothing
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_killed_before_any_of_its_file_operations_a_run_ends_the_same(
    opened, tmp_path, monkeypatch
):
    """Each fsync, rename and removal of the whole run in turn is the one that is not reached."""
    out = tmp_path / "out"
    for fatal in itertools.count(1):
        with monkeypatch.context() as patch:
            killed_at(patch, fatal)
            try:
                count_steps(opened)
                break
            except Killed:
                pass
        if not (out / "run.json").is_file() or not is_finished(out):
            count_steps(opened)
        assert (out / "weight").read_text() == "5.0", fatal
        assert [row["step"] for row in rows_of(out)] == [1, 2, 3, 4, 5], fatal
        assert is_finished(out)
        shutil.rmtree(out)
    assert fatal > 30  # each of the two checkpoints has nine


def test_a_resume_under_other_conditions_warns_and_says_so(opened, tmp_path, monkeypatch, caplog):
    with opened() as run:
        run.save_checkpoint(1, modules={}, state={})
    with opened() as run:
        assert run.resumes == [{"at_step": 1, "changed": []}]
        run.save_checkpoint(2, modules={}, state={})
    said = json.loads((tmp_path / "out" / "run.json").read_text())
    assert caplog.messages == []
    threads = torch.get_num_threads()
    monkeypatch.setattr("torch.get_num_threads", lambda: threads + 1)
    transformers = said["versions"]["transformers"]
    monkeypatch.setattr("policy.conditions.transformers.__version__", "0.1")
    monkeypatch.setattr("policy.conditions.git_revision", lambda: "abc")
    with opened() as run:
        run.finish(write_model)
    said = json.loads((tmp_path / "out" / "run.json").read_text())
    first, second = said["resumes"]
    assert first == {"at_step": 1, "changed": []}
    assert second["at_step"] == 2
    assert sorted(second["changed"]) == [
        f"git_revision: {git_revision()} before, abc now",
        f"threads: {threads} before, {threads + 1} now",
        f"transformers: {transformers} before, 0.1 now",
    ]
    assert all("may differ in their last bits" in message for message in caplog.messages)
    assert len(caplog.messages) == 3


def test_the_git_revision_is_that_of_the_checkout_and_of_nothing_else(tmp_path):
    assert git_revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("one")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    read = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    git_revision.cache_clear()
    assert git_revision(tmp_path) == read.stdout.strip()
    (tmp_path / "file").write_text("two")
    git_revision.cache_clear()
    assert git_revision(tmp_path) == read.stdout.strip() + "-dirty"


def test_a_signal_asks_the_loop_to_stop_and_the_old_handlers_come_back(opened):
    before = signal.getsignal(signal.SIGTERM)
    with opened() as run:
        assert not run.should_stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert run.should_stop
        os.kill(os.getpid(), signal.SIGTERM)  # a supervisor may insist; still a checkpoint first
        with pytest.raises(Stopped, match="after step 7"):
            run.stop_here(7)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_works_outside_the_main_thread(opened):
    failures = []

    def body():
        try:
            with opened() as run:
                run.finish(write_model)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert failures == []


def test_progress_is_a_file_replaced_about_once_a_second(opened, tmp_path, monkeypatch):
    clock = iter([0.0, 100.0, 100.3, 101.1, 101.2])
    times = SimpleNamespace(monotonic=lambda: next(clock), time=time.time)
    monkeypatch.setattr("policy.run.time", times)
    path = tmp_path / "out" / "progress.json"
    with opened() as run:
        seen = []
        for step in (1, 2, 3, 9):
            run.progress(step, 9, "train")
            seen.append(json.loads(path.read_text())["step"])
    assert seen == [1, 1, 3, 9]
    assert json.loads(path.read_text())["total"] == 9


def test_generators_depend_on_their_four_numbers_alone():
    def draw(*key):
        return torch.rand(4, generator=generator_for(*key)).tolist()

    assert draw(0, 1, "batches") == draw(0, 1, "batches", 0)
    others = [draw(1, 1, "batches"), draw(0, 2, "batches"), draw(0, 1, "rows")]
    others.append(draw(0, 1, "batches", 1))
    assert draw(0, 1, "batches") not in others
    # Written down, so that a change of the derivation cannot pass unseen.
    assert seed_for(0, 1, "batches", 0) == KNOWN_SEED


KNOWN_SEED = 2463978605120435944


@pytest.mark.parametrize(
    ("error", "code"),
    [(BadInput("no"), 2), (Stopped("so"), 3), (Diverged("nan"), 4)],
)
def test_outcomes_are_exit_codes_and_one_sentence(error, code, capsys):
    def body():
        raise error

    assert main_guard(body) == code
    assert capsys.readouterr().err == f"{error}\n"
    assert main_guard(lambda: 0) == 0
    with pytest.raises(ZeroDivisionError):
        main_guard(lambda: 1 // 0)


def test_a_command_tells_of_no_new_head(tiny_policy):
    heard = []
    library = transformers.utils.logging.get_logger("transformers")
    handler = logging.Handler()
    handler.emit = heard.append
    library.addHandler(handler)
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_warning()
    try:
        folder = tiny_policy()
        assert main_guard(lambda: score_model_from(folder, seed=0) and 0) == 0
    finally:
        transformers.utils.logging.set_verbosity(before)
        library.removeHandler(handler)
    assert [record.getMessage() for record in heard] == []


def test_an_unknown_device_is_refused():
    assert device_from("auto") in ("cpu", "cuda")
    assert device_from("cpu") == "cpu"
    with pytest.raises(BadInput, match="--device 'abacus' cannot be used"):
        device_from("abacus")


def test_a_trainer_ends_with_its_supervisor_and_its_children_too():
    """The child leads a group and has a child of its own; closing the pipe ends both."""
    code = (
        "import subprocess, sys, time\n"
        "from policy.supervisor import watch_supervisor\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "watch_supervisor()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    ours, theirs = os.pipe()[::-1]
    trainer = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        pass_fds=[theirs],
        env={**os.environ, SUPERVISOR_FD: str(theirs), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(theirs)
    with trainer:
        grandchild = int(trainer.stdout.readline())
        assert trainer.poll() is None
        os.close(ours)
        assert trainer.wait(timeout=60) == -signal.SIGKILL
        assert trainer.stdout.read() == b""  # its other holder, the grandchild, is gone as well
    assert not Path(f"/proc/{grandchild}/cmdline").exists() or not (
        Path(f"/proc/{grandchild}/cmdline").read_bytes()
    )


FULL = pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "x"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)


@FULL
@pytest.mark.parametrize(
    ("saved", "how"),
    [(0, "begins anew: there is no checkpoint yet"), (7, "goes on from step 7")],
)
def test_a_full_disk_ends_a_run_with_what_the_same_command_would_do(opened, error, saved, how):
    def fill():
        with opened() as run:
            if saved:
                run.save_checkpoint(saved, modules={}, state={})
            raise error

    with pytest.raises(BadInput) as told:
        fill()
    assert str(told.value) == f"the disk is full ({error}); with room on it the same command {how}"


@pytest.mark.parametrize(
    ("total", "times", "saved"),
    [(4, 1, 0), (5, 2, 0), (8, 2, 0), (9, 3, 0), (100, 3, 0), (100, 2, 1), (100, 1, 2), (4, 1, 2)],
)
def test_room_for_what_a_run_will_save_is_asked_for(opened, monkeypatch, total, times, saved):
    """A checkpoint after 4 and 8 steps, of which two are kept while a third is written; eight
    numbers of 4 bytes that learn, with two more each in the optimizer, and four that do not."""
    modules = {"a": nn.Linear(3, 2), "b": nn.Linear(3, 1).requires_grad_(False)}
    size = 3 * 32 + 16
    with opened() as run:
        for step in range(1, saved + 1):
            run.save_checkpoint(step, modules={}, state={})
        for free in (times * size - 1, times * size):
            told = SimpleNamespace(free=free)
            monkeypatch.setattr(shutil, "disk_usage", lambda folder, told=told: told)
            if free == times * size:
                run.require_room(modules, total=total, every=4)
                continue
            with pytest.raises(BadInput, match=rf"this run will need .* MB: {times} x 0\.0 MB"):
                run.require_room(modules, total=total, every=4)


@FULL
def test_a_full_disk_ends_a_command_with_a_sentence(error, capsys):
    def body():
        raise error

    assert main_guard(body) == 2
    said = capsys.readouterr().err
    assert said.startswith("the disk is full (")
    assert said.count("\n") == 1


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), SafetensorError("header")])
def test_another_error_of_files_is_a_crash(error):
    def body():
        raise error

    with pytest.raises(type(error)):
        main_guard(body)
