"""Exports: rows in the right direction, hashes that hold, names that link to nobody."""

import hashlib
import json
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from datasets import load_dataset
from django.core.management import CommandError, call_command

from annotation.errors import BadInput
from annotation.exporters import folder
from annotation.exporters.folder import export_file, exports_of, make_export, write_export
from annotation.exporters.pseudonyms import Pseudonyms
from annotation.importers.stores import source_for
from annotation.models import (
    AuditEntry,
    DatasetSnapshot,
    GoldItem,
    Preference,
    Prompt,
    Source,
    Split,
)
from annotation.services.checkrules import change_checks
from annotation.services.gold import completion_ids
from annotation.services.queue import claim_comparison
from annotation.services.review import revise_preference, void_preference
from tests.annotation.golden import answer, in_order, make_experts, make_items
from tests.annotation.making import make_annotator, make_comparisons, make_project, make_user
from tests.annotation.voting import cast, compare, make_voter

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    return settings.ARTIFACTS_DIR


@pytest.fixture
def project():
    return make_project("here")


def export(project, out, format="trl", **query):
    return write_export(project=project, format=format, out=out, query=query)


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_chosen_is_what_the_annotator_put_above(project, tmp_path):
    cast(compare(project), order=[[1], [0]])
    export(project, tmp_path / "out")
    (row,) = rows(tmp_path / "out/train.jsonl")
    assert row["prompt"][-1]["role"] == "user"
    assert row["chosen"] == [{"role": "assistant", "content": "Answer 1."}]
    assert row["rejected"] == [{"role": "assistant", "content": "Answer 0."}]


def test_a_ranking_gives_its_strict_pairs_and_its_comparison_weighs_one(project, tmp_path):
    comparison = compare(project, k=4)
    cast(comparison, order=[[2], [0, 1], [3]])
    cast(comparison, order=[[3], [0]])
    cast(comparison, outcome="equal")
    manifest = export(project, tmp_path / "out")
    found = rows(tmp_path / "out/train.jsonl")
    pairs = [(row["chosen"][0]["content"][-2], row["rejected"][0]["content"][-2]) for row in found]
    assert Counter(pairs) == Counter(
        [("2", "0"), ("2", "1"), ("2", "3"), ("0", "3"), ("1", "3"), ("3", "0")]
    )
    assert sum(row["weight"] for row in found) == pytest.approx(1)
    assert found[-1]["weight"] == pytest.approx(1 / 2)
    assert manifest["left_out"] == {"tied_pairs": 1 + 6, "votes_equal": 1}


def test_the_rows_load_with_datasets(project, tmp_path, monkeypatch):
    for split, number in (("train", 3), ("dev", 2), ("test", 1)):
        for _ in range(number):
            cast(compare(project, split=split))
    export(project, tmp_path / "out")
    files = {split: str(tmp_path / f"out/{split}.jsonl") for split in ("train", "dev", "test")}
    loaded = load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {split: loaded[split].num_rows for split in loaded} == {"train": 3, "dev": 2, "test": 1}
    row = loaded["train"][0]
    assert row["chosen"] == [{"role": "assistant", "content": "Answer 0."}]
    assert row["rejected"] == [{"role": "assistant", "content": "Answer 1."}]


def test_comparisons_keep_ties_and_everything_a_vote_said(project, tmp_path):
    comparison = compare(project)
    cast(comparison)
    cast(comparison, outcome="equal")
    cast(comparison, outcome="cannot_tell")
    export(project, tmp_path / "out", "comparisons")
    (row,) = rows(tmp_path / "out/train.jsonl")
    assert [vote["outcome"] for vote in row["votes"]] == ["ranked", "equal", "cannot_tell"]
    assert all("preference" not in vote for vote in row["votes"])


def test_an_export_of_comparisons_can_be_imported_elsewhere(project, tmp_path):
    comparison = compare(project, k=3, split="dev")
    voter = make_voter(project)
    cast(comparison, voter, order=[[2], [0, 1]])
    cast(comparison, outcome="both_bad")
    export(project, tmp_path / "out", "comparisons")
    there = make_project("there")
    call_command(
        "import_preferences",
        str(tmp_path / "out/dev.jsonl"),
        project="there",
        format="comparisons",
        stdout=StringIO(),
    )
    ranked, bad = Preference.objects.filter(project=there).order_by("pk")
    texts = dict(ranked.comparison.completions.values_list("pk", "text"))
    said = [sorted(texts[pk] for pk in group) for group in ranked.rankings.get().groups]
    assert said == [["Answer 2."], ["Answer 0.", "Answer 1."]]
    assert bad.rankings.get().outcome == "both_bad"
    assert Prompt.objects.get(project=there).split == "dev"


