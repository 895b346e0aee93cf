"""Files handed in: looked at whole before a row is stored, and imported once."""

import gzip
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from annotation.errors import BadInput, Conflict
from annotation.importers import csv_rows
from annotation.importers import load as loading
from annotation.importers.formats import Reading, fitting_formats, usual_columns, values_of
from annotation.management.commands.compile_translations import compile_file
from annotation.models import (
    AuditEntry,
    Comparison,
    FileImport,
    ImportState,
    Preference,
    Source,
)
from annotation.services import claims, imports
from annotation.services.imports import (
    ask_for_look,
    discard_import,
    receive_file,
    start_import,
    waiting_imports,
    work_on,
)
from annotation.services.projects import annotator_for
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.rankings import AxisRanking
from tests.annotation.test_translations import PO

TRL = Reading(format="trl")
TABLE = "frage,a,b,urteil\nWhy?,Because.,No.,1\nHow?,So.,Thus.,2\nWhen?,Now.,Later.,0\n"
MAPPING = {"prompt": "frage", "first": "a", "second": "b", "winner": "urteil"}
MEANT = {"1": "first", "2": "second", "0": "tie"}


def row(n: int, **more: object) -> dict[str, object]:
    return {"prompt": f"Question {n}?", "chosen": f"Yes {n}.", "rejected": f"No {n}."} | more


def lines(*rows: dict[str, object]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in rows).encode()


Hand = Callable[..., FileImport]


@pytest.fixture
def hand(cast, settings, tmp_path, monkeypatch) -> Hand:
    """Hands a file in."""
    settings.ARTIFACTS_DIR = tmp_path
    monkeypatch.setattr(imports, "SMALL_ROWS", 20)

    def handed(content: bytes, name: str = "votes.jsonl") -> FileImport:
        return receive_file(project=cast.project, name=name, pieces=[content], by=cast.researcher)

    return handed


def state_of(one: FileImport) -> str:
    one.refresh_from_db()
    return one.state


def cast_vote(cast) -> Preference:
    """An answer that was given here."""
    lease = claim_comparison(annotator=annotator_for(user=cast.labeler, project=cast.project))
    equal = [AxisRanking(outcome="equal")]
    return submit_preference(assignment=lease, rankings=equal, key="here")


def nothing_is_stored() -> bool:
    return not (
        Comparison.objects.exists()
        or Preference.objects.exists()
        or Source.objects.exclude(name="default").exists()
    )


def test_a_file_is_looked_at_then_imported_and_then_gone(hand, cast, tmp_path):
    one = hand(lines(row(1), row(2), {"prompt": "x"}, row(4)))
    assert one.reading == {"format": "trl"}
    ask_for_look(one=one, reading=TRL, source="mine", licence="MIT")
    assert state_of(one) == ImportState.CHECKED
    assert (one.account["rows"], one.account["good"], one.account["refused"]) == (4, 3, 1)
    ((line, reason),) = one.account["refusals"]
    assert line == 3
    assert "no field chosen" in reason
    assert nothing_is_stored()
    start_import(one=one, by=cast.researcher)
    assert state_of(one) == ImportState.DONE
    assert Preference.objects.count() == 3
    assert Source.objects.get(name="mine").licence == "MIT"
    assert not list((tmp_path / "imports").rglob("votes.jsonl"))
    assert AuditEntry.objects.get(action="import.start").actor == cast.researcher
    assert AuditEntry.objects.get(action="file.import").data["imported"] == 3


def test_a_second_press_imports_nothing_twice(hand, cast):
    one = hand(lines(row(1)))
    ask_for_look(one=one, reading=TRL)
    start_import(one=one, by=cast.researcher)
    assert start_import(one=one, by=cast.researcher).state == ImportState.DONE
    assert AuditEntry.objects.filter(action="import.start").count() == 1
    again = hand(lines(row(1)))
    assert again.pk != one.pk
    ask_for_look(one=again, reading=TRL)
    start_import(one=again, by=cast.researcher)
    assert (again.account["good"], again.account["already_there"]) == (1, 1)
    assert Preference.objects.count() == 1


def test_the_same_bytes_handed_in_twice_are_one_import(hand):
    assert hand(lines(row(1))).pk == hand(lines(row(1))).pk
    assert hand(lines(row(2))).pk != hand(lines(row(1))).pk


