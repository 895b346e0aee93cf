"""Runs a command against a PostgreSQL of its own: python tests/with_postgres.py pytest -q

The server comes from the pgserver wheel, lives in a temporary folder, listens on a socket alone and
ends with the command. Its exit code is the command's.
"""

import os
import subprocess
import sys
import tempfile
from urllib.parse import quote

import pgserver


def main(command: list[str]) -> int:
    """Start the server, run the command with DATABASE_URL set, stop the server."""
    with tempfile.TemporaryDirectory(prefix="concord-pg-", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        try:
            socket_folder = quote(str(server.get_postmaster_info().socket_dir))
            url = f"postgresql://postgres@/postgres?host={socket_folder}"
            environment = {**os.environ, "DATABASE_URL": url}
            return subprocess.run(command, env=environment, check=False).returncode
        finally:
            server.cleanup()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
