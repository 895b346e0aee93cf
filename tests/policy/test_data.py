"""The files between the stages: what is read, and how a bad line is named."""

import json

import pytest

from policy.config import BadInput
from policy.data import (
    content_hash,
    read_demonstrations,
    read_jsonl,
    read_prompts,
    trained_on,
)

ASK = [{"role": "user", "content": "你好"}]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_prompts_keep_order_and_unknown_keys(tmp_path):
    path = write(
        tmp_path / "p.jsonl",
        {"id": 2, "split": "train", "prompt": ASK, "task": "qa"},
        {"id": "a", "prompt": "Where is it?"},
    )
    first, second = read_prompts(path)
    assert (first.id, first.split, first.messages, first.row["task"]) == ("2", "train", ASK, "qa")
    assert second.messages == [{"role": "user", "content": "Where is it?"}]
    assert [row.id for row in read_prompts(path, split="train")] == ["2"]


def test_demonstrations_are_read_and_train_rows_told_apart(tmp_path):
    path = write(
        tmp_path / "d.jsonl",
        {"id": "1", "split": "train", "prompt": ASK, "completion": "您好"},
        {"id": "2", "split": "test", "prompt": ASK, "completion": "x"},
        {"id": "3", "prompt": ASK, "completion": "y"},
    )
    rows = read_demonstrations(path)
    assert [row.id for row in rows if trained_on(row.split)] == ["1", "3"]
    assert rows[0].completion == "您好"


def test_a_whole_surrogate_pair_is_a_character_like_any_other(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"a": "\\ud83d\\ude00 \\\\ud800"}\n')
    assert [row["a"] for row in read_jsonl(path)] == ["\U0001f600 \\ud800"]


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \n{"a": 2}\n')
    assert [row["a"] for row in read_jsonl(path, ["a"])] == [1, 2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 2 is not JSON"),
        (b"[]", "line 2 is not a JSON object"),
        (b"\xff{}", "line 2 is not UTF-8"),
        (b'{"id": 1, "x": ' + b"[" * 100_000, "line 2 is nested too deeply"),
        (b'{"id": 1, "prompt": "x\\uD800y"}', "line 2 holds half a surrogate pair: '.*ud800'"),
        (b'{"id": 1}', "line 2 has no 'prompt'"),
        (b'{"id": 1, "prompt": []}', "line 2: a conversation must be a list"),
        (b'{"id": 1, "prompt": [{"role": "bot", "content": ""}]}', "line 2: role .* 'bot'"),
        (b'{"id": 1, "prompt": [{"role": "user", "content": 3}]}', "line 2: a message must be"),
        (b'{"id": 1, "prompt": [{"role": "assistant", "content": "x"}]}', "line 2: the last turn"),
        (b'{"id": 1, "prompt": "x", "split": "valid"}', "line 2: split .* 'valid'"),
        (b'{"id": 0, "prompt": "x"}', "line 2 repeats the id '0'"),
    ],
)
def test_a_bad_line_is_refused_with_file_and_number(tmp_path, line, said):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"id": 0, "prompt": "x"}\n' + line + b"\n")
    with pytest.raises(BadInput, match=f"p.jsonl {said}"):
        read_prompts(path)


@pytest.mark.parametrize("completion", ["", "  ", None, 3])
def test_an_empty_completion_is_refused(tmp_path, completion):
    path = write(tmp_path / "d.jsonl", {"prompt": ASK, "completion": completion})
    with pytest.raises(BadInput, match="line 1: completion must be a text"):
        read_demonstrations(path)


def test_an_empty_file_a_missing_file_and_an_absent_split_are_refused(tmp_path):
    empty = write(tmp_path / "empty.jsonl")
    with pytest.raises(BadInput, match="holds no prompt"):
        read_prompts(empty)
    with pytest.raises(BadInput, match="holds no demonstration"):
        read_demonstrations(empty)
    with pytest.raises(BadInput, match="cannot read"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="no prompt with split 'dev'"):
        read_prompts(write(tmp_path / "p.jsonl", {"id": 1, "prompt": "x"}), split="dev")


def test_a_folder_hashes_by_its_files_names_and_contents(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "a").write_text("x")
        (folder / "b").write_text("y")
    assert content_hash(one) == content_hash(other)
    (other / "run.json").write_text("written by a run, no part of the model")
    assert content_hash(one) == content_hash(other)
    (other / "b").write_text("z")
    assert content_hash(one) != content_hash(other)
    assert content_hash("org/name") == "name:org/name"


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_prompt_without_text_is_refused_with_its_line(tmp_path, text):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": text},
    ]
    path = write(tmp_path / "p.jsonl", {"id": 1, "prompt": "x"}, {"id": 2, "prompt": turns})
    with pytest.raises(BadInput, match="line 2: no turn of the user holds any text"):
        read_prompts(path)
