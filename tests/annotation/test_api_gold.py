"""Gold over the API: what leads do, and how little a labeler is told."""

import pytest
from rest_framework.test import APIClient

from annotation.models import GoldCheck, GoldItem, Role
from annotation.services.gold import completion_ids
from annotation.services.projects import annotator_for
from annotation.services.quality import annotators_of
from annotation.services.queue import claim_comparison
from tests.annotation.golden import answer, make_experts, make_items
from tests.annotation.making import make_comparisons, make_member, make_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project("shop")


@pytest.fixture
def experts(project):
    return make_experts(project)


def client_of(user) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


def url(path: str) -> str:
    return f"/api/projects/shop/{path}"


def vote(ids):
    return {
        "rankings": [{"outcome": "ranked", "groups": [[one] for one in ids]}],
        "explanation": "Clear.",
    }


def test_two_leads_make_an_item_live_without_seeing_each_others_answers(project, experts):
    [origin] = make_comparisons(project)
    first, second = map(client_of, experts)
    made = first.post(url("gold/"), {"comparison": origin.pk}, format="json")
    assert (made.status_code, made.data["state"]) == (201, "draft")
    item, ids = made.data["id"], completion_ids(origin)
    assert first.post(url(f"gold/{item}/vote"), vote(ids), format="json").status_code == 200
    assert second.get(url(f"gold/{item}/")).data["constraints"] is None
    assert "constraints" not in second.get(url("gold/")).data["results"][0]
    voted = second.post(url(f"gold/{item}/vote"), vote(ids), format="json").data
    assert voted["state"] == "live"
    assert voted["constraints"] == [
        {"axis": "overall", "says": "above", "better": ids[0], "worse": ids[1]}
    ]
    assert voted["checks"] == []
    bad = second.post(url(f"gold/{item}/vote"), vote([998, 999]), format="json")
    assert bad.data["code"] == "bad_ranking"
    gone = first.post(
        url(f"gold/{item}/retire"), {"reason": "dull", "is_wrong": True}, format="json"
    )
    assert (gone.data["state"], gone.data["retire_reason"]) == ("retired", "dull")


def test_admins_change_the_rules_and_reviewers_read_them(project, experts):
    admin = client_of(make_member(project, Role.ADMIN))
    changed = admin.patch(url("checks"), {"gold_every": 10, "bar_percent": 70}, format="json")
    assert (changed.status_code, changed.data["bar_window"]) == (200, 20)
    assert client_of(experts[0]).get(url("checks")).data == changed.data
    refused = admin.patch(url("checks"), {"gold_every": 1}, format="json")
    assert refused.data["code"] == "bad_input"
    assert client_of(experts[0]).patch(url("checks"), {}, format="json").status_code == 403


@pytest.fixture
def labeler(project, experts):
    """A labeler with five checks, two of them against the experts."""
    user = make_member(project)
    make_items(experts, project, 5)
    make_comparisons(project, 20)
    project.checks = {"gold_every": 2}
    project.save()
    annotator = annotator_for(user=user, project=project)
    while GoldCheck.objects.count() < 5:
        lease = claim_comparison(annotator=annotator)
        is_check = lease.comparison.purpose == "gold"
        answer(lease, right=not is_check or GoldCheck.objects.count() >= 2)
    return user


def test_a_labeler_sees_their_own_accuracy_alone_and_none_of_five(labeler):
    client = client_of(labeler)
    assert client.get(url("accuracy")).data == {"accuracy": None, "n": 0}
    for path in ("gold/", f"gold/{GoldItem.objects.first().pk}/", "reports/", "checks"):
        assert client.get(url(path)).status_code == 403


def test_a_report_of_gold_and_of_work_read_alike(project, experts, labeler):
    client, seen = client_of(labeler), {}
    for preference in project.preferences.select_related("comparison"):
        made = client.post(
            url(f"preferences/{preference.pk}/report"), {"words": "No."}, format="json"
        )
        assert made.status_code == 201
        seen[preference.comparison.purpose] = {
            name: value
            for name, value in made.data.items()
            if name not in ("id", "comparison", "created_at")
        }
    assert seen["gold"] == seen["production"]
    lead = client_of(experts[0])
    listed = lead.get(url("reports/")).data["results"]
    decided = lead.post(
        url(f"reports/{listed[0]['id']}/decide"),
        {"ruling": "decline", "reply": "Look again."},
        format="json",
    )
    assert (decided.data["state"], decided.data["reply"]) == ("declined", "Look again.")


def test_the_quality_report_has_gold_in_a_column_and_not_in_the_agreement(project, labeler):
    [line] = annotators_of(project)
    assert (line.gold.value, line.gold.n) == (0.6, 5)
    assert line.answers == project.preferences.count() - 5
