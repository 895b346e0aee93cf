"""Texts that differ, and where that is wished for, of one length: drawn in a few rounds."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from annotation.asking import closest_in_length
from policy.data import Message
from policy.run import seed_for
from workers.generation import Sampling, Written, write_completions

ROUNDS = 4
"""Times that a prompt's missing completions are drawn before it is given up."""


Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What is wanted for one comparison."""

    messages: list[Message]
    seeds: tuple[Any, ...]
    """What tells its seeds from those of every other wish."""
    wanted: int
    """New texts."""
    beside: str | None = None
    """A text that is there already, from which they are to differ."""
    matched: bool = False
    """They, and the one beside, are to be matched in length: each round draws as many more."""


@dataclass(frozen=True, slots=True)
class Distinct:
    """What was found for a wish."""

    written: list[Written]
    """As many as were wanted, or fewer where the rounds gave no more."""
    matched: bool = False


def distinct_completions(
    model: tuple[Any, Any],
    wishes: Mapping[Key, Wish],
    *,
    fault: Callable[[str, Collection[str]], str],
    seed: int,
    sampling: Sampling,
) -> tuple[dict[Key, Distinct], Counter[str]]:
    """What each wish wants, as far as ROUNDS give it, and how many texts were dropped, by their
    fault.

    A wish for one length that is not to be had gets the first texts that differ: a pair as any
    other, for choosing the closest would choose by length all the same.

    fault: says why a text is not taken beside those that were, empty where it is.
    """
    taken: dict[Key, dict[str, Written]] = {key: {} for key in wishes}
    dropped: Counter[str] = Counter()
    for turn in range(ROUNDS):
        rows = [
            (key, place)
            for key, wish in wishes.items()
            for place in _places_to_draw(wish, list(taken[key]))
        ]
        if not rows:
            break
        written = write_completions(
            model,
            [wishes[key].messages for key, _ in rows],
            seeds=[seed_for(seed, *wishes[key].seeds, turn, place) for key, place in rows],
            sampling=sampling,
        )
        for (key, _), one in zip(rows, written, strict=True):
            beside = wishes[key].beside
            others = [*taken[key], *([beside] if beside is not None else [])]
            if wrong := fault(one.text, others):
                dropped[wrong] += 1
            else:
                taken[key][one.text] = one
    return {key: _chosen(wish, list(taken[key].values())) for key, wish in wishes.items()}, dropped


def _places_to_draw(wish: Wish, texts: list[str]) -> range:
    if not wish.matched:
        return range(len(texts), wish.wanted)
    found = closest_in_length(texts, wish.wanted, wish.beside)
    return range(0 if found else wish.wanted)


def _chosen(wish: Wish, written: list[Written]) -> Distinct:
    if wish.matched:
        texts = [one.text for one in written]
        if places := closest_in_length(texts, wish.wanted, wish.beside):
            return Distinct([written[place] for place in places], matched=True)
    return Distinct(written[: wish.wanted])
