"""rewardmodel.anchors: a set of texts that is the same for whoever draws it, known by its hash."""

import json
import random

import pytest

from policy.config import BadInput
from rewardmodel.__main__ import main
from rewardmodel.anchors import read_anchors, sample_anchors, write_anchors


def rows(split, count):
    return [
        {"prompt": f"{split} {i}", "chosen": f"yes {i}", "rejected": f"no {i}", "split": split}
        for i in range(count)
    ]


def keys(anchors):
    return {anchor.sha256 for anchor in anchors.items}


def test_the_sample_depends_on_the_texts_alone(write_rows):
    found = rows("dev", 60)
    first = sample_anchors(write_rows(found), 50)
    random.Random(1).shuffle(found)
    again = sample_anchors(write_rows([*found, *found[:9]], "other.jsonl"), 50)
    assert again == first
    assert again.sha256 == first.sha256
    assert len({(anchor.prompt[0]["content"], anchor.text) for anchor in first.items}) == 50
    other = sample_anchors(write_rows(rows("dev", 61), "more.jsonl"), 50)
    assert other.sha256 != first.sha256
    assert len(keys(other) & keys(first)) >= 45


def test_it_is_of_dev_and_of_train_too_where_dev_is_small_and_never_of_test(write_rows):
    def prompts(found):
        return {a.prompt[0]["content"].split()[0] for a in sample_anchors(found, 100).items}

    large = write_rows([*rows("dev", 32), *rows("train", 90), *rows("test", 90)])
    assert prompts(large) == {"dev"}
    small = write_rows([*rows("dev", 31), *rows("train", 90), *rows("test", 90)], "small.jsonl")
    assert prompts(small) == {"dev", "train"}


def test_a_file_of_anchors_is_read_back_whatever_its_rows_are(write_rows, tmp_path):
    data = write_rows(rows("dev", 40))
    anchors = sample_anchors(data, 80)
    write_anchors(anchors, tmp_path / "anchors.jsonl")
    assert read_anchors(tmp_path / "anchors.jsonl") == anchors == read_anchors(data)
    single = write_rows(
        [{"prompt": "a", "text": "b"}, {"prompt": "a", "completion": "c"}], "single.jsonl"
    )
    assert {anchor.text for anchor in read_anchors(single).items} == {"b", "c"}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([{"prompt": "a", "text": "b"}], "holds 1 anchors, two are needed"),
        ([{"prompt": "a"}], "line 1: the row lacks text"),
        ([{"text": "a"}], "line 1: the row lacks prompt"),
        ([{"prompt": "a", "text": " "}], "line 1: text must be a string with something in it"),
    ],
)
def test_a_file_that_holds_no_anchors_is_refused(write_rows, found, said):
    with pytest.raises(BadInput, match=said):
        read_anchors(write_rows(found))


def test_the_command_freezes_a_set(write_rows, tmp_path, capsys):
    out = tmp_path / "anchors.jsonl"
    data = write_rows(rows("dev", 40))
    assert main(["anchors", "--data", str(data), "--out", str(out), "--count", "10"]) == 0
    assert read_anchors(out).sha256 in capsys.readouterr().err
    assert len(out.read_text().splitlines()) == 10
    assert main(["anchors", "--data", str(data), "--out", str(out), "--count", "1"]) == 2
    empty = write_rows(rows("test", 4), "test.jsonl")
    assert main(["anchors", "--data", str(empty), "--out", str(out)]) == 2
    assert "holds no train or dev text" in capsys.readouterr().err
    assert json.loads(out.read_text().splitlines()[0])["id"] == read_anchors(out).items[0].sha256
