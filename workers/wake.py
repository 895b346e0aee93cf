"""Hears the web's hints: blocks on a Redis list and has the dispatcher look at once.

Runs as a thread of the worker that takes the light queue. What it misses, the next tick finds.
"""

import logging
import threading
from collections.abc import Callable

import redis
from django.conf import settings

from annotation.services.hints import WAKE_KEY

BLOCK_SECONDS = 5
log = logging.getLogger(__name__)


class Listener(threading.Thread):
    """Calls `wake` after each hint, until stop() is called."""

    def __init__(self, wake: Callable[[], object]) -> None:
        super().__init__(daemon=True, name="hints")
        self.wake = wake
        self.stopping = threading.Event()

    def stop(self) -> None:
        """End within BLOCK_SECONDS."""
        self.stopping.set()

    def run(self) -> None:
        client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2 * BLOCK_SECONDS)
        while not self.stopping.is_set():
            try:
                if client.blpop([WAKE_KEY], timeout=BLOCK_SECONDS):
                    client.delete(WAKE_KEY)  # one look finds all there is
                    self.wake()
            except (redis.RedisError, OSError) as error:
                log.warning("Redis is out of reach, hints are not heard: %s", error)
                self.stopping.wait(settings.TICK_SECONDS)
