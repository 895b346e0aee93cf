"""Text as search knows it, Chinese too: the words of a text, and what a query asks of them.

Neither database segments Chinese, so it is indexed by pairs of neighbouring characters, in one
stream with the words of other languages. All tokens are ASCII letters and digits, other characters
by their numbers: what a database's locale takes for a letter does not matter then.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from django.utils.translation import gettext

from annotation.errors import BadInput

MOST_CHARACTERS = 500_000
"""Of the tokens of one comparison: PostgreSQL takes no more than a megabyte of distinct ones."""
LONGEST_WORD = 64
MOST_PARTS = 32
"""Of one query."""
END = "xqendqx"
"""Between two texts, so that no phrase reaches from one into the next."""
_LETTERS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7af"  # Hangul, whose words carry their endings
)
_UNSPACED = re.compile(f"[{_LETTERS}]")
"""Letters of languages that put no spaces between words."""
_PIECES = re.compile(rf"[{_LETTERS}]+|[^\W_{_LETTERS}]+")


@dataclass(frozen=True, slots=True)
class Phrase:
    """Tokens one behind the other."""

    tokens: tuple[str, ...]
    goes_on: bool
    """The last may begin a longer one: a Chinese character that stands last in what is asked may
    begin a pair in the text, or end a run there by itself."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a text must hold: all of these."""

    phrases: tuple[Phrase, ...]


def grams_of(texts: Iterable[str]) -> str:
    """The tokens of these texts in their order, one space between two; empty where none has any.

    What lies beyond MOST_CHARACTERS is not indexed.
    """
    found: list[str] = []
    length = 0
    for text in texts:
        if found:
            found.append(END)
        for token in _tokens(_PIECES.findall(_folded(text))):
            length += len(token) + 1
            if length > MOST_CHARACTERS:
                return " ".join(found)
            found.append(token)
    return " ".join(found)


def query_of(asked: str) -> Query:
    """Words anywhere, "words in quotation marks" behind each other; Chinese always as it stands.

    Raises BadInput where nothing can be looked up, or for more than MOST_PARTS parts.
    """
    phrases: dict[Phrase, None] = {}
    for number, part in enumerate(re.split(r'["“”「」]', _folded(asked))):
        pieces = _PIECES.findall(part)
        for some in [pieces] if number % 2 else [[piece] for piece in pieces]:
            if some:
                alone = len(some[-1]) == 1 and bool(_UNSPACED.match(some[-1]))
                phrases[Phrase(tuple(_tokens(some, goes_on=True)), goes_on=alone)] = None
    query = Query(tuple(phrases))
    parts = len(query.phrases)
    if not parts:
        raise BadInput(
            gettext("A search needs a word or a character to look for: %(seen)s.")
            % {"seen": repr(asked[:80])}
        )
    if parts > MOST_PARTS:
        raise BadInput(
            gettext("A search has at most %(most)s words or phrases: %(seen)s.")
            % {"most": MOST_PARTS, "seen": repr(asked[:80])}
        )
    return query


def _tokens(pieces: Sequence[str], *, goes_on: bool = False) -> Iterator[str]:
    """Words as they are, and of a run of Chinese its pairs, then its last character by itself.

    goes_on: a last run may go on in the text that is looked for, so that the last of its characters
    may stand in the middle there; one that is alone stands for itself.
    """
    for number, piece in enumerate(pieces, 1):
        if not _UNSPACED.match(piece):
            yield _ascii(_bare(piece)[:LONGEST_WORD])
            continue
        for first, second in pairwise(piece):
            yield _ascii(first) + _ascii(second)
        if number < len(pieces) or len(piece) == 1 or not goes_on:
            yield _ascii(piece[-1])


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _bare(word: str) -> str:
    """Without accents, so that cafe finds café."""
    if word.isascii():
        return word  # most are, and this is where indexing spends its time
    parts = unicodedata.normalize("NFD", word)
    return "".join(each for each in parts if not unicodedata.combining(each)) or word


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    return "".join(each if each.isascii() else f"u{ord(each):x}" for each in text)
