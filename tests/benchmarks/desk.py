"""How fast the desk is, and how exact, beside Label Studio. Prints a Markdown table.

    .venv/bin/python tests/benchmarks/desk.py            # about 20 minutes on 2 cores
    .venv/bin/python tests/benchmarks/desk.py --quick    # whether it still runs, in a minute

It makes its own databases (PostgreSQL from the pgserver wheel, SQLite in a file), fills them,
starts the web process of the Procfile, and lets a client in another process label over loopback.
Client, web and database share the machine. Label Studio is installed by pip into var/benchmark and
driven by the same client; --without-label-studio leaves it out. After each run the ledger is
counted: answers that were acknowledged and are not there (lost), that count twice, or beyond the
overlap. Everything stays below --folder; databases of an earlier run are made anew.
"""

import argparse
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pgserver
import psutil
import psycopg

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from tests.benchmarks import label_studio  # noqa: E402

START_SECONDS = 180
PEER_TASKS = 20_000
DATABASES = ("PostgreSQL", "SQLite")


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """One filled database of Concord."""

    database: str
    comparisons: int
    overlap: int
    url: str
    tokens: list[str]

    @property
    def env(self) -> dict[str, str]:
        return environment(self.url)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    system: str
    database: str
    size: int
    overlap: int
    labelers: int
    think: float
    result: dict[str, Any]
    lost: int
    over: int
    twice: int
    memory: tuple[int, int]

    def __str__(self) -> str:
        claim, submit = (
            " / ".join(f"{one:.0f}" for one in self.result[what]) for what in ("claim", "submit")
        )
        cells = [
            self.system, self.database, f"{self.size:,}", self.overlap, self.labelers,
            f"{self.think:.0f}", f"{self.result['cycles_per_second']:.1f}", claim, submit,
            self.result["failed"], self.lost, self.twice, self.over,
            f"{self.memory[0]} → {self.memory[1]}",
        ]  # fmt: skip
        return f"| {' | '.join(map(str, cells))} |"


COLUMNS = (
    *("system", "database", "comparisons", "overlap", "labelers", "think (s)", "cycles/s"),
    *(f"{what} p50 / p95 / p99 (ms)" for what in ("claim", "submit")),
    *("failed", "lost", "twice", "over", "web MiB"),
)
HEAD = f"| {' | '.join(COLUMNS)} |\n| {' | '.join('---' for _ in COLUMNS)} |"


