"""workers.launch: one process, watched to its end. The processes here are small Python scripts."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

from annotation.models import TrainingJob
from annotation.services import jobs
from annotation.services.jobs import Pulse
from tests.workers.conftest import wait_for
from workers import launch as launching
from workers.launch import MetricsFile, launch, living_trainers

pytestmark = pytest.mark.django_db
LISTEN = "from policy.supervisor import watch_supervisor; watch_supervisor();"


@pytest.fixture(autouse=True)
def quick(settings):
    settings.HEARTBEAT_SECONDS = 0.2


@pytest.fixture
def job(project):
    job = jobs.request_training(project=project, kind="sft")
    return jobs.claim_job(job_id=job.pk, worker="w")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "jobs" / "1" / "attempt-1"
    (folder / "model").mkdir(parents=True)
    return folder


def start(job, folder, script):
    code = textwrap.dedent(script)
    return launch(job_id=job.pk, attempt=job.attempt, folder=folder, arguments=["-c", code])


def test_a_process_runs_to_its_end_and_its_words_are_kept(job, folder):
    ended = start(job, folder, "import sys; print('out'); sys.exit('a sentence')")
    assert (ended.exit_code, ended.asked) == (1, Pulse.GO_ON)
    assert ended.log_tail == "out\na sentence\n"
    job.refresh_from_db()
    assert job.log_tail == ended.log_tail


def test_what_it_measures_reaches_the_ledger_and_a_line_without_its_end_does_not(job, folder):
    start(
        job,
        folder,
        f"""
        from pathlib import Path
        model = Path({str(folder / "model")!r})
        rows = '{{"step": 1, "phase": "a", "loss": 2.5}}\\n{{"step": 1, "phase": "b"}}\\n'
        (model / "metrics.jsonl").write_text(rows + '{{"step": 2, "ph')
        (model / "progress.json").write_text('{{"step": 1, "total": 9, "phase": "a", "at": 0}}')
        """,
    )
    assert {(m.phase, m.step): m.values for m in job.metrics.exclude(phase="machine")} == {
        ("a", 1): {"loss": 2.5},
        ("b", 1): {},
    }
    job.refresh_from_db()
    assert (job.step, job.total_steps, job.phase) == (1, 9, "a")


def test_what_a_run_takes_of_its_machine_is_told_with_its_step(job, folder, monkeypatch):
    record = jobs.record_metrics

    def record_and_end(**told):
        (folder / "end").touch()
        return record(**told)

    monkeypatch.setattr(jobs, "record_metrics", record_and_end)
    said = {"step": 4, "total": 9, "phase": "a", "at": 0, "gpu": {"gpu_percent": 50}}
    (folder / "model" / "progress.json").write_text(json.dumps(said))
    start(
        job,
        folder,
        f"""
        import time
        from pathlib import Path
        while not Path({str(folder / "end")!r}).exists():
            time.sleep(0.01)
        """,
    )
    [row] = job.metrics.all()  # its step moved on once
    assert (row.phase, row.step, row.values["gpu_percent"]) == ("machine", 4, 50)
    assert row.values["resident_mb"] > 1
    assert row.values["cpu_percent"] >= 0


def test_a_run_whose_machine_cannot_be_read_is_watched_to_its_end(job, folder, monkeypatch):
    monkeypatch.setattr(psutil.Process, "children", denied)
    said = {"step": 4, "total": 9, "phase": "a", "at": 0}
    (folder / "model" / "progress.json").write_text(json.dumps(said))
    assert start(job, folder, "print('done')").exit_code == 0
    assert not job.metrics.exists()


def denied(process, recursive=False):
    raise psutil.AccessDenied(process.pid)


def test_metrics_are_read_on_from_where_the_last_look_ended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    assert metrics.unread() == ([], 0)
    lines = [json.dumps({"step": n, "phase": "t"}) + "\n" for n in (1, 2, 3)]
    path.write_text(lines[0] + lines[1][:5])
    rows, metrics.offset = metrics.unread()
    assert [row.step for row in rows] == [1]
    path.write_text("".join(lines))
    assert [row.step for row in metrics.unread()[0]] == [2, 3]


def test_the_trainer_gets_no_secrets_and_knows_whose_it_is(job, folder, monkeypatch):
    monkeypatch.setenv("CONCORD_SECRET_KEY", "hush")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hush@h/d")
    ended = start(job, folder, "import os; print(sorted(os.environ.items()))")
    assert "hush" not in ended.log_tail
    assert str(folder) in ended.log_tail


def test_a_cancel_is_sigterm_first(job, folder):
    jobs.cancel_job(job=job, by=None)
    script = """
    import signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    print("ready", flush=True)
    while True: time.sleep(0.05)
    """
    ended = start(job, folder, script)
    assert ended.asked is Pulse.CANCEL
    assert ended.exit_code in (3, -15)  # -15: it came before the script listened


def test_who_does_not_heed_sigterm_is_killed_after_the_grace(job, folder, monkeypatch):
    monkeypatch.setattr(launching, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(jobs, "heartbeat", after_ready(folder, jobs.heartbeat, Pulse.CANCEL))
    script = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    while True: time.sleep(0.05)
    """
    assert start(job, folder, script).exit_code == -9


