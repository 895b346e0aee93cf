"""Parquet files that say one thing and hold another."""

import resource

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotation.errors import BadInput
from annotation.importers import parquet, parquet_pages
from annotation.importers.lines import BadRow
from annotation.importers.parquet import read_parquet
from annotation.importers.parquet_pages import BadPages, unpacked

WORDS = [f"word {n} of a few" for n in range(5000)]


def table() -> pa.Table:
    return pa.table(
        {
            "text": WORDS,
            "often": ["the same"] * 4000 + [None] * 1000,
            "number": list(range(5000)),
            "list": [[{"role": "user", "content": word}] * (n % 3) for n, word in enumerate(WORDS)],
            "truth": [n % 2 == 0 for n in range(5000)],
        }
    )


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("page_bytes", [2000, 1 << 20])
def test_the_pages_of_a_file_say_what_its_footer_says(tmp_path, compression, version, page_bytes):
    path = tmp_path / "f.parquet"
    pq.write_table(
        table(), path, compression=compression, data_page_version=version,
        data_page_size=page_bytes, row_group_size=2500,
    )  # fmt: skip
    metadata = pq.read_metadata(path)
    assert metadata.num_row_groups == 2
    for place in range(2):
        group = metadata.row_group(place)
        columns = [group.column(one) for one in range(group.num_columns)]
        found = unpacked(path, group)
        assert found.most_values == max(column.num_values for column in columns)
        said = sum(column.total_uncompressed_size for column in columns)  # with the pages' headers
        assert 0.8 * said < found.num_bytes < said


def varint(number: int, length: int = 0) -> bytes:
    """Zigzag; of a length, with empty bytes above."""
    left, found = number << 1, []
    while left or not found or len(found) < length:
        found.append(left & 127 | 128)
        left >>= 7
    return bytes([*found[:-1], found[-1] & 127])


def test_a_footer_that_lies_about_its_sizes_is_not_believed(tmp_path, monkeypatch):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"prompt": ["x" * 3_000_000]}), path, compression="zstd")
    data = path.read_bytes()
    said = pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size
    assert said > 3_000_000
    true = varint(said)
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    footer = data[start:].replace(true, varint(100, len(true)))
    assert footer != data[start:]
    path.write_bytes(data[:start] + footer)
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 100
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 2_000_000)
    with pytest.raises(BadInput, match=r"unpacks to 3,000,0\d\d bytes in its row group 1"):
        list(read_parquet(path))


def test_pages_that_are_none_are_a_sentence(tmp_path):
    path = tmp_path / "f.parquet"
    pq.write_table(table(), path)
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(0)
    at = column.dictionary_page_offset
    data[at : at + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    with pytest.raises(BadPages, match=f"byte {at:,}"):
        unpacked(path, pq.read_metadata(path).row_group(0))
    with pytest.raises(BadInput, match=f"f.parquet is broken: .* byte {at:,}"):
        list(read_parquet(path))


def tiny_pages(path, num_pages: int) -> None:
    """Two row groups with so many pages of one value in all."""
    pq.write_table(
        pa.table({"a": [f"x{n}" for n in range(num_pages)]}), path, data_page_size=1,
        write_batch_size=1, use_dictionary=False, row_group_size=num_pages // 2,
    )  # fmt: skip


def test_a_page_costs_no_more_than_its_header(tmp_path, monkeypatch):
    path = tmp_path / "f.parquet"
    tiny_pages(path, 200)
    group, size = pq.read_metadata(path).row_group(0), 0
    whole = parquet_pages._Header.__init__

    def counted(self, data, where):
        nonlocal size
        size += len(data)
        whole(self, data, where)

    monkeypatch.setattr(parquet_pages._Header, "__init__", counted)
    assert unpacked(path, group).num_pages == 100
    assert size <= 100 * 512
    long = tmp_path / "long.parquet"  # statistics make a header longer than is read first
    pq.write_table(pa.table({"a": ["x" * 2000]}), long, use_dictionary=False, compression="none")
    assert unpacked(long, pq.read_metadata(long).row_group(0)).most_values == 1


def test_a_file_of_too_many_pages_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "f.parquet"
    tiny_pages(path, 200)
    monkeypatch.setattr(parquet, "MAX_PAGES", 200)
    assert len(list(read_parquet(path))) == 200
    monkeypatch.setattr(parquet, "MAX_PAGES", 199)
    with pytest.raises(BadInput, match=r"f\.parquet is broken: it has more than"):
        list(read_parquet(path))


def repeated(path, times: int, text: str) -> None:
    """One row whose list holds a text so many times; on disk it stands once."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([text]))
    rows = pa.table({"prompt": pa.ListArray.from_arrays([0, times], texts), "n": [1]})
    pq.write_table(rows, path, compression="zstd", store_schema=False)


def test_a_text_that_a_row_repeats_is_not_written_out(tmp_path):
    path = tmp_path / "f.parquet"
    repeated(path, 3000, "x" * 900_000)
    assert path.stat().st_size < 10_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (row,) = read_parquet(path)
    assert isinstance(row, BadRow)
    assert row.reason.startswith("the row has 2,700,000,0")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    repeated(path, 3000, "short")
    (row,) = read_parquet(path)
    assert row.data.count(b"short") == 3000


def test_an_endless_list_of_nothing_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "f.parquet"
    pq.write_table(
        pa.table({"a": [[None] * 50_000, []]}, pa.schema({"a": pa.list_(pa.int8())})), path
    )
    monkeypatch.setattr(parquet, "MAX_GROUP_VALUES", 50_000)
    with pytest.raises(BadInput, match="holds 50,001 values in one column of its row group 1"):
        list(read_parquet(path))
