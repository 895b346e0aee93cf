"""The whole suite: on SQLite, and beside it what touches the database once more on PostgreSQL.

    python tests/both.py            # the exit code is the first that isn't 0

Each of the two waits a good deal, for a browser or a worker: side by side they take two thirds of
the time. PostgreSQL's report comes when SQLite's is out.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTEST = [sys.executable, "-m", "pytest"]
ON_POSTGRES = ["-p", "no:cacheprovider", "tests/annotation", "tests/workers"]


def main() -> int:
    with tempfile.TemporaryFile() as report:
        on_postgres = subprocess.Popen(
            [sys.executable, HERE / "with_postgres.py", *PYTEST, *ON_POSTGRES],
            cwd=HERE.parent,
            stdout=report,
            stderr=subprocess.STDOUT,
        )
        try:
            on_sqlite = subprocess.run(PYTEST, cwd=HERE.parent)
        finally:
            on_postgres.wait()
        report.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(b"\nOnce more on PostgreSQL:\n" + report.read())
    return on_sqlite.returncode or on_postgres.returncode


if __name__ == "__main__":
    sys.exit(main())
