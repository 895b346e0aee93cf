"""workers.retraining: the rule, the facts, and what is asked for."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from django.db import connections
from django.utils import timezone

from annotation.models import (
    Comparison,
    DatasetSnapshot,
    JobKind,
    Project,
    RetrainRule,
    TrainingJob,
)
from annotation.services import jobs, queue, versions
from annotation.services.retraining import Facts, facts_of, is_due
from tests.annotation.making import as_shown, make_annotator, make_comparisons
from workers import retraining
from workers.retraining import request_what_is_due


@pytest.mark.parametrize(
    ("rule", "new", "minutes", "job_open", "due"),
    [
        # after N
        ({"after_preferences": 10}, 9, None, False, False),
        ({"after_preferences": 10}, 10, None, False, True),
        ({"after_preferences": 10}, 10, 0.1, False, True),
        ({"after_preferences": 10}, 99, None, True, False),
        # every T
        ({"every_minutes": 30}, 1, None, False, True),
        ({"every_minutes": 30}, 1, 29.0, False, False),
        ({"every_minutes": 30}, 1, 30.0, False, True),
        ({"every_minutes": 30}, 0, 99.0, False, False),
        # both
        ({"after_preferences": 10, "every_minutes": 30}, 9, 31.0, False, False),
        ({"after_preferences": 10, "every_minutes": 30}, 10, 29.0, False, False),
        ({"after_preferences": 10, "every_minutes": 30}, 10, 31.0, False, True),
        ({"after_preferences": 10, "enabled": False}, 99, None, False, False),
    ],
)
def test_the_rule_against_a_table(rule, new, minutes, job_open, due):
    facts = Facts(new_preferences=new, minutes_since=minutes, job_open=job_open)
    found, why = is_due(RetrainRule(**rule), facts)
    assert found is due
    assert why


def test_the_reason_names_the_numbers():
    facts = Facts(new_preferences=7, minutes_since=None, job_open=False)
    assert is_due(RetrainRule(after_preferences=10), facts)[1] == "7 of 10 new preferences"


def test_it_waits_for_the_policy_that_is_being_trained():
    facts = Facts(new_preferences=7, minutes_since=None, job_open=False, policy_in_the_making=True)
    assert is_due(RetrainRule(after_preferences=1), facts) == (
        False,
        "the policy that it would start from is still being trained",
    )


@pytest.fixture
def annotator(project):
    return make_annotator(project)


def answer(project, annotator, count, **comparisons):
    """That many answers on train prompts; the rest of the comparisons made are out of the queue."""
    made = make_comparisons(project, 20, **comparisons)
    asked = [one.pk for one in made if one.prompt.split == "train"][:count]
    project.comparisons.exclude(pk__in=asked).update(retired_at=timezone.now())
    for _ in asked:
        lease = queue.claim_comparison(annotator=annotator)
        key = f"answer to {lease.pk}"
        queue.submit_preference(assignment=lease, rankings=as_shown(lease), key=key)


def test_answers_count_until_a_reward_job_has_seen_them(project, annotator):
    answer(project, annotator, 3)
    assert facts_of(project) == Facts(new_preferences=3, minutes_since=None, job_open=False)
    assert [facts_of(project, most=most).new_preferences for most in (1, 2, 3)] == [2, 3, 3]
    job = jobs.request_training(project=project, kind="reward")
    assert facts_of(project).job_open
    jobs.claim_job(job_id=job.pk, worker="w")
    newest = project.preferences.order_by("pk").last()
    snapshot = DatasetSnapshot.objects.create(
        project=project,
        kind="comparisons",
        query={},
        ledger_position={"preference": newest.pk},
        sha256="0" * 64,
        path="x",
        rows=3,
        counts={},
    )
    jobs.store_inputs(job_id=job.pk, attempt=1, chosen={"snapshot": snapshot})
    jobs.finish_job(job_id=job.pk, attempt=1)
    facts = facts_of(project)
    assert (facts.new_preferences, facts.job_open) == (0, False)
    assert 0 <= facts.minutes_since < 5
    answer(project, annotator, 2, batch="second")
    assert facts_of(project).new_preferences == 2


def test_a_reward_job_that_failed_before_it_froze_anything_has_seen_what_was_there(
    project, annotator
):
    answer(project, annotator, 3)
    job = jobs.request_training(project=project, kind="reward")
    jobs.claim_job(job_id=job.pk, worker="w")
    jobs.fail_job(job_id=job.pk, attempt=1, error="no", exit_code=2)
    assert facts_of(project).new_preferences == 0


def test_evaluation_and_gold_answers_do_not_count(project, annotator):
    answer(project, annotator, 2, purpose="evaluation", batch="evaluation")
    answer(project, annotator, 2, batch="answered as gold")
    Comparison.objects.filter(batch__name="answered as gold").update(purpose="gold")
    assert facts_of(project).new_preferences == 0


def test_a_reward_job_is_asked_for_once(project, annotator):
    project.retrain_rule.after_preferences = 2
    project.retrain_rule.save()
    answer(project, annotator, 2)
    (job,) = request_what_is_due(project)
    assert (job.kind, job.reason) == (JobKind.REWARD, "2 new preferences")
    assert request_what_is_due(project) == []


@pytest.mark.django_db(transaction=True)
def test_two_ticks_at_once_ask_for_one_reward_job(project, annotator, monkeypatch):
    project.retrain_rule.after_preferences = 2
    project.retrain_rule.save()
    answer(project, annotator, 2)
    plain = retraining.is_due

    def takes_its_time(rule, facts):
        Event().wait(0.5)
        return plain(rule, facts)

    monkeypatch.setattr(retraining, "is_due", takes_its_time)

    def tick():
        try:
            return request_what_is_due(Project.objects.get(pk=project.pk))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        found = [one.result() for one in [pool.submit(tick) for _ in range(2)]]
    assert sorted(len(jobs_of_tick) for jobs_of_tick in found) == [0, 1]
    assert TrainingJob.objects.filter(kind="reward").count() == 1


@pytest.fixture
def make_version(artifacts):
    def make(name, kind):
        folder = artifacts / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"x")
        return versions.register_version(kind=kind, stage="registered", directory=folder)

    return make


def test_ppo_follows_a_reward_model_that_was_there_before_the_first_policy(project, make_version):
    reward, policy = make_version("r", "reward"), make_version("p", "policy")
    versions.promote(project=project, slot="reward", version=reward, verdict="first")
    assert request_what_is_due(project) == []
    versions.promote(project=project, slot="policy", version=policy, verdict="first")
    (job,) = request_what_is_due(project)
    assert (job.kind, job.reason) == (JobKind.PPO, "r was promoted")
    assert request_what_is_due(project) == []  # it waits
    jobs.claim_job(job_id=job.pk, worker="w")
    jobs.finish_job(job_id=job.pk, attempt=1)
    assert request_what_is_due(project) == []  # it is done


def test_no_ppo_after_a_roll_back(project, make_version):
    policy = make_version("p", "policy")
    versions.promote(project=project, slot="policy", version=policy, verdict="first")
    for name in ("r1", "r2"):
        reward = make_version(name, "reward")
        versions.promote(project=project, slot="reward", version=reward, verdict="passed")
    TrainingJob.objects.all().update(status="done")
    versions.roll_back(project=project, slot="reward")
    assert request_what_is_due(project) == []
