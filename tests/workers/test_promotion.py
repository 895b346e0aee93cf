"""workers.promotion: a verdict, whatever gate gave it, is kept once, told and acted on."""

import pytest
from django.db import OperationalError

from annotation.errors import BadInput, Conflict
from annotation.mails import text_of
from annotation.models import (
    DatasetSnapshot,
    JobKind,
    Mail,
    ModelVersion,
    Promotion,
    Role,
    TrainingJob,
)
from annotation.services import snapshots, versions
from annotation.services.gates import look_again
from tests.annotation.making import make_member
from workers import promotion
from workers.promotion import judge_version
from workers.reward_gate import dev_comparisons


@pytest.mark.django_db
def test_the_first_sft_version_becomes_the_policy_and_its_samples_are_asked_for(
    project, make_version
):
    version = make_version("sft-1", stage="sft")
    assert list(versions.versions_without_verdict()) == [version]
    assert judge_version(version.pk).verdict == "first"
    assert versions.in_force(project, "policy") == version
    assert TrainingJob.objects.filter(kind=JobKind.SAMPLE, status="queued").count() == 1
    assert judge_version(version.pk) is None  # delivered twice
    assert Promotion.objects.count() == 1
    later = make_version("sft-2", stage="sft")
    assert not judge_version(later.pk).passed
    assert versions.in_force(project, "policy") == version


def test_a_refusal_is_told_to_the_admins_and_a_pass_is_not(project, make_version, settings):
    settings.MAILS = {"DEFAULT_FROM_EMAIL": "concord@concord.example"}
    admin = make_member(project, Role.ADMIN)
    admin.email = "ann@x.example"
    admin.save()
    judge_version(make_version("sft-1", stage="sft").pk)
    later = judge_version(make_version("sft-2", stage="sft").pk)  # waits, and nothing refused it
    assert (later.passed, later.verdict) == (False, "unjudged")
    refused = make_version("ppo-1", stage="ppo")
    assert not judge_version(refused.pk).passed
    [mail] = Mail.objects.all()
    assert (mail.kind, mail.event, mail.user) == ("gate_refused", f"gate:{refused.pk}", admin)
    subject, text = text_of(mail)
    assert subject == f"{project.name}: the gate refused ppo-1"
    assert "was made without a reward model or a reference." in text
    assert f"/p/{project.slug}/versions/{refused.pk}/" in text


@pytest.mark.django_db
@pytest.mark.parametrize("auto_promote", [True, False])
def test_a_pass_promotes_only_where_the_project_says_so(
    project, ppo_version, monkeypatch, auto_promote
):
    project.auto_promote = auto_promote
    project.save()
    passed = promotion.Verdict(passed=True, verdict="passed", why="", numbers={"x": 1})
    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, lambda version, project: passed)
    judge_version(ppo_version.pk)
    in_force = Promotion.objects.in_force(project, "policy")
    assert (in_force.version == ppo_version) is auto_promote
    assert (in_force.verdict, in_force.numbers.get("numbers")) == (
        ("passed", {"x": 1}) if auto_promote else ("first", None)
    )


@pytest.mark.django_db
def test_a_verdict_that_cannot_be_stored_is_a_gate_that_failed(project, ppo_version, monkeypatch):
    passed = promotion.Verdict(passed=True, verdict="passed", why="", numbers={"x": object()})
    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, lambda version, project: passed)
    with pytest.raises(TypeError, match="not JSON serializable"):
        judge_version(ppo_version.pk)
    gate = ModelVersion.objects.get(pk=ppo_version.pk).metrics["gate"]
    assert (gate["passed"], gate["numbers"]) == (False, {})
    assert gate["why"].startswith("The gate itself failed: TypeError: ")
    assert judge_version(ppo_version.pk) is None


