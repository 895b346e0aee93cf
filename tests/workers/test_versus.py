"""workers.versus: two real (tiny) policies answer the same dev prompts."""

from dataclasses import replace

import pytest

from annotation.models import (
    Comparison,
    Generation,
    JobStatus,
    Preference,
    Purpose,
    TrainingJob,
)
from annotation.services import jobs, ledger, versions
from annotation.services.meetings import PEOPLE, meetings_of
from annotation.services.review import void_preference
from annotation.services.wishes import ask_for_training
from tests.annotation.making import make_annotator, make_comparisons, make_member, make_prompts
from tests.annotation.voting import cast
from tests.workers.tiny import tiny_policy
from workers import versus
from workers.sampling import run_sample_job

# a text's seed comes of the ids of job, version and prompt, and a tiny policy's may be blank
pytestmark = pytest.mark.django_db(transaction=True, reset_sequences=True)
CONFIG = {"max_new_tokens": 6, "temperature": 1.0}


@pytest.fixture
def pair(project, artifacts):
    found = []
    for seed, name in enumerate("pq"):
        folder = tiny_policy(artifacts / "models" / name, seed=seed)
        version = versions.register_version(kind="policy", stage="registered", directory=folder)
        versions.promote(project=project, slot="policy", version=version, verdict="registered")
        found.append(version)
    TrainingJob.objects.all().delete()
    return found


def run(project, pair, *, against=None, split=None, **config):
    inputs = {"against": against or pair[1].pk, "comparisons": 4}
    if split:
        inputs["split"] = split
    job = ask_for_training(
        project=project,
        by=make_member(project, "admin"),
        kind="sample",
        lane="experiment",
        init=pair[0],
        config=CONFIG | config,
        inputs=inputs,
    )
    run_sample_job(job.pk)
    job.refresh_from_db()
    return job


def test_both_answer_the_same_dev_prompts_and_people_are_asked(project, pair):
    make_prompts(project, ["train"] * 3 + ["dev"] * 5 + ["test"] * 2)
    job = run(project, pair)
    assert job.status == JobStatus.DONE, job.error
    assert len(job.inputs["planned"]) == 4
    asked = list(Comparison.objects.all())
    assert len(asked) == job.result["comparisons"] > 0
    assert sum(job.result.values()) == 4
    for comparison in asked:
        assert (comparison.purpose, comparison.prompt.split) == (Purpose.EVALUATION, "dev")
        assert comparison.propensity == 4 / 5
        wrote = Generation.objects.filter(completion__entries__comparison=comparison)
        assert set(wrote.values_list("model_version", flat=True)) == {one.pk for one in pair}


def test_the_same_text_of_both_is_a_tie_without_a_question(project, pair, artifacts):
    make_prompts(project, ["dev"] * 3)
    folder = tiny_policy(artifacts / "models" / "twin", seed=0)  # the weights of the first
    twin = versions.register_version(kind="policy", stage="registered", directory=folder)
    versions.promote(project=project, slot="policy", version=twin, verdict="registered")
    job = run(project, [pair[0], twin], temperature=0.0)
    assert job.status == JobStatus.DONE, job.error
    assert (job.result["identical"], job.result["comparisons"]) == (3, 0)
    assert not Comparison.objects.exists()
    assert Generation.objects.count() == 6


def test_blank_answers_are_noted_and_nobody_is_asked(project, pair, monkeypatch):
    make_prompts(project, ["dev"] * 4)
    said = {pair[0].pk: ["A", " \n", "", "B"], pair[1].pk: ["C", "D", "\t", "\x00"]}

    def answers(job, version, asked, *rest):
        wrote = write(job, version, asked, *rest)
        return [replace(one, text=text) for one, text in zip(wrote, said[version.pk], strict=True)]

    write = versus._answers
    monkeypatch.setattr(versus, "_answers", answers)
    job = run(project, pair)
    assert job.status == JobStatus.DONE, job.error
    assert job.result == {"comparisons": 1, "identical": 0, "blank": 3}
    drawn = [str(pk) for pk in job.inputs["planned"]]
    first, second = pair[0].pk, pair[1].pk
    assert job.inputs["blank"] == {
        drawn[1]: [first],
        drawn[2]: [first, second],
        drawn[3]: [second],
    }
    assert Generation.objects.count() == 4
    assert Comparison.objects.get().prompt_id == job.inputs["planned"][0]


def test_test_prompts_are_drawn_where_these_are_asked_for(project, pair):
    make_prompts(project, ["dev"] * 3 + ["test"] * 5)
    job = run(project, pair, split="test")
    assert job.status == JobStatus.DONE, job.error
    asked = list(Comparison.objects.all())
    assert len(asked) == job.result["comparisons"] > 0
    for comparison in asked:
        assert (comparison.purpose, comparison.prompt.split) == (Purpose.EVALUATION, "test")
        assert (comparison.propensity, comparison.selector) == (4 / 5, "uniform-test-1")
        assert comparison.batch.name.endswith("(test)")


