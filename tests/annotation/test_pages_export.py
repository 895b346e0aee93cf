"""The researcher's page: an export made, its funnel, its files."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.models import DatasetSnapshot, ExportOrder
from annotation.pages.exports import OF_VOTES, query_of
from annotation.services import exports, queue
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from annotation.services.search import tag_comparisons
from annotation.services.snapshots import freeze

EVERYTHING = {
    "format": "trl",
    "splits": ["train", "dev", "test"],
    "annotators": ["person", "outside"],
}


@pytest.fixture
def voted(cast, settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    cast.ask("Can you help?", ["Yes.", "No."])
    lease = queue.claim_comparison(annotator=annotator_for(user=cast.labeler, project=cast.project))
    ranking = AxisRanking(groups=[[pk] for pk in lease.presented_order])
    queue.submit_preference(assignment=lease, rankings=[ranking], key="key")
    return cast


def test_an_export_is_made_listed_and_downloaded(voted, enter):
    client = enter(voted.researcher)
    response = client.post("/p/shop/export/make/", EVERYTHING, follow=True)
    html = response.content.decode()
    assert "The export is ready." in html
    assert "Where 1 vote went" in html
    links = [part.split('"')[0] for part in html.split('class="button" href="')[1:]]
    assert {link.rsplit("/", 1)[1] for link in links} >= {"manifest.json", "README.md"}
    (data,) = [link for link in links if link.endswith(".jsonl")]
    rows = b"".join(client.get(data).streaming_content).decode().splitlines()
    assert set(json.loads(rows[0])) >= {"prompt", "chosen", "rejected"}


def test_what_is_large_is_shown_until_a_worker_has_written_it(voted, enter, monkeypatch):
    monkeypatch.setattr(exports, "SMALL", 0)
    client = enter(voted.researcher)
    html = client.post("/p/shop/export/make/", EVERYTHING, follow=True).content.decode()
    assert "The export is ready." not in html
    assert "It waits for a worker." in html
    assert "Being written" in client.get("/p/shop/export/live/?waiting=1").content.decode()
    exports.write_order(ExportOrder.objects.get().pk)
    assert client.get("/p/shop/export/live/?waiting=1")["HX-Refresh"] == "true"
    html = client.get("/p/shop/export/").content.decode()
    assert "It waits for a worker." not in html
    assert "Where 1 vote went" in html


def test_what_was_counted_or_failed_later_is_told(voted, enter, monkeypatch):
    monkeypatch.setattr(exports, "SMALL", 0)
    client = enter(voted.researcher)
    client.post("/p/shop/export/make/", EVERYTHING | {"count": "1"})
    assert "Being counted" in client.get("/p/shop/export/").content.decode()
    nobody = EVERYTHING | {"annotators": ["outside"]}
    client.post("/p/shop/export/make/", nobody)
    for order in ExportOrder.objects.all():
        exports.write_order(order.pk)
    later = timezone.now() + timedelta(minutes=1)
    ExportOrder.objects.update(finished_at=later)
    html = client.get("/p/shop/export/").content.decode()
    assert "1 row would be frozen." in html
    assert "Nothing is left to export as trl" in html


def test_ideal_answers_take_no_filter_of_votes(voted, enter):
    wish = EVERYTHING | {"format": "sft", "since": "2020-01-01"}
    client = enter(voted.researcher)
    html = client.post("/p/shop/export/make/", wish, follow=True).content.decode()
    assert "chosen by split and licence alone, not by “Given from”" in html
    assert query_of(
        {"format": "sft", "splits": ["train", "test"], "licences": ["MIT"]}
        | dict.fromkeys(OF_VOTES)
    ) == {"splits": ["train"], "licences": ["MIT"]}


def test_the_funnel_of_every_snapshot_is_shown(voted, enter):
    client = enter(voted.admin)
    client.post("/p/shop/export/make/", EVERYTHING)
    html = client.get("/p/shop/export/").content.decode()
    assert DatasetSnapshot.objects.get().sha256[:16] in html
    assert "<td>for training</td>" in html or "<td>dev</td>" in html or "<td>test</td>" in html


@pytest.mark.parametrize(
    "change", [{"format": "pickle"}, {"splits": []}, {"splits": ["all"]}, {"annotators": ["x"]}]
)
def test_nonsense_makes_nothing(voted, enter, change):
    response = enter(voted.researcher).post(
        "/p/shop/export/make/", EVERYTHING | change, follow=True
    )
    assert 'class="error"' in response.content.decode()
    assert not DatasetSnapshot.objects.exists()


def test_before_the_first_export_the_page_says_what_one_is(cast, enter, settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    html = enter(cast.researcher).get("/p/shop/export/").content.decode()
    assert "No export yet" in html


def test_what_would_be_frozen_is_counted_first(voted, enter):
    client = enter(voted.researcher)
    html = client.post("/p/shop/export/make/", EVERYTHING | {"count": "1"}).content.decode()
    assert "1 row would be frozen." in html
    assert not DatasetSnapshot.objects.exists()
    late = EVERYTHING | {"count": "1", "since": "2999-01-01"}
    html = client.post("/p/shop/export/make/", late).content.decode()
    assert "0 rows would be frozen." in html
    assert "before or after the dates asked for" in html
    response = client.post("/p/shop/export/make/", late | {"count": "", "until": "x"}, follow=True)
    assert "Enter a valid date." in response.content.decode()


def test_further_filters_stand_in_the_form_and_are_counted(voted, enter):
    client = enter(voted.researcher)
    asked = EVERYTHING | {"count": "1"}
    tag_comparisons(
        project=voted.project, comparisons=[voted.comparisons[0].pk], name="hard", by=None
    )
    html = client.get("/p/shop/export/").content.decode()
    assert '<details class="more">' in html
    assert 'name="tags" value="hard"' in html
    rows = {
        ("tags", "hard"): "1 row would be frozen.",
        ("schemes", "1"): "1 row would be frozen.",
        ("agreement", "0.5"): "0 rows would be frozen.",
        ("accuracy", "0.8"): "0 rows would be frozen.",
    }
    for (name, value), words in rows.items():
        html = client.post("/p/shop/export/make/", asked | {name: value}).content.decode()
        assert words in html, name
        assert '<details class="more" open>' in html
    response = client.post("/p/shop/export/make/", asked | {"accuracy": "2"}, follow=True)
    assert "less than or equal to 1" in response.content.decode()


def test_a_filter_that_selects_nothing_is_a_sentence_and_makes_no_export(voted, enter):
    client = enter(voted.researcher)
    wish = EVERYTHING | {"since": "2999-01-01"}
    html = client.post("/p/shop/export/make/", wish, follow=True).content.decode()
    assert "Nothing is left to export as trl" in html
    assert "No export yet" in html


@pytest.mark.parametrize(
    ("language", "words"),
    [("en", ("Gone", "Why", "other licences")), ("zh-hans", ("移除", "原因"))],
)
def test_two_frozen_datasets_are_held_together(voted, enter, language, words):
    client = enter(voted.researcher)
    client.post("/p/shop/export/make/", EVERYTHING)
    frozen = DatasetSnapshot.objects.get()
    other = freeze(project=voted.project, kind="comparisons", query={"licences": ["MIT"]})
    client.cookies["django_language"] = language
    address = f"/p/shop/export/compare/?before={frozen.pk}&after={other.pk}"
    html = client.get(address).content.decode()
    for word in words:
        assert word in html
    assert client.get(f"/p/shop/export/compare/?before={frozen.pk}&after=999").status_code == 404
    assert client.get("/p/shop/export/compare/?before=x").status_code == 302
    assert "export/compare/" in client.get("/p/shop/export/").content.decode()
