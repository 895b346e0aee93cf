"""Other tools' files: real samples into a project, hand-made rows, and what is refused."""

import csv
import gzip
import json
from collections import Counter
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command

from annotation.exporters.folder import write_export
from annotation.importers import (
    argilla,
    helpsteer2,
    label_studio,
    lmarena,
    oasst_trees,
    rewardbench,
    ultrafeedback,
)
from annotation.importers.csv_rows import read_table
from annotation.importers.lines import BadRow
from annotation.importers.parquet import read_parquet
from annotation.importers.rows import Refused
from annotation.models import Completion, Preference, Project, Prompt, Ranking
from tests.annotation.making import make_project
from tests.annotation.voting import cast, compare


def said_of(row):
    """Per voter: outcome, groups, strengths."""
    return {
        vote.annotator: (ranking.outcome, ranking.groups, ranking.strengths)
        for vote in row.votes
        for ranking in vote.rankings
    }


HELPFUL = {"prompt": "Why?", "response_1": "One.", "response_2": "Two."}


@pytest.mark.parametrize(
    ("strength", "said"),
    [
        (-3, ("ranked", [[0], [1]], [3.0])),
        (1, ("ranked", [[1], [0]], [1.0])),
        (0, ("equal", [[0, 1]], [])),
        (-100, ("both_bad", [], [])),
    ],
)
def test_a_negative_strength_of_helpsteer2_prefers_the_first(strength, said):
    row = helpsteer2.parse({**HELPFUL, "preference_strength": strength, "split": "validation"})
    assert said_of(row) == {"": said}
    assert row.prompt.split == "dev"


def test_later_turns_of_helpsteer2_follow_its_marks():
    prompt = "Hi\n<extra_id_1>Assistant\nHello.\n<extra_id_1>User\nWhy?\n<extra_id_1>Assistant\n"
    row = helpsteer2.parse({**HELPFUL, "prompt": prompt, "preference_strength": 2})
    assert [(one["role"], one["content"]) for one in row.prompt.messages] == [
        ("user", "Hi"),
        ("assistant", "Hello."),
        ("user", "Why?"),
    ]


def rated(text, *ratings, **more):
    aspects = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    said = {a: {"Rating": str(r)} for a, r in zip(aspects, ratings, strict=False)}
    return {"model": f"m-{text}", "response": text, "annotations": said, **more}


def test_ultrafeedback_is_ordered_by_its_ratings_and_not_by_the_overall_score():
    row = ultrafeedback.parse(
        {
            "source": "evol",
            "instruction": "Why?",
            "completions": [
                rated("a", 1, 1, 1, 1, overall_score=10),
                rated("b", 5, 4, 5, "N/A", overall_score=1),
                rated("c", 1, 1, 1, 1),
            ],
        }
    )
    assert said_of(row) == {"gpt-4": ("ranked", [[1], [0, 2]], [])}
    assert (row.votes[0].kind, row.completions[1].writer) == ("model", "m-b")
    assert row.votes[0].judgments[1].ratings == {
        "helpfulness": 5,
        "honesty": 4,
        "instruction_following": 5,
    }


def test_ultrafeedback_binarized_has_whole_conversations():
    turns = [{"role": "user", "content": "Why?"}]
    row = ultrafeedback.parse(
        {
            "prompt": "Why?",
            "prompt_id": "abc",
            "chosen": [*turns, {"role": "assistant", "content": "So."}],
            "rejected": [*turns, {"role": "assistant", "content": "No."}],
            "score_chosen": 8.0,
        }
    )
    assert (row.prompt.messages, row.prompt.external_id) == (turns, "abc")
    assert [one.text for one in row.completions] == ["So.", "No."]


def battle(winner, **more):
    asked = {"role": "user", "content": "Why?"}
    return {
        "model_a": "x",
        "model_b": "y",
        "winner": winner,
        "conversation_a": [asked, {"role": "assistant", "content": "A"}],
        "conversation_b": [asked, {"role": "assistant", "content": "B"}],
        **more,
    }


@pytest.mark.parametrize(
    ("winner", "said"),
    [
        ("model_a", ("ranked", [[0], [1]], [])),
        ("model_b", ("ranked", [[1], [0]], [])),
        ("tie", ("equal", [[0, 1]], [])),
        ("tie (bothbad)", ("both_bad", [], [])),
    ],
)
def test_a_battle_has_one_of_four_ends(winner, said):
    row = lmarena.parse(battle(winner, judge="j", language="Chinese"))
    assert said_of(row) == {"j": said}
    assert (row.completions[1].writer, row.prompt.language) == ("y", "zh")


