"""A Parquet file as raw rows, in bounded memory, a bomb refused before it is opened.

What a row group unpacks to is bounded, by its footer and by the headers of its pages; texts are
read as dictionaries (one long text that a million rows repeat stays one), and rows become Python
objects one at a time, none that would be longer than a row may be.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from annotation.errors import BadInput
from annotation.importers.lines import MAX_ROW_BYTES, BadRow, RawRow, Rows
from annotation.importers.parquet_pages import MAX_PAGES, BadPages, unpacked

MAGIC = b"PAR1"
MAX_GROUP_BYTES = 256 << 20
"""Of a row group, unpacked."""
MAX_GROUP_VALUES = 20_000_000
"""Of one column: an endless list of nothing takes no room in a file, and all of it in memory."""
MAX_COLUMNS = 2000
BATCH_ROWS = 256
FEW_BYTES = 16 << 20
"""Of a batch's texts: no row of it can be much longer than it may be."""


def is_parquet(path: Path) -> bool:
    """Whether the file begins as Parquet does. Raises BadInput if it can't be opened."""
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error


def read_parquet(path: Path, on_bytes: Callable[[int], object] = lambda read: None) -> Rows:
    """Every row, as the bytes of its JSON; lines count rows from 1.

    Columns that exporters.files marked as JSON text come out as what the text says. Raises BadInput
    for a file that breaks off, or that would unpack to more than it may.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{path.name} is no whole Parquet file; was it uploaded to its end? ({_short(error)})"
        ) from error
    with file:
        _require_bounded(path, file.metadata)
        texts = [
            file.metadata.schema.column(place).path
            for place in range(len(file.metadata.schema))
            if file.metadata.schema.column(place).physical_type == "BYTE_ARRAY"
        ]
        marked = {
            field.name: _marked(field) for field in file.schema_arrow if _marked(field) is not None
        }
    size, num_rows = path.stat().st_size, max(1, file.metadata.num_rows)
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16, read_dictionary=texts) as file:
        line = told = 0
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                is_light = sum(map(_text_bytes, batch.columns)) <= FEW_BYTES
                for place in range(batch.num_rows):
                    line += 1
                    too_long = None if is_light else _too_long(line, batch, place)
                    yield too_long or _row(line, batch, place, marked)
                on_bytes(size * line // num_rows - told)
                told = size * line // num_rows
        except (pa.ArrowException, OSError) as error:
            reason = f"the Parquet file is broken from here on: {_short(error)}"
            yield BadRow(line + 1, reason, ends=True)


def _require_bounded(path: Path, metadata: Any) -> None:
    if metadata.num_columns > MAX_COLUMNS:
        raise BadInput(
            f"{path.name} has {metadata.num_columns:,} columns, more than {MAX_COLUMNS:,}."
        )
    num_pages = 0
    for place in range(metadata.num_row_groups):
        group = metadata.row_group(place)
        columns = [group.column(one) for one in range(group.num_columns)]
        said = sum(column.total_uncompressed_size for column in columns)
        if said <= MAX_GROUP_BYTES:  # else there is nothing to doubt
            try:
                pages = unpacked(path, group, MAX_PAGES - num_pages)
            except BadPages as error:
                raise BadInput(f"{path.name} is broken: {error}.") from error
            num_pages += pages.num_pages
            if pages.most_values > MAX_GROUP_VALUES:
                raise BadInput(
                    f"{path.name} holds {pages.most_values:,} values in one column of its row "
                    f"group {place + 1}, more than {MAX_GROUP_VALUES:,}."
                )
            said = max(said, pages.num_bytes)
        if said > MAX_GROUP_BYTES:
            raise BadInput(
                f"{path.name} unpacks to {said:,} bytes in its row group {place + 1}, more "
                f"than {MAX_GROUP_BYTES:,}: write it with smaller row groups."
            )


def _too_long(line: int, batch: Any, place: int) -> BadRow | None:
    """The row, if its texts alone are longer than it may be: written out they might fill memory."""
    num_bytes = sum(_text_bytes(column.slice(place, 1)) for column in batch.columns)
    if num_bytes <= MAX_ROW_BYTES:
        return None
    return BadRow(line, f"the row has {num_bytes:,} bytes, more than {MAX_ROW_BYTES:,}")


def _text_bytes(column: Any) -> int:
    """Of all texts of a column, each counted wherever it stands."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(column.dictionary).cast(pa.int64())
        return pc.sum(lengths.take(column.indices)).as_py() or 0
    if pa.types.is_nested(kind) and not pa.types.is_struct(kind):  # a list of some sort
        return _text_bytes(column.flatten())
    if pa.types.is_struct(kind):
        return sum(map(_text_bytes, column.flatten()))
    return int(column.nbytes)


def _row(line: int, batch: Any, place: int, marked: dict[str, Any]) -> RawRow | BadRow:
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        value = column[place].as_py()
        if name in marked and value is not None:
            value = marked[name](value)
        row[name] = value
    try:
        data = json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError) as error:
        return BadRow(line, f"the row is no JSON: {error}")
    if len(data) > MAX_ROW_BYTES:
        return BadRow(line, f"the row has {len(data):,} bytes, more than {MAX_ROW_BYTES:,}")
    return RawRow(line, data)


def _marked(field: Any) -> Any:
    """What brings a value of this column back to what it was; None where it is that already."""
    import pyarrow as pa

    if field.metadata and field.metadata.get(b"concord") == b"json":
        return _told
    kind = field.type
    if pa.types.is_list(kind) and (inner := _marked(kind.value_field)):
        return lambda value: [one if one is None else inner(one) for one in value]
    if pa.types.is_struct(kind):
        within = {one.name: _marked(one) for one in kind if _marked(one) is not None}
        if within:
            return lambda value: {
                name: within[name](one) if name in within and one is not None else one
                for name, one in value.items()
            }
    return None


def _told(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
