"""A file as raw rows: lines, or the elements of one JSON array; plain or gzip; in bounded memory.

No row is held beyond MAX_ROW_BYTES: what is longer is read past and comes out as a BadRow. Lines
are counted from 1; an array's element carries the line it begins on.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from gzip import BadGzipFile, GzipFile
from io import SEEK_END, BufferedReader
from pathlib import Path

from annotation.errors import BadInput

MAX_ROW_BYTES = 1_000_000
BLOCK_BYTES = 1 << 16
BOM = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
STRUCTURE = re.compile(rb'["{}\[\],]')
STRING_END = re.compile(rb'["\\]')
SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class RawRow:
    """The bytes of one row and the line it begins on."""

    line: int
    data: bytes


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be read at all, and why."""

    line: int
    reason: str
    ends: bool = False
    """The file is broken from here on: nothing below it could be read."""


Rows = Iterator[RawRow | BadRow]


def read_rows(path: Path, on_bytes: Callable[[int], object] = lambda read: None) -> Rows:
    """Every row of the file, in order. Blank lines are passed over, a byte order mark too.

    A name that ends in .json (or .json.gz) may hold one array; everything else is JSON lines.
    on_bytes is called with the number of bytes read since the last call, on disk, for a progress
    bar. A gzip file that breaks off gives its rows up to there, then a BadRow. Raises BadInput if
    the file can't be opened.
    """
    try:
        disk = path.open("rb")
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
    with disk:
        zipped = disk.read(2) == GZIP_MAGIC
        disk.seek(0)
        stream = GzipFile(fileobj=disk) if zipped else disk
        source = _Source(stream, disk, on_bytes)
        rows = _array_or_lines(source) if _is_json_name(path) else _lines(source)
        try:
            yield from rows
        except (BadGzipFile, EOFError, zlib.error) as error:
            yield BadRow(source.line, f"the gzip file is broken from here on: {error}", ends=True)


def _is_json_name(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".json")


class _Source:
    """Blocks of a file, with the line reached and the bytes read on disk."""

    def __init__(
        self,
        stream: GzipFile | BufferedReader,
        disk: BufferedReader,
        on_bytes: Callable[[int], object],
    ) -> None:
        self.stream, self.disk, self.on_bytes = stream, disk, on_bytes
        self.line = 1
        self.seen = 0

    def block(self) -> bytes:
        """The next bytes, empty at the end."""
        data = self.stream.read1(BLOCK_BYTES)  # read() loses what it has when gzip breaks off
        position = self.disk.tell()
        self.on_bytes(position - self.seen)
        self.seen = position
        return data

    def first_block(self) -> bytes:
        return self.block().removeprefix(BOM)


def _lines(source: _Source, data: bytes | None = None) -> Rows:
    """Newline-terminated rows; the last may lack its newline."""
    row = _Held()
    data = source.first_block() if data is None else data
    while data:
        *ended, rest = data.split(b"\n")
        for piece in ended:
            row.add(piece)
            yield from row.taken(source.line)
            source.line += 1
        row.add(rest)
        data = source.block()
    yield from row.taken(source.line)


class _Held:
    """The row being read: its bytes while they are within the limit, its length always."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.length = 0

    def add(self, piece: bytes) -> None:
        self.length += len(piece)
        if self.length > MAX_ROW_BYTES:
            self.pieces = []
        elif piece:
            self.pieces.append(piece)

    def taken(self, line: int) -> Rows:
        """The row, unless it is blank; then start anew."""
        data, length = b"".join(self.pieces), self.length
        self.pieces, self.length = [], 0
        if length > MAX_ROW_BYTES:
            yield BadRow(line, f"the row has {length:,} bytes, more than {MAX_ROW_BYTES:,}")
        elif data.strip(SPACE):
            yield RawRow(line, data)


def _array_or_lines(source: _Source) -> Rows:
    data = source.first_block()
    while data and not data.strip(SPACE):
        source.line += data.count(b"\n")
        data = source.block()
    if not data.lstrip(SPACE).startswith(b"["):
        yield from _lines(source, data)
        return
    start = data.index(b"[") + 1
    source.line += data.count(b"\n", 0, start)
    yield from _elements(source, data[start:] or source.block())


def _elements(source: _Source, data: bytes) -> Rows:
    """What stands between the commas of an array, whether or not it is valid JSON.

    Only quotes, brackets and commas are looked at, so that a bad element costs no other; a quote
    that never closes takes the rest of the file with it, as one bad row.
    """
    row, begins = _Held(), source.line
    depth, in_string, escaped, closed = 0, False, False, False

    def keep(piece: bytes) -> None:
        """Take a piece into the row; the row begins where its first visible character stands."""
        nonlocal begins
        if not row.length:
            stripped = piece.lstrip(SPACE)
            source.line += piece.count(b"\n", 0, len(piece) - len(stripped))
            begins, piece = source.line, stripped
        source.line += piece.count(b"\n")
        row.add(piece)

    while data:
        at = 0
        while at < len(data):
            if escaped:
                keep(data[at : at + 1])
                escaped, at = False, at + 1
                continue
            found = (STRING_END if in_string else STRUCTURE).search(data, at)
            if found is None or closed:
                keep(data[at:])
                break
            mark, end = found.group(), found.end()
            ends_row = not in_string and depth == 0 and mark in (b",", b"]")
            keep(data[at : end - 1] if ends_row else data[at:end])
            if ends_row:
                yield from row.taken(begins)
                closed = mark == b"]"
            elif mark == b"\\":
                escaped = True
            elif mark == b'"':
                in_string = not in_string
            elif mark in (b"{", b"["):
                depth += 1
            elif mark in (b"}", b"]"):
                depth = max(0, depth - 1)
            at = end
        data = source.block()
    if row.length and closed:
        yield BadRow(begins, "there is text after the end of the array", ends=True)
    elif row.length or not closed:
        yield BadRow(begins, "the array breaks off here: no closing bracket", ends=True)


def count_bytes(path: Path) -> int:
    """Size on disk, for a progress bar. Raises BadInput if there is no such file."""
    try:
        with path.open("rb") as file:
            return file.seek(0, SEEK_END)
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