def record(responses):
    fields = {"instruction": "Why?", "input": "", "response_1": "A", "response_2": "B"}
    return {"id": "r", "fields": fields, "responses": responses}


def test_a_label_and_a_ranking_of_argilla():
    row = argilla.parse(
        record(
            {
                "better": [
                    {"value": "response_2", "user_id": "u"},
                    {"value": "tie", "user_id": "v"},
                    {"value": "response_1", "user_id": "w", "status": "discarded"},
                ]
            }
        )
    )
    assert said_of(row) == {"u": ("ranked", [[1], [0]], []), "v": ("equal", [[0, 1]], [])}
    order = [{"value": "response_2", "rank": 1}, {"value": "response_1", "rank": 1}]
    row = argilla.parse(record({"order": [{"value": order, "user_id": "u"}]}))
    assert said_of(row) == {"u": ("equal", [[1, 0]], [])}


def task(*results, **more):
    return {
        "id": 7,
        "data": {"prompt": "Why?", "answer1": "A", "answer2": "B"},
        "annotations": [
            {"completed_by": who, "result": result, **more} for who, result in enumerate(results)
        ],
    }


def test_pairwise_of_label_studio_left_right_and_nothing():
    left, right = ([{"value": {"selected": side}}] for side in ("left", "right"))
    row = label_studio.parse(task(left, right, []))
    assert said_of(row) == {
        "0": ("ranked", [[0], [1]], []),
        "1": ("ranked", [[1], [0]], []),
        "2": ("equal", [[0, 1]], []),
    }
    with pytest.raises(Refused, match="nobody has judged it"):
        label_studio.parse(task(left, was_cancelled=True))


@pytest.mark.parametrize(
    ("asked", "question", "left_out"),
    [
        ("", "What?", ["data.model_name", "data.batch", "data.size"]),
        ("batch", "2026-01", ["data.prompt", "data.model_name", "data.size"]),
        ("prompt,batch", "What?\n2026-01", ["data.model_name", "data.size"]),
    ],
)
def test_one_field_of_label_studio_is_asked_and_the_others_are_told(asked, question, left_out):
    row = task([])
    row["data"] = {"prompt": "What?", "answer1": "A", "answer2": "B", "model_name": "gpt-4"}
    row["data"] |= {"batch": "2026-01", "size": 7, "empty": ""}
    found = label_studio.parse(row, asked)
    assert [one["content"] for one in found.prompt.messages] == [question]
    assert [one.text for one in found.completions] == ["A", "B"]
    assert found.left_out == left_out


def test_one_field_of_argilla_is_asked_and_the_others_are_told():
    row = record({"better": [{"value": "tie", "user_id": "u"}]})
    row["fields"] |= {"input": "Because.", "model": "x"}
    found = argilla.parse(row)
    assert found.prompt.messages[0]["content"] == "Why?"
    assert found.left_out == ["fields.input", "fields.model"]
    both = argilla.parse(row, "instruction,input")
    assert both.prompt.messages[0]["content"] == "Why?\nBecause."


def ranker(value):
    items = [{"id": name, "body": name.upper()} for name in "abc"]
    said = {"id": "r", "type": "ranker", "value": {"ranker": value}}
    return {
        "data": {"question": "Why?", "items": items},
        "annotations": [{"completed_by": 1, "result": [said]}],
    }


@pytest.mark.parametrize("value", [["c", "a", "b"], {"rank": ["c", "a", "b"], "rest": []}])
def test_a_ranker_gives_its_order(value):
    row = label_studio.parse(ranker(value))
    assert said_of(row) == {"1": ("ranked", [[2], [0], [1]], [])}
    assert row.left_out == []


def reply(text, rank=None, **more):
    return {"message_id": text, "text": text, "role": "assistant", "rank": rank, **more}


