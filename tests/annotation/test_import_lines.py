"""A file as raw rows: lines and arrays, plain and gzip, whatever is in them."""

import gzip
import json
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.errors import BadInput
from annotation.importers import lines
from annotation.importers.lines import BadRow, RawRow, read_rows


def rows_of(path):
    """(line, text) of good rows, (line, None) of bad ones."""
    return [
        (row.line, row.data.decode() if isinstance(row, RawRow) else None)
        for row in read_rows(path)
    ]


def written(tmp_path, data, name="rows.jsonl"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_each_line_is_a_row_and_blank_lines_and_marks_are_passed_over(tmp_path):
    path = written(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"b": 2}')
    assert rows_of(path) == [(1, '{"a": 1}\r'), (4, '{"b": 2}')]


def test_a_gzip_file_gives_the_rows_of_the_plain_one(tmp_path):
    data = b"".join(b'{"n": %d}\n' % n for n in range(5000))
    plain = written(tmp_path, data)
    zipped = written(tmp_path, gzip.compress(data), "rows.jsonl.gz")
    assert rows_of(zipped) == rows_of(plain)
    assert len(rows_of(plain)) == 5000


@pytest.mark.parametrize("cut", [1, 8, 9, 2000, 100_000])
def test_a_gzip_file_that_breaks_off_gives_all_that_came_before(tmp_path, cut):
    noise = random.Random(0)
    data = b"".join(b"%032x\n" % noise.getrandbits(128) for _ in range(20_000))
    broken = gzip.compress(data)[:-cut]
    *whole, _ = zlib.decompressobj(wbits=31).decompress(broken).split(b"\n")
    *rows, last = read_rows(written(tmp_path, broken, "rows.jsonl.gz"))
    assert [row.data for row in rows] == whole
    assert isinstance(last, BadRow)
    assert last.line == len(whole) + 1
    assert "gzip file is broken" in last.reason


def test_what_follows_a_gzip_file_costs_none_of_its_rows(tmp_path):
    path = written(tmp_path, gzip.compress(b'{"n": 1}\n' * 500) + b"junk", "rows.jsonl.gz")
    *rows, last = read_rows(path)
    assert rows == [RawRow(line, b'{"n": 1}') for line in range(1, 501)]
    assert isinstance(last, BadRow)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_row_of_ten_megabytes_is_one_bad_row_and_is_never_held(tmp_path, name):
    huge = json.dumps({"text": "x" * 10_000_000}).encode()
    rows = [b'{"n": 1}', huge, b'{"n": 3}']
    data = b"\n".join(rows) if name == "rows.jsonl" else b"[" + b",\n".join(rows) + b"]"
    path = written(tmp_path, data, name)
    del huge, data
    tracemalloc.start()
    found = list(read_rows(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row.line for row in found] == [1, 2, 3]
    assert isinstance(found[1], BadRow)
    assert "10,000,012 bytes" in found[1].reason
    assert peak < 4_000_000


def test_a_row_at_the_limit_is_taken_and_one_above_it_is_not(tmp_path):
    fits = b"1" * lines.MAX_ROW_BYTES
    path = written(tmp_path, fits + b"\n" + fits + b"1\n2\n")
    assert [isinstance(row, RawRow) for row in read_rows(path)] == [True, False, True]


def test_an_array_gives_its_elements_with_the_line_each_begins_on(tmp_path):
    text = '[\n {"a": "x, y] }",\n  "b": [1, {"c": "\\"]"}]},\n\n  {"d": 2} , 3\n]\n'
    path = written(tmp_path, text.encode(), "rows.json")
    found = rows_of(path)
    assert [line for line, _ in found] == [2, 5, 5]
    assert [json.loads(text) for _, text in found] == json.loads(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(json_values, max_size=8),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
    st.integers(1, 9),
)
def test_any_array_comes_out_element_by_element(tmp_path_factory, array, indent, ascii, block):
    path = tmp_path_factory.mktemp("array") / "rows.json"
    path.write_text(json.dumps(array, indent=indent, ensure_ascii=ascii), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block)  # every place is a block's edge once
        found = [json.loads(text) for _, text in rows_of(path)]
    assert found == array


def test_an_element_that_is_no_json_costs_no_other(tmp_path):
    path = written(tmp_path, b'[{"a": 1}, {"b": }, {"c" 3}, {"d": 4}]', "rows.json")
    assert [text for _, text in rows_of(path)] == ['{"a": 1}', '{"b": }', '{"c" 3}', '{"d": 4}']


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'[{"a": 1},\n{"b": 2', "breaks off"),
        (b'[{"a": 1},\n', "breaks off"),
        (b'[{"a": 1}]\n{"b": 2}', "after the end"),
    ],
)
def test_an_array_that_ends_badly_keeps_what_came_before(tmp_path, data, reason):
    first, *rest = read_rows(written(tmp_path, data, "rows.json"))
    assert first == RawRow(1, b'{"a": 1}')
    assert len(rest) == 1
    assert reason in rest[0].reason


def test_a_json_name_may_hold_lines_too(tmp_path):
    assert rows_of(written(tmp_path, b'\n{"a": 1}\n{"b": 2}\n', "rows.json")) == [
        (2, '{"a": 1}'),
        (3, '{"b": 2}'),
    ]


def test_the_progress_told_is_the_size_on_disk(tmp_path):
    data = gzip.compress(b'{"n": 1}\n' * 100_000)
    path = written(tmp_path, data, "rows.jsonl.gz")
    told = []
    assert sum(1 for _ in read_rows(path, told.append)) == 100_000
    assert sum(told) == len(data) == lines.count_bytes(path)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(BadInput, match=r"nothing\.jsonl: No such file"):
        list(read_rows(tmp_path / "nothing.jsonl"))
    with pytest.raises(BadInput, match="Is a directory"):
        list(read_rows(tmp_path))