def test_a_version_meets_peoples_own_answers_on_the_prompts_that_they_answered(project, pair):
    make_prompts(project, ["dev"] * 4)
    source = project.sources.get()
    simulated = make_annotator(project)
    simulated.kind = "simulated"
    simulated.save()
    prompts = list(project.prompts.order_by("pk"))
    wrote = {}
    for prompt, texts in zip(prompts, (["One.", "Two."], ["Mine."], [], ["Not a person's."])):
        for text in texts:
            completion, _ = ledger.add_completion(prompt=prompt, source=source, text=text)
            by = simulated if "Not" in text else None
            ledger.record_generation(
                completion=completion, origin="demonstration", writer="w", annotator=by
            )
            wrote[completion.pk] = prompt.pk
    job = run(project, pair, against=PEOPLE)
    assert job.status == JobStatus.DONE, job.error
    assert set(job.inputs["planned"]) == {prompts[0].pk, prompts[1].pk}
    assert job.inputs["propensities"] == [1.0, 1.0]
    assert {int(key): wrote[value] for key, value in job.inputs["human"].items()} == {
        prompts[0].pk: prompts[0].pk,
        prompts[1].pk: prompts[1].pk,
    }
    shown = Comparison.objects.get(prompt=prompts[1])
    mine = prompts[1].completions.get(text="Mine.")
    (other,) = shown.completions.exclude(pk=mine.pk)
    assert other.generations.get().model_version == pair[0]
    (meeting,) = meetings_of(project)
    assert meeting.pair == tuple(sorted((PEOPLE, f"p #{pair[0].pk}")))
    assert frozenset((mine.pk, other.pk)) in meeting.asked


def test_an_answer_that_is_void_by_its_turn_is_left_out(project, pair):
    make_prompts(project, ["dev"] * 2)
    source, writer = project.sources.get(), make_annotator(project)
    chosen = {}
    for prompt in project.prompts.order_by("pk"):
        completion, _ = ledger.add_completion(prompt=prompt, source=source, text="Mine.")
        ledger.record_generation(
            completion=completion, origin="demonstration", writer=str(prompt.pk), annotator=writer
        )
        chosen[prompt.pk] = completion.pk
    kept, gone = chosen
    vote = cast(make_comparisons(project, 1)[0], writer)
    Preference.objects.filter(pk=vote.pk).update(ideal=chosen[gone])
    void_preference(preference=vote, by=make_member(project, "admin"), reason="spam")
    inputs = {
        "against": PEOPLE,
        "planned": [gone, kept],  # before it was void
        "propensities": [1.0, 1.0],
        "human": {str(prompt): pk for prompt, pk in chosen.items()},
    }
    job = jobs.request_training(
        project=project, kind="sample", config=CONFIG, inputs={"against": PEOPLE}, init=pair[0]
    )
    TrainingJob.objects.filter(pk=job.pk).update(inputs=inputs)
    run_sample_job(job.pk)
    job.refresh_from_db()
    assert job.status == JobStatus.DONE, job.error
    asked = Comparison.objects.filter(purpose=Purpose.EVALUATION)
    assert [one.prompt_id for one in asked] == [kept]
    assert sum(job.result.values()) == 1


def test_people_who_answered_nothing_cannot_be_met(project, pair):
    make_prompts(project, ["dev"])
    inputs = {"against": PEOPLE, "comparisons": 1}
    job = jobs.request_training(
        project=project, kind="sample", config=CONFIG, inputs=inputs, init=pair[0]
    )
    run_sample_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.exit_code) == (JobStatus.FAILED, 2)
    assert "prompts of the dev split that people answered" in job.error


def test_a_run_that_is_repeated_writes_nothing_twice(project, pair):
    make_prompts(project, ["dev"] * 3)
    job = run(project, pair)
    counts = (Comparison.objects.count(), Generation.objects.count())
    TrainingJob.objects.filter(pk=job.pk).update(status=JobStatus.QUEUED)
    run_sample_job(job.pk)
    assert (Comparison.objects.count(), Generation.objects.count()) == counts


def test_a_job_of_one_policy_alone_fails_with_a_sentence(project, pair):
    make_prompts(project, ["dev"])
    job = jobs.request_training(
        project=project, kind="sample", config=CONFIG, inputs={"against": pair[0].pk}, init=pair[0]
    )
    run_sample_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.exit_code) == (JobStatus.FAILED, 2)
    assert job.error.startswith("A head to head wants two policies")
