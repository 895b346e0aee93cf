"""services.versions: registering directories, promoting, rolling back."""

import hashlib
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from django.db import IntegrityError, connections, transaction

from annotation.errors import BadInput, Conflict
from annotation.models import AuditEntry, JobKind, Promotion, TrainingJob
from annotation.services import jobs, versions
from annotation.services.projects import create_project

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path) -> Path:
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    return settings.ARTIFACTS_DIR


@pytest.fixture
def project():
    return create_project(name="Shop", slug="shop", by=None)


def model_directory(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights of " + folder.name.encode())
    return folder


@pytest.fixture
def make_version(artifacts):
    def make(name, kind="policy", **edges):
        return versions.register_version(
            kind=kind,
            stage="registered",
            directory=model_directory(artifacts / "models" / name),
            **edges,
        )

    return make


def test_the_hash_of_a_directory_is_over_names_and_contents(tmp_path):
    folder = model_directory(tmp_path / "m")
    inner = [("config.json", b"{}"), ("model.safetensors", b"weights of m")]
    lines = "".join(f"{n}\0{hashlib.sha256(c).hexdigest()}\n" for n, c in inner)
    assert versions.sha256_of_directory(folder) == hashlib.sha256(lines.encode()).hexdigest()
    before = versions.sha256_of_directory(folder)
    (folder / "config.json").rename(folder / "config2.json")
    assert versions.sha256_of_directory(folder) != before


def test_a_published_directory_gets_its_row_where_it_lies(make_version, artifacts):
    version = make_version("ppo-7")
    assert (version.path, version.name) == ("models/ppo-7", "ppo-7")
    assert versions.directory_of(version) == artifacts / "models" / "ppo-7"


def test_a_directory_from_elsewhere_is_copied_in(tmp_path, artifacts):
    outside = model_directory(tmp_path / "outside")
    version = versions.register_version(
        kind="policy", stage="registered", directory=outside, name="tiny"
    )
    copy = versions.directory_of(version)
    assert copy.parent == artifacts / "models"
    assert version.sha256 == versions.sha256_of_directory(outside)
    assert [p.name for p in (artifacts / "models").iterdir()] == [copy.name]


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [("config.json", "holds no config.json"), ("model.safetensors", "no .safetensors weights")],
)
def test_what_is_no_model_directory_is_refused(tmp_path, missing, sentence):
    folder = model_directory(tmp_path / "m")
    (folder / missing).unlink()
    with pytest.raises(BadInput, match=sentence):
        versions.register_version(kind="policy", stage="registered", directory=folder)


def test_a_job_has_one_version(project, make_version):
    job = jobs.request_training(project=project, kind="sft")
    make_version("a", job=job)
    with pytest.raises(IntegrityError), transaction.atomic():
        make_version("b", job=job)


def test_a_project_sees_what_it_made_or_put_in_force(project, make_version):
    other = create_project(name="Bank", slug="bank", by=None)
    mine = make_version("mine", job=jobs.request_training(project=project, kind="sft"))
    registered = make_version("registered")
    make_version("theirs", job=jobs.request_training(project=other, kind="sft"))
    versions.promote(project=project, slot="policy", version=registered, verdict="registered")
    assert list(versions.versions_of(project)) == [registered, mine]


# --- promoting ----------------------------------------------------------------------------------


def test_promoting_a_policy_puts_it_in_force_and_queues_a_sample_job(project, make_version):
    version = make_version("sft-1")
    versions.promote(project=project, slot="policy", version=version, verdict="first")
    assert versions.in_force(project, "policy") == version
    assert TrainingJob.objects.get().kind == JobKind.SAMPLE
    assert AuditEntry.objects.filter(action="version.promote").count() == 1


def test_no_sample_job_without_its_promotion(project, make_version, monkeypatch):
    def broken(**_):
        raise RuntimeError("the last act of the transaction fails")

    monkeypatch.setattr(versions, "request_training", broken)
    with pytest.raises(RuntimeError):
        versions.promote(
            project=project, slot="policy", version=make_version("sft-1"), verdict="first"
        )
    assert not Promotion.objects.exists()
    assert not TrainingJob.objects.exists()


def test_a_promotions_sample_job_names_the_version_and_how_many(project, make_version):
    version = make_version("a")
    versions.promote(project=project, slot="policy", version=version, verdict="by_admin")
    job = TrainingJob.objects.get()
    assert (job.init, job.inputs) == (version, {"comparisons": project.open_target})


