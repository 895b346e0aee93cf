"""`make run` as it is: everything starts, Ctrl-C ends everything, and it goes on where it was."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.workers.conftest import ROOT, free_port, wait_for

pytestmark = pytest.mark.celery


class Laptop:
    """One `make run` with a folder of its own, and every process that belongs to it."""

    def __init__(self, var: Path) -> None:
        self.var, self.port = var, free_port()
        taken = {"DATABASE_URL", "REDIS_URL", "CONCORD_ARTIFACTS", "DJANGO_SETTINGS_MODULE"}
        environment = {name: value for name, value in os.environ.items() if name not in taken}
        environment |= {"CONCORD_MODE": "laptop", "CONCORD_VAR": str(var), "OMP_NUM_THREADS": "1"}
        environment["http_proxy"] = "http://127.0.0.1:9"  # nobody there, and not for this machine
        self.said = var / "said.txt"
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers.laptop", "--port", str(self.port)],
                cwd=ROOT,
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """Every living process that was given this folder; Redis, which writes its title over its
        environment, works in it."""
        found = []
        for process in psutil.process_iter():
            try:
                given = process.environ().get("CONCORD_VAR")
                belongs = str(self.var) in (given, process.cwd())
                if belongs and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.said.read_text()
        try:
            straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            straight.open(f"http://127.0.0.1:{self.port}/sign-in/", timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def has_said_where_it_is(self) -> bool:
        return f"Concord runs at http://127.0.0.1:{self.port}" in self.said.read_text()

    def trains(self) -> bool:
        return bool(self.running("pretrain"))

    def running(self, what: str) -> list[psutil.Process]:
        """Those with this in their command; one may end between two looks at it."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if what in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def end(self) -> None:
        """Whatever is still there, whatever went wrong."""
        for process in self.processes():
            process.kill()
        self.process.wait(10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty before the first start, which makes tables and demo in it; the others go on with them:
    what each of them says holds of any start."""
    return tmp_path_factory.mktemp("laptop")


def test_ctrl_c_ends_everything_and_it_goes_on_where_it_was(folder):
    for go in (1, 2):
        laptop = Laptop(folder)
        try:
            wait_for(laptop.is_up, "the sign-in page")
            wait_for(laptop.trains, "the first model in training")
            wait_for(laptop.has_said_where_it_is, "the banner")
            assert len(laptop.processes()) >= 7
            assert laptop.stop() == 0
            assert laptop.processes() == []
        finally:
            laptop.end()
        said = laptop.said.read_text()
        assert said.count("Everything is stopped.") == go
        assert said.count("The demo project has ") == 1
        assert said.count("The demo project is there already.") == go - 1
        assert "Traceback" not in said + (folder / "log.txt").read_text()


def test_closing_the_terminal_ends_everything_too(folder):
    laptop = Laptop(folder)
    try:
        wait_for(laptop.is_up, "the sign-in page")
        wait_for(laptop.trains, "the first model in training")
        laptop.process.send_signal(signal.SIGHUP)
        laptop.process.wait(60)
        assert laptop.processes() == []
    finally:
        laptop.end()


def test_a_second_one_in_the_same_place_is_refused(folder):
    laptop = Laptop(folder)
    try:
        wait_for(laptop.is_up, "the sign-in page")
        second = Laptop(folder)
        assert second.process.wait(60) == 2
        assert f"Concord already runs from {folder}" in laptop.said.read_text()
        assert laptop.is_up()
    finally:
        laptop.end()


def test_when_redis_ends_all_the_rest_ends_too(folder):
    laptop = Laptop(folder)
    try:
        wait_for(laptop.is_up, "the sign-in page")
        [redis] = laptop.running("redis-server")
        redis.kill()
        assert laptop.process.wait(60) != 0
        assert laptop.processes() == []
    finally:
        laptop.end()
    assert "Redis ended with code -9." in laptop.said.read_text()
