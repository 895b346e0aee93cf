"""What a Parquet file's pages say they unpack to, whatever its footer says.

A reader takes its buffers by the header of each page, so the footer's sum is no bound. Here the
headers are read and nothing is unpacked: Thrift's compact protocol, of which a header needs little
(github.com/apache/parquet-format, parquet.thrift; thrift-compact-protocol.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import SEEK_END, BufferedReader
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 1 << 16
"""Of a page: its statistics hold the smallest and the largest value."""
USUAL_HEADER_BYTES = 1 << 9
"""Read first; what is longer is read again."""
MAX_PAGES = 100_000
"""Of a file: pages of a value each would have their headers read for minutes."""
MAX_NESTING = 8
VALUES_OF = {5, 7, 8}
"""Fields of a page's header that hold the header of its kind, whose first field counts values."""
VARINT_BYTES = 10


class BadPages(ValueError):
    """The pages are not what Parquet has; the message says where."""


class _EndsTooEarly(BadPages):
    """What was read of a header is not all of it."""


@dataclass(slots=True)
class Unpacked:
    """Of a row group: bytes of all its pages, and the most values of one of its columns."""

    num_bytes: int = 0
    most_values: int = 0
    num_pages: int = 0


def unpacked(path: Path, group: Any, most_pages: int = MAX_PAGES) -> Unpacked:
    """What the pages of a row group say. group: pyarrow's metadata of it. Raises BadPages, also
    where there are more than most_pages."""
    found = Unpacked()
    with path.open("rb") as file:
        size = file.seek(0, SEEK_END)
        for place in range(group.num_columns):
            column = group.column(place)
            starts = [column.data_page_offset, column.dictionary_page_offset or 0]
            start = min(one for one in starts if one > 0)
            end = min(start + column.total_compressed_size, size)
            num_values = 0
            for page_bytes, page_values in _pages(file, start, end, column.num_values):
                found.num_pages += 1
                if found.num_pages > most_pages:
                    raise BadPages(f"it has more than {MAX_PAGES:,} pages")
                found.num_bytes += page_bytes
                num_values += page_values
            found.most_values = max(found.most_values, num_values)
    return found


def _pages(file: BufferedReader, at: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Bytes and values of each page of a column, up to as many values as a reader takes."""
    while at < end and wanted > 0:
        fields, header_bytes = _header_at(file, at)
        packed, page_bytes = fields.get(3), fields.get(2)
        if not isinstance(packed, int) or not isinstance(page_bytes, int):
            raise BadPages(f"no page begins at byte {at:,}")
        if packed < 0 or page_bytes < 0:
            raise BadPages(f"the page at byte {at:,} has a length below 0")
        num_values = 0
        if fields.get(1) != 2:  # a dictionary's values are not the column's
            num_values = max(
                (kind.get(1, 0) for n, kind in fields.items() if n in VALUES_OF), default=0
            )
        yield page_bytes, num_values
        wanted -= num_values
        at += header_bytes + packed


def _header_at(file: BufferedReader, at: int) -> tuple[dict[int, Any], int]:
    """Fields and length of the page header there."""
    file.seek(at)
    data = file.read(USUAL_HEADER_BYTES)
    try:
        header = _Header(data, at)
        return header.struct(), header.at
    except _EndsTooEarly:
        header = _Header(data + file.read(MAX_HEADER_BYTES - len(data)), at)
        return header.struct(), header.at


class _Header:
    """One Thrift struct in compact protocol."""

    def __init__(self, data: bytes, where: int) -> None:
        self.data, self.at, self.where = data, 0, where

    def struct(self, level: int = 0) -> dict[int, Any]:
        """Numbers and structs by their field's number; everything else is passed over."""
        if level > MAX_NESTING:
            raise BadPages(f"the page header at byte {self.where:,} is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._number()
            found[number] = self._value(kind & 15, level, in_list=False)
        return found

    def _value(self, kind: int, level: int, *, in_list: bool) -> Any:
        match kind:
            case 1 | 2:  # a truth stands in the field's own byte, in a list in one of its own
                return self._byte() if in_list else None
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._number()
            case 7:
                return self._skip(8)
            case 8:
                return self._skip(self._varint())
            case 9 | 10:
                head = self._byte()
                length = head >> 4 if head >> 4 < 15 else self._varint()
                if length > MAX_HEADER_BYTES:
                    raise BadPages(f"no page begins at byte {self.where:,}")
                for _ in range(length):
                    self._value(head & 15, level + 1, in_list=True)
                return None
            case 12:
                return self.struct(level + 1)
        raise BadPages(f"no page begins at byte {self.where:,}")

    def _byte(self) -> int:
        self._skip(1)
        return self.data[self.at - 1]

    def _skip(self, length: int) -> None:
        self.at += length
        if self.at > len(self.data):
            raise _EndsTooEarly(f"the page header at byte {self.where:,} does not end")

    def _varint(self) -> int:
        found = 0
        for place in range(VARINT_BYTES):
            byte = self._byte()
            found |= (byte & 127) << 7 * place
            if byte < 128:
                return found
        raise BadPages(f"no page begins at byte {self.where:,}")

    def _number(self) -> int:
        """Zigzag: 0, -1, 1, -2 ..."""
        found = self._varint()
        return (found >> 1) ^ -(found & 1)
