"""What a process keeps of what it computed, by arguments that say what it depends on."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_all: list[Callable[[], None]] = []


def kept(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keep the results of a function for its last `most` arguments, which must be hashable."""

    def keeping(function: Callable[P, T]) -> Callable[P, T]:
        cached = lru_cache(maxsize=most)(function)
        _all.append(cached.cache_clear)

        @wraps(function)
        def found(*args: P.args, **kwargs: P.kwargs) -> T:
            return cached(*args, **kwargs)  # type: ignore[arg-type]  # hashable

        return found

    return keeping


def forget() -> None:
    """Drop all that is kept, for a ledger that was put back to where it was before."""
    for clear in _all:
        clear()
