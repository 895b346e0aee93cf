"""Settings of the test run: laptop mode in a folder of its own, a cheap password hash.

DATABASE_URL chooses the database (tests/with_postgres.py sets it); SQLite in a file otherwise,
since browser tests and Celery workers are other threads and processes.
"""

import os
from pathlib import Path

os.environ["CONCORD_MODE"] = "laptop"
os.environ.setdefault("CONCORD_VAR", str(Path(__file__).resolve().parent.parent / "var" / "test"))
Path(os.environ["CONCORD_VAR"]).mkdir(parents=True, exist_ok=True)

from annotation.settings import *  # noqa: E402, F403
from annotation.settings import DATABASES, VAR_DIR  # noqa: E402

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["TEST"] = {"NAME": str(VAR_DIR / f"test-{os.getpid()}.sqlite3")}
# Static files are looked up when asked for: every test client would list them all at its start.
WHITENOISE_AUTOREFRESH = True
