"""The data files of an export: one per split, JSONL or Parquet, hashed as they are written.

Bounded in memory: a Parquet file is written in row groups of ROWS_PER_GROUP rows or GROUP_BYTES,
whichever comes first, compressed with zstd.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from annotation.exporters.columns import Columns, Type
from annotation.models import Split

FILES = ("jsonl", "parquet")
ROWS_PER_GROUP = 5000
GROUP_BYTES = 8 << 20
"""Of the rows as JSON, counted roughly."""


class _Hashed:
    """A file whose bytes are hashed and counted on their way; nothing is read back."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.digest = hashlib.sha256()
        self.num_bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self._file.write(data)
        self.num_bytes += len(data)
        return len(data)

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        self.closed = True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True


class _Writer(Protocol):
    """One file being written."""

    def write(self, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One row a line, in UTF-8."""

    def __init__(self, into: _Hashed, columns: Columns) -> None:
        self.into = into
        self.encode = json.JSONEncoder(ensure_ascii=False).encode

    def write(self, row: Mapping[str, Any]) -> None:
        self.into.write(self.encode(row).encode() + b"\n")

    def close(self) -> None:
        self.into.close()


class Parquet:
    """Typed columns as columns.py names them; what a row lacks is null."""

    def __init__(self, into: _Hashed, columns: Columns) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.into = into
        self.prepare = [(name, _preparation(kind)) for name, kind, _meaning in columns]
        self.schema = pa.schema([_field(name, kind) for name, kind, _meaning in columns])
        self.writer = pq.ParquetWriter(into, self.schema, compression="zstd")
        self.rows: list[dict[str, Any]] = []
        self.num_bytes = 0

    def write(self, row: Mapping[str, Any]) -> None:
        self.rows.append(
            {
                name: prepare(value) if prepare and (value := row.get(name)) is not None
                else row.get(name)
                for name, prepare in self.prepare
            }
        )  # fmt: skip
        self.num_bytes += _size(row)
        if len(self.rows) >= ROWS_PER_GROUP or self.num_bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self.writer.close()
        self.into.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
            self.rows, self.num_bytes = [], 0


def arrow_type(kind: Type) -> Any:
    """A type of columns.py as Arrow has it."""
    import pyarrow as pa

    if isinstance(kind, str):
        return pa.type_for_alias("string" if kind == "json" else kind)
    if isinstance(kind, dict):
        return pa.struct([_field(name, each) for name, each in kind.items()])
    return pa.list_(arrow_type(kind[0]))


def _field(name: str, kind: Type) -> Any:
    """JSON texts are marked, so that an import knows them from texts that happen to be JSON."""
    import pyarrow as pa

    return pa.field(name, arrow_type(kind), metadata={"concord": "json"} if kind == "json" else {})


def _preparation(kind: Type) -> Any:
    """What turns a value of the row into one of the column; None where it already is."""
    if kind == "json":
        return lambda value: json.dumps(value, ensure_ascii=False)
    if isinstance(kind, list) and (inner := _preparation(kind[0])):
        return lambda value: [inner(one) for one in value]
    if isinstance(kind, dict):
        within = {name: _preparation(each) for name, each in kind.items()}
        if not any(within.values()):
            return None
        return lambda value: {
            name: prepare(value[name]) if prepare and value.get(name) is not None
            else value.get(name)
            for name, prepare in within.items()
        }  # fmt: skip
    return None


def _size(value: Any) -> int:
    """Roughly what a value takes: texts by their characters, everything else a few bytes."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return 8


class DataFiles:
    """One file per split, opened at its first row."""

    def __init__(self, folder: Path, files: str, columns: Columns) -> None:
        self.folder, self.suffix, self.columns = folder, files, columns
        self.kind: type[JsonLines] | type[Parquet] = Parquet if files == "parquet" else JsonLines
        self.open: dict[str, tuple[_Hashed, _Writer]] = {}
        self.rows: dict[str, int] = {}

    def write(self, split: str, row: Mapping[str, Any]) -> None:
        if split not in self.open:
            into = _Hashed(self.folder / f"{split}.{self.suffix}")
            self.open[split] = (into, self.kind(into, self.columns))
            self.rows[split] = 0
        self.open[split][1].write(row)
        self.rows[split] += 1

    def closed(self) -> list[dict[str, Any]]:
        """End every file; what was written, train first."""
        for _into, writer in self.open.values():
            writer.close()
        return [
            {
                "name": f"{split}.{self.suffix}",
                "split": split,
                "rows": self.rows[split],
                "bytes": self.open[split][0].num_bytes,
                "sha256": self.open[split][0].digest.hexdigest(),
            }
            for split in map(str, Split)
            if split in self.open
        ]

    def abandon(self) -> None:
        """Close what is open, where the export came to nothing."""
        for into, _writer in self.open.values():
            into.close()