@pytest.mark.parametrize("format", ["trl", "comparisons"])
def test_rows_come_in_again_on_the_side_they_were_on(project, tmp_path, format):
    for split in Split.values:
        for _ in range(5):
            cast(compare(project, split=split))
    export(project, tmp_path / "out", format)
    there = make_project("there")
    for split in Split.values:
        path = str(tmp_path / f"out/{split}.jsonl")
        call_command("import_preferences", path, project="there", format=format, stdout=StringIO())
    splits = Counter(Prompt.objects.filter(project=there).values_list("split", flat=True))
    assert splits == dict.fromkeys(Split.values, 5)


def test_raw_rows_are_all_votes_with_their_buckets(project, tmp_path):
    cast(compare(project), note="Both fine, *first* is shorter.")
    cast(compare(project, purpose="gold", split="test"))
    voided = cast(compare(project))
    void_preference(preference=voided, by=make_user("the-reviewer"), reason="spam")
    cast(compare(project), make_voter(project, "simulated"))
    manifest = export(project, tmp_path / "out", "raw")
    found = rows(tmp_path / "out/train.jsonl") + rows(tmp_path / "out/test.jsonl")
    assert Counter(row["bucket"] for row in found) == Counter(
        trained=1, voided=1, filtered_kind=1, gold=1
    )
    assert len(found) == manifest["votes"] == Preference.objects.count()
    noted = next(row for row in found if row["bucket"] == "trained")
    assert noted["note"] == "Both fine, *first* is shorter."
    assert [completion["text"] for completion in noted["completions"]] == ["Answer 0.", "Answer 1."]
    assert next(row for row in found if row["bucket"] == "voided")["void_reason"] == "spam"


def test_raw_rows_of_gold_have_their_verdict_and_whether_it_counts(project, tmp_path):
    make_comparisons(project, 9, answers_wanted=9)
    project.checks = change_checks(project=project, changes={"gold_every": 2}, by=None).checks
    make_items(make_experts(project), project, 1)
    given = {}
    for name, right in (("right", True), ("wrong", False), ("void", True), ("revised", False)):
        annotator = make_annotator(project)
        while True:
            preference = answer(claim_comparison(annotator=annotator), right=right)
            if preference.comparison.purpose == "gold":
                break
        given[name] = preference
    void_preference(preference=given["void"], by=make_user(), reason="spam")
    held = in_order(completion_ids(given["revised"].comparison))
    given["revision"] = revise_preference(
        preference=given["revised"], rankings=held, cause="Misread"
    )
    export(project, tmp_path / "out", "raw")
    files = (tmp_path / "out").glob("*.jsonl")
    found = {int(row["id"]): row["check"] for path in files for row in rows(path)}
    said = {name: found.pop(one.pk) for name, one in given.items()}
    assert said.pop("revised") is None
    assert {name: (one["verdict"], one["counts"]) for name, one in said.items()} == {
        "right": ("held", True),
        "wrong": ("broken", True),
        "void": ("held", False),
        "revision": ("held", True),
    }
    item = str(GoldItem.objects.get().pk)
    assert all(
        (one["item"], one["use"], one["attempt"]) == (item, "hidden", 0) for one in said.values()
    )
    assert set(found.values()) <= {None}  # answers to what is no gold