@pytest.mark.django_db
def test_an_undecided_version_is_promoted_by_nobody_but_an_admin_and_judged_again(
    project, make_version, monkeypatch
):
    project.auto_promote = True
    project.save()
    undecided = promotion.Verdict(passed=False, verdict="undecided", why="?", numbers={})
    monkeypatch.setitem(promotion.JUDGES, JobKind.REWARD, lambda version, project: undecided)
    version = make_version("r1", kind="reward", stage="reward", trunk=make_version("p"))
    version.snapshot = snapshots.freeze(project=project, kind="comparisons")
    version.save()
    judge_version(version.pk)
    assert versions.in_force(project, "reward") is None
    ada = make_member(project, "admin")
    look_again(version=version, project=project, by=ada)
    assert list(versions.versions_without_verdict()) == [version]
    version.refresh_from_db()
    assert [gate["why"] for gate in version.metrics["gates_before"]] == ["?"]
    frozen = DatasetSnapshot.objects.count()
    dev_comparisons(version, project)  # of now, and not those of its snapshot
    assert DatasetSnapshot.objects.count() == frozen + 1
    with pytest.raises(Conflict, match="r1 is not undecided"):
        look_again(version=version, project=project, by=ada)
    judge_version(version.pk)
    version.refresh_from_db()
    versions.promote(project=project, slot="reward", version=version, verdict="by_admin")
    with pytest.raises(Conflict):
        look_again(version=version, project=project, by=ada)


@pytest.mark.django_db
def test_a_gate_that_breaks_is_a_failed_verdict_and_not_tried_again(
    project, ppo_version, monkeypatch
):
    def broken(version, project):
        raise KeyError("surprise")

    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, broken)
    with pytest.raises(KeyError):
        judge_version(ppo_version.pk)
    gate = ModelVersion.objects.get(pk=ppo_version.pk).metrics["gate"]
    assert (gate["passed"], gate["why"]) == (False, "The gate itself failed: KeyError: 'surprise'")
    assert judge_version(ppo_version.pk) is None


@pytest.mark.django_db
def test_a_gate_that_the_ledger_let_down_keeps_no_verdict_and_is_tried_again(
    project, ppo_version, monkeypatch
):
    def locked(version, project):
        raise OperationalError("database is locked")

    with monkeypatch.context() as patch:
        patch.setitem(promotion.JUDGES, JobKind.PPO, locked)
        with pytest.raises(OperationalError):
            judge_version(ppo_version.pk)
    assert ppo_version in versions.versions_without_verdict()
    assert judge_version(ppo_version.pk) is not None


@pytest.mark.django_db
def test_a_verdict_is_kept_though_its_promotion_fails_and_says_so(
    project, ppo_version, monkeypatch
):
    project.auto_promote = True
    project.job_defaults = {"inputs": {"sample": 5}}  # the sample job cannot be asked for
    project.save()
    passed = promotion.Verdict(passed=True, verdict="passed", why="It is better.", numbers={})
    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, lambda version, project: passed)
    with pytest.raises(BadInput, match="inputs must be a JSON object: 5"):
        judge_version(ppo_version.pk)
    gate = ModelVersion.objects.get(pk=ppo_version.pk).metrics["gate"]
    assert (gate["passed"], gate["verdict"]) == (True, "passed")
    assert gate["why"].startswith("It is better. Promoting it failed: BadInput: ")
    assert versions.in_force(project, "policy").name == "sft-1"
    assert judge_version(ppo_version.pk) is None


@pytest.mark.django_db
def test_of_two_workers_with_the_same_version_the_first_verdict_stands(
    project, ppo_version, monkeypatch
):
    mine = promotion.Verdict(passed=True, verdict="passed", why="mine", numbers={})

    def slow(version, project):
        ModelVersion.objects.filter(pk=version.pk).update(metrics={"gate": {"why": "theirs"}})
        return mine

    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, slow)
    project.auto_promote = True
    project.save()
    assert judge_version(ppo_version.pk) is None
    assert ModelVersion.objects.get(pk=ppo_version.pk).metrics == {"gate": {"why": "theirs"}}
    assert versions.in_force(project, "policy").name == "sft-1"


@pytest.mark.django_db
def test_an_admin_who_was_quicker_than_the_gate_is_no_error(project, ppo_version, monkeypatch):
    project.auto_promote = True
    project.save()
    versions.promote(project=project, slot="policy", version=ppo_version, verdict="by_admin")
    passed = promotion.Verdict(passed=True, verdict="passed", why="", numbers={})
    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, lambda version, project: passed)
    assert judge_version(ppo_version.pk) is passed
    assert Promotion.objects.in_force(project, "policy").verdict == "by_admin"
