"""What changed between two texts, word by word; Han, kana and Hangul sign by sign.

Lines are aligned first and words within the lines that differ: that keeps a long text fast, and a
sentence that moved reads as a sentence that moved.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import groupby

WORD = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"  # one sign is one word
    "|[^\\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+"
    "|\\s+|."
)
MAX_WORD_PAIRS = 4_000_000
"""Words times words of one change; a larger one is shown whole, as removed and added."""
MAX_ALIKE_WORDS, MAX_ALIKE_LINES = 60_000, 250_000
"""Pairs of equal ones, in the same way. A model that says "ha ha ha" to the end is what aligning
takes longest on: its time grows with the cube, 500 of them took nine seconds."""
SAME, ADDED, REMOVED, SKIPPED = "same", "added", "removed", "skipped"


@dataclass(frozen=True)
class Piece:
    """A stretch of text and what became of it: same, added or removed.

    skipped: a stretch that is the same and is left out of a folded diff.
    """

    kind: str
    text: str


@lru_cache(maxsize=128)
def changes(old: str, new: str) -> tuple[Piece, ...]:
    """Without `added` the old text, without `removed` the new one, to the letter."""
    return tuple(
        Piece(kind, "".join(text for _, text in run))
        for kind, run in groupby(_by_lines(old, new), key=lambda pair: pair[0])
        if kind
    )


def folded(pieces: tuple[Piece, ...], *, lines: int = 1) -> list[Piece]:
    """The diff with so many unchanged lines about every change."""
    shown: list[Piece] = []
    for place, piece in enumerate(pieces):
        rows = piece.text.splitlines(keepends=True)
        if piece.kind != SAME or len(rows) <= 2 * lines + 1:
            shown.append(piece)
            continue
        before = rows[:lines] if place > 0 else []
        after = rows[-lines:] if place < len(pieces) - 1 else []
        if before:
            shown.append(Piece(SAME, "".join(before)))
        shown.append(Piece(SKIPPED, "".join(rows[len(before) : len(rows) - len(after)])))
        if after:
            shown.append(Piece(SAME, "".join(after)))
    return shown


def _by_lines(old: str, new: str) -> Iterator[tuple[str, str]]:
    a, b = old.splitlines(keepends=True), new.splitlines(keepends=True)
    if _alike(a, b) > MAX_ALIKE_LINES:
        a, b = [old], [new]
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            yield SAME, "".join(a[i1:i2])
        else:
            yield from _by_words("".join(a[i1:i2]), "".join(b[j1:j2]))


def _by_words(old: str, new: str) -> Iterator[tuple[str, str]]:
    a, b = WORD.findall(old), WORD.findall(new)
    words = [word for word in a if not word.isspace()]
    if len(a) * len(b) > MAX_WORD_PAIRS or _alike(words, b) > MAX_ALIKE_WORDS:
        a, b = [old], [new]
    for _, i1, i2, j1, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if a[i1:i2] == b[j1:j2]:
            yield SAME, "".join(a[i1:i2])
            continue
        if i1 < i2:
            yield REMOVED, "".join(a[i1:i2])
        if j1 < j2:
            yield ADDED, "".join(b[j1:j2])


def _alike(a: list[str], b: list[str]) -> int:
    """How many pairs of one of each are equal."""
    times = Counter(b)
    return sum(times[one] for one in a)