def test_the_same_bytes_handed_in_at_once_are_one_import(hand, monkeypatch, tmp_path):
    """The second comes while the first is being looked at."""
    guess, others = imports._first_guess, []

    def meanwhile(path):
        if not others:
            others.append(path)
            others.append(hand(lines(row(1))))
        return guess(path)

    monkeypatch.setattr(imports, "_first_guess", meanwhile)
    assert hand(lines(row(1))).pk == others[1].pk
    assert FileImport.objects.count() == len(list((tmp_path / "imports").iterdir())) == 1


def test_few_rows_that_are_long_are_left_to_the_workers(hand, monkeypatch):
    """As many as are imported while their owner waits, of more bytes."""
    one = ask_for_look(one=hand(lines(row(1), row(2))), reading=TRL)
    monkeypatch.setattr(imports, "SMALL_BYTES", one.num_bytes - 1)
    assert start_import(one=one, by=one.by).state == ImportState.IMPORTING
    work_on(one.pk)
    assert FileImport.objects.get(pk=one.pk).state == ImportState.DONE


def test_no_more_of_a_table_is_read_than_its_owner_can_wait_for(hand, monkeypatch):
    """The number in the fourth row was not told; the look to its end refuses the row alone."""
    one = hand((TABLE + "Who?,He.,She.,7\n").encode(), "table.csv")
    reading = Reading(format="csv", columns=MAPPING, values=MEANT)
    for rows, state in ((3, ImportState.CHECKED), (4, None)):
        monkeypatch.setattr(csv_rows, "BEGINNING_ROWS", rows)
        if state is None:
            with pytest.raises(BadInput, match="what the numbers of 'urteil' mean must be said"):
                ask_for_look(one=one, reading=reading)
        else:
            looked = ask_for_look(one=one, reading=reading)
            assert (looked.state, looked.account["good"]) == (state, 3)
            assert looked.account["refused"] == 1
    monkeypatch.setattr(csv_rows, "BEGINNING_BYTES", 10)
    assert ask_for_look(one=one, reading=reading).state == ImportState.CHECKED


GZIPPED = gzip.compress(lines(*(row(n, noise=str(math.sin(n))) for n in range(200))))


def parquet(tmp_path: Path) -> bytes:
    path = tmp_path / "made.parquet"
    pq.write_table(pa.Table.from_pylist([row(n) for n in range(50)]), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "reading", "says"),
    [
        ("a.jsonl", lines(row(1), row(2))[:-30], TRL, "line 2: the last row breaks off"),
        ("a.jsonl.gz", GZIPPED[:-200], TRL, "the gzip file is broken from here on"),
        ("a.json", json.dumps([row(1), row(2)]).encode()[:-1], TRL, "the array breaks off here"),
        (
            "a.csv",
            (TABLE + 'Who?,"Me.,You.,1\n').encode(),
            Reading(format="csv", columns=MAPPING, values=MEANT),
            "line 5: the table is broken from here on",
        ),
        (
            "a.csv",
            TABLE[:-4].encode(),
            Reading(format="csv", columns=MAPPING, values=MEANT),
            "line 4: the last row breaks off",
        ),
    ],
    ids=["lines", "gzip", "array", "quote", "table"],
)
def test_a_file_that_breaks_off_is_refused_whole(hand, name, content, reading, says):
    one = hand(content, name)
    ask_for_look(one=one, reading=reading)
    assert state_of(one) == ImportState.FAILED
    assert says in one.error
    assert one.error.endswith("Nothing was imported; was it uploaded to its end?")
    with pytest.raises(Conflict, match="not ready"):
        start_import(one=one, by=one.by)
    assert nothing_is_stored()


@pytest.mark.parametrize("refused", [imports.REFUSALS_KEPT - 1, imports.REFUSALS_KEPT])
def test_a_file_breaks_off_after_however_many_refused_rows(hand, refused):
    """The account keeps the first refusals alone; the last row is one of them or not."""
    content = lines(row(1), *[{"prompt": 5}] * refused, row(2))[:-30]
    one = ask_for_look(one=hand(content), reading=TRL)
    assert one.state == ImportState.FAILED
    assert f"line {refused + 2}: the last row breaks off" in one.error


