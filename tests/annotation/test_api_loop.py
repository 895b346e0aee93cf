"""The loop's settings over the API: changed together, checked, remembered in the audit log."""

import json

import pytest

from annotation.models import AuditEntry, Role, User
from annotation.services.projects import add_member, create_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return create_project(name="Loop", slug="loop", by=User.objects.create_user("ada"))


def patch(client, body):
    return client.patch(
        "/api/projects/loop/loop", data=json.dumps(body), content_type="application/json"
    )


def test_an_admin_changes_settings_and_rule_together(client, project):
    client.force_login(User.objects.get(username="ada"))
    answer = patch(client, {"open_target": 7, "rule": {"after_preferences": 12}})
    assert answer.status_code == 200, answer.content
    assert answer.json()["open_target"] == 7
    project.refresh_from_db()
    assert project.open_target == 7
    assert project.retrain_rule.after_preferences == 12
    entry = AuditEntry.objects.get(action="project.loop")
    assert entry.data == {"before": {"open_target": 50}, "after": {"open_target": 7}}


def test_a_rule_that_says_no_time_changes_nothing_at_all(client, project):
    client.force_login(User.objects.get(username="ada"))
    answer = patch(client, {"open_target": 7, "rule": {"after_preferences": None}})
    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_input"
    project.refresh_from_db()
    assert project.open_target == 50


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ({"heldout_share": 1.5}, "heldout_share"),
        ({"job_defaults": {"lunch": {}}}, "lunch"),
        ({"job_defaults": {"ppo": 3}}, "job_defaults"),
        ({"job_defaults": {"ppo": {"baseline_cache": "/x"}}}, "config.baseline_cache names a path"),
        ({"job_defaults": {"ppo": {"kl_cof": 1}}}, "do you mean kl_coef?"),
        ({"job_defaults": {"inputs": {"sample": 5}}}, "job_defaults.inputs"),
        ({"job_defaults": {"inputs": {"nap": {}}}}, "nap"),
        ({"job_defaults": {"inputs": {"sample": {"planned": [1]}}}}, "inputs.planned"),
        ({"job_defaults": {"inputs": {"reward": {"annotators": 3}}}}, "annotators must be a list"),
        ({"job_defaults": {"inputs": {"lunch": {}}}}, "lunch"),
        ({"job_defaults": {"inputs": {"reward": 3}}}, "job_defaults.inputs"),
        ({"job_defaults": {"inputs": {"reward": {"annotators": None}}}}, "inputs.annotators"),
        ({"job_defaults": {"inputs": {"reward": {"annotators": ["cat"]}}}}, "['cat']"),
        ({"job_defaults": {"inputs": {"reward": {"annotators": [["person"]]}}}}, "person"),
        ({"job_defaults": {"inputs": {"sample": {"comparisons": "three"}}}}, "three"),
        ({"job_defaults": {"inputs": {"pretrain": {"data": "x.txt"}}}}, "x.txt"),
    ],
)
def test_a_bad_value_is_named(client, project, body, seen):
    client.force_login(User.objects.get(username="ada"))
    answer = patch(client, body)
    assert answer.status_code == 400
    assert seen in json.dumps(answer.json())


def test_only_admins_change_it_and_researchers_read_it(client, project):
    user = User.objects.create_user("rosa")
    add_member(project=project, user=user, role=Role.RESEARCHER, by=None)
    client.force_login(user)
    assert client.get("/api/projects/loop/loop").json()["open_target"] == 50
    assert patch(client, {"open_target": 7}).status_code == 403