def test_whatever_waits_already_each_promoted_policy_gets_its_own_sample_job(project, make_version):
    """A waiting job may have chosen the policy before, or write less: a top-up, a released one."""
    a, b = make_version("a"), make_version("b")
    jobs.request_training(project=project, kind="sample")
    for version in (a, b):
        versions.promote(project=project, slot="policy", version=version, verdict="by_admin")
    inits = TrainingJob.objects.order_by("pk").values_list("init", flat=True)
    assert list(inits) == [None, a.pk, b.pk]


def test_a_sample_job_of_the_same_policy_that_still_waits_is_enough(project, make_version):
    a, b = make_version("a"), make_version("b")
    for version in (a, b):
        versions.promote(project=project, slot="policy", version=version, verdict="by_admin")
    versions.roll_back(project=project, slot="policy")  # the job of a waits still
    assert TrainingJob.objects.count() == 2
    TrainingJob.objects.update(inputs={})  # as a top-up that a's worker gave back
    versions.promote(project=project, slot="policy", version=b, verdict="by_admin")
    assert TrainingJob.objects.filter(init=b).count() == 2


def test_no_sample_job_where_no_comparison_should_be_open(project, make_version):
    project.open_target = 0
    versions.promote(project=project, slot="policy", version=make_version("a"), verdict="first")
    assert not TrainingJob.objects.exists()


def test_promoting_a_reward_model_makes_a_ppo_job_where_a_policy_is_in_force(project, make_version):
    reward = make_version("r1", kind="reward")
    versions.promote(project=project, slot="reward", version=reward, verdict="passed")
    assert not TrainingJob.objects.exists()  # nothing to improve yet
    versions.promote(project=project, slot="policy", version=make_version("p"), verdict="first")
    again = make_version("r2", kind="reward")
    versions.promote(project=project, slot="reward", version=again, verdict="passed")
    assert TrainingJob.objects.filter(kind=JobKind.PPO).count() == 1


def ppo_jobs():
    return TrainingJob.objects.filter(kind=JobKind.PPO).order_by("pk")


def test_a_ppo_job_that_never_started_serves_the_next_reward_model_too(project, make_version):
    versions.promote(project=project, slot="policy", version=make_version("p"), verdict="first")
    for name in ("r1", "r2"):
        reward = make_version(name, kind="reward")
        versions.promote(project=project, slot="reward", version=reward, verdict="passed")
    assert ppo_jobs().count() == 1


@pytest.mark.parametrize("chosen", ["init", "reward"])
def test_a_ppo_job_that_has_chosen_its_versions_does_not_serve_the_next_reward_model(
    project, make_version, chosen
):
    policy, before = make_version("p"), make_version("r1", kind="reward")
    versions.promote(project=project, slot="policy", version=policy, verdict="first")
    versions.promote(project=project, slot="reward", version=before, verdict="passed")
    job = jobs.claim_job(job_id=ppo_jobs().get().pk, worker="w")
    version = {"init": policy, "reward": before}[chosen]
    jobs.store_inputs(job_id=job.pk, attempt=1, chosen={chosen: version})
    jobs.release_job(job_id=job.pk, attempt=1)
    reward = make_version("r2", kind="reward")
    versions.promote(project=project, slot="reward", version=reward, verdict="passed")
    assert ppo_jobs().count() == 2


def reward_that_a_worker_sees(project, job):
    """What is in force once the job is claimed, in a thread of its own."""
    try:
        assert jobs.claim_job(job_id=job.pk, worker="w")
        return versions.in_force(project, "reward")
    finally:
        connections.close_all()


@pytest.mark.django_db(transaction=True)
def test_a_ppo_job_claimed_amid_a_promotion_sees_the_new_reward_model(project, make_version):
    """The promotion trusts in the job that waits, so it may not start from what was before."""
    versions.promote(project=project, slot="policy", version=make_version("p"), verdict="first")
    before, reward = (make_version(name, kind="reward") for name in ("r1", "r2"))
    versions.promote(project=project, slot="reward", version=before, verdict="passed")
    job = ppo_jobs().get()
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        versions.promote(project=project, slot="reward", version=reward, verdict="passed")
        seen = pool.submit(reward_that_a_worker_sees, project, job)
        wait([seen], timeout=1)  # it has the time to claim, and must wait for the commit
    assert seen.result() == reward
    assert ppo_jobs().count() == 1


