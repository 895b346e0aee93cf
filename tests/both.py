"""The whole suite: on SQLite, and beside it what touches the database once more on PostgreSQL.

    python tests/both.py            # the exit code is the first that isn't 0

Two cores: side by side the two take two thirds of the time. What asks for a folder of its own is
done by whichever is through first, the longest of it before the rest, so that no core is idle while
there is work. SQLite's report is seen as it grows, that of the other when it is out.
"""

import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
PYTEST = (sys.executable, "-m", "pytest")
BESIDE = (*PYTEST, "-p", "no:cacheprovider")
APART = ("tests/browser", "tests/benchmarks", "tests/policy", "tests/rewardmodel")
"""Each a command of its own, on SQLite where it wants a database; the longest first. What is not
named here is run with the rest on SQLite, so that nothing can be forgotten."""
ON_SQLITE = (*PYTEST, *(f"--ignore={folder}" for folder in APART))
ONCE = (
    "tests/annotation/test_access_matrix.py",
    "tests/annotation/test_translations.py",
    "tests/workers/test_laptop.py",
)
"""Who may ask for what, and in which words, is no matter of the database, and the first takes
minutes; each page is asked on PostgreSQL by its own test. The last is `make run`, on SQLite
whatever DATABASE_URL says."""
ON_POSTGRES = (
    *(sys.executable, str(HERE / "with_postgres.py"), *BESIDE, "--with-database-only"),
    *(*(f"--ignore={path}" for path in ONCE), "tests/annotation", "tests/workers"),
)

Command = Sequence[str]


def environment() -> dict[str, str]:
    """Half of the cores for the threads of each of two: with all they would wait for each other."""
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2)), **os.environ}


def run(commands: "deque[Command]", codes: list[int], report: IO[bytes] | None) -> None:
    """Run commands of the queue, from its left, until it is empty; notes their exit codes.

    report: where to write what they say, None = the terminal.
    """
    while True:
        try:
            command = commands.popleft()
        except IndexError:
            return
        done = subprocess.run(
            command, cwd=HERE.parent, env=environment(), stdout=report, stderr=report, check=False
        )
        codes.append(done.returncode)


def side_by_side(commands: Sequence[Command], report: IO[bytes]) -> int:
    """Run them in their order, two at a time; the first exit code that isn't 0.

    The second and what follows it there write to the report.
    """
    first, second, *rest = commands
    left, codes = deque(rest), list[int]()

    def beside() -> None:
        run(deque([second]), codes, report)
        run(left, codes, report)

    thread = threading.Thread(target=beside)
    thread.start()
    try:
        run(deque([first]), codes, None)
        run(left, codes, None)
    finally:
        left.clear()  # there is something left after a Ctrl-C alone
        thread.join()
    if len(codes) < len(commands):
        return 1
    return next((code for code in codes if code), 0)


def main() -> int:
    folders = [(*BESIDE, folder) for folder in APART]
    with tempfile.TemporaryFile() as report:
        code = side_by_side([ON_SQLITE, ON_POSTGRES, *folders], report)
        report.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(b"\nOnce more on PostgreSQL, and more:\n" + report.read())
    return code


if __name__ == "__main__":
    sys.exit(main())