def test_a_tree_gives_a_comparison_for_every_ranked_group():
    deep = {"text": "And?", "role": "prompter", "replies": [reply("x", 1), reply("y", 0)]}
    tree = {
        "message_tree_id": "t",
        "prompt": {
            "message_id": "p",
            "text": "Why?",
            "role": "prompter",
            "lang": "en",
            "replies": [
                reply("a", 1),
                reply("b", 0, replies=[deep]),
                reply("c"),
                reply("gone", 2, deleted=True),
            ],
        },
    }
    first, second = oasst_trees.parse(tree)
    assert [one.text for one in first.completions] == ["a", "b", "c"]
    assert said_of(first) == {"": ("ranked", [[1], [0]], [])}
    assert [one["content"] for one in second.prompt.messages] == ["Why?", "b", "And?"]
    assert said_of(second) == {"": ("ranked", [[1], [0]], [])}
    assert {first.prompt.group, second.prompt.group} == {"t"}


def test_a_subset_of_rewardbench_is_the_task():
    row = rewardbench.parse(
        {"prompt": "Why?", "chosen": "A", "rejected": "B", "subset": "chat", "id": 0}
    )
    assert (row.prompt.task, row.prompt.external_id) == ("chat", "chat-0")


@pytest.mark.parametrize(
    ("parse", "row", "reason"),
    [
        (helpsteer2.parse, {"prompt": "p", "response": "r", "helpfulness": 3}, "no comparison"),
        (helpsteer2.parse, {**HELPFUL, "preference_strength": 4}, "from -3 to 3.*: 4"),
        (helpsteer2.parse, {**HELPFUL, "preference_strength": "2"}, "whole number"),
        (ultrafeedback.parse, {"instruction": "q", "completions": [{"response": "a"}]}, "neither"),
        (lmarena.parse, battle("model_c"), 'winner must be one of .*"model_c"'),
        (lmarena.parse, {**battle("tie"), "conversation_b": [{"role": "user", "content": "x"}]},
         "must end with an answer"),
        (lmarena.parse, {"prompt": "[", "response_a": "[]", "response_b": "[]"}, "no JSON list"),
        (argilla.parse, record({"q": [{"value": "response_9", "user_id": "u"}]}), "response_9"),
        (argilla.parse, record({"q": [{"user_id": "u"}]}), "no field value"),
        (argilla.parse, {"fields": {"a": "b"}, "responses": {}}, "two numbered answers"),
        (argilla.parse, record({"q": [{"value": [{"value": "response_1", "rank": 1}],
                                       "user_id": "u"}]}), "says nothing of the others"),
        (argilla.parse, {"fields": {"topic": "t", "a1": "x", "a2": "y"}, "responses": {}},
         r"none of its fields is prompt, .* --columns prompt=FIELD: \["),
        (label_studio.parse, {"data": {"x": "y"}, "annotations": []}, "question and two answers"),
        (label_studio.parse, {"data": {"x": "y", "answer1": "A", "answer2": "B"},
                              "annotations": []}, "none of its fields is prompt, question"),
        (label_studio.parse, ranker({"rank": ["a"], "bad": ["b", "c"]}), "several buckets .*bad"),
        (label_studio.parse, ranker({"rank": ["a"]}), "says nothing of the others"),
        (label_studio.parse, task([{"value": {"stars": 3}}]), "pairwise or ranker"),
        (oasst_trees.parse, {"message_tree_id": "t", "prompt": {"text": "a", "role": "prompter"}},
         "no two answers"),
        (oasst_trees.parse, {"message_tree_id": "t", "prompt": 3}, "must be an object: 3"),
    ],
)  # fmt: skip
def test_what_makes_no_comparison_is_said(parse, row, reason):
    with pytest.raises(Refused, match=reason):
        parse(row)


@pytest.fixture
def project(db):
    return make_project("here")


def load(format, path, *columns, **more):
    call_command(
        "import_preferences", path, project="here", format=format, columns=[*columns], **more
    )


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("format", "file", "votes"),
    [
        ("argilla", "formats/argilla/records.json", 60),
        ("label-studio", "formats/label-studio/pairwise_export.json", 60 - 4 * 3),
        ("label-studio", "formats/label-studio/ranker_export.json", 20 - 1),
        ("lmarena", "formats/lmarena/battles.jsonl", 60 - 6 - 2 * 3),
        ("lmarena", "formats/lmarena/human_preference_style.csv", 60 - 3 - 4),
        ("rewardbench", "formats/rewardbench/sample.jsonl", 38),
        ("oasst-trees", "oasst1/en_trees.jsonl.gz", 38),
    ],
)
def test_real_files_come_in_once(project, shared_data, tmp_path, capsys, format, file, votes):
    """Left out: empty answers (6 and 3), equal ones (1), two models that wrote the same two texts
    (pairs that are one comparison: 4, 2 and 4). Of the longest files the first rows are enough."""
    path = beginning(shared_data / file, tmp_path)
    load(format, path)
    assert Preference.objects.count() == votes
    load(format, path)
    assert Preference.objects.count() == votes
    assert " 0 imported" in capsys.readouterr().out