def after_ready(folder, heartbeat, pulse):
    """The heartbeat, which answers with another pulse once the script has said that it is ready."""

    def beat(**told):
        log = folder / "log.txt"
        answer = heartbeat(**told)
        return pulse if log.is_file() and "ready" in log.read_text() else answer

    return beat


def test_fenced_off_it_is_killed_with_its_children_and_nothing_is_written(job, folder):
    taken = threading.Event()
    script = """
    import subprocess, sys, time
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("ready", flush=True)
    time.sleep(600)
    """
    real = jobs.heartbeat

    def beat(**told):
        log = folder / "log.txt"
        if log.is_file() and "ready" in log.read_text() and not taken.is_set():
            taken.set()
            TrainingJob.objects.filter(pk=job.pk).update(attempt=2, step=77)
        return real(**told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "heartbeat", beat)
        ended = start(job, folder, script)
    assert ended.asked is Pulse.FENCED_OFF
    assert living_trainers([folder]) == []
    job.refresh_from_db()
    assert (job.attempt, job.step) == (2, 77)


def test_a_job_that_was_taken_before_the_start_is_not_started(job, folder):
    TrainingJob.objects.filter(pk=job.pk).update(attempt=2)
    ended = start(job, folder, "print('I ran')")
    assert ended.asked is Pulse.FENCED_OFF
    assert not (folder / "log.txt").exists()


def test_a_shutdown_of_the_worker_asks_the_trainer_to_stop(job, folder):
    launching.shutting_down.set()
    try:
        ended = start(job, folder, "import time; time.sleep(600)")
    finally:
        launching.shutting_down.clear()
    assert (ended.exit_code, ended.asked) == (-15, Pulse.GO_ON)


def test_what_is_left_of_an_earlier_attempt_is_ended_first(job, folder):
    earlier = folder.with_name("attempt-1")
    environment = {**os.environ, launching.ATTEMPT_FOLDER: str(earlier)}
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)
    wait_for(lambda: living_trainers([earlier]), "the orphan to be seen")
    TrainingJob.objects.filter(pk=job.pk).update(attempt=2)
    job.refresh_from_db()
    mine = folder.with_name("attempt-2")
    (mine / "model").mkdir(parents=True)
    assert start(job, mine, "print('hello')").exit_code == 0
    assert left.wait(timeout=10) == -9


def test_a_trainer_ends_when_its_supervisor_is_killed(tmp_path):
    """A supervisor of its own, killed with SIGKILL: the pipe closes."""
    supervisor = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                f"""
                import os, subprocess, sys, time
                reading, writing = os.pipe()
                child = "{LISTEN} print('ready', flush=True); import time; time.sleep(600)"
                environment = {{**os.environ, "{launching.SUPERVISOR_FD}": str(reading),
                                "{launching.ATTEMPT_FOLDER}": {str(tmp_path)!r}}}
                subprocess.Popen([sys.executable, "-c", child], env=environment,
                                 pass_fds=(reading,), start_new_session=True,
                                 stdout=open({str(tmp_path / "log")!r}, "w"))
                time.sleep(600)
                """
            ),
        ],
        cwd=Path(__file__).resolve().parent.parent.parent,
    )
    log = tmp_path / "log"
    wait_for(lambda: log.is_file() and "ready" in log.read_text(), "the trainer to listen")
    (trainer,) = living_trainers([tmp_path])
    supervisor.kill()
    supervisor.wait()
    # A process that is on its way out shows no environment for a moment and is not a zombie yet.
    wait_for(lambda: has_ended(trainer), "the trainer to end")
    assert living_trainers([tmp_path]) == []


def has_ended(process: psutil.Process) -> bool:
    """Gone, or waiting for whoever adopted it to read its exit code."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