def test_half_a_parquet_file_is_refused_where_it_is_handed_in(hand, tmp_path):
    with pytest.raises(BadInput, match="no whole Parquet file"):
        hand(parquet(tmp_path)[:-100], "a.parquet")
    assert not list((tmp_path / "imports").iterdir())
    assert not FileImport.objects.exists()


def test_one_byte_too_much_is_a_sentence_and_leaves_no_file(hand, settings, tmp_path):
    content = lines(row(1))
    settings.UPLOAD_BYTES = len(content)
    assert hand(content).num_bytes == len(content)
    with pytest.raises(BadInput, match=rf"more than {len(content)} bytes"):
        hand(content + b"\n")
    assert len(list((tmp_path / "imports").iterdir())) == 1


def test_an_endless_line_costs_only_itself(hand):
    one = hand(lines(row(1)) + b'{"prompt": "' + b"x" * 3_000_000 + b'"}\n' + lines(row(3)))
    ask_for_look(one=one, reading=TRL)  # larger than what is looked at in the request
    assert state_of(one) == ImportState.CHECKING
    work_on(one.pk)
    assert state_of(one) == ImportState.CHECKED
    assert one.account["good"] == 2
    ((line, reason),) = one.account["refusals"]
    assert (line, reason) == (2, "the row has 3,000,014 bytes, more than 1,000,000")


@pytest.mark.parametrize(
    ("line", "says", "chinese"),
    [
        (
            "prompt,chosen,rejected",
            'not JSON at character 1: the row begins "prompt,chosen,rejected"',
            "第 1 个字符处不是 JSON：该行开头为 &quot;prompt,chosen,rejected&quot;",
        ),
        (
            "  {'prompt': 'x'} " + "y" * 900,
            "not JSON at character 4: the row begins \"{'prompt': 'x'} " + "y" * 62 + "…",
            "第 4 个字符处不是 JSON",
        ),
        ('{"n": ' + "9" * 5000 + "}", "not JSON: a number in it is too long", "数字过长"),
        ('{"n": NaN}', "not JSON: NaN is no JSON number", "NaN 不是 JSON 数字"),
    ],
)
def test_a_line_that_is_no_json_says_what_was_seen(hand, cast, enter, line, says, chinese):
    compile_file(PO)
    one = hand(lines(row(1)) + line.encode() + b"\n" + lines(row(2)))
    ask_for_look(one=one, reading=TRL)
    one.refresh_from_db()
    assert one.account["refusals"] == [[2, says]]
    client = enter(cast.admin)
    client.cookies["django_language"] = "zh-hans"
    html = client.get(f"/p/shop/imports/{one.pk}/").content.decode()
    assert '<td class="number">2</td><td class="words">' in html
    assert chinese in html


def test_a_file_of_which_nothing_would_do_says_why(hand):
    one = hand(lines({"a": 1}, {"b": 2}))
    assert one.reading == {}
    ask_for_look(one=one, reading=TRL)
    assert state_of(one) == ImportState.FAILED
    assert one.error.startswith("Not one of the 2 rows can be imported as trl; line 1: no field")
    ask_for_look(one=one, reading=Reading(format="prompts"))  # and may be tried otherwise
    assert "as prompts" in FileImport.objects.get().error


def test_a_wrong_mapping_or_source_is_refused_at_once(hand, cast):
    one = hand(TABLE.encode(), "t.csv")
    with pytest.raises(BadInput, match="no column 'x'"):
        ask_for_look(one=one, reading=Reading(format="csv", columns={**MAPPING, "prompt": "x"}))
    with pytest.raises(BadInput, match="must be said"):
        ask_for_look(one=one, reading=Reading(format="csv", columns=MAPPING))
    told = Reading(format="csv", columns=MAPPING, values=MEANT)
    with pytest.raises(BadInput, match="no colon"):
        ask_for_look(one=one, reading=told, source="a:b")
    Source.objects.create(project=cast.project, name="old", licence="MIT")
    with pytest.raises(BadInput, match="has the licence 'MIT' already"):
        ask_for_look(one=one, reading=told, source="old", licence="CC0-1.0")
    assert state_of(one) == ImportState.NEW
    assert Source.objects.filter(name="csv").count() == 0


