"""A project's mix in a real sample job: beside whose text the policy's own is asked about."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
from django.db.models import Q

from annotation.asking import Pairing
from annotation.exporters.folder import write_export
from annotation.models import Comparison, Completion, Generation, Preference, TrainingJob
from annotation.pages.sampled import made_by_sampling
from annotation.services import jobs, versions
from annotation.services.asked import to_be_had
from annotation.services.battles import evaluation_of
from annotation.services.ledger import (
    add_completion,
    batch_for,
    open_comparison,
    record_generation,
)
from annotation.services.opponents import texts_for
from annotation.services.review import void_preference
from tests.annotation.making import make_member, make_prompts
from tests.annotation.voting import cast, make_voter
from tests.workers.tiny import tiny_policy
from workers import distinct
from workers.generation import MODELS
from workers.sampling import run_sample_job

# a text's seed comes of the ids of job and prompt, and a tiny policy's may be blank
pytestmark = pytest.mark.django_db(transaction=True, reset_sequences=True)
CONFIG = {"max_new_tokens": 8, "temperature": 1.0}


@pytest.fixture
def made(project, artifacts):
    """Two policies, the second in force."""
    found = []
    for seed, name in enumerate(("old", "new")):
        folder = tiny_policy(artifacts / "models" / name, seed=seed)
        version = versions.register_version(kind="policy", stage="registered", directory=folder)
        versions.promote(project=project, slot="policy", version=version, verdict="registered")
        found.append(version)
    TrainingJob.objects.all().delete()
    project.heldout_share = 0.0
    project.save()
    return found


@pytest.fixture
def prompts(project):
    return make_prompts(project, ["train"] * 4)


def mix(project, **shares):
    project.asking = shares
    project.save()


def ask(project, comparisons=4, **wish):
    job = jobs.request_training(
        project=project,
        kind="sample",
        config=CONFIG,
        inputs={"comparisons": comparisons},
        **wish,
    )
    return run(job)


def run(job):
    run_sample_job(job.pk)
    job.refresh_from_db()
    assert job.status == "done", job.error
    return job


def writers_of(comparison):
    """Who wrote its texts, in their stored order: version names, or an origin."""
    found = []
    for entry in comparison.entries.all():
        (generation,) = entry.completion.generations.all()
        version = generation.model_version
        found.append(version.name if version else generation.origin)
    return found


@pytest.fixture
def says(monkeypatch):
    """Let the policies say these texts, one after the other."""

    def script(*texts):
        queue, write = list(texts), distinct.write_completions

        def written(*args, **options):
            return [replace(one, text=queue.pop(0)) for one in write(*args, **options)]

        monkeypatch.setattr(distinct, "write_completions", written)
        return queue

    return script


def test_against_the_version_in_force_before_it(project, made, prompts):
    mix(project, in_force=1.0)
    job = ask(project)
    assert (job.result["comparisons"], job.result["asked_in_force"]) == (4, 4)
    for comparison in Comparison.objects.all():
        assert writers_of(comparison) == ["new", "old"]
        assert comparison.selector == "in_force-1"
        assert comparison.propensity == pytest.approx(1.0)
    assert Generation.objects.filter(job=job).count() == 8


def test_a_version_that_is_not_in_force_meets_the_one_that_is(project, made, prompts):
    mix(project, in_force=1.0)
    ask(project, init=made[0])
    assert {tuple(writers_of(one)) for one in Comparison.objects.all()} == {("old", "new")}


def test_what_was_rolled_back_is_met_no_more(project, made, prompts):
    admin = make_member(project, "admin")
    versions.roll_back(project=project, slot="policy", by=admin)
    TrainingJob.objects.all().delete()
    mix(project, in_force=1.0)
    job = ask(project)
    assert (job.result["comparisons"], job.result["asked_same"]) == (4, 4)
    assert "opponent" not in job.inputs


def give(prompt, text, origin, **of):
    completion, _ = add_completion(prompt=prompt, source=prompt.source, text=text)
    record_generation(completion=completion, origin=origin, **of)
    return completion


def test_against_what_a_person_wrote_else_what_came_with_the_dataset(project, made, prompts):
    mix(project, reference=1.0)
    first, second, third, _ = prompts
    give(first, "By a person.", "demonstration", writer="somebody")
    give(first, "By a dataset.", "imported", writer="gpt")
    give(second, "Came along.", "imported", writer="gpt")
    give(third, "Of a model.", "policy", model_version=made[0])
    job = ask(project, 4)
    assert job.result["asked_reference"] == 2
    texts = {
        comparison.prompt_id: comparison.entries.get(position=1).completion.text
        for comparison in Comparison.objects.all()
    }
    assert texts == {first.pk: "By a person.", second.pk: "Came along."}
    assert {tuple(writers_of(one)) for one in Comparison.objects.all()} == {
        ("new", "demonstration"),
        ("new", "imported"),
    }


def test_a_persons_text_that_was_taken_back_meanwhile_is_asked_about_no_more(
    project, made, prompts, monkeypatch
):
    mix(project, reference=1.0)
    written = give(prompts[0], "By a person.", "demonstration", annotator=make_voter(project))
    ask_first = prompts[1]
    a = give(ask_first, "Yes.", "imported", writer="gpt")
    b = give(ask_first, "No.", "imported", writer="claude")
    vote = cast(open_between(project, ask_first, a, b))
    Preference.objects.filter(pk=vote.pk).update(ideal=written)
    job = jobs.request_training(
        project=project, kind="sample", config=CONFIG, inputs={"comparisons": 4}
    )
    admin = make_member(project, "admin")
    real = distinct.write_completions

    def dies(*_, **__):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(distinct, "write_completions", dies)
        with pytest.raises(SystemExit):
            run_sample_job(job.pk)
    assert distinct.write_completions is real
    job.refresh_from_db()
    assert written.pk in [one["beside"] for one in job.inputs["asked"]]
    void_preference(preference=vote, by=admin, reason="spam")
    TrainingJob.objects.filter(pk=job.pk).update(status="queued")
    job = run(job)
    assert job.result["opponent_gone"] == 1
    assert not Comparison.objects.filter(entries__completion=written).exists()


def open_between(project, prompt, *completions):
    batch = batch_for(project=project, name="first", source=prompt.source)
    return open_comparison(batch=batch, prompt=prompt, completions=completions, answers_wanted=1)[0]


def test_against_the_first_text_that_people_judged_for_every_version(project, made, prompts):
    prompt = prompts[0]
    unjudged = give(prompt, "Nobody saw it.", "imported", writer="gpt")
    yes = give(prompt, "Yes.", "imported", writer="gpt")
    no = give(prompt, "No.", "imported", writer="gpt")
    cast(open_between(project, prompt, no, yes), order=[[0], [1]])
    mix(project, anchor=1.0)
    for version in made:
        ask(project, 1, init=version)
    beside = Comparison.objects.filter(selector="anchor-1")
    assert [one.entries.get(position=1).completion for one in beside] == [no, no]
    assert not Comparison.objects.filter(entries__completion=unjudged).exists()


def test_a_job_that_is_run_again_asks_about_the_same(project, made, prompts):
    """Though by now a person wrote, or another text was judged."""
    for prompt in prompts[:2]:
        give(prompt, "Came along.", "imported", writer="gpt")
    earlier = {}
    for prompt in prompts[2:]:
        earlier[prompt] = give(prompt, "Judged later.", "imported", writer="gpt")
        texts = [give(prompt, text, "imported", writer="gpt") for text in ("Yes.", "No.")]
        cast(open_between(project, prompt, *texts))
    mix(project, in_force=0.2, reference=0.4, anchor=0.4)
    job = ask(project, 8)
    assert {one["pairing"] for one in job.inputs["asked"]} == {"in_force", "reference", "anchor"}
    asked = set(Comparison.objects.values_list("pk", flat=True))
    written = set(Completion.objects.values_list("pk", flat=True))
    for prompt in prompts:
        give(prompt, "By a person.", "demonstration", writer="somebody")
    for prompt, text in earlier.items():
        other = give(prompt, "Another.", "imported", writer="gpt")
        cast(open_between(project, prompt, text, other))
    TrainingJob.objects.filter(pk=job.pk).update(status="queued")
    job = run(job)
    assert "opponent_gone" not in job.result
    made_since = Comparison.objects.exclude(pk__in=asked)
    assert set(made_since.values_list("selector", flat=True)) == {""}
    texts_since = Completion.objects.exclude(pk__in=written).exclude(job_text)
    assert not texts_since.exists()


job_text = Q(text__in=("By a person.", "Another."))
"""What the test itself wrote meanwhile."""


def test_a_text_that_names_its_maker_is_put_before_nobody(project, made, prompts):
    give(prompts[0], "I am ChatGPT, a language model trained by OpenAI.", "imported", writer="gpt")
    mix(project, reference=1.0)
    job = ask(project, 1)
    assert (job.result["leaks_caught"], job.result["comparisons"]) == (1, 0)
    project.catch_leaks = False
    project.save()
    assert ask(project, 1).result["comparisons"] == 1


def test_texts_of_checks_are_asked_about_nowhere_else(project, made, prompts):
    prompt = prompts[0]
    texts = [give(prompt, text, "imported", writer="gpt") for text in ("Right.", "Wrong.")]
    gold = batch_for(project=project, name="gold", source=prompt.source, purpose="gold")
    open_comparison(batch=gold, prompt=prompt, completions=texts, answers_wanted=1)
    mix(project, reference=0.5, anchor=0.5)
    job = ask(project, 4)
    assert job.result["asked_same"] == 4
    assert not Comparison.objects.exclude(batch=gold).filter(entries__completion__in=texts).exists()


def test_an_anchor_stays_whatever_is_judged_later_and_a_models_vote_makes_none(
    project, made, prompts
):
    prompt = prompts[0]
    a, b, c = (give(prompt, text, "imported", writer="gpt") for text in ("A.", "B.", "C."))
    cast(open_between(project, prompt, a, c), make_voter(project, "model"))
    assert texts_for(project, Pairing.ANCHOR, [prompt.pk]) == {}
    assert not to_be_had(project)[Pairing.ANCHOR]
    cast(open_between(project, prompt, b, c))
    assert texts_for(project, Pairing.ANCHOR, [prompt.pk]) == {prompt.pk: [b.pk]}
    cast(open_between(project, prompt, a, b))
    assert texts_for(project, Pairing.ANCHOR, [prompt.pk]) == {prompt.pk: [b.pk]}
    assert to_be_had(project)[Pairing.ANCHOR]


def test_a_version_whose_files_are_gone_keeps_nothing_else_from_being_asked(project, made, prompts):
    mix(project, same=0.5, in_force=0.5)
    shutil.rmtree(versions.directory_of(made[0]))
    MODELS._loaded.clear()
    job = ask(project, 8)
    kinds = Counter(one["pairing"] for one in job.inputs["asked"])
    assert (job.result["comparisons"], job.result["opponent_gone"]) == (
        kinds["same"],
        kinds["in_force"],
    )
    assert min(kinds.values()) > 0


def test_what_the_mix_had_no_prompt_left_for_is_counted(project, made, prompts):
    give(prompts[0], "Came along.", "imported", writer="gpt")
    mix(project, reference=1.0)
    job = ask(project, 4)
    assert (job.result["comparisons"], job.result["not_planned"]) == (1, 3)
    assert "no prompt left for them: 3" in made_by_sampling(job)


def test_what_is_like_the_text_beside_is_drawn_anew_and_counted(project, made, prompts, says):
    give(prompts[0], "It opens at ten.", "imported", writer="gpt")
    mix(project, reference=1.0)
    says("it opens at ten", "It opens at noon, I think.")
    job = ask(project, 1)
    assert (job.result["alike_caught"], job.result["comparisons"]) == (1, 1)


def test_a_list_has_one_text_of_another(project, made, prompts):
    project.completions_per_comparison = 4
    mix(project, in_force=1.0)
    ask(project, 1)
    assert writers_of(Comparison.objects.get()) == ["new"] * 3 + ["old"]


def test_texts_are_matched_in_length(project, made, prompts, says):
    """Two rounds: nothing of one length in the first, then two of the four are."""
    left = says("a" * 10, "b" * 40, "c" * 42, "d" * 90)
    mix(project, length_matched=1.0)
    job = ask(project, 1)
    (comparison,) = Comparison.objects.all()
    texts = [entry.completion.text for entry in comparison.entries.all()]
    assert texts == ["b" * 40, "c" * 42]
    assert comparison.selector == "same-length-1"
    assert (job.result["length_matched"], job.result["length_missed"]) == (1, 0)
    assert left == []


def test_where_no_two_are_of_one_length_the_first_are_asked_about_and_counted(
    project, made, prompts, says
):
    says(*(letter * 2**place for place, letter in enumerate("abcdefgh", start=1)))
    mix(project, length_matched=1.0)
    job = ask(project, 1)
    (comparison,) = Comparison.objects.all()
    texts = [entry.completion.text for entry in comparison.entries.all()]
    assert texts == ["a" * 2, "b" * 4]
    assert comparison.selector == "same-unlike-1"
    assert (job.result["length_matched"], job.result["length_missed"]) == (0, 1)


def test_a_text_of_the_length_of_the_one_beside_is_looked_for(project, made, prompts, says):
    give(prompts[0], "x" * 50, "imported", writer="gpt")
    mix(project, reference=1.0, length_matched=1.0)
    says("a" * 20, "b" * 200, "c" * 48)
    ask(project, 1)
    (comparison,) = Comparison.objects.all()
    assert [e.completion.text for e in comparison.entries.all()] == ["c" * 48, "x" * 50]
    assert comparison.selector == "reference-length-1"


def test_the_mix_is_no_head_to_head(project, made):
    """On dev prompts too: there a text that was like the other was drawn anew."""
    make_prompts(project, ["dev"] * 3)
    project.heldout_share = 1.0
    mix(project, in_force=1.0)
    ask(project, 3)
    for comparison in Comparison.objects.all():
        assert comparison.purpose == "evaluation"
        cast(comparison)
    found = evaluation_of(project)
    assert (found.battles, found.trials) == ([], [])
    Comparison.objects.update(selector="uniform-dev-1")
    assert len(evaluation_of(project).battles) == 3


def test_the_researcher_sees_how_each_was_made(project, made, prompts, tmp_path):
    mix(project, in_force=1.0)
    ask(project)
    for comparison in Comparison.objects.all():
        cast(comparison)
    write_export(project=project, format="raw", out=tmp_path / "out")
    (votes,) = (tmp_path / "out").rglob("*.jsonl")
    rows = [json.loads(line)["comparison"] for line in votes.read_text().splitlines()]
    assert [row["selector"] for row in rows] == ["in_force-1"] * 4
