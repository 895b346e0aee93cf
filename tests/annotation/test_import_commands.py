"""The import commands: every row accounted for, twice is once, nothing half lost."""

import gzip
import json
import threading
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from annotation.errors import BadInput
from annotation.importers import load
from annotation.importers.stores import preference_store, source_for
from annotation.models import (
    Annotator,
    AuditEntry,
    Comparison,
    Completion,
    CompletionJudgment,
    Generation,
    Preference,
    Prompt,
    Ranking,
    Source,
)
from annotation.services.projects import annotator_for
from annotation.services.queue import claim_comparison
from tests.annotation.making import make_member, make_project

pytestmark = pytest.mark.django_db
TABLES = (Annotator, Comparison, Completion, Generation, Preference, Prompt, Ranking, Source)


@pytest.fixture
def project():
    return make_project("here")


def pair(number, **more):
    return {
        "prompt": f"Question {number}?",
        "chosen": f"Good {number}.",
        "rejected": f"Bad {number}.",
        **more,
    }


def write(path, rows):
    """JSON lines; bytes are written as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def run(command, *paths, **options):
    """What the command prints."""
    out = StringIO()
    call_command(command, *map(str, paths), project="here", stdout=out, **options)
    return out.getvalue()


def counts():
    return {table.__name__: table.objects.count() for table in TABLES}


def test_rows_become_comparisons_of_outside_annotators_that_hold_no_slot(project, tmp_path):
    path = write(tmp_path / "rows.jsonl", [pair(1), pair(2, annotator="w7", id="r2", split="test")])
    said = run("import_preferences", path, format="trl", licence="MIT")
    assert "2 rows: 2 imported, 0 already there, 0 refused." in said
    first, second = Preference.objects.order_by("pk")
    assert (first.annotator.kind, first.annotator.external_id) == ("outside", "trl")
    assert (second.annotator.kind, second.annotator.external_id) == ("outside", "trl:w7")
    assert first.source.licence == "MIT"
    assert second.external_id == "r2"
    assert first.assignment is None
    assert not first.counted
    comparison = second.comparison
    assert (comparison.answers_wanted, comparison.open_slots) == (0, 0)
    assert comparison.prompt.split == "test"
    good, bad = (entry.completion for entry in comparison.entries.all())
    assert (good.text, bad.text) == ("Good 2.", "Bad 2.")
    assert second.rankings.get().groups == [[good.pk], [bad.pk]]


def test_leaks_and_likenesses_are_kept_with_their_votes_and_counted(project, tmp_path):
    texts = [("Hello.", "I am ChatGPT."), ("Yes, we do.", "yes we do"), ("Left.", "Right.")]
    rows = [
        {"prompt": f"Question {n}?", "chosen": chosen, "rejected": rejected}
        for n, (chosen, rejected) in enumerate(texts)
    ]
    path, report = write(tmp_path / "rows.jsonl", rows), tmp_path / "report.jsonl"
    said = run("import_preferences", path, format="trl", report=report)
    assert "3 imported" in said
    assert "in 1 of them a completion names its maker, in 1 two are near-identical" in said
    told = [json.loads(line).get("caught", "") for line in report.read_text().splitlines()]
    assert told == ["leak", "alike", ""]
    assert AuditEntry.objects.get(action="file.import").data["leaks"] == 1
    project.catch_leaks = project.catch_alike = False
    project.save()
    assert "maker" not in run("import_preferences", path, format="trl")


def judged(number, line, level, **more):
    """A comparison as an export writes it, with a line and ratings."""
    return {
        "id": f"c{number}",
        "prompt": f"Question {number}?",
        "completions": [{"id": "a", "text": "Tea."}, {"id": "b", "text": "Coffee."}],
        "votes": [{"ranking": [["b"], ["a"]], "annotator": "w7", "acceptable": line}],
        "judgments": [
            {"annotator": "w7", "completion": "a", "ratings": {"clear": level}, "flags": ["odd"]}
        ],
    } | more


def test_lines_and_ratings_are_kept_and_a_second_import_is_held_to_them(project, tmp_path):
    path = write(tmp_path / "rows.jsonl", [judged(1, 1, 4), judged(2, 0, 2)])
    assert "2 imported" in run("import_preferences", path, format="comparisons")
    first = Preference.objects.order_by("pk").first()
    tea = first.comparison.entries.get(completion__text="Tea.").completion
    assert first.rankings.get().acceptable == 1
    assert [(one.completion, one.ratings, one.flags) for one in first.judgments.all()] == [
        (tea, {"clear": 4}, ["odd"])
    ]
    assert "2 already there" in run("import_preferences", path, format="comparisons")
    write(path, [judged(1, 0, 4), judged(2, 0, 3), judged(3, 1, 1)])
    said = run("import_preferences", path, format="comparisons")
    assert said.count('"comparisons:w7" has answered this comparison otherwise') == 2


def test_an_answer_kept_before_lines_and_ratings_were_is_there_if_its_order_is(project, tmp_path):
    path = write(tmp_path / "rows.jsonl", [judged(1, None, 4, judgments=[])])
    assert "1 imported" in run("import_preferences", path, format="comparisons")
    write(path, [judged(1, 1, 4)])
    assert "1 already there" in run("import_preferences", path, format="comparisons")
    turned = {"ranking": [["a"], ["b"]], "annotator": "w7", "acceptable": 1}
    write(path, [judged(1, 1, 4, votes=[turned]), judged(2, 1, 1)])
    said = run("import_preferences", path, format="comparisons")
    assert 'line 1: refused: annotator "comparisons:w7" has answered this comparison' in said


def test_an_answer_kept_with_blanks_around_its_names_is_there(project, tmp_path):
    path = write(tmp_path / "rows.jsonl", [judged(1, 1, 4)])
    run("import_preferences", path, format="comparisons")
    CompletionJudgment.objects.update(ratings={" clear ": 4}, flags=["odd "])
    assert "1 already there" in run("import_preferences", path, format="comparisons")


def test_fields_that_are_not_kept_are_counted(project, tmp_path):
    rows = [judged(1, 1, 4, decision={"undecidable": True}), judged(2, 1, 4), b"{"]
    rows[1]["judgments"][0] |= {"scales": {"clear": [1, 5]}}
    rows[1]["judgments"].append({"annotator": "w8", "completion": "a", "ratings": {"clear": 1}})
    report = tmp_path / "report.jsonl"
    said = run(
        "import_preferences",
        write(tmp_path / "rows.jsonl", rows),
        format="comparisons",
        report=report,
    )
    counted = {"decision": 1, "judgments.scales": 1, "judgments without a vote": 1}
    assert AuditEntry.objects.get(action="file.import").data["left_out"] == counted
    assert "rows.jsonl: not kept, with the number of rows: decision (1), judgments" in said
    told = [json.loads(line).get("left_out") for line in report.read_text().splitlines()]
    assert told == [["decision"], ["judgments without a vote", "judgments.scales"], None]


def test_a_file_imported_twice_changes_nothing_even_under_another_name(project, tmp_path):
    path = write(tmp_path / "rows.jsonl", [pair(n) for n in range(5)])
    run("import_preferences", path, format="trl")
    before, entries = counts(), AuditEntry.objects.count()
    other = tmp_path / "renamed.jsonl.gz"
    other.write_bytes(gzip.compress(path.read_bytes()))
    said = run("import_preferences", path, other, format="trl")
    assert said.count("5 rows: 0 imported, 5 already there, 0 refused.") == 2
    assert counts() == before
    assert AuditEntry.objects.count() == entries


BAD = [
    b'{"prompt": "p", "chosen": "a"',
    b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}',
    {"prompt": "p", "chosen": "a"},
    {"prompt": "p", "chosen": " ", "rejected": "b"},
    {"prompt": "p", "chosen": "a", "rejected": "a"},
    {
        "chosen": "\n\nHuman: p\n\nAssistant: a",
        "rejected": "\n\nHuman: q\n\nAssistant: b",
    },
    {"prompt": "p" * 10_000_000, "chosen": "a", "rejected": "b"},
    {"prompt": "p\x00", "chosen": "a", "rejected": "b"},
    b'{"prompt": "p", "chosen": "\\ud800", "rejected": "b"}',
    b'{"prompt": "p", "chosen": "a", "chosen": "c", "rejected": "b"}',
    b"[1, 2]",
]


@pytest.mark.parametrize("chunk_rows", [1, 3, 200])
def test_each_bad_row_is_one_refusal_and_costs_no_other(project, tmp_path, monkeypatch, chunk_rows):
    monkeypatch.setattr(load, "CHUNK_ROWS", chunk_rows)
    rows = [row for number, bad in enumerate(BAD) for row in (pair(number), bad)]
    path = write(tmp_path / "rows.jsonl", [*rows, b"", pair(99)])
    report = tmp_path / "report.jsonl"
    said = run("import_preferences", path, format="trl", report=report)
    assert f"23 rows: 12 imported, 0 already there, {len(BAD)} refused." in said
    assert Preference.objects.count() == 12
    told = [json.loads(line) for line in report.read_text().splitlines()]
    assert [row["line"] for row in told] == [*range(1, 23), 24]
    refused = [row for row in told if row["outcome"] == "refused"]
    assert [row["line"] for row in refused] == [*range(2, 23, 2)]
    assert all(row["reason"] and f"line {row['line']}: refused: " in said for row in refused)
    assert {row["outcome"] for row in told if row not in refused} == {"imported"}


@pytest.mark.parametrize("levels", [60, 300, 400, 500, 700, 900, 5000])
def test_a_deeply_nested_row_costs_none_of_its_chunk(project, tmp_path, levels):
    deep = f'{{"prompt": "Deep?", "metadata": {{"a": {"[" * levels}{"]" * levels}}}}}'
    path = write(tmp_path / "rows.jsonl", [{"prompt": "One?"}, deep.encode(), {"prompt": "Two?"}])
    said = run("import_prompts", path)
    assert "line 2: refused: the JSON is nested too deeply, more than 50 levels" in said
    assert [prompt.messages[0]["content"] for prompt in Prompt.objects.order_by("pk")] == [
        "One?",
        "Two?",
    ]


def test_a_refused_row_leaves_nothing_of_itself(project, tmp_path):
    ten = {
        "prompt": "Which of ten?",
        "completions": [{"id": n, "text": f"Answer {n}."} for n in range(10)],
        "votes": [{"ranking": [["0"], ["1"]]}],
    }
    two = {**ten, "prompt": "Which of two?", "completions": ten["completions"][:2]}
    path = write(tmp_path / "rows.jsonl", [ten, two])
    said = run("import_preferences", path, format="comparisons")
    assert "line 1: refused: A comparison has 2 to 9 completions, not 10." in said
    assert Prompt.objects.get().messages[0]["content"] == "Which of two?"
    assert Completion.objects.count() == Generation.objects.count() == 2


def test_one_entry_in_the_log_tells_of_a_file(project, tmp_path):
    path = write(tmp_path / "rows.jsonl", [pair(1), b"{", pair(2)])
    run("import_preferences", path, format="trl")
    data = AuditEntry.objects.get(action="file.import").data
    assert (data["rows"], data["imported"], data["already_there"], data["refused"]) == (3, 2, 0, 1)
    assert len(data["sha256"]) == 64


def test_an_import_that_is_interrupted_keeps_its_chunks_and_can_be_done_again(
    project, tmp_path, monkeypatch
):
    monkeypatch.setattr(load, "CHUNK_ROWS", 2)
    path = write(tmp_path / "rows.jsonl", [pair(n) for n in range(6)])
    take, calls = load._take_all, []

    def breaks_in_the_second_chunk(store, chunk):
        calls.append(chunk)
        reports = take(store, chunk)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return reports

    monkeypatch.setattr(load, "_take_all", breaks_in_the_second_chunk)
    with pytest.raises(KeyboardInterrupt):
        run("import_preferences", path, format="trl")
    assert Preference.objects.count() == 2
    assert AuditEntry.objects.get(action="file.import").data["imported"] == 2
    monkeypatch.setattr(load, "_take_all", take)
    assert "4 imported, 2 already there" in run("import_preferences", path, format="trl")


@pytest.mark.django_db(transaction=True)
def test_two_imports_of_one_file_at_once_import_every_row_once(tmp_path):
    project = make_project("here")
    path = write(tmp_path / "rows.jsonl", [pair(n) for n in range(20)])
    start, reports = threading.Barrier(2, timeout=60), []

    def work():
        try:
            one = load.Load(
                project=project,
                path=path,
                source=lambda: source_for(project=project, name="set"),
                store_for=lambda source: preference_store(
                    project=project, source=source, format="trl"
                ),
            )
            start.wait()
            reports.append(one.run())
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.imported for report in reports) == 20
    assert sum(report.already_there for report in reports) == 20
    assert Preference.objects.count() == 20


def test_a_second_answer_that_contradicts_the_first_is_refused(project, tmp_path):
    turned = {**pair(1), "chosen": "Bad 1.", "rejected": "Good 1."}
    path = write(tmp_path / "rows.jsonl", [pair(1), turned, {**turned, "annotator": "w2"}])
    said = run("import_preferences", path, format="trl")
    assert 'line 2: refused: annotator "trl" has answered this comparison otherwise' in said
    assert Comparison.objects.count() == 1
    assert Preference.objects.count() == 2


def test_the_same_annotator_id_in_two_sources_is_two_people(project, tmp_path):
    one = write(tmp_path / "one.jsonl", [pair(1, annotator="w1")])
    other = write(tmp_path / "other.jsonl", [pair(2, annotator="w1")])
    run("import_preferences", one, format="trl", source="one")
    run("import_preferences", other, format="trl", source="other")
    assert Annotator.objects.filter(kind="outside").count() == 2


def test_votes_of_models_stay_votes_of_models(project, tmp_path):
    row = {
        "prompt": "Q?",
        "completions": [{"id": "a", "text": "A."}, {"id": "b", "text": "B."}],
        "votes": [
            {"ranking": [["a"], ["b"]], "kind": "model", "annotator": "judge"},
            {"ranking": [["a", "b"]], "kind": "person", "annotator": "judge"},
        ],
    }
    run("import_preferences", write(tmp_path / "rows.jsonl", [row]), format="comparisons")
    kinds = Preference.objects.order_by("pk").values_list("annotator__kind", "rankings__outcome")
    assert list(kinds) == [("model", "ranked"), ("outside", "equal")]


def test_related_prompts_stay_on_one_side_whatever_the_file_says(project, tmp_path):
    rows = [
        pair(1, split="test", group="thread"),
        pair(2, split="train", group="thread"),
        pair(3, split="dev"),
    ]
    path, report = write(tmp_path / "rows.jsonl", rows), tmp_path / "report.jsonl"
    for numbers in ("3 imported, 0 already there", "0 imported, 3 already there"):
        said = run("import_preferences", path, format="trl", report=report)
        assert f"3 rows: {numbers}, 0 refused." in said
        assert "1 of them are in the split of their group" in said
        told = [json.loads(line).get("reason") for line in report.read_text().splitlines()]
        assert told == [None, "in split 'test', where its group is, not in 'train'", None]
    assert list(Prompt.objects.order_by("pk").values_list("split", flat=True)) == [
        "test",
        "test",
        "dev",
    ]


def test_prompts_and_demonstrations_are_kept(project, tmp_path):
    prompts = write(tmp_path / "p.jsonl", [{"prompt": "Q?", "task": "qa"}, {"prompt": ""}])
    assert "2 rows: 1 imported, 0 already there, 1 refused" in run("import_prompts", prompts)
    rows = [{"prompt": "Q?", "completion": "A.", "writer": "w"}, {"prompt": "Q?"}]
    said = run("import_demonstrations", write(tmp_path / "d.jsonl", rows))
    assert "2 rows: 1 imported, 0 already there, 1 refused" in said
    generation = Generation.objects.get()
    assert (generation.origin, generation.writer) == ("demonstration", "w")
    assert Prompt.objects.count() == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"project": "nowhere"}, "no project 'nowhere'; there is here"),
        ({"paths": ["nothing.jsonl"]}, "nothing.jsonl: No such file"),
        ({"paths": ["rows.jsonl", "nothing.jsonl"]}, "nothing.jsonl: No such file"),
        ({"source": " "}, "A source needs a name"),
        ({"report": "no/folder/report.jsonl"}, "Cannot write .*report.jsonl"),
        ({"paths": ["bad.jsonl"]}, "Not one row could be imported from bad.jsonl"),
        ({"paths": ["empty.jsonl"]}, "Not one row could be imported from empty.jsonl"),
    ],
)
def test_what_can_not_be_done_ends_with_a_sentence_and_code_2(project, tmp_path, options, reason):
    write(tmp_path / "rows.jsonl", [pair(1)])
    write(tmp_path / "bad.jsonl", [b"{"])
    (tmp_path / "empty.jsonl").touch()
    options = {"project": "here", "paths": ["rows.jsonl"], "format": "trl"} | options
    paths = [str(tmp_path / name) for name in options.pop("paths")]
    if "report" in options:
        options["report"] = tmp_path / options["report"]
    with pytest.raises(CommandError, match=reason) as problem:
        call_command("import_preferences", *paths, stdout=StringIO(), **options)
    assert problem.value.returncode == 2
    assert not Preference.objects.exists()


@pytest.mark.parametrize("way", ["same", "symlink", "hardlink"])
def test_a_report_never_takes_the_place_of_its_input(project, tmp_path, way):
    path = write(tmp_path / "rows.jsonl", [pair(1)])
    before, report = path.read_bytes(), tmp_path / "report.jsonl"
    if way == "same":
        report = path
    elif way == "symlink":
        report.symlink_to(path)
    else:
        report.hardlink_to(path)
    with pytest.raises(CommandError, match="is a file to import; write the report") as problem:
        run("import_preferences", path, format="trl", report=report)
    assert problem.value.returncode == 2
    assert path.read_bytes() == before
    assert not Preference.objects.exists()


def test_two_sources_never_become_one_annotator(project, tmp_path):
    path = write(tmp_path / "rows.jsonl", [pair(1, annotator="b")])
    run("import_preferences", path, format="trl", source="a")
    with pytest.raises(CommandError, match=r"A source's name has no colon: \"a:b\"") as problem:
        run("import_preferences", write(path, [pair(1)]), format="trl", source="a:b")
    assert problem.value.returncode == 2
    assert not Source.objects.filter(name="a:b").exists()
    assert Annotator.objects.get().external_id == "a:b"


def test_rows_that_are_all_refused_leave_no_source_and_no_batch(project, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "CHUNK_ROWS", 1)
    answers = [{"id": n, "text": f"Answer {n}."} for n in range(10)]
    ten = {"prompt": "Which?", "completions": answers, "votes": [{"ranking": [["0"], ["1"]]}]}
    path = write(tmp_path / "rows.jsonl", [b"nonsense", {"prompt": "Q?"}, ten])
    before = counts(), AuditEntry.objects.count()
    for command, options in (
        ("import_preferences", {"format": "trl"}),
        ("import_preferences", {"format": "comparisons"}),
        ("import_demonstrations", {}),
    ):
        with pytest.raises(CommandError, match="Not one row could be imported") as problem:
            run(command, path, source="new", **options)
        assert problem.value.returncode == 2
    assert (counts(), AuditEntry.objects.count()) == before
    assert not project.batches.exists()


def test_a_source_keeps_its_licence(project):
    source = source_for(project=project, name="set")
    assert source_for(project=project, name="set", licence="MIT") == source
    assert source_for(project=project, name="set").licence == "MIT"
    with pytest.raises(BadInput, match="'MIT' already, not 'GPL'"):
        source_for(project=project, name="set", licence="GPL")


@pytest.mark.shared_data
def test_real_preferences_come_in_whole_but_for_the_known_bad_rows(project, shared_data, tmp_path):
    """The first rows and those around each bad one; test_import_formats.py parses all of them."""
    with gzip.open(shared_data / "hh-rlhf/harmless-base-test.jsonl.gz") as file:
        lines = file.read().splitlines()
    kept = [
        line
        for bad in (30, 61, 775, 874, 1344, 1406)
        for line in lines[bad - 11 : bad + 9]  # 20 rows, the bad one among them
    ]
    path = write(tmp_path / "some.jsonl", kept)
    said = run("import_preferences", path, format="hh-rlhf", licence="MIT")
    assert "120 rows: 115 imported, 0 already there, 5 refused." in said
    assert said.count("refused: chosen and rejected part before their last answer") == 3
    assert said.count("refused: the chosen completion is empty") == 2
    assert Preference.objects.count() == Comparison.objects.count() == 115


@pytest.mark.shared_data
def test_real_chinese_rankings_come_in_with_all_their_answers(project, shared_data):
    path = shared_data / "oasst1/oasst_rm_zh.json"
    said = run("import_preferences", path, format="oasst-zh", licence="Apache-2.0")
    assert "547 rows: 541 imported, 0 already there, 6 refused." in said
    assert Ranking.objects.count() == 541
    assert {len(ranking.groups) for ranking in Ranking.objects.all()} == {2, 3, 4, 5, 6, 8}


def question(number, *texts, **more):
    return {"id": f"q{number}", "prompt": f"Question {number}?", "completions": [*texts], **more}


def test_completions_without_votes_go_to_labelers(project, tmp_path):
    rows = [
        question(1, "Monday to Friday.", "Every day.", language="en"),
        question(2, {"text": "Yes.", "model": "tiny"}, {"text": "No."}, {"text": "Perhaps."}),
        question(3, "Only one."),
        question(4, "The same.", "The same."),
        question(5, "We are open until ten.", "I am ChatGPT, a model trained by OpenAI."),
        question(6, "A.", "B.", votes=[{"ranking": [["a"], ["b"]]}]),
    ]
    path = write(tmp_path / "questions.jsonl", rows)
    said = run("import_comparisons", path, batch="shop", answers=2, skill="law", priority=3)
    assert "6 rows: 2 imported, 0 already there, 4 refused." in said
    assert "line 5: refused: a completion names its maker" in said
    assert "line 6: refused: it has votes already: import_preferences takes such rows" in said
    opened = Comparison.objects.order_by("pk").values_list(
        "batch__name", "purpose", "open_slots", "answers_wanted", "skill", "priority"
    )
    assert list(opened) == [("shop", "production", 2, 2, "law", 3)] * 2
    member = make_member(project, skills=["law"])
    lease = claim_comparison(annotator=annotator_for(user=member, project=project))
    assert lease.comparison.prompt.external_id in ("q1", "q2")
    assert "0 imported, 2 already there" in run("import_comparisons", path, batch="shop", answers=2)


@pytest.mark.parametrize("options", [{"answers": 0}, {"priority": 40_000}, {"skill": "s" * 41}])
def test_a_batch_that_cannot_be_is_refused_before_a_row_is_read(project, tmp_path, options):
    path = write(tmp_path / "questions.jsonl", [question(1, "A.", "B.")])
    before = counts()
    with pytest.raises(CommandError, match=r"0|40000|sss"):
        run("import_comparisons", path, **options)
    assert counts() == before
