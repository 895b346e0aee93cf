"""A hint on Redis that wakes a worker at once.

Best effort: the row is the message, and the dispatch tick finds what a lost hint left. So a Redis
that is slow, full or gone costs a request a fraction of a second and nothing else.
"""

import logging

import redis
from django.conf import settings
from django.db import transaction

WAKE_KEY = "concord:wake"
"""A Redis list; workers/wake.py blocks on it."""
TIMEOUT_SECONDS = 0.2
MAX_WAITING = 8
"""One entry wakes the dispatcher, which looks at every queued row; more say nothing more."""

log = logging.getLogger(__name__)


def wake_workers() -> bool:
    """Leave a hint that a row wants work. False if Redis could not be told; never raises."""
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        ) as client:
            client.lpush(WAKE_KEY, "1")
            client.ltrim(WAKE_KEY, 0, MAX_WAITING - 1)
    except (redis.RedisError, OSError) as error:
        log.info("No hint to the workers, the next tick will find the work: %s", error)
        return False
    return True


def wake_workers_on_commit() -> None:
    """The same once the transaction in progress is in the ledger; never before."""
    transaction.on_commit(wake_workers)
