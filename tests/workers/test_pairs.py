"""workers.pairs: a sample job with a real (tiny) policy, from claim to comparisons."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from annotation.models import Comparison, Generation, JobStatus, Purpose, TrainingJob
from annotation.services import jobs, queue, versions
from annotation.services.ledger import add_prompt
from tests.annotation.making import make_annotator, make_project, make_prompts
from tests.workers.tiny import tiny_policy
from workers import distinct, pairs
from workers.distinct import Wish, distinct_completions
from workers.generation import MODELS, Models, Sampling, write_completions
from workers.sampling import run_sample_job
from workers.topup import request_top_up

pytestmark = pytest.mark.django_db
CONFIG = {"max_new_tokens": 8, "temperature": 1.0}
SAMPLING = Sampling(temperature=1.0, max_new_tokens=8)


@pytest.fixture
def policy(project, artifacts):
    folder = tiny_policy(artifacts / "models" / "p")
    version = versions.register_version(kind="policy", stage="registered", directory=folder)
    versions.promote(project=project, slot="policy", version=version, verdict="registered")
    TrainingJob.objects.all().delete()
    return version


@pytest.fixture
def prompts(project):
    return make_prompts(project, ["train"] * 6 + ["dev"] * 3 + ["test"] * 3)


def sample(project, **wish):
    job = jobs.request_training(project=project, kind="sample", config=CONFIG, **wish)
    run_sample_job(job.pk)
    job.refresh_from_db()
    return job


def test_the_policy_writes_until_enough_comparisons_are_open(project, policy, prompts):
    project.open_target = 5
    project.heldout_share = 0.0
    project.save()
    job = sample(project)
    assert job.status == JobStatus.DONE, job.error
    assert job.init == policy
    assert (job.result["comparisons"], job.result["completions"]) == (5, 10)
    assert (job.step, job.total_steps) == (5, 5)
    for comparison in Comparison.objects.all():
        assert comparison.prompt.split == "train"
        assert comparison.purpose == Purpose.PRODUCTION
        assert comparison.open_slots == project.answers_wanted
        assert (comparison.selector, comparison.propensity) == ("uniform-1", pytest.approx(5 / 6))
        texts = [entry.completion.text for entry in comparison.entries.all()]
        assert len(set(texts)) == len(texts) == 2
    generation = Generation.objects.first()
    assert (generation.job, generation.model_version) == (job, policy)
    assert generation.sampling == {"temperature": 1.0, "max_new_tokens": 8}
    assert generation.seed is not None
    assert generation.finish_reason in ("end", "length")
    assert sample(project).result["comparisons"] == 0  # enough are open


def test_held_out_prompts_are_for_evaluation(project, policy, prompts):
    project.heldout_share = 1.0
    project.save()
    job = sample(project, inputs={"comparisons": 4})
    assert job.result["evaluation"] == job.result["comparisons"] == 4
    splits = {c.prompt.split for c in Comparison.objects.all()}
    assert splits <= {"dev", "test"}
    assert {c.purpose for c in Comparison.objects.all()} == {Purpose.EVALUATION}


def test_run_again_after_a_kill_it_writes_nothing_twice(project, policy, prompts, monkeypatch):
    """Killed after three prompts; the next attempt follows the plan in the row."""
    written = []
    real = pairs._Writing.open

    def dies_after_three(*arguments):
        if len(written) == 3:
            raise SystemExit
        written.append(arguments)
        return real(*arguments)

    job = jobs.request_training(
        project=project, kind="sample", config=CONFIG, inputs={"comparisons": 5}
    )
    with monkeypatch.context() as patch:
        patch.setattr(pairs._Writing, "open", dies_after_three)
        with pytest.raises(SystemExit):
            run_sample_job(job.pk)
    assert Comparison.objects.count() == 3
    TrainingJob.objects.filter(pk=job.pk).update(status=JobStatus.QUEUED)
    run_sample_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.attempt) == (JobStatus.DONE, 2)
    assert Comparison.objects.count() == len(job.inputs["planned"]) == 5
    assert Generation.objects.count() == 10


def test_where_the_ledger_is_out_of_reach_the_job_is_left_to_its_stale_heartbeat(
    project, policy, prompts, monkeypatch
):
    def locked(*_):
        raise OperationalError("database is locked")

    job = jobs.request_training(
        project=project, kind="sample", config=CONFIG, inputs={"comparisons": 3}
    )
    with monkeypatch.context() as patch:
        patch.setattr(pairs._Writing, "open", locked)
        with pytest.raises(OperationalError):
            run_sample_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error) == (JobStatus.RUNNING, "")
    jobs.requeue_stale(now=timezone.now() + timedelta(days=1))
    run_sample_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.result["comparisons"]) == (JobStatus.DONE, 3)


def test_a_completion_can_be_drawn_again_from_its_row(project, policy, prompts):
    """The seed and the sampling settings that the ledger keeps give the same text."""
    sample(project, inputs={"comparisons": 3})
    for generation in Generation.objects.all():
        messages = {1: generation.completion.prompt.messages}
        (again,) = write_completions(
            MODELS.policy(policy),
            [messages[1]],
            seeds=[generation.seed],
            sampling=Sampling(**generation.sampling),
        )
        assert again.text == generation.completion.text


def said_already(text, others):
    return "again" if not text.strip() or text in others else ""


@pytest.fixture
def says(monkeypatch):
    """Let the policy say these texts, one after the other."""

    def script(*texts):
        queue, write = list(texts), distinct.write_completions

        def written(*args, **options):
            return [replace(one, text=queue.pop(0)) for one in write(*args, **options)]

        monkeypatch.setattr(distinct, "write_completions", written)

    return script


def test_a_leak_and_a_likeness_are_caught_counted_and_written_anew(project, policy, prompts, says):
    says("I am ChatGPT, ask me.", "Open from ten.", "open from ten!", "Open from four.")
    job = sample(project, inputs={"comparisons": 1})
    assert job.status == JobStatus.DONE, job.error
    (comparison,) = Comparison.objects.all()
    texts = {entry.completion.text for entry in comparison.entries.all()}
    assert texts == {"Open from ten.", "Open from four."}
    assert (job.result["leaks_caught"], job.result["alike_caught"]) == (1, 1)


def test_a_lead_may_switch_either_off(project, policy, prompts, says):
    project.catch_leaks = project.catch_alike = False
    project.save()
    says("I am ChatGPT, ask me.", "i am chatgpt ask me")
    job = sample(project, inputs={"comparisons": 1})
    assert job.result["comparisons"] == 1
    assert (job.result["leaks_caught"], job.result["alike_caught"]) == (0, 0)


def test_where_it_is_all_leaks_nothing_is_opened(project, policy, prompts, says):
    says(*["I am ChatGPT."] * 20)
    job = sample(project, inputs={"comparisons": 1})
    assert job.result["comparisons"] == 0
    assert job.result["leaks_caught"] == 2 * distinct.ROUNDS
    assert Generation.objects.count() == 0


def drawn(policy, sampling, **wish):
    """What a wish about one question is given."""
    wish = Wish(messages=[{"role": "user", "content": "One?"}], seeds=(7,), **wish)
    found, dropped = distinct_completions(
        MODELS.policy(policy), {7: wish}, fault=said_already, seed=1, sampling=sampling
    )
    return found[7], dropped


def test_identical_completions_are_dropped_counted_and_drawn_again(policy):
    greedy = Sampling(temperature=0.0, max_new_tokens=8)  # says the same each time
    found, dropped = drawn(policy, greedy, wanted=2)
    assert len(found.written) == 1
    assert dropped == {"again": distinct.ROUNDS}  # one in the first round's two, then one each
    found, dropped = drawn(policy, SAMPLING, wanted=5)
    assert len({one.text for one in found.written}) == len(found.written) == 5


def test_a_prompt_with_too_few_different_answers_opens_no_comparison(project, policy, prompts):
    job = jobs.request_training(
        project=project,
        kind="sample",
        config={**CONFIG, "temperature": 0.0},
        inputs={"comparisons": 2},
    )
    run_sample_job(job.pk)
    job.refresh_from_db()
    assert job.result["too_few_distinct"] == 2
    assert job.result["comparisons"] == 0


def test_a_prompt_that_holds_more_than_text_is_left_out_and_counted(project, policy):
    add_prompt(
        project=project,
        source=project.sources.get(),
        messages=[{"role": "user", "content": [{"type": "image", "url": "x"}]}],
        split="train",
    )
    project.heldout_share = 0.0
    project.save()
    assert sample(project, inputs={"comparisons": 1}).result["without_text"] == 1


def test_prompts_of_other_projects_or_of_nobody_are_never_written_for(project, policy, prompts):
    other = make_project()
    theirs, _ = add_prompt(
        project=other,
        source=other.sources.get(),
        messages=[{"role": "user", "content": "A secret?"}],
    )
    job = jobs.request_training(project=project, kind="sample", config=CONFIG)
    TrainingJob.objects.filter(pk=job.pk).update(inputs={"planned": [theirs.pk, 10**6]})
    run_sample_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.result["comparisons"]) == (JobStatus.DONE, 0)
    assert not theirs.completions.exists()


def test_without_a_policy_the_job_fails_with_the_sentence(project):
    job = sample(project)
    assert (job.status, job.exit_code) == (JobStatus.FAILED, 2)
    assert job.error.startswith("This job needs a policy in force to write with")


def test_an_unknown_setting_fails_the_job_with_its_name(project, policy, prompts):
    job = jobs.request_training(project=project, kind="sample", config={"top_p": 0.9})
    run_sample_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.exit_code) == (JobStatus.FAILED, 2)
    assert "SampleConfig has no setting 'top_p'" in job.error


def test_a_cancel_ends_it_between_batches(project, policy, prompts, monkeypatch):
    job = jobs.request_training(project=project, kind="sample", config=CONFIG)
    real = distinct.write_completions

    def cancelled_meanwhile(*arguments, **named):
        jobs.cancel_job(job=job, by=None)
        beating[0].pulse = jobs.Pulse.CANCEL  # as its next heartbeat would find
        return real(*arguments, **named)

    beating = []
    keep = pairs.write_comparisons

    def remember(job, one):
        beating.append(one)
        return keep(job, one)

    monkeypatch.setattr(distinct, "write_completions", cancelled_meanwhile)
    monkeypatch.setattr("workers.sampling.write_comparisons", remember)
    run_sample_job(job.pk)
    job.refresh_from_db()
    assert job.status == JobStatus.CANCELLED
    assert not Comparison.objects.exists()


def test_models_are_kept_and_the_least_used_go(project, artifacts):
    kept = Models(kept=2)
    found = [
        versions.register_version(
            kind="policy",
            stage="registered",
            directory=tiny_policy(artifacts / "models" / name, seed=seed),
        )
        for seed, name in enumerate("abc")
    ]
    a = kept.policy(found[0])
    kept.policy(found[1])
    assert kept.policy(found[0]) is a
    kept.policy(found[2])  # b goes
    assert kept.policy(found[0]) is a
    assert len(kept._loaded) == 2


def test_a_bad_setting_fails_one_job_and_not_one_per_tick(project, policy, prompts):
    project.job_defaults = {"sample": {"top_p": 0.9}}
    project.save()
    job = request_top_up(project)
    run_sample_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.init) == (JobStatus.FAILED, policy)
    assert request_top_up(project) is None


@pytest.fixture
def improved(artifacts):
    """Another policy, not in force."""
    folder = tiny_policy(artifacts / "models" / "q", seed=1)
    return versions.register_version(kind="policy", stage="registered", directory=folder)


def test_a_promoted_policy_writes_though_enough_is_open_and_is_asked_about_first(
    project, policy, prompts, improved
):
    project.open_target, project.heldout_share = 2, 0.0
    project.job_defaults = {"sample": CONFIG}
    project.save()
    sample(project)
    annotator = make_annotator(project)
    versions.promote(project=project, slot="policy", version=improved, verdict="by_admin")
    run_sample_job(TrainingJob.objects.get(status=JobStatus.QUEUED).pk)
    writers = []
    for _ in range(4):
        lease = queue.claim_comparison(annotator=annotator)
        generations = Generation.objects.filter(completion__comparisons=lease.comparison)
        writers += generations.values_list("model_version", flat=True).distinct()
        queue.skip_comparison(assignment=lease)
    assert writers == [improved.pk] * 2 + [policy.pk] * 2


def test_a_policy_that_is_not_in_force_any_more_is_not_asked_about_first(
    project, policy, prompts, improved
):
    """Its job waited while another was promoted."""
    versions.promote(project=project, slot="policy", version=improved, verdict="by_admin")
    for version in (policy, improved):
        sample(project, init=version, inputs={"comparisons": 1})
    old, new = Comparison.objects.order_by("pk")
    assert old.priority < new.priority
