"""What to do now: stuck things with their reason, decisions that wait, what is due."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.errors import Conflict
from annotation.models import (
    JobStatus,
    ModelVersion,
    Promotion,
    RetrainRule,
    TrainingJob,
)
from annotation.pages.advice import advice_for
from annotation.pages.overview import state_of
from annotation.services import versions
from tests.annotation.test_pages_job_form import answer

PASSED = {"passed": True, "verdict": "passed", "why": "Against a: better."}
FAILED = {"passed": False, "verdict": "failed", "why": "Against a: worse."}


def told(cast) -> list[tuple[str, str]]:
    return [(one.kind, one.sentence) for one in advice_for(state_of(cast.project)["loop"])]


@pytest.fixture
def make(cast):
    """A version of the loop, by stage, and in force where that is said."""

    def make_version(name, stage="ppo", gate=None, *, age=0, promoted=False):
        job = TrainingJob.objects.create(
            project=cast.project, kind=stage, status=JobStatus.DONE, step=3
        )
        version = ModelVersion.objects.create(
            kind="reward" if stage == "reward" else "policy",
            stage=stage,
            name=name,
            path=f"models/{name}",
            sha256=name.rjust(64, "0"),
            job=job,
            metrics={"gate": gate} if gate else {},
        )
        made = timezone.now() - timedelta(seconds=age)
        ModelVersion.objects.filter(pk=version.pk).update(created_at=made)
        if promoted:
            slot = "reward" if stage == "reward" else "policy"
            Promotion.objects.create(
                project=cast.project, slot=slot, version=version, verdict="by_admin"
            )
        return version

    return make_version


def test_an_empty_project_is_told_where_to_begin(cast, enter):
    assert told(cast) == [("due", "There is no policy yet: pretrain one, or register a model.")]
    html = enter(cast.admin).get("/p/shop/live/").content.decode()
    assert "/p/shop/jobs/new/?kind=pretrain" in html
    for other in (cast.reviewer, cast.labeler, cast.researcher):
        assert "What to do now" not in enter(other).get("/p/shop/live/").content.decode()


def test_a_failed_job_is_told_until_it_is_asked_for_again(cast):
    failed = TrainingJob.objects.create(
        project=cast.project, kind="pretrain", status=JobStatus.FAILED, error="No file 'a'."
    )
    assert told(cast) == [("stuck", f"Job {failed.pk} (Pretraining) failed: No file 'a'.")]
    TrainingJob.objects.create(project=cast.project, kind="pretrain")
    assert told(cast) == []


def test_what_no_worker_takes_or_hears_of_is_stuck(cast):
    long_ago = timezone.now() - timedelta(hours=1)
    queued = TrainingJob.objects.create(project=cast.project, kind="pretrain")
    TrainingJob.objects.update(requested_at=long_ago)
    (only,) = told(cast)
    assert only[0] == "stuck"
    assert only[1].startswith(f"Job {queued.pk} (Pretraining) is queued. Nothing is before it")
    TrainingJob.objects.update(status=JobStatus.RUNNING, heartbeat_at=long_ago)
    assert "has said nothing for 36" in told(cast)[0][1]


def test_a_candidate_waits_for_the_admin_with_its_gates_words(cast, make):
    make("a", "sft", promoted=True)
    cast.ask("Work?", ["Yes.", "No."])
    newer = make("b", gate=PASSED)
    sentence = "b passed its gate and waits for you to promote it. Against a: better."
    assert told(cast) == [("decide", sentence)]
    ModelVersion.objects.filter(pk=newer.pk).update(metrics={"gate": FAILED})
    assert told(cast) == [("decide", "b was refused by its gate. Against a: worse.")]
    why = "a is in force; an SFT version takes its place only by an admin."
    waiting = {"passed": False, "verdict": "unjudged", "why": why}
    ModelVersion.objects.filter(pk=newer.pk).update(metrics={"gate": waiting})
    assert told(cast) == [("decide", f"b waits for you to decide. {why}")]
    ModelVersion.objects.filter(pk=newer.pk).update(metrics={})
    assert told(cast) == []  # its gate may be about to run
    ModelVersion.objects.update(created_at=timezone.now() + timedelta(seconds=1))
    Promotion.objects.create(project=cast.project, slot="policy", version=newer, verdict="by_admin")
    assert told(cast) == []


def test_a_gate_that_does_not_run_is_stuck(cast, make):
    make("r", "reward", age=500)
    assert told(cast)[0] == ("stuck", "r waits for its gate: is a worker running for “generate”?")


def test_labelers_without_work_are_told_of_with_the_reason(cast, make):
    make("a", "sft", promoted=True)
    write = ("decide", "Labelers have nothing to do: let the policy write new answers.")
    assert told(cast) == [write]
    comparison = cast.ask("Work?", ["Yes.", "No."])
    assert told(cast) == []
    comparison.batch.paused = True
    comparison.batch.save()
    sentence = "Labelers have nothing to do: “first” is paused with open questions."
    assert told(cast) == [("decide", sentence)]
    TrainingJob.objects.create(project=cast.project, kind="sample")
    assert ("decide", sentence) in told(cast)


def test_answers_nobody_learned_from_are_due_unless_the_rule_sees_to_them(cast, make):
    make("a", "sft", promoted=True)
    answer(cast, 2)
    cast.ask("Work?", ["Yes.", "No."])
    RetrainRule.objects.update(enabled=False)
    due = ("due", "2 answers have not been learned from, and the retrain rule is off.")
    assert told(cast) == [due]
    RetrainRule.objects.update(enabled=True)
    assert told(cast) == []


def test_a_reward_model_that_no_policy_learned_from_is_due(cast, make):
    make("a", "sft", promoted=True)
    cast.ask("Work?", ["Yes.", "No."])
    reward = make("r", "reward", gate=PASSED, promoted=True)
    assert told(cast) == []  # the rule sees to it
    RetrainRule.objects.update(ppo_after_reward=False)
    assert told(cast) == [("due", "No policy has learned from r yet: run PPO.")]
    TrainingJob.objects.create(project=cast.project, kind="ppo", reward=reward, status="done")
    assert told(cast) == []


def test_the_live_part_has_a_query_budget_for_admins_too(
    cast, enter, make, django_assert_max_num_queries
):
    for name in "abc":
        make(name, "sft", promoted=True)
        make(f"r{name}", "reward", gate=PASSED)
        TrainingJob.objects.create(project=cast.project, kind="sample")
    client = enter(cast.admin)
    with django_assert_max_num_queries(32):
        client.get("/p/shop/live/")


# --- two clicks, two admins ---------------------------------------------------------------------


def test_rolling_back_by_a_double_click_goes_back_once(cast, enter, make):
    for name in "abc":
        make(name, promoted=True)
    newest = Promotion.objects.latest("pk")
    client = enter(cast.admin)
    assert f'name="standing" value="{newest.pk}"' in client.get("/p/shop/").content.decode()
    for _ in range(2):
        html = client.post(
            "/p/shop/slots/policy/roll-back/", {"standing": newest.pk}, follow=True
        ).content.decode()
        assert "b is in force again." in html
    assert [one.version.name for one in Promotion.objects.order_by("pk")] == ["a", "b", "c", "b"]


def test_a_roll_back_of_what_is_not_in_force_any_more_is_a_conflict(cast, enter, make):
    make("a", promoted=True)
    make("b", promoted=True)
    seen = Promotion.objects.latest("pk")
    make("c", promoted=True)
    with pytest.raises(Conflict, match="c was put in force meanwhile"):
        versions.roll_back(project=cast.project, slot="policy", seen=seen.pk)
    assert versions.in_force(cast.project, "policy").name == "c"


def test_of_two_admins_who_promote_at_once_the_second_is_told(cast, enter, make):
    a, b = make("a"), make("b")
    client = enter(cast.admin)
    for name, version in (("a", a), ("a", a)):  # a double click
        page = f"/p/shop/versions/{version.pk}/promote/"
        html = client.post(page, {"slot": "policy", "standing": "0"}, follow=True).content.decode()
        assert f"{name} is in force." in html
    page = f"/p/shop/versions/{b.pk}/promote/"
    html = client.post(page, {"slot": "policy", "standing": "0"}, follow=True).content.decode()
    assert "a was put in force meanwhile. Nothing is changed" in html
    assert [one.version for one in Promotion.objects.all()] == [a]
    client.post(page, {"slot": "policy", "standing": str(Promotion.objects.get().pk)})
    assert versions.in_force(cast.project, "policy") == b


STOPPED = (
    "(%s) was stopped, and without it there is no policy: start it again, or register a model."
)
FINE_TUNE = "There is a pretrained model: fine-tune it, and it is the first policy."


@pytest.mark.parametrize(
    ("jobs", "told_of", "sentence"),
    [
        (["pretrain cancelled"], 0, STOPPED % "Pretraining"),
        (["pretrain cancelled", "sft cancelled"], 0, STOPPED % "Pretraining"),
        (["pretrain version", "sft cancelled"], 1, STOPPED % "Supervised fine-tuning"),
        (["sft cancelled"], 0, STOPPED % "Supervised fine-tuning"),
        (["pretrain version"], None, FINE_TUNE),
        (["pretrain version", "pretrain cancelled"], None, FINE_TUNE),
        (["pretrain cancelled", "pretrain running"], None, ""),
        (["pretrain version", "sft cancelled", "sft running"], None, ""),
    ],
)
def test_the_way_to_a_first_policy_goes_on_after_a_job_was_stopped(
    cast, make, enter, jobs, told_of, sentence
):
    made = []
    for each in jobs:
        kind, state = each.split()
        if state == "version":
            made.append(make(f"v{len(made)}", kind).job)
        else:
            made.append(TrainingJob.objects.create(project=cast.project, kind=kind, status=state))
    found = [said for kind, said in told(cast) if kind == "due"]
    expected = sentence if told_of is None else f"Job {made[told_of].pk} {sentence}"
    assert found == ([expected] if sentence else [])
    if told_of is not None:
        html = enter(cast.admin).get("/p/shop/live/").content.decode()
        again = f"/p/shop/jobs/new/?from={made[told_of].pk}"
        assert f'<a class="act" href="{again}">Start it again</a>' in html
        assert enter(cast.admin).get(again).status_code == 200