def test_a_worker_that_vanished_is_followed_by_one_that_goes_on(hand, cast, monkeypatch):
    rows = [row(n) for n in range(90)]
    one = hand(lines(*rows))
    ask_for_look(one=one, reading=TRL)
    start_import(one=one, by=cast.researcher)
    assert state_of(one) == ImportState.IMPORTING  # more rows than are imported in the request
    assert list(waiting_imports()) == [one]
    monkeypatch.setattr(imports, "PULSE_SECONDS", 0.0)
    pulse, pulses = claims.pulse, []

    def vanish(held: FileImport, **progress: object) -> None:
        pulse(held, **progress)
        pulses.append(progress)
        if len(pulses) == 60:
            raise KeyboardInterrupt  # stands for the end of the process

    monkeypatch.setattr(claims, "pulse", vanish)
    with pytest.raises(KeyboardInterrupt):
        work_on(one.pk)
    work_on(one.pk)  # nobody else may take it while it was heard of lately
    assert state_of(one) == ImportState.IMPORTING
    assert one.rows_done == 60
    FileImport.objects.update(heartbeat_at="2020-01-01T00:00Z")
    work_on(one.pk)
    assert state_of(one) == ImportState.DONE
    assert (one.account["rows"], one.account["good"], one.account["total"]) == (90, 90, 90)
    assert Preference.objects.count() == 90


def test_who_was_overtaken_writes_nothing_more(hand, cast, monkeypatch):
    one = hand(lines(*(row(n) for n in range(90))))
    ask_for_look(one=one, reading=TRL)
    start_import(one=one, by=cast.researcher)
    monkeypatch.setattr(imports, "PULSE_SECONDS", 0.0)
    monkeypatch.setattr(loading, "CHUNK_ROWS", 50)
    load = imports.Load.run

    def overtaken(self):
        FileImport.objects.update(attempt=9)
        return load(self)

    monkeypatch.setattr(imports.Load, "run", overtaken)
    work_on(one.pk)
    assert state_of(one) == ImportState.IMPORTING
    assert one.rows_done == 0
    assert Preference.objects.count() == 50  # the chunk that was stored before the first pulse


def test_one_that_never_ends_is_given_up(hand):
    one = hand(b"x" * 2_000_000 + b"\n" + lines(row(1)))
    ask_for_look(one=one, reading=TRL)
    FileImport.objects.update(attempt=imports.MOST_ATTEMPTS)
    work_on(one.pk)
    assert state_of(one) == ImportState.FAILED
    assert one.error == "Its worker vanished 3 times; it is not tried again."


def test_what_waits_too_long_is_forgotten(hand, tmp_path):
    one = hand(lines(row(1)))
    imports.forget_old_files()
    assert FileImport.objects.exists()
    FileImport.objects.update(created_at="2020-01-01T00:00Z")
    imports.forget_old_files()
    assert not FileImport.objects.exists()
    assert not imports.path_of(one).exists()


def test_a_file_is_discarded_unless_it_is_in(hand, cast):
    one = hand(lines(row(1)))
    discard_import(one=one, by=cast.researcher)
    assert not FileImport.objects.exists()
    two = hand(lines(row(2)))
    ask_for_look(one=two, reading=TRL)
    start_import(one=two, by=cast.researcher)
    with pytest.raises(Conflict):
        discard_import(one=two, by=cast.researcher)


@pytest.mark.parametrize(
    ("reading", "content"),
    [
        (TRL, row(1)),
        (
            Reading(format="demonstrations"),
            {"prompt": [{"role": "user", "content": "Q?"}], "completion": "A."},
        ),
        (Reading(format="questions"), {"prompt": "Q?", "completions": ["A.", "B."]}),
        (Reading(format="prompts"), {"prompt": "Q?"}),
        (Reading(format="oasst-zh"), {"instruction": "Q?", "output": ["A.", "B."]}),
    ],
    ids=lambda one: getattr(one, "format", ""),
)
def test_the_format_is_recognised_where_one_alone_fits(hand, reading, content):
    assert hand(lines(content)).reading == {"format": reading.format}


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("path", "format"),
    [
        ("formats/argilla", "argilla"),
        ("formats/label-studio", "label-studio"),
        ("formats/lmarena", "lmarena"),
        ("formats/rewardbench", "rewardbench"),
    ],
)
def test_real_samples_are_recognised(shared_data, path, format):
    files = [one for one in sorted((shared_data / path).iterdir()) if ".json" in one.name]
    assert files
    found = [one.name for one in files if format in fitting_formats(one)]
    assert found


