"""`make run`: everything on one machine under one process manager, until Ctrl-C.

Migrates, loads the demo project where it is missing, then starts the Procfile's processes (Redis,
web, five workers, beat) with honcho and prints the address once the web answers. Run again, it
goes on where it was. Redis starts first and ends last: a worker that stops gives its job back.
"""

import argparse
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TextIO

import django
from django.conf import settings
from django.core.management import call_command
from honcho import manager as process_manager
from honcho.environ import parse_procfile
from honcho.printer import Printer

KILL_WAIT_SECONDS = 15
"""From Ctrl-C to SIGKILL: a trainer saves a checkpoint, and its worker gives the job back."""

SIGN_INS = ("labeler", "labeler-zh", "reviewer", "admin", "researcher")


def refuse(sentence: str) -> None:
    """End with exit code 2 and one sentence."""
    print(sentence, file=sys.stderr)  # noqa: T201
    raise SystemExit(2)


def hold_lock(path: Path) -> int:
    """Keep var/ to one `make run` at a time; the lock goes with the process."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        refuse(f"Concord already runs from {path.parent}; stop it with Ctrl-C first.")
    return descriptor


def require_free(port: int) -> None:
    """Refuse a port that somebody listens on."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            refuse(f"Port {port} is taken; choose another with `make run PORT=8001`.")


def announce(port: int, log: Path, stopping: threading.Event) -> None:
    """Print the address and the sign-ins as soon as the web answers."""
    address = f"http://127.0.0.1:{port}"
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever http_proxy
    while not stopping.wait(0.2):
        try:
            straight.open(f"{address}/sign-in/", timeout=5).close()
        except (urllib.error.URLError, OSError):
            continue
        lines = [f"  {name:<11} password {name}-demo" for name in SIGN_INS]
        banner = [
            "",
            f"Concord runs at {address}",
            "Sign in as one of",
            *lines,
            "The demo's first models are trained in the background; labeling can start at once.",
            f"What the processes say is written to {log}.",
            "Ctrl-C stops everything; `make run` goes on where it was.",
            "",
        ]
        print("\n".join(banner), flush=True)  # noqa: T201
        return


class Broker:
    """Redis around the other processes; should it end first, they are ended too."""

    def __init__(self, command: str, *, environment: dict[str, str], log: TextIO) -> None:
        self.process = subprocess.Popen(
            f"exec {command}",
            shell=True,  # a line of the Procfile, with its variables
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal is not for it
        )
        self.stopping = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """End it, by force after KILL_WAIT_SECONDS."""
        self.stopping.set()
        self.process.terminate()
        try:
            self.process.wait(KILL_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _watch(self) -> None:
        code = self.process.wait()
        if not self.stopping.is_set():
            print(f"Redis ended with code {code}.", file=sys.stderr)  # noqa: T201
            os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """0 after Ctrl-C, else the exit code of the first process that ended."""
    parser = argparse.ArgumentParser(description="Run Concord on this machine.")
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotation.settings")
    django.setup()
    if not settings.LAPTOP:
        refuse("`make run` is for one machine: CONCORD_MODE must be laptop.")
    settings.VAR_DIR.mkdir(parents=True, exist_ok=True)
    hold_lock(settings.VAR_DIR / "laptop.lock")
    require_free(port)
    call_command("compile_translations", verbosity=0)
    call_command("migrate", verbosity=0)
    call_command("load_demo")

    environment = {
        # On a laptop the trainer shares its cores with the web and the other workers. OpenMP's
        # threads spin for long while they wait for each other: 100 steps beside one busy process
        # take 36 s so, and 21 s with this; alone 15 and 16.
        "GOMP_SPINCOUNT": "1000",
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PORT": str(port),
        "CONCORD_VAR": str(settings.VAR_DIR),
        "REDIS_SOCKET": settings.REDIS_URL.removeprefix("unix://"),
        "PYTHONUNBUFFERED": "1",
    }
    process_manager.KILL_WAIT = KILL_WAIT_SECONDS
    log_file = settings.VAR_DIR / "log.txt"
    commands = parse_procfile((settings.BASE_DIR / "Procfile").read_text()).processes
    stopping = threading.Event()
    # The terminal was closed. Every process has a session of its own: nobody else would end them.
    signal.signal(signal.SIGHUP, lambda _signal, _frame: os.kill(os.getpid(), signal.SIGTERM))
    with log_file.open("a", buffering=1) as log:
        broker = Broker(commands.pop("redis"), environment=environment, log=log)
        try:
            manager = process_manager.Manager(Printer(log, colour=False))
            for name, command in commands.items():
                manager.add_process(name, command, env=environment, cwd=str(settings.BASE_DIR))
            threading.Thread(target=announce, args=(port, log_file, stopping), daemon=True).start()
            manager.loop()
        finally:
            stopping.set()
            broker.stop()
    print("Everything is stopped.")  # noqa: T201
    return 0 if manager.returncode in (None, 130) else int(manager.returncode)


if __name__ == "__main__":
    sys.exit(main())
