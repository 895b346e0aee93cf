"""The page of contributions: what a study found, the votes behind it, and the button that asks."""

import csv
import io
import re
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.errors import BadInput
from annotation.models import DatasetSnapshot, Preference, Study, StudyState
from annotation.services import studies
from annotation.services.jobs import Pulse
from tests.annotation.making import make_project
from tests.annotation.test_pages_analysis import make_reward
from tests.annotation.voting import cast as vote
from tests.annotation.voting import compare, make_voter

pytestmark = pytest.mark.django_db
PAGE = "/p/shop/analysis/contributions/"


def one(by, name, votes, nats, low, high):
    return {
        "by": by, "name": name, "votes": votes, "comparisons": votes, "nats": nats, "low": low,
        "high": high,
    }  # fmt: skip


@pytest.fixture
def studied(cast):
    """A finished study of two people's votes, one of whom harms."""
    project = cast.project
    good, bad = make_voter(project), make_voter(project)
    guideline = project.guidelines.get()
    for number in range(3):
        comparison = compare(project)
        vote(comparison, good, guideline=guideline)
        if number:
            vote(comparison, bad)
    vote(compare(project), good, outcome="equal")
    vote(compare(project, split="dev"), good)
    vote(compare(project, purpose="evaluation"), good)
    snapshot = DatasetSnapshot.objects.create(
        project=project, kind="comparisons", query={"annotators": ["outside", "person"]},
        ledger_position={"preference": Preference.objects.order_by("-pk")[0].pk},
        sha256="c" * 64, path="snapshots/c.jsonl", rows=4, counts={},
    )  # fmt: skip
    vote(compare(project), good)  # came later
    found = [
        one("annotator", str(bad.pk), 2, -0.02, -0.03, -0.01),
        one("annotator", str(good.pk), 3, 0.05, 0.01, 0.09),
        one("batch", "batch production", 5, 0.06, -0.01, 0.1),
        one("guideline", "1", 3, 0.05, None, None),
    ]
    result = {
        "contributions": found, "left_unmeasured": 1, "ridge": 0.001, "axis": None,
        "train_comparisons": 3, "dev_comparisons": 1, "dev_groups": 1, "dev_log_loss": 0.61234,
    }  # fmt: skip
    Study.objects.create(
        project=project, reward=make_reward(project), state=StudyState.DONE, snapshot=snapshot,
        result=result, finished_at=timezone.now(),
    )  # fmt: skip
    return cast, good, bad


def test_the_page_shows_each_part_with_its_interval_and_leads_to_its_votes(
    studied, enter, django_assert_max_num_queries
):
    cast, good, bad = studied
    client = enter(cast.reviewer)
    with django_assert_max_num_queries(9):
        html = client.get(PAGE).content.decode()
    assert html.index(bad.pseudonym) < html.index(good.pseudonym), "the most harmful first"
    assert "-0.0200" in html
    assert "[-0.0300, -0.0100]" in html
    assert re.findall(r'badge (\w+)">(\w+)<', html)[-3:] == [
        ("failed", "harms"), ("passed", "helps"), ("undecided", "undecided"),
    ]  # fmt: skip
    assert "dev log loss 0.6123 nats on 1 dev comparisons" in html
    assert "1 part with too few votes" in html
    assert 'id="ask"' not in html, "a reviewer only looks"
    links = re.findall(r'href="(/p/shop/analysis/contributions/votes/[^"]+)">(\d+)</a>', html)
    assert [int(n) for _, n in links] == [2, 3, 5, 3]
    for address, n in links:
        response = client.get(address.replace("&amp;", "&"))
        assert response.context["behind"].num_votes == int(n)
        (row, *_) = response.context["rows"]
        assert client.get(f"/p/shop/preferences/{row.preference.pk}/").status_code == 200
    text = client.get("/p/shop/analysis/contributions.csv?by=annotator").content.decode()
    rows = {row["label"]: row for row in csv.DictReader(io.StringIO(text))}
    assert float(rows[bad.pseudonym]["high"]) == -0.01
    assert client.get(f"{PAGE}votes/?by=nothing&name=1").status_code == 404
    assert client.get(f"{PAGE}votes/?name={'9' * 40}").context["behind"].num_votes == 0


def test_the_button_asks_once_however_often_it_is_pressed(cast, enter):
    client = enter(cast.researcher)
    said = client.post(f"{PAGE}ask/", follow=True).content.decode()
    assert "needs a reward model in force" in said
    make_reward(cast.project)
    assert 'id="ask"' in client.get(PAGE).content.decode()
    for _ in range(2):
        html = client.post(f"{PAGE}ask/", follow=True).content.decode()
        assert "A worker measures it" in html
        assert 'hx-trigger="every 4s"' in html
    assert Study.objects.count() == 1
    study = Study.objects.get()
    Study.objects.update(state=StudyState.FAILED, error=studies.LOST)
    html = client.get(PAGE).content.decode()
    assert "fell silent" in html
    assert 'id="ask"' in html
    again = studies.request_study(project=cast.project, by=None)
    assert again.pk != study.pk
    with pytest.raises(BadInput, match="needs a reward model"):
        studies.request_study(project=make_project(), by=None)


def test_a_study_is_taken_by_one_worker_and_by_another_once_that_is_silent(db):
    project = make_project()
    make_reward(project)
    asked = studies.request_study(project=project, by=None)
    first = studies.claim_study(asked.pk)
    assert studies.claim_study(asked.pk) is None
    assert studies.study_heartbeat(first, step=1, total=4) is Pulse.GO_ON
    long_ago = timezone.now() - timedelta(hours=1)
    Study.objects.update(heartbeat_at=long_ago)
    second = studies.claim_study(asked.pk)
    assert second.attempt == 2
    assert studies.study_heartbeat(first) is Pulse.FENCED_OFF
    snapshot = DatasetSnapshot.objects.create(
        project=project, kind="comparisons", query={}, ledger_position={}, sha256="d" * 64,
        path="d", rows=0, counts={},
    )  # fmt: skip
    assert not studies.finish_study(first, snapshot=snapshot, result={"contributions": []})
    assert not studies.fail_study(first, error="late")
    assert studies.release_study(second)
    assert list(studies.waiting_studies()) == [asked]
    for _ in range(studies.MOST_ATTEMPTS - 2):
        studies.claim_study(asked.pk)
        Study.objects.update(heartbeat_at=long_ago)
    assert studies.claim_study(asked.pk) is None
    asked.refresh_from_db()
    assert (asked.state, asked.error) == (StudyState.FAILED, studies.LOST)