def test_columns_are_guessed_and_verdicts_read(hand):
    assert usual_columns(["Question", "response_a", "response_b", "Verdict", "note"]) == {
        "prompt": "Question",
        "first": "response_a",
        "second": "response_b",
        "winner": "Verdict",
    }
    one = hand(b"q,a,b,w\nQ?,A.,B.,a\nR?,A.,B.,Tie\nS?,A.,B.,3\nT?,A.,B.,dunno\n", "t.csv")
    columns = {"prompt": "q", "first": "a", "second": "b", "winner": "w"}
    assert values_of(imports.path_of(one), columns) == {
        "a": "first",
        "Tie": "tie",
        "3": "",
        "dunno": "",
    }


# --- the page ---


def hand_in(client, content: bytes, name: str) -> FileImport:
    file = SimpleUploadedFile(name, content)
    response = client.post("/p/shop/imports/upload/", {"file": file}, follow=True)
    assert response.status_code == 200
    return FileImport.objects.latest("pk")


def test_a_table_goes_through_the_page(hand, cast, enter):
    client = enter(cast.researcher)
    one = hand_in(client, TABLE.encode(), "table.csv")
    address = f"/p/shop/imports/{one.pk}/"
    html = client.get(address).content.decode()
    assert "Because." in html  # a sample of the column's values
    assert 'name="column-winner"' in html
    wish = {"format": "csv", "source": "shop table", "licence": "MIT"}
    wish |= {f"column-{meaning}": column for meaning, column in MAPPING.items()}
    html = client.post(f"{address}look/", wish, follow=True).content.decode()
    assert "Say what these values of the column urteil mean: 0, 1, 2." in html
    assert 'name="value-2"' in html
    assert 'value="MIT"' in html
    wish |= {"value-0": "tie", "value-1": "first", "value-2": "second"}
    html = client.post(f"{address}look/", wish, follow=True).content.decode()
    assert "Import 3 rows" in html
    assert nothing_is_stored()
    assert html.count('<span class="badge">both alike</span>') == 2
    html = client.post(f"{address}start/", follow=True).content.decode()
    assert "What came of it" in html
    kinds = [one.rankings.get().outcome for one in Preference.objects.order_by("pk")]
    assert kinds == ["ranked", "ranked", "equal"]
    first = Preference.objects.order_by("pk").first().rankings.get()
    texts = dict(Comparison.objects.order_by("pk").first().completions.values_list("pk", "text"))
    assert [[texts[pk] for pk in group] for group in first.groups] == [["Because."], ["No."]]
    assert Source.objects.get(name="shop table").licence == "MIT"
    assert "table.csv" in client.get("/p/shop/imports/").content.decode()