def beginning(path, folder):
    """The first 60 lines of a file of lines, the first 20 where each is a whole tree."""
    if path.suffix not in (".jsonl", ".gz"):
        return path
    opened, lines = (gzip.open, 20) if path.suffix == ".gz" else (open, 60)
    with opened(path, "rb") as file:
        (folder / "some.jsonl").write_bytes(b"".join(islice(file, lines)))
    return folder / "some.jsonl"


def write_table(path, *rows, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


HEAD = ("问题", "甲", "乙", "更好", "谁")
COLUMNS = ("prompt=问题", "first=甲", "second=乙", "winner=更好", "annotator=谁")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_comes_in_by_its_columns(project, tmp_path, delimiter):
    path = write_table(
        tmp_path / "table.csv",
        HEAD,
        ("为什么，\n真的？", "因为", "不知道", "A", "小王"),
        ("为什么，\n真的？", "因为", "不知道", "乙", "小李"),
        ("几点？", "三点", "四点", "tie", "小王"),
        ("几点？", "五点", "四点", "maybe", "小王"),
        ("少一格", "一"),
        delimiter=delimiter,
    )
    load("csv", path, *COLUMNS, report=tmp_path / "report")
    told = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    assert [one["outcome"] for one in told] == ["imported"] * 3 + ["refused"] * 2
    assert [one["line"] for one in told] == [2, 4, 6, 7, 8]
    assert told[3]["reason"].startswith("winner must be one of")
    assert told[3]["reason"].endswith('"maybe"')
    assert told[4]["reason"] == "the row has 2 cells, the header 5"
    assert Counter(Ranking.objects.values_list("outcome", flat=True)) == {"ranked": 2, "equal": 1}
    assert Prompt.objects.count() == 2


def test_what_numbers_mean_must_be_said(project, tmp_path):
    """Coded 0 = first, 1 = second; read as 0 = tie, 1 = first, each answer would be turned."""
    rows = (("几点？", "三点", "四点", "0", "小王"), ("为什么？", "因为", "不知道", " 1", "小王"))
    path = write_table(tmp_path / "table.csv", HEAD, *rows)
    with pytest.raises(CommandError, match=r"'更好' mean must be said.* it holds 0, 1\.$"):
        load("csv", path, *COLUMNS)
    with pytest.raises(CommandError, match=r"it holds 0, 1\."):
        load("csv", path, *COLUMNS, values=["first=0"])
    assert not Preference.objects.exists()
    load("csv", path, *COLUMNS, values=["first=0", "second=1"])
    found = Preference.objects.values_list(
        "comparison__prompt__messages__0__content", "rankings__groups"
    )
    best = {text: Completion.objects.get(pk=groups[0][0]).text for text, groups in found}
    assert best == {"几点？": "三点", "为什么？": "不知道"}


def test_words_and_columns_called_by_a_number_need_no_values(project, tmp_path):
    path = write_table(
        tmp_path / "table.csv",
        ("q", "1", "2", "w"),
        ("Why?", "a", "b", "2"),
        ("When?", "a", "b", "left"),
        ("Who?", "a", "b", "Tie"),
    )
    load("csv", path, "prompt=q", "first=1", "second=2", "winner=w")
    assert Counter(Ranking.objects.values_list("outcome", flat=True)) == {"ranked": 2, "equal": 1}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"values": ["best=1"]}, "means one of first, second, tie, both_bad, cannot_tell: best=1"),
        ({"values": ["1"]}, "MEANING=VALUE, each value once: '1'"),
        ({"values": ["first=1", "tie=1"]}, "each value once: 'tie=1'"),
        ({"format": "trl", "values": ["first=1"]}, "explain a csv.* not trl"),
        ({"format": "label-studio", "columns": ["first=x"]}, "explain a csv.* not label-studio"),
        (
            {"columns": ["prompt=问题", "chosen=甲", "rejected=乙"], "values": ["tie=0"]},
            "no winner",
        ),
    ],
)
def test_values_that_explain_nothing_are_refused(project, tmp_path, more, reason):
    path = write_table(tmp_path / "table.csv", HEAD, ("q", "a", "b", "a", "w"))
    given = {"project": "here", "format": "csv", "columns": COLUMNS if "format" not in more else []}
    with pytest.raises(CommandError, match=reason):
        call_command("import_preferences", path, **(given | more))


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (("prompt=Frage", "chosen=甲", "rejected=乙"), "no column 'Frage' for prompt; it has 问题"),
        (("prompt=问题", "chosen=甲"), "needs a column for prompt, and those for chosen"),
        (("prompt=问题", "chosen=甲", "rejected=甲"), "'甲' stands for two things"),
        (("question=问题",), "not 'question'"),
        (("prompt",), "MEANING=COLUMN"),
        ((), "there are none"),
    ],
)
def test_a_wrong_mapping_imports_nothing(project, tmp_path, columns, reason):
    path = write_table(tmp_path / "table.csv", HEAD, ("q", "a", "b", "a", "w"))
    with pytest.raises(CommandError, match=reason) as problem:
        load("csv", path, *columns)
    assert problem.value.returncode == 2
    assert not Preference.objects.exists()
    assert Project.objects.get().sources.count() == 1


