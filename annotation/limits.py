"""How often something may be tried: counters in Redis, shared by all web processes.

A counter lives for one window of its limit. Counting, whatever the number of counters, is one round
trip. Where Redis is out of reach nothing is limited: people can still sign in and work, and the log
says so; after a failure Redis is left alone for a while, so that requests do not wait for it.
"""

import hashlib
import ipaddress
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import redis
from django.conf import settings
from django.http import HttpRequest

TIMEOUT_SECONDS = 0.2
LEFT_ALONE_SECONDS = 5.0
log = logging.getLogger(__name__)
_left_alone_until = 0.0


@dataclass(frozen=True)
class Limit:
    """So many times in so many seconds; 0 times = no limit."""

    name: str
    times: int
    seconds: int

    def seconds_left(self) -> int:
        """Until the window ends and its counters are empty."""
        return self.seconds - int(time.time()) % self.seconds


@dataclass(frozen=True)
class Counter:
    """A limit with whom it counts for: an account, a token, an address."""

    limit: Limit
    who: str

    @property
    def key(self) -> str:
        """In Redis, of the window that is now; `who` may hold a name, so it is hashed."""
        window = int(time.time()) // self.limit.seconds
        digest = hashlib.sha256(self.who.encode()).hexdigest()[:32]
        return f"concord:limit:{self.limit.name}:{window}:{digest}"


def count(counters: Sequence[Counter]) -> int:
    """Count one try on each; the seconds to wait where one is over its limit now, else 0."""
    counting = [one for one in counters if one.limit.times]
    if not counting or time.monotonic() < _left_alone_until:
        return 0
    try:
        pipeline = _client(settings.REDIS_URL).pipeline(transaction=False)
        for one in counting:
            pipeline.incr(one.key)
            pipeline.expire(one.key, one.limit.seconds)
        found = pipeline.execute()[::2]
    except (redis.RedisError, OSError) as error:
        return _out_of_reach(error)
    return _wait(counting, [int(number) - 1 for number in found])


def seconds_to_wait(counters: Sequence[Counter]) -> int:
    """The same for one more try, which is not counted yet."""
    counting = [one for one in counters if one.limit.times]
    if not counting or time.monotonic() < _left_alone_until:
        return 0
    try:
        found = _client(settings.REDIS_URL).mget([one.key for one in counting])
    except (redis.RedisError, OSError) as error:
        return _out_of_reach(error)
    return _wait(counting, [int(number or 0) for number in found])


def _wait(counters: Sequence[Counter], before: Sequence[int]) -> int:
    """before: how many tries there were before this one."""
    over = [
        one.limit.seconds_left()
        for one, number in zip(counters, before, strict=True)
        if number >= one.limit.times
    ]
    return max(over, default=0)


def _out_of_reach(error: Exception) -> int:
    global _left_alone_until
    _left_alone_until = time.monotonic() + LEFT_ALONE_SECONDS
    log.warning("Redis is out of reach, nothing is limited meanwhile: %s", error)
    return 0


@cache
def _client(url: str) -> "redis.Redis":
    """One pool of connections per process."""
    return redis.Redis.from_url(
        url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
    )


def address_of(request: HttpRequest) -> str:
    """Where a request comes from, as the outermost of our own proxies saw it.

    What stands further left in X-Forwarded-For anybody can write. An IPv6 address counts as its
    network of 64 bits, which is what one customer gets.
    """
    seen = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    proxies = settings.PROXIES
    found = seen[-proxies] if proxies and len(seen) >= proxies else ""
    text = found.strip() or request.META.get("REMOTE_ADDR", "")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text[:60]
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False).network_address)