def test_what_was_imported_leads_to_its_votes_and_an_admin_to_its_batch(hand, cast, enter):
    cast.ask("Asked here?", ["Yes.", "No."])
    answered_here = cast_vote(cast)
    one = hand(lines(row(1), row(2)))
    ask_for_look(one=one, reading=TRL, source="mine")
    client, address = enter(cast.researcher), f"/p/shop/imports/{one.pk}/"
    assert "/p/shop/preferences/?source=" not in client.get(address).content.decode()
    start_import(one=one, by=cast.researcher)
    source = Source.objects.get(name="mine")
    votes = f"/p/shop/preferences/?source={source.pk}"
    html = client.get(address).content.decode()
    assert f'href="{votes}"' in html
    listed = client.get(votes).content.decode()
    assert f'<option value="{source.pk}" selected>mine</option>' in listed
    shown = set(re.findall(r'href="/p/shop/preferences/(\d+)/"', listed))
    assert len(shown) == 2
    assert str(answered_here.pk) not in shown
    to_batch = f'href="/p/shop/batches/{source.batches.get().pk}/"'
    assert to_batch not in html
    assert to_batch in enter(cast.admin).get(address).content.decode()


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"first": "a"}, "Choose a column for: the question, the second answer, which of the two"),
        (
            {"prompt": "frage", "winner": "urteil"},
            "Choose a column for: the first answer, the second answer.",
        ),
        ({"prompt": "frage"}, "Choose the columns of the better and the worse answer"),
        ({"chosen": "a", "rejected": "b"}, "Choose a column for: the question."),
        (
            {"prompt": "frage", "first": "a", "second": "a"},
            "The column “a” is chosen twice: for the first answer, the second answer.",
        ),
    ],
)
def test_a_mapping_that_lacks_something_is_kept_and_says_what(hand, cast, enter, chosen, says):
    client = enter(cast.researcher)
    one = hand(TABLE.encode(), "table.csv")
    columns = {f"column-{meaning}": column for meaning, column in chosen.items()}
    wish = {"format": "csv", "source": "my survey", "licence": "MIT", **columns}
    html = client.post(f"/p/shop/imports/{one.pk}/look/", wish, follow=True).content.decode()
    assert says in html
    assert 'value="my survey"' in html
    for meaning, column in chosen.items():
        select = html.partition(f'name="column-{meaning}"')[2].partition("</select>")[0]
        assert f'<option value="{column}" selected>' in select


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_what_is_wrong_is_a_sentence_in_the_readers_language(hand, cast, enter, language):
    client = enter(cast.researcher)
    client.cookies["django_language"] = language
    html = client.post("/p/shop/imports/upload/", {}, follow=True).content.decode()
    assert ("Choose a file first." if language == "en" else "请先选择文件。") in html
    one = hand_in(client, lines(row(1), row(2))[:-30], "half.jsonl")
    address = f"/p/shop/imports/{one.pk}/"
    html = client.post(f"{address}look/", {"format": "trl"}, follow=True).content.decode()
    says = {"en": "Nothing was imported", "zh-hans": "没有导入任何内容"}
    assert says[language] in html


def test_a_file_at_work_is_followed_until_it_is_done(hand, cast, enter):
    client = enter(cast.admin)
    one = hand(lines(*(row(n) for n in range(90))))
    ask_for_look(one=one, reading=TRL)
    start_import(one=one, by=cast.admin)
    live = f"/p/shop/imports/{one.pk}/live/"
    assert "It waits for a worker." in client.get(live).content.decode()
    assert live in client.get(f"/p/shop/imports/{one.pk}/").content.decode()
    work_on(one.pk)
    assert client.get(live).headers["HX-Refresh"] == "true"


def test_the_list_asks_no_more_for_more_files(hand, cast, enter, django_assert_num_queries):
    client = enter(cast.researcher)
    for n in range(3):
        hand(lines(row(n)))
    client.get("/p/shop/imports/")
    with django_assert_num_queries(4):
        client.get("/p/shop/imports/")
    for n in range(3, 12):
        hand(lines(row(n)))
    with django_assert_num_queries(4):
        client.get("/p/shop/imports/")


# --- the API ---


def test_the_api_takes_a_file_looks_and_imports(hand, cast, enter):
    client = enter(cast.researcher)
    root = "/api/projects/shop/imports/"
    assert client.post(root, {}).json()["detail"].startswith("Send the file in the field `file`")
    made = client.post(root, {"file": SimpleUploadedFile("t.csv", TABLE.encode())})
    assert made.status_code == 201
    address = f"{root}{made.json()['id']}/"

    def post(what: str, body: object) -> dict:
        response = client.post(f"{address}{what}", body, content_type="application/json")
        return response.json()

    wish = {"format": "csv", "columns": MAPPING, "source": "table"}
    assert "must be said" in post("look", wish)["detail"]
    looked = post("look", wish | {"values": MEANT})
    assert (looked["state"], looked["account"]["good"]) == ("checked", 3)
    assert nothing_is_stored()
    assert post("start", {})["state"] == "done"
    assert post("start", {})["state"] == "done"
    assert Preference.objects.count() == 3
    assert client.get(address).json()["account"]["already_there"] == 0
    assert client.delete(address).status_code == 409
    assert [one["id"] for one in client.get(root).json()["results"]] == [made.json()["id"]]