def tool(ledger_env: dict[str, str], *arguments: object) -> Any:
    """What desk_data.py answers."""
    command = [sys.executable, str(HERE / "desk_data.py"), *map(str, arguments)]
    done = subprocess.run(command, env=ledger_env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def web_command(port: int) -> list[str]:
    """The Procfile's."""
    [line] = [one for one in (ROOT / "Procfile").read_text().splitlines() if one[:5] == "web: "]
    words = shlex.split(line.removeprefix("web: ").replace("$PORT", str(port)))
    return [sys.executable, *words[1:]] if words[0] == "python" else words


@contextmanager
def running(
    command: list[str], env: dict[str, str], log: Path, url: str
) -> Iterator[psutil.Process]:
    """A server from the moment it answers until the end of the block."""
    with log.open("ab") as out:
        server = subprocess.Popen(
            command, env=env, cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
        try:
            _wait_for(server, url, log)
            yield psutil.Process(server.pid)
        finally:
            end(server)


def end(server: "subprocess.Popen[bytes]") -> None:
    """Stop a server that was started here, and its children."""
    with suppress(psutil.NoSuchProcess):
        family = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.terminate()
        for one in psutil.wait_procs(family, timeout=20)[1]:
            one.kill()
    server.wait()


def _wait_for(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            raise RuntimeError(f"The server ended with {server.returncode}: see {log}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"Nothing answers at {url} after {START_SECONDS} s: see {log}")


def memory_of(server: psutil.Process) -> int:
    """MiB of resident memory, children included."""
    family = [server, *server.children(recursive=True)]
    return round(sum(one.memory_info().rss for one in family) / 2**20)


def client(job: dict[str, Any]) -> dict[str, Any]:
    """What a client in a process of its own measures."""
    done = subprocess.run(
        [sys.executable, str(HERE / "desk_client.py")],
        input=json.dumps(job), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"The client failed: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


def measure_concord(ledger: Ledger, labelers: int, think: float, asked: Any, folder: Path) -> Row:
    """One run against a filled database; the last of the labelers is the one who is ahead."""
    before = tool(ledger.env, "check")
    port = free_port()
    url = f"http://127.0.0.1:{port}/sign-in/"
    with running(web_command(port), ledger.env, folder / "web.log", url) as server:
        start = memory_of(server)
        result = client(
            {
                "system": "concord",
                "port": port,
                "tokens": ledger.tokens[-labelers:],
                "labelers": labelers,
                "seconds": asked.seconds,
                "warm_up": asked.warm_up,
                "think": think,
            }
        )
        memory = (start, memory_of(server))
    after = tool(ledger.env, "check")
    stored = after["answers"] - before["answers"]
    if wrong := {name: after[name] for name in ("broken", "untouched_broken") if after[name]}:
        print(f"NOT EXACT: {wrong}", file=sys.stderr)
    return Row(
        system="Concord", database=ledger.database, size=ledger.comparisons,
        overlap=ledger.overlap, labelers=labelers, think=think, result=result,
        lost=max(0, result["acknowledged"] - stored), twice=after["double_counted"],
        over=after["over_assigned"] + after["surplus"] - before["surplus"], memory=memory,
    )  # fmt: skip


class Postgres:
    """A server of our own, and databases in it."""

    def __init__(self, folder: Path) -> None:
        self.server = pgserver.get_server(folder, cleanup_mode="stop")
        self.sockets = str(self.server.get_postmaster_info().socket_dir)
        self.names: list[str] = []

    def run(self, *commands: str) -> None:
        with psycopg.connect(
            f"postgresql://postgres@/postgres?host={quote(self.sockets)}", autocommit=True
        ) as one:
            for command in commands:
                one.execute(command)

    def new(self, name: str, template: str = "template1") -> str:
        """The URL of a new database."""
        self.names.append(name)
        self.run(
            f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
            f"CREATE DATABASE {name} TEMPLATE {template}",
            f"ALTER DATABASE {name} SET random_page_cost = 1.1",  # as README advises
        )
        return self.url(name)

    def copy(self, name: str, of: str) -> str:
        """The URL of a database that starts as another one, by its URL, is now."""
        template = next(one for one in self.names if self.url(one) == of)
        self.new(name, template)
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={quote(self.sockets, safe='')}"


def filled(database: str, size: int, folder: Path, postgres: Postgres) -> list[Ledger]:
    """A ledger with overlap 1 and one with overlap 3, which it was copied from."""
    urls = {}
    for overlap in (3, 1):
        if database == "PostgreSQL":
            name = f"desk_{size}_{overlap}"
            urls[overlap] = postgres.new(name) if overlap == 3 else postgres.copy(name, urls[3])
        else:
            path = folder / f"desk-{size}-{overlap}.sqlite3"
            for old in folder.glob(f"{path.name}*"):
                old.unlink()
            if overlap == 1:
                shutil.copy(folder / f"desk-{size}-3.sqlite3", path)
            urls[overlap] = f"sqlite://{path}"
        if overlap == 3:
            words = ("--comparisons", size, "--overlap", 3, "--ahead", min(10_000, size // 2))
            made = tool(environment(urls[3]), "fill", *words)
            say(f"{database}: {size:,} comparisons made in {made['seconds']:.0f} s")
        else:
            tool(environment(urls[1]), "lower", "--to", 1)
    return [
        Ledger(
            database=database, comparisons=size, overlap=overlap, url=urls[overlap],
            tokens=made["tokens"],
        )
        for overlap in (1, 3)
    ]  # fmt: skip


def environment(url: str) -> dict[str, str]:
    """Of Concord's processes: its public settings. On PostgreSQL two web processes, one per core,
    as in production; on SQLite the one of `make run`."""
    own = {"CONCORD_MODE": "laptop", "CONCORD_VAR": str(ROOT / "var" / "benchmark")}
    web_processes = "1" if url.startswith("sqlite") else "2"
    return {**os.environ, **own, "DATABASE_URL": url, "WEB_CONCURRENCY": web_processes}


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Label Studio with its tasks."""

    database: str
    command: Path
    env: dict[str, str]
    made: dict[str, Any]

    @classmethod
    def ready(cls, database: str, tasks: int, folder: Path, postgres: Postgres) -> "Peer":
        command = label_studio.installed(ROOT / "var" / "benchmark" / "label-studio")
        data = folder / f"label-studio-{database.lower()}"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        where = None
        if database == "PostgreSQL":
            postgres.new("label_studio")
            where = (postgres.sockets, "label_studio")
        env = label_studio.environment(data, where)
        made = label_studio.set_up(command, env, labelers=64, tasks=tasks)
        say(f"{database}: Label Studio has {tasks:,} tasks")
        return cls(database=database, command=command, env=env, made=made)

    def measure(self, labelers: int, think: float, asked: Any, folder: Path, tasks: int) -> Row:
        before = label_studio.count(self.command, self.env)
        port = free_port()
        command = label_studio.command(self.command, port)
        url = f"http://127.0.0.1:{port}/health"
        with running(command, self.env, folder / "label-studio.log", url) as server:
            start = memory_of(server)
            result = client(
                {
                    "system": "label-studio",
                    "port": port,
                    "tokens": self.made["tokens"][:labelers],
                    "project": self.made["project"],
                    "labelers": labelers,
                    "seconds": asked.seconds * (4 if labelers > 16 else 1),  # a cycle takes many
                    "warm_up": asked.warm_up,
                    "think": think,
                }
            )
            memory = (start, memory_of(server))
        after = label_studio.count(self.command, self.env)
        return Row(
            system=f"Label Studio {label_studio.VERSION}", database=self.database, size=tasks,
            overlap=1, labelers=labelers, think=think, result=result,
            lost=max(0, result["acknowledged"] - after["answers"] + before["answers"]), twice=0,
            over=after["over_assigned"] - before["over_assigned"], memory=memory,
        )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    sizes: tuple[int, ...]
    labelers: tuple[int, ...]
    tasks: int


FULL = Plan((10_000, 1_000_000), (1, 16, 64), PEER_TASKS)
QUICK = Plan((400,), (4,), 200)


def measured(plan: Plan, asked: Any, folder: Path, postgres: Postgres) -> Iterator[Row]:
    """Row by row: Concord and Label Studio in turn where both are asked for."""
    for size in plan.sizes:
        for database in asked.databases:
            once, thrice = filled(database, size, folder, postgres)
            peer = None
            if size == plan.sizes[0] and not asked.without_label_studio:
                peer = Peer.ready(database, plan.tasks, folder, postgres)
            for labelers in plan.labelers:
                yield measure_concord(once, labelers, 0.0, asked, folder)
                if peer:
                    yield peer.measure(labelers, 0.0, asked, folder, plan.tasks)
                yield measure_concord(thrice, labelers, 0.0, asked, folder)
            yield measure_concord(thrice, plan.labelers[-1], 1.0, asked, folder)
            if database == "PostgreSQL":
                for ledger in (once, thrice):
                    rows = tool(ledger.env, "explain")
                    asked.examined.append((size, ledger.overlap, rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few small runs, for a test")
    parser.add_argument("--seconds", type=float, help="of each run, after the warm-up")
    parser.add_argument("--without-label-studio", action="store_true")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--sizes", nargs="+", type=int)
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "benchmark" / "desk")
    asked = parser.parse_args()
    plan = QUICK if asked.quick else FULL
    if asked.sizes:
        plan = Plan(tuple(asked.sizes), plan.labelers, plan.tasks)
    asked.seconds = asked.seconds or (2.0 if asked.quick else 12.0)
    asked.warm_up = 1.0 if asked.quick else 3.0
    asked.examined = []
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    postgres = Postgres(folder / "postgres")
    started = time.monotonic()
    try:
        print(HEAD, flush=True)
        for row in measured(plan, asked, folder, postgres):
            print(row, flush=True)
    finally:
        postgres.server.cleanup()
    print("\n| comparisons | overlap | claims | rows examined, median | most | medians by table |")
    print("| ---: | ---: | ---: | ---: | ---: | --- |")
    for size, overlap, rows in asked.examined:
        tables = ", ".join(f"{name} {number:g}" for name, number in rows["medians"].items())
        cells = [f"{size:,}", overlap, rows["claims"], f"{rows['median']:g}", rows["most"], tables]
        print(f"| {' | '.join(map(str, cells))} |")
    say(f"{time.monotonic() - started:.0f} s in all")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
