"""workers.topup: when comparisons are missing, and for which prompts."""

from datetime import timedelta

import pytest
from django.db.models import Count
from django.utils import timezone

from annotation.models import Comparison, JobKind, TrainingJob
from annotation.services import jobs, queue, versions
from annotation.services.projects import annotator_for
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_member,
    make_prompts,
)
from workers.topup import open_comparisons, request_top_up

pytestmark = pytest.mark.django_db


@pytest.fixture
def in_force(project, artifacts):
    """Puts a new policy in force, and nobody asks for its comparisons."""

    def put(name):
        folder = artifacts / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"x")
        version = versions.register_version(kind="policy", stage="registered", directory=folder)
        project.open_target = 0
        versions.promote(project=project, slot="policy", version=version, verdict="first")
        project.open_target = 8
        project.save()
        return version

    return put


@pytest.fixture
def policy(in_force):
    return in_force("p")


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


def test_places_that_came_free_on_gold_and_in_chats_are_no_work_for_anybody(project, policy):
    make_comparisons(project, 4, purpose="gold", batch="gold")
    make_comparisons(project, 3, purpose="live", batch="live")
    assert open_comparisons(project) == 0
    assert request_top_up(project).kind == JobKind.SAMPLE


def ask(project, number, split="train"):
    """That many prompts."""
    return make_prompts(project, [split] * number)


def end(project, policy, planned=(), *, failed=False, comparisons=0, seconds_ago=0):
    """A sample job that ended that long ago."""
    job = jobs.request_training(
        project=project,
        kind="sample",
        init=policy,
    )
    jobs.claim_job(job_id=job.pk, worker="w")
    inputs = {"planned": [prompt.pk for prompt in planned]}
    jobs.store_inputs(job_id=job.pk, attempt=1, chosen={"inputs": inputs})
    if failed:
        jobs.fail_job(job_id=job.pk, attempt=1, error="no")
    else:
        jobs.finish_job(job_id=job.pk, attempt=1, result={"comparisons": comparisons})
    finished_at = timezone.now() - timedelta(seconds=seconds_ago)
    TrainingJob.objects.filter(pk=job.pk).update(finished_at=finished_at)


def test_nothing_is_written_without_a_prompt(project, policy):
    assert request_top_up(project) is None


def test_a_job_that_failed_is_tried_again_later_and_later(project, policy):
    ask(project, 3)
    for failures, seconds in [(1, 60), (2, 120), (3, 240), (7, 3840), (9, 3840)]:
        TrainingJob.objects.all().delete()
        for _ in range(failures - 1):
            end(project, policy, failed=True, seconds_ago=9999)
        end(project, policy, failed=True, seconds_ago=seconds - 10)
        assert request_top_up(project) is None, failures
        TrainingJob.objects.order_by("pk").last().delete()
        end(project, policy, failed=True, seconds_ago=seconds)
        assert request_top_up(project) is not None, failures


def test_a_job_that_failed_before_it_chose_its_policy_is_not_tried_again_at_once(project, policy):
    ask(project, 3)
    end(project, None, failed=True)
    assert request_top_up(project) is None


def test_failures_before_a_success_or_of_another_policy_do_not_count(project, policy, in_force):
    asked = ask(project, 3)
    for _ in range(5):
        end(project, policy, failed=True, seconds_ago=9999)
    end(project, policy, asked, comparisons=1)
    assert request_top_up(project) is not None
    TrainingJob.objects.filter(status="queued").delete()
    end(project, policy, failed=True)
    assert request_top_up(project) is None
    in_force("q")
    assert request_top_up(project) is not None


def test_a_policy_that_had_nothing_new_to_say_is_not_asked_again_about_the_same_prompts(
    project, policy
):
    end(project, policy, ask(project, 3), seconds_ago=9999)
    assert request_top_up(project) is None
    ask(project, 4)  # one of them new
    assert request_top_up(project) is not None


def test_prompts_that_are_never_planned_are_not_waited_for(project, policy):
    project.heldout_share = 0.0
    project.save()
    ask(project, 1, "dev")
    end(project, policy, ask(project, 3), seconds_ago=9999)
    assert request_top_up(project) is None


def test_an_unlucky_draw_of_prompts_is_drawn_again_at_once_and_then_later(project, policy):
    asked = ask(project, 3)
    end(project, policy, asked[:1])
    assert request_top_up(project) is not None
    TrainingJob.objects.filter(status="queued").delete()
    end(project, policy, asked[1:2])
    assert request_top_up(project) is None
    TrainingJob.objects.update(finished_at=timezone.now() - timedelta(seconds=120))
    assert request_top_up(project) is not None


def test_a_job_that_found_enough_comparisons_says_nothing_of_its_policy(project, policy):
    ask(project, 3)
    end(project, policy)
    assert request_top_up(project) is not None


def finish(project, annotator, number, *, answer=False):
    """The annotator is through with that many comparisons."""
    for _ in range(number):
        lease = queue.claim_comparison(annotator=annotator)
        if answer:
            queue.submit_preference(assignment=lease, rankings=as_shown(lease), key=str(lease.pk))
        else:
            queue.skip_comparison(assignment=lease)


def test_what_every_labeler_has_skipped_is_not_waited_for(project, policy):
    make_comparisons(project, 8)
    finish(project, make_annotator(project), 4)
    assert open_comparisons(project) == 4
    assert request_top_up(project) is not None


@pytest.mark.parametrize(
    ("role", "has_labeled", "count"),
    [
        ("labeler", False, 8),
        ("labeler", True, 8),
        ("admin", False, 5),
        ("admin", True, 8),
        ("researcher", False, 5),
        ("researcher", True, 5),
    ],
)
def test_it_is_waited_for_while_another_who_labels_could_take_it(project, role, has_labeled, count):
    make_comparisons(project, 8)
    member = make_member(project, role)
    if has_labeled:
        annotator_for(user=member, project=project)
    finish(project, make_annotator(project), 3)
    assert open_comparisons(project) == count


def test_what_everybody_answered_and_wants_more_answers_is_not_waited_for(project):
    make_comparisons(project, 4, answers_wanted=3)
    for annotator in (make_annotator(project), make_annotator(project)):
        finish(project, annotator, 2, answer=True)
    taken = Comparison.objects.annotate(answers=Count("preferences")).filter(answers=2).count()
    assert open_comparisons(project) == 4 - taken


def test_a_lease_that_was_given_back_may_be_taken_again(project):
    make_comparisons(project, 1)
    queue.release_lease(assignment=queue.claim_comparison(annotator=make_annotator(project)))
    assert open_comparisons(project) == 1


def test_open_comparisons_are_counted_in_one_query(project, django_assert_num_queries):
    make_comparisons(project, 3)
    finish(project, make_annotator(project), 1)
    with django_assert_num_queries(1):
        assert open_comparisons(project) == 2
