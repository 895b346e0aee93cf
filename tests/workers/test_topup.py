"""workers.topup: when comparisons are missing, and for which prompts."""

from collections import Counter

import pytest

from annotation.models import JobKind, TrainingJob
from annotation.services import jobs, versions
from annotation.services.ledger import add_prompt
from tests.annotation.making import make_comparisons
from workers.topup import open_comparisons, plan_prompts, request_top_up

pytestmark = pytest.mark.django_db


@pytest.fixture
def policy(project, artifacts):
    folder = artifacts / "models" / "p"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    version = versions.register_version(kind="policy", stage="registered", directory=folder)
    project.open_target = 0  # promote asks for nothing
    versions.promote(project=project, slot="policy", version=version, verdict="first")
    project.open_target = 8
    project.save()
    return version


def test_nothing_is_written_without_a_policy(project):
    assert request_top_up(project) is None


def test_too_few_open_comparisons_make_one_sample_job(project, policy):
    make_comparisons(project, 6)
    job = request_top_up(project)
    assert (job.kind, job.reason) == (JobKind.SAMPLE, "6 of 8 comparisons are open")
    assert request_top_up(project) is None


def test_enough_open_comparisons_make_none(project, policy):
    make_comparisons(project, 7)
    assert request_top_up(project) is None
    assert open_comparisons(project) == 7


def end(project, policy, *, failed=False, **result):
    job = jobs.request_training(project=project, kind="sample", init=policy)
    jobs.claim_job(job_id=job.pk, worker="w")
    if failed:
        jobs.fail_job(job_id=job.pk, attempt=1, error="no")
    else:
        jobs.finish_job(job_id=job.pk, attempt=1, result=result)


def test_a_job_that_failed_is_not_asked_for_again_until_the_policy_changes(project, policy):
    end(project, policy, failed=True)
    assert request_top_up(project) is None
    TrainingJob.objects.update(init=None)
    assert request_top_up(project) is not None


def test_a_policy_that_had_nothing_new_to_say_is_not_asked_again_about_the_same_prompts(
    project, policy
):
    end(project, policy, comparisons=0, prompts=0)
    assert request_top_up(project) is None
    message = {"role": "user", "content": "A new one?"}
    add_prompt(project=project, source=project.sources.get(), messages=[message])
    assert request_top_up(project) is not None


@pytest.fixture
def prompts(project):
    source = project.sources.get()
    return {
        split: [
            add_prompt(
                project=project,
                source=source,
                messages=[{"role": "user", "content": f"{split} {n}?"}],
                split=split,
            )[0]
            for n in range(200)
        ]
        for split in ("train", "dev", "test")
    }


def test_a_stated_share_is_planned_on_dev_and_test(project, prompts):
    project.heldout_share = 0.2
    planned = plan_prompts(project, count=200, seed=3)
    assert len(set(planned)) == 200
    of = {prompt.pk: split for split, those in prompts.items() for prompt in those}
    counts = Counter(of[pk] for pk in planned)
    heldout = counts["dev"] + counts["test"]
    assert 20 <= heldout <= 60  # binomial(200, 0.2): five standard deviations are 28
    assert counts["dev"] > 0 < counts["test"]


def test_the_plan_follows_from_its_seed(project, prompts):
    plans = [tuple(plan_prompts(project, count=10, seed=seed)) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


def test_prompts_that_wait_for_an_answer_come_last(project, prompts):
    project.heldout_share = 0.0
    busy = {c.prompt_id for c in make_comparisons(project, 30) if c.prompt.split == "train"}
    planned = plan_prompts(project, count=200 + len(busy), seed=0)
    assert set(planned[:200]) == {prompt.pk for prompt in prompts["train"]}
    assert set(planned[200:]) == busy


def test_a_project_with_few_prompts_plans_each_once(project, prompts):
    project.heldout_share = 0.0
    assert len(plan_prompts(project, count=1000, seed=0)) == 200
