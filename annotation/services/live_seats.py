"""How many streams of a chat one user holds open at once, over all web processes: seats in Redis.

A seat is an entry of a sorted set with the time it is good for, kept by its reader; one whose
process was killed falls free by itself.
"""

import time
import uuid

import redis
import redis.asyncio
from django.conf import settings

from annotation.services.hints import TIMEOUT_SECONDS

WAIT_SECONDS = 10
"""A reader that hears nothing for so long says that it is there, and looks at the row."""
SEAT_SECONDS = 3 * WAIT_SECONDS
MAX_SEATS = 6
"""Of one user: tabs, that is."""


class Seat:
    """One open stream of a user."""

    def __init__(self, user_id: int) -> None:
        self.key, self.name = f"concord:live:seats:{user_id}", uuid.uuid4().hex

    def take(self) -> bool:
        """False if the user holds MAX_SEATS already. Raises redis.RedisError or OSError."""
        now = time.time()
        with redis.Redis.from_url(
            settings.REDIS_URL,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        ) as client:
            client.zremrangebyscore(self.key, 0, now)
            if client.zcard(self.key) >= MAX_SEATS:
                return False
            client.zadd(self.key, {self.name: now + SEAT_SECONDS})
            client.expire(self.key, SEAT_SECONDS)
        return True

    async def keep(self, client: redis.asyncio.Redis) -> None:
        """Say that the stream is still open."""
        await client.zadd(self.key, {self.name: time.time() + SEAT_SECONDS})
        await client.expire(self.key, SEAT_SECONDS)

    async def leave(self, client: redis.asyncio.Redis) -> None:
        """Give the seat to the next."""
        await client.zrem(self.key, self.name)
