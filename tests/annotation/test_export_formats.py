"""Every format in both kinds of file: what a row says, types, and `load_dataset` on the folder."""

import hashlib
import json
import tracemalloc

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from annotation.exporters import files as data_files
from annotation.exporters.columns import COLUMNS, DROPS
from annotation.exporters.files import DataFiles
from annotation.exporters.folder import FORMATS, write_export
from annotation.exporters.trl import margin_of
from annotation.exporters.unpaired import labels_of
from annotation.models import CompletionJudgment, Origin, Ranking
from annotation.services.ledger import add_completion, record_generation
from annotation.services.projects import new_scheme
from tests.annotation.making import make_project
from tests.annotation.voting import cast, compare, ids_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


@pytest.fixture
def project():
    """Votes that use every column: strengths, a line, ratings, a tie, both bad, an ideal answer."""
    project = make_project("here")
    scheme = new_scheme(project=project, axes=["overall"], options={"strength_steps": 7}, by=None)
    first = cast(compare(project, k=3, language="zh"), order=[[1], [0], [2]])
    first.scheme = scheme
    first.save(update_fields=["scheme"])
    Ranking.objects.filter(preference=first).update(strengths=[3, 2], acceptable=1)
    CompletionJudgment.objects.create(
        preference=first,
        completion_id=ids_of(first.comparison)[0],
        ratings={"clear": 2},
        flags=["rude"],
    )
    cast(compare(project), outcome="equal")
    cast(compare(project), outcome="both_bad")
    cast(compare(project, split="dev"))
    prompt = first.comparison.prompt
    ideal, _ = add_completion(prompt=prompt, source=prompt.source, text="As it should be.")
    record_generation(completion=ideal, origin=Origin.DEMONSTRATION, writer="a person")
    return project


def export(project, out, format, files="jsonl"):
    return write_export(project=project, format=format, files=files, out=out)


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("files", data_files.FILES)
@pytest.mark.parametrize("format", FORMATS)
def test_load_dataset_takes_the_folder_as_it_is(project, tmp_path, format, files):
    manifest = export(project, tmp_path / "out", format, files)
    loaded = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: loaded[split].num_rows for split in loaded} == {
        file["split"]: file["rows"] for file in manifest["files"]
    }
    assert loaded["train"].column_names == [name for name, _kind, _meaning in COLUMNS[format]]
    for file in manifest["files"]:
        data = (tmp_path / "out" / file["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])


@pytest.mark.parametrize("format", FORMATS)
def test_both_kinds_of_file_say_the_same(project, tmp_path, format):
    columns = COLUMNS[format]
    for files in data_files.FILES:
        export(project, tmp_path / files, format, files)
    table = pq.read_table(tmp_path / "parquet/train.parquet")
    assert table.schema.names == [name for name, _kind, _meaning in columns]
    found = table.to_pylist()
    for row, said in zip(found, lines(tmp_path / "jsonl/train.jsonl"), strict=True):
        for name, kind, _meaning in columns:
            told = json.loads(row[name]) if kind == "json" and row[name] else row[name]
            assert _bare(told) == _bare(said.get(name)), name


def _bare(value):
    """Without nulls, names of one export and texts that hold JSON."""
    if isinstance(value, dict):
        kept = {key: _bare(one) for key, one in value.items() if one is not None}
        return {key: one for key, one in kept.items() if key != "annotator"}
    if isinstance(value, list):
        return [_bare(one) for one in value]
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)
    return None if isinstance(value, str) and value.startswith("annotator-") else value


def test_a_margin_adds_up_the_gaps_between_two(project, tmp_path):
    export(project, tmp_path / "out", "trl")
    found = lines(tmp_path / "out/train.jsonl")
    assert {
        (row["chosen"][0]["content"][-2], row["rejected"][0]["content"][-2]): row["margin"]
        for row in found
    } == {("1", "0"): 1.0, ("0", "2"): 0.5, ("1", "2"): 1.5}
    (dev,) = lines(tmp_path / "out/dev.jsonl")
    assert dev["margin"] == 0.0


@pytest.mark.parametrize(
    ("vote", "margin"),
    [
        ({"strength": [3], "strength_levels": 4}, 2 / 3),
        ({"strength": [1], "strength_levels": 2}, 0.0),
        ({"strength": [3]}, 0.0),
        ({"strength": None, "strength_levels": 4}, 0.0),
    ],
)
def test_a_margin_needs_a_scale(vote, margin):
    assert margin_of({"ranking": [["a"], ["b"]], **vote}, "a", "b") == pytest.approx(margin)


@pytest.mark.parametrize(
    ("vote", "labels"),
    [
        ({"ranking": [["a"], ["b"], ["c"]]}, "a+ c-"),
        ({"ranking": [["a"], ["b"], ["c"]], "acceptable": 2}, "a+ b+ c-"),
        ({"ranking": [["a", "b"]], "acceptable": 0}, "a- b-"),
        ({"ranking": [["a", "b"]]}, ""),
        ({"ranking": [], "outcome": "both_bad"}, "a- b- c-"),
        ({"ranking": [], "outcome": "cannot_tell"}, ""),
    ],
)
def test_what_a_vote_says_of_single_completions(vote, labels):
    found = labels_of({"outcome": "ranked", **vote}, ["a", "b", "c"])
    assert " ".join(f"{name}{'+' if label else '-'}" for name, label, _by in found) == labels


def test_unpaired_rows_of_a_comparison_weigh_one_and_the_rest_is_counted(project, tmp_path):
    manifest = export(project, tmp_path / "out", "unpaired")
    found = lines(tmp_path / "out/train.jsonl")
    weights = {}
    for row in found:
        weights[row["comparison"]] = weights.get(row["comparison"], 0) + row["weight"]
    assert all(weight == pytest.approx(1) for weight in weights.values())
    assert [(row["label"], row["from"]) for row in found] == [
        (True, "line"),
        (False, "line"),
        (False, "line"),
    ]
    assert manifest["left_out"]["votes_equal"] == 1


def test_a_conversation_ends_with_the_ideal_answer(project, tmp_path):
    export(project, tmp_path / "out", "sft")
    (row,) = lines(tmp_path / "out/train.jsonl")
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    assert row["messages"][-1]["content"] == "As it should be."


def test_every_format_says_what_it_drops_and_what_its_columns_mean(project, tmp_path):
    for format in FORMATS:
        export(project, tmp_path / format, format)
        card = (tmp_path / format / "README.md").read_text()
        assert DROPS[format] in card
        for name, _kind, meaning in COLUMNS[format]:
            assert f"| {name} | {meaning} |" in card


def test_a_large_parquet_file_is_written_in_little_memory(tmp_path):
    files = DataFiles(tmp_path, "parquet", COLUMNS["sft"])
    row = {
        "messages": [{"role": "user", "content": "word " * 20_000}],
        "split": "train",
        "completion": "1",
        "group": "g",
        "language": "en",
    }
    tracemalloc.start()
    for _ in range(400):  # 40 MB of text
        files.write("train", json.loads(json.dumps(row)))
    written = files.closed()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20
    assert pq.ParquetFile(tmp_path / "train.parquet").num_row_groups > 2
    assert written[0]["rows"] == 400