def test_no_ppo_job_where_the_rule_says_no(project, make_version):
    project.retrain_rule.ppo_after_reward = False
    project.retrain_rule.save()
    versions.promote(project=project, slot="policy", version=make_version("p"), verdict="first")
    reward = make_version("r", kind="reward")
    versions.promote(project=project, slot="reward", version=reward, verdict="passed")
    assert not TrainingJob.objects.filter(kind=JobKind.PPO).exists()


def test_a_version_must_fit_its_slot(project, make_version):
    with pytest.raises(BadInput, match="A policy version cannot be put in the slot reward"):
        versions.promote(project=project, slot="reward", version=make_version("p"), verdict="x")
    with pytest.raises(BadInput, match="slot must be one of policy, reward, judge: 'best'"):
        versions.promote(project=project, slot="best", version=make_version("q"), verdict="x")


def test_what_is_in_force_is_not_promoted_again(project, make_version):
    version = make_version("p")
    versions.promote(project=project, slot="policy", version=version, verdict="first")
    with pytest.raises(Conflict, match="in force already"):
        versions.promote(project=project, slot="policy", version=version, verdict="by_admin")


# --- rolling back -------------------------------------------------------------------------------


def test_rolling_back_twice_goes_back_two_versions(project, make_version):
    a, b, c = (make_version(name) for name in "abc")
    for version in (a, b, c):
        versions.promote(project=project, slot="policy", version=version, verdict="by_admin")
    assert versions.roll_back(project=project, slot="policy").version == b
    assert versions.roll_back(project=project, slot="policy").version == a
    with pytest.raises(Conflict, match="no policy version before the one in force"):
        versions.roll_back(project=project, slot="policy")
    assert [p.version for p in Promotion.objects.order_by("pk")] == [a, b, c, b, a]


def test_a_promotion_after_a_roll_back_stands_on_what_was_rolled_back_to(project, make_version):
    a, b, c = (make_version(name) for name in "abc")
    for version in (a, b):
        versions.promote(project=project, slot="policy", version=version, verdict="by_admin")
    versions.roll_back(project=project, slot="policy")
    versions.promote(project=project, slot="policy", version=c, verdict="by_admin")
    assert versions.roll_back(project=project, slot="policy").version == a


def test_a_policy_put_back_writes_the_next_comparisons(project, make_version):
    for name in "ab":
        versions.promote(
            project=project, slot="policy", version=make_version(name), verdict="by_admin"
        )
    TrainingJob.objects.update(status="done")
    versions.roll_back(project=project, slot="policy")
    assert TrainingJob.objects.filter(kind=JobKind.SAMPLE, status="queued").count() == 1


# --- the root of KL -----------------------------------------------------------------------------


@pytest.fixture
def tuned(project, make_version):
    """A function that gives a version of a training job its stage and its edges."""

    def make(name, stage="sft", **edges):
        job = jobs.request_training(project=project, kind=stage)
        version = make_version(name, job=job, **edges)
        version.stage = stage
        version.save()
        return version

    return make


def put_in_force(project, version):
    versions.promote(project=project, slot="policy", version=version, verdict="by_admin")


def test_before_any_policy_is_in_force_the_root_is_the_newest_sft_version(project, tuned):
    assert versions.sft_root(project) is None
    tuned("sft-1")
    newest = tuned("sft-2")
    assert versions.sft_root(project) == newest


def test_the_root_is_what_the_policy_in_force_descends_from(project, tuned):
    root = tuned("sft-1")
    put_in_force(project, root)
    assert versions.sft_root(project) == root
    first = tuned("ppo-1", stage="ppo", init=root, reference=root)
    second = tuned("ppo-2", stage="ppo", init=first)  # an older row, without its reference
    put_in_force(project, second)
    assert versions.sft_root(project) == root


def test_an_sft_version_that_was_not_promoted_changes_no_root(project, tuned):
    root = tuned("sft-1")
    put_in_force(project, root)
    tuned("sft-2")
    assert versions.sft_root(project) == root


def test_a_registered_policy_in_force_is_its_own_root_whatever_came_before(
    project, make_version, tuned
):
    put_in_force(project, tuned("sft-1"))
    outside = make_version("outside")
    put_in_force(project, outside)
    assert versions.sft_root(project) == outside
    put_in_force(project, tuned("ppo-1", stage="ppo", init=outside, reference=outside))
    assert versions.sft_root(project) == outside


def test_rolling_back_goes_back_to_the_older_root_too(project, make_version, tuned):
    root = tuned("sft-1")
    put_in_force(project, root)
    put_in_force(project, make_version("outside"))
    versions.roll_back(project=project, slot="policy")
    assert versions.sft_root(project) == root