def test_an_endless_line_of_a_table_is_read_no_further_than_a_row_may_be_long(tmp_path):
    path = tmp_path / "table.csv.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"a,b\n1,2\n")
        for _ in range(64):
            file.write(b"x" * (1 << 20))
    first, second = read_table(path)
    assert first.data == b'{"a": "1", "b": "2"}'
    assert second == BadRow(3, "a line has more than 1,000,000 bytes", ends=True)


def test_a_table_in_another_encoding_and_one_that_breaks_off_are_told(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("a,b\n你,好\n".encode("gb18030"))
    assert [one.reason for one in read_table(path)] == ["not UTF-8: save the table as UTF-8"]
    path.write_text('a,b\n"open,2\n')
    assert "broken from here on" in next(iter(read_table(path))).reason


def test_a_parquet_bomb_is_refused_before_it_is_unpacked(project, tmp_path, monkeypatch):
    pq.write_table(pa.table({"x": ["a" * 30_000_000]}), tmp_path / "f.parquet", compression="zstd")
    assert (tmp_path / "f.parquet").stat().st_size < 100_000
    monkeypatch.setattr("annotation.importers.parquet.MAX_GROUP_BYTES", 20_000_000)
    with pytest.raises(CommandError, match=r"unpacks to 30,000,0.. bytes in its row group 1"):
        load("trl", tmp_path / "f.parquet")


def test_a_long_text_that_many_rows_repeat_stays_one(tmp_path, monkeypatch):
    monkeypatch.setattr("annotation.importers.parquet.MAX_ROW_BYTES", 1000)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 400), ["a" * 1_000_000])
    pq.write_table(pa.table({"x": column}), tmp_path / "f.parquet")  # 400 MB of text
    found = list(read_parquet(tmp_path / "f.parquet"))
    assert [type(one) for one in found] == [BadRow] * 400


def test_half_a_parquet_file_is_told(project, tmp_path):
    pq.write_table(pa.table({"x": ["a"]}), tmp_path / "f.parquet")
    data = (tmp_path / "f.parquet").read_bytes()
    (tmp_path / "f.parquet").write_bytes(data[:-10])
    with pytest.raises(CommandError, match=r"no whole Parquet file; was it uploaded to its end\?"):
        load("trl", tmp_path / "f.parquet")


@pytest.mark.parametrize("format", ["trl", "comparisons"])
def test_what_was_exported_as_parquet_comes_in_again(project, settings, tmp_path, format):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    cast(compare(project, k=3))
    write_export(project=project, format=format, files="parquet", out=tmp_path / "out")
    make_project("there")
    call_command(
        "import_preferences", tmp_path / "out/train.parquet", project="there", format=format
    )
    pairs = 3 if format == "trl" else 1
    assert Preference.objects.filter(project__slug="there").count() == pairs
    assert Completion.objects.filter(prompt__project__slug="there").count() == 3
