"""A real Redis and real Celery processes, as the Procfile starts them, on the test's database.

Every process is ended by its id. Waiting is for conditions, with a deadline.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from django.conf import settings
from django.core.management.base import CommandError
from django.db import OperationalError, connection
from django.test import TransactionTestCase

from annotation.models import ModelVersion
from annotation.services import jobs, versions
from annotation.services.ledger import add_prompt
from annotation.services.projects import create_project
from tests.workers.tiny import tiny_policy, tiny_reward

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE_SECONDS = 600
"""For what takes seconds on a machine with nothing else to do."""


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """The first true thing that the condition gives; AssertionError after the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return found


def procfile_lines() -> dict[str, str]:
    """Process name -> command."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if line.strip())


class Installation:
    """Redis and workers on the test database, each started by its line of the Procfile."""

    def __init__(self, folder: Path) -> None:
        self.var = folder
        (folder / "data").mkdir()
        (folder / "secret_key").write_text(settings.SECRET_KEY)  # a session of the test's is good
        self.socket = folder / "redis.sock"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "CONCORD_MODE": "laptop",
            "CONCORD_VAR": str(folder),
            "CONCORD_ARTIFACTS": str(folder / "artifacts"),
            "CONCORD_HEARTBEAT_SECONDS": "1",
            "CONCORD_STALE_SECONDS": "6",
            "CONCORD_TICK_SECONDS": "1",
            "DATABASE_URL": database_url(),
            "REDIS_URL": self.redis_url,
            "REDIS_SOCKET": str(self.socket),
            "DJANGO_SETTINGS_MODULE": "annotation.settings",
            "OMP_NUM_THREADS": "1",
            "PORT": str(free_port()),
        }

    @property
    def url(self) -> str:
        """Of the web process, where it runs."""
        return f"http://127.0.0.1:{self.environment['PORT']}"

    @property
    def redis_url(self) -> str:
        return f"unix://{self.socket}"

    def start(self, name: str) -> "subprocess.Popen[bytes]":
        """Start the Procfile's process of this name; a Redis answers when this returns."""
        with (self.var / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {procfile_lines()[name]}"],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes[name] = process
        if name == "redis":
            wait_for(self.redis_answers, "Redis to answer")
        if name == "web":
            wait_for(self.web_answers, "the web process to answer")
        return process

    def redis_answers(self) -> bool:
        try:
            return bool(redis.Redis.from_url(self.redis_url).ping())
        except redis.RedisError:
            return False

    def web_answers(self) -> bool:
        straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            straight.open(f"{self.url}/sign-in/", timeout=5).close()
        except OSError:
            return False
        return True

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        self.processes[name].kill()
        self.processes.pop(name).wait()

    def stop(self, name: str) -> int:
        """SIGTERM, and its exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(timeout=DEADLINE_SECONDS)

    def stop_all(self) -> None:
        """Workers first, Redis last."""
        for name in sorted(self.processes, key=lambda name: name == "redis"):
            process = self.processes.pop(name)
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, name: str) -> str:
        return (self.var / f"{name}.log").read_text(errors="replace")


def free_port() -> int:
    """Nobody listens there just now. Below those that a system gives to connections: until a server
    takes it, a browser or a client may be given one of these."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)  # the other half of the suite chooses as well
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def database_url() -> str:
    """The test database as CONCORD's DATABASE_URL."""
    parts = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite://{parts['NAME']}"
    return f"postgresql://{parts['USER']}@/{parts['NAME']}?host={quote(parts['HOST'])}"


@pytest.fixture(scope="module")
def installation(django_db_setup: None) -> Iterator[Installation]:
    """Redis, light and beat; tests start and kill what else they are about."""
    with tempfile.TemporaryDirectory(prefix="concord-", ignore_cleanup_errors=True) as folder:
        one = Installation(Path(folder))
        try:
            for name in ("redis", "light", "beat"):
                one.start(name)
            yield one
        finally:
            one.stop_all()


@pytest.fixture(scope="session", autouse=True)
def flush_again() -> Iterator[None]:
    """Light and beat go on while a test's rows are flushed. Where the two wait for each other,
    PostgreSQL ends one of them: if that was the flush, it is done once more."""
    flush = TransactionTestCase._fixture_teardown

    def patiently(case: TransactionTestCase) -> None:
        for _ in range(10):
            try:
                flush(case)
                return
            except CommandError as error:
                if not isinstance(error.__cause__, OperationalError):
                    raise
        flush(case)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", patiently)
        yield


@pytest.fixture
def concord(
    installation: Installation, artifacts: Path, transactional_db: None, settings: Any
) -> Iterator[Installation]:
    """The installation, seen by the test's own process too; its extra workers end with the test."""
    settings.ARTIFACTS_DIR = installation.var / "artifacts"
    settings.DATA_DIRS = [installation.var / "data"]
    settings.REDIS_URL = installation.redis_url
    yield installation
    for name in ("training", "generate", "live", "files", "web"):
        if name in installation.processes:
            installation.kill(name)


@pytest.fixture(autouse=True)
def artifacts(settings: Any, tmp_path: Path) -> Path:
    """Nothing is written beside the repository; `concord` has its own folder."""
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    return tmp_path / "artifacts"


@pytest.fixture
def project(db: None) -> Any:
    """A project of its own."""
    return create_project(name="Shop", slug="shop", by=None)


@pytest.fixture
def make_version(artifacts: Path, project: Any) -> Callable[..., ModelVersion]:
    """Registers a tiny model, with the finished job that made it unless its stage is registered;
    trunk: the version that a reward model stands on."""

    def make(
        name: str, *, kind: str = "policy", stage: str = "registered", seed: int = 0, **edges: Any
    ) -> ModelVersion:
        folder = artifacts / "models" / name
        if kind == "policy":
            tiny_policy(folder, seed=seed)
        else:
            tiny_reward(folder, versions.directory_of(edges.pop("trunk")), seed=seed)
        job = None
        if stage != "registered":
            job = jobs.request_training(
                project=project,
                kind=stage,
                config={"max_response_tokens": 8} if stage == "ppo" else {},
            )
            jobs.claim_job(job_id=job.pk, worker="w")
            jobs.finish_job(job_id=job.pk, attempt=1)
        return versions.register_version(kind=kind, stage=stage, directory=folder, job=job, **edges)

    return make


@pytest.fixture
def ppo_version(project: Any, make_version: Callable[..., ModelVersion]) -> ModelVersion:
    """A policy from PPO whose reference is in force, and three prompts of dev."""
    root = make_version("sft-1", stage="sft", seed=1)
    versions.promote(project=project, slot="policy", version=root, verdict="first")
    reward = make_version("r", kind="reward", trunk=root)
    for n in range(3):
        add_prompt(
            project=project,
            source=project.sources.get(),
            messages=[{"role": "user", "content": f"Question {n}?"}],
            split="dev",
        )
    return make_version("ppo-1", stage="ppo", seed=2, reference=root, reward=reward)
