"""Jobs and versions over the API: who may ask, watch, stop, promote and roll back."""

import pytest

from annotation.models import JobStatus, Promotion, Role, TrainingJob, User
from annotation.services import jobs, versions
from annotation.services.jobs import MetricRow
from annotation.services.projects import add_member, create_project

pytestmark = pytest.mark.django_db
HERE = "/api/projects/shop"


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    return tmp_path


@pytest.fixture
def ada():
    return User.objects.create_user("ada")


@pytest.fixture
def project(ada):
    return create_project(name="Shop", slug="shop", by=ada)


@pytest.fixture
def client(client, project, ada):
    client.force_login(ada)
    return client


@pytest.fixture
def make_version(artifacts, project):
    def make(name, kind="policy", owner=project):
        folder = artifacts / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(name.encode())
        job = jobs.request_training(project=owner, kind="sft") if owner else None
        return versions.register_version(kind=kind, stage="sft", directory=folder, job=job)

    return make


def post(client, path, body=None):
    return client.post(f"{HERE}{path}", data=body or {}, content_type="application/json")


def test_an_admin_asks_for_a_job_and_finds_it_in_the_list(client, ada):
    inputs = {"data": ["demonstrations.jsonl"]}
    wish = {"kind": "reward", "config": {"epochs": 2}, "inputs": inputs, "reason": "try"}
    answer = post(client, "/jobs/", wish)
    assert answer.status_code == 201, answer.content
    job = TrainingJob.objects.get()
    assert (job.kind, job.config, job.requested_by) == ("reward", {"epochs": 2}, ada)
    listed = client.get(f"{HERE}/jobs/?kind=reward&status=queued").json()["results"]
    assert [row["id"] for row in listed] == [job.pk]
    assert client.get(f"{HERE}/jobs/?kind=ppo").json()["results"] == []


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ({"kind": "dpo"}, "dpo"),
        ({}, "kind"),
        ({"kind": "sft", "config": [1]}, "config"),
        ({"kind": "sft", "config": {"epoch": 1}}, "do you mean epochs?"),
        ({"kind": "sft", "config": {"epochs": 0}}, "config.epochs must be at least 1: 0."),
        ({"kind": "pretrain", "inputs": {"data": ["/etc/passwd"]}}, "/etc/passwd"),
    ],
)
def test_a_wish_that_makes_no_sense_is_400_and_leaves_nothing(client, body, seen):
    answer = post(client, "/jobs/", body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_input"
    assert seen in answer.json()["detail"]
    assert not TrainingJob.objects.exists()


def test_a_bad_filter_is_400(client, project):
    assert client.get(f"{HERE}/jobs/?kind=dpo").status_code == 400
    job = jobs.request_training(project=project, kind="sft")
    for since in ("x", "9" * 5000, "1.5", "²"):
        assert client.get(f"{HERE}/jobs/{job.pk}/?metrics_since={since}").status_code == 400


def test_a_job_is_watched_with_its_metrics_since_a_step(client, project):
    job = jobs.request_training(project=project, kind="sft")
    jobs.claim_job(job_id=job.pk, worker="w")
    rows = [MetricRow(step=n, phase="sft", values={"loss": 1.0 / n}) for n in (1, 2, 3)]
    jobs.record_metrics(job_id=job.pk, attempt=1, rows=rows)
    seen = client.get(f"{HERE}/jobs/{job.pk}/?metrics_since=2").json()
    assert seen["status"] == "running"
    assert seen["version"] is None
    assert seen["metrics"] == [{"step": 3, "phase": "sft", "values": {"loss": 1 / 3}}]
    assert len(client.get(f"{HERE}/jobs/{job.pk}/").json()["metrics"]) == 3


def test_a_job_is_cancelled_once(client, project):
    job = jobs.request_training(project=project, kind="sft")
    assert post(client, f"/jobs/{job.pk}/cancel").json()["status"] == JobStatus.CANCELLED
    again = post(client, f"/jobs/{job.pk}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


def test_a_list_of_jobs_costs_the_same_few_queries_however_long_it_is(
    client, project, django_assert_num_queries
):
    for _ in range(20):
        jobs.request_training(project=project, kind="sft")
    with django_assert_num_queries(4):  # session, user, membership, jobs
        client.get(f"{HERE}/jobs/")


def test_an_admin_promotes_a_version_and_rolls_it_back(client, project, make_version, ada):
    first, second = make_version("a"), make_version("b")
    for version in (first, second):
        answer = post(client, f"/versions/{version.pk}/promote")
        assert answer.status_code == 201, answer.content
    assert answer.json()["verdict"] == "by_admin"
    assert versions.in_force(project, "policy") == second
    assert post(client, f"/versions/{second.pk}/promote").status_code == 409
    assert post(client, "/slots/policy/rollback").json()["version"] == first.pk
    assert post(client, "/slots/policy/rollback").status_code == 409
    listed = client.get(f"{HERE}/promotions/").json()["results"]
    assert [row["version"] for row in listed] == [first.pk, second.pk, first.pk]
    assert Promotion.objects.first().by == ada


def test_a_version_is_refused_in_a_slot_that_it_does_not_fit(client, make_version):
    version = make_version("a")
    assert post(client, f"/versions/{version.pk}/promote", {"slot": "reward"}).status_code == 400
    assert post(client, "/slots/best/rollback").status_code == 400


def test_another_projects_jobs_and_versions_are_not_there(client, make_version):
    other = create_project(name="Bank", slug="bank", by=None)
    job = jobs.request_training(project=other, kind="sft")
    version = make_version("theirs", owner=other)
    assert client.get(f"{HERE}/jobs/{job.pk}/").status_code == 404
    assert post(client, f"/jobs/{job.pk}/cancel").status_code == 404
    assert client.get(f"{HERE}/versions/{version.pk}/").status_code == 404
    assert post(client, f"/versions/{version.pk}/promote").status_code == 404
    assert post(client, "/jobs/", {"kind": "ppo", "init": version.pk}).status_code == 404
    assert client.get(f"{HERE}/versions/").json()["results"] == []


def test_a_researcher_reads_and_changes_nothing_and_a_labeler_sees_nothing(
    client, project, make_version
):
    version = make_version("a")
    paths = ["/jobs/", f"/jobs/{version.job_id}/", "/versions/", f"/versions/{version.pk}/"]
    writes = [
        *("/jobs/", f"/jobs/{version.job_id}/cancel"),
        *(f"/versions/{version.pk}/promote", "/slots/policy/rollback"),
    ]
    for role, read in ((Role.RESEARCHER, 200), (Role.REVIEWER, 200), (Role.LABELER, 403)):
        user = User.objects.create_user(f"one {role}")
        add_member(project=project, user=user, role=role, by=None)
        client.force_login(user)
        assert {client.get(f"{HERE}{path}").status_code for path in paths} == {read}
        assert {post(client, path, {"kind": "sft"}).status_code for path in writes} == {403}