@pytest.mark.parametrize("format", ["trl", "unpaired", "comparisons", "raw"])
def test_annotators_have_names_of_this_export_alone(project, tmp_path, format):
    voter, other = make_voter(project), make_voter(project)
    for who in (voter, other, voter):
        cast(compare(project), who)
    texts = []
    for name in ("one", "two"):
        export(project, tmp_path / name, format)
        texts.append("".join(path.read_text() for path in (tmp_path / name).iterdir()))
    for who in (voter, other):
        for text in texts:
            assert who.pseudonym not in text
            assert who.external_id not in text
    one, two = (
        [_who(row) for row in rows(tmp_path / name / "train.jsonl")] for name in ("one", "two")
    )
    assert one[0] == one[-1] != one[len(one) // 2]
    assert not {*one} & {*two}


def _who(row):
    return row["votes"][0]["annotator"] if "votes" in row else row["annotator"]


def test_pseudonyms_depend_on_the_salt_and_on_the_installations_key(settings):
    one = Pseudonyms("salt").of(1)
    assert Pseudonyms("salt").of("1") == one
    assert Pseudonyms("other").of(1) != one
    settings.SECRET_KEY = "another key"
    assert Pseudonyms("salt").of(1) != one


def test_the_manifest_tells_what_lies_beside_it(project, tmp_path):
    cast(compare(project))
    cast(compare(project, split="dev"))
    cast(compare(project, purpose="gold"))
    manifest = export(project, tmp_path / "out")
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == manifest
    assert [file["split"] for file in manifest["files"]] == ["train", "dev"]
    for file in manifest["files"]:
        data = (tmp_path / "out" / file["name"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert file["bytes"] == len(data)
        assert file["rows"] == data.count(b"\n")
    assert sum(manifest["funnel"].values()) == manifest["votes"] == 3
    snapshot = DatasetSnapshot.objects.get()
    assert manifest["snapshot"]["sha256"] == snapshot.sha256
    assert manifest["position"] == snapshot.ledger_position
    assert manifest["guidelines"][0]["texts"]["en"]


def test_the_card_has_counts_agreement_and_licences(project, tmp_path):
    comparison = compare(project)
    licensed = source_for(project=project, name="a | set", licence="MIT")
    Prompt.objects.filter(pk=comparison.prompt_id).update(source=licensed)
    unused = Source.objects.create(project=project, name="unused", licence="secret")
    for order in ([[0], [1]], [[0], [1]], [[1], [0]]):
        cast(comparison, order=order)
    export(project, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "| train.jsonl | train | 3 |" in card
    assert "alike in 33.3% of 3 cases (1 comparisons)" in card
    assert "| a \\| set | MIT |" in card
    assert unused.name not in card
    assert 'load_dataset("FOLDER", split="train")' in card
    assert "Not in it: Ties" in card
    assert "| margin | how much better" in card
    assert "| trained | 3 |" in card
    assert card.startswith("---\n")


def test_a_folder_with_something_in_it_is_left_alone(project, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for bad, reason in ((out, "holds 'mine.txt'"), (out / "mine.txt", "is no folder")):
        with pytest.raises(CommandError, match=reason) as problem:
            call_command("export_dataset", project="here", format="trl", out=bad)
        assert problem.value.returncode == 2
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert not DatasetSnapshot.objects.exists()


@pytest.mark.parametrize("out", [".", "../here"])
def test_the_folder_that_one_stands_in_is_not_replaced(project, tmp_path, monkeypatch, out):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(CommandError, match="is the folder you are in; name one inside") as problem:
        call_command("export_dataset", project="here", format="trl", out=Path(out))
    assert problem.value.returncode == 2
    assert not DatasetSnapshot.objects.exists()


def test_a_path_with_dots_is_the_folder_it_leads_to(project, tmp_path):
    cast(compare(project))
    (tmp_path / "new").mkdir()
    write_export(project=project, format="trl", out=tmp_path / "new/../new/.")
    assert (tmp_path / "new/manifest.json").is_file()
    with pytest.raises(BadInput, match="it holds 'new'"):
        write_export(project=project, format="trl", out=tmp_path / "new/..")


def test_an_empty_folder_is_filled_and_the_command_says_what_it_wrote(project, tmp_path):
    cast(compare(project))
    cast(compare(project, split="dev"))
    (tmp_path / "out").mkdir()
    said = StringIO()
    call_command(
        "export_dataset",
        project="here",
        format="comparisons",
        out=tmp_path / "out",
        splits=["train"],
        stdout=said,
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "manifest.json",
        "train.jsonl",
    ]
    assert "train.jsonl: 1 rows" in said.getvalue()
    assert "filtered_split: 1 votes" in said.getvalue()
    assert AuditEntry.objects.get(action="export.make").data["splits"] == ["train"]


def test_a_failing_export_leaves_nothing(project, tmp_path, monkeypatch):
    cast(compare(project))
    monkeypatch.setattr(folder.card, "render", lambda manifest: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(project, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_nothing_to_export_is_said_in_a_sentence_and_leaves_nothing(project, tmp_path):
    with pytest.raises(BadInput, match="nothing to export: the project has no vote yet"):
        export(project, tmp_path / "out")
    cast(compare(project))
    with pytest.raises(BadInput, match=r"another bucket \(filtered_language 1\)"):
        export(project, tmp_path / "out", languages=["zh"])
    with pytest.raises(BadInput, match="the project has no ideal answer yet"):
        export(project, tmp_path / "out", "sft")
    assert not (tmp_path / "out").exists()


def test_exports_are_found_by_their_project_alone(project):
    cast(compare(project))
    made = make_export(project=project, format="trl", by=make_user())
    other = make_project()
    assert [one["id"] for one in exports_of(project)] == [made.name]
    assert exports_of(other) == []
    assert export_file(project, made.name, "train.jsonl") == (
        made / "train.jsonl",
        exports_of(project)[0]["files"][0]["sha256"],
    )
    assert export_file(other, made.name, "train.jsonl") is None
    for name in ("nothing", "../manifest.json", "..", ".", "", "/etc/hosts", "train.jsonl/../x"):
        assert export_file(project, made.name, name) is None
    for export_id in ("..", "../" + made.name, "20260101-trl-ffffffffffff"):
        assert export_file(project, export_id, "manifest.json") is None


@pytest.mark.parametrize(
    ("query", "reason"), [({"splits": ["x"]}, "not 'x'"), ({"a": ["x"]}, "not 'a'")]
)
def test_a_bad_query_makes_no_folder(project, tmp_path, query, reason):
    with pytest.raises(folder.BadInput, match=reason):
        export(project, tmp_path / "out", **query)
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_is_refused_by_name(project, tmp_path):
    with pytest.raises(folder.BadInput, match="trl, unpaired, sft, comparisons, raw: 'csv'"):
        export(project, tmp_path / "out", "csv")
