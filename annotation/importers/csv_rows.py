"""A CSV or TSV file as raw rows, one JSON object of texts per record; plain or gzip; bounded."""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from itertools import islice
from pathlib import Path

from annotation.errors import BadInput
from annotation.importers.lines import BOM, GZIP_MAGIC, MAX_ROW_BYTES, BadRow, RawRow, Rows

SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",\t;|"
SAMPLE_BYTES = 1 << 16
BEGINNING_ROWS, BEGINNING_BYTES = 1000, 1 << 22
csv.field_size_limit(MAX_ROW_BYTES)


class _TooLong(ValueError):
    """A line that no row may have."""


def is_table(path: Path) -> bool:
    """By its name: a table has no other mark."""
    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def header_of(path: Path) -> list[str]:
    """The names of a table's columns. Raises BadInput for a file that has none, or one twice."""
    with _opened(path) as disk, _stream(disk) as file:
        try:
            reader = csv.reader(_lines(file), delimiter=_delimiter(path))
            header = next(reader, [])
        except (csv.Error, ValueError, OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{path.name} has no header that can be read: {error}.") from error
    if not any(name.strip() for name in header):
        raise BadInput(f"{path.name} has no header: its first line names the columns.")
    if twice := [name for name in header if header.count(name) > 1]:
        raise BadInput(f"{path.name} has two columns {twice[0]!r}.")
    return header


def read_table(path: Path, on_bytes: Callable[[int], object] = lambda read: None) -> Rows:
    """Every record below the header; line counts lines of the file, from 1.

    A record of too few or too many cells is a BadRow; so is what is broken, to the end of the file.
    Raises BadInput for a file without a header.
    """
    header = header_of(path)
    line, seen = 1, 0
    with _opened(path) as disk, _stream(disk) as file:
        reader = csv.reader(_lines(file), delimiter=_delimiter(path), strict=True)
        try:
            next(reader)
            while True:
                line = reader.line_num + 1
                cells = next(reader, None)
                if cells is None:
                    return
                on_bytes(disk.tell() - seen)
                seen = disk.tell()
                if cells:
                    yield _row(line, header, cells)
        except _TooLong as error:
            yield BadRow(line, str(error), ends=True)
        except UnicodeDecodeError:
            yield BadRow(line, "not UTF-8: save the table as UTF-8", ends=True)
        except csv.Error as error:
            yield BadRow(line, f"the table is broken from here on: {error}", ends=True)
        except (OSError, EOFError, zlib.error) as error:
            yield BadRow(line, f"the gzip file is broken from here on: {error}", ends=True)


def beginning_of(path: Path) -> Rows:
    """The first records of read_table: as many as a page can wait for, however many there are."""
    seen = 0
    for row in islice(read_table(path), BEGINNING_ROWS):
        yield row
        seen += len(row.data) if isinstance(row, RawRow) else 0
        if seen > BEGINNING_BYTES:
            return


def _row(line: int, header: list[str], cells: list[str]) -> RawRow | BadRow:
    if len(cells) != len(header):
        return BadRow(line, f"the row has {len(cells)} cells, the header {len(header)}")
    data = json.dumps(dict(zip(header, cells, strict=True)), ensure_ascii=False)
    encoded = data.encode("utf-8", "surrogatepass")
    if len(encoded) > MAX_ROW_BYTES:
        return BadRow(line, f"the row has {len(encoded):,} bytes, more than {MAX_ROW_BYTES:,}")
    return RawRow(line, encoded)


def _lines(file: BufferedReader | gzip.GzipFile) -> Iterator[str]:
    """Lines of text, none of them read beyond what a row may have."""
    first = True
    while line := file.readline(MAX_ROW_BYTES + 1):
        if len(line) > MAX_ROW_BYTES:
            raise _TooLong(f"a line has more than {MAX_ROW_BYTES:,} bytes")
        yield (line.removeprefix(BOM) if first else line).decode("utf-8")
        first = False


def _delimiter(path: Path) -> str:
    """The sign that is most frequent in the first line; a tab in a .tsv."""
    if path.name.lower().removesuffix(".gz").endswith(".tsv"):
        return "\t"
    with _opened(path) as disk, _stream(disk) as file:
        try:
            first = file.readline(SAMPLE_BYTES).decode("utf-8", "replace")
        except (OSError, EOFError, zlib.error):
            return ","
    return max(DELIMITERS, key=first.count)


def _opened(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error


def _stream(disk: BufferedReader) -> BufferedReader | gzip.GzipFile:
    zipped = disk.read(2) == GZIP_MAGIC
    disk.seek(0)
    return gzip.GzipFile(fileobj=disk) if zipped else disk
