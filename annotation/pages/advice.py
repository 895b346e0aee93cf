"""What an admin should do now: what is stuck and why, what waits for a decision, what is due.

Each line is one plain sentence and the place to act on it; the worst stands first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.faults import in_words as fault_in_words
from annotation.models import (
    Batch,
    JobKind,
    JobStatus,
    Lane,
    ModelVersion,
    Project,
    Promotion,
    Question,
    QuestionState,
    RetrainRule,
    Slot,
    TrainingJob,
)
from annotation.pages.alarms import ringing
from annotation.pages.due import Due
from annotation.pages.queued import waits_of
from annotation.services.disagreements import open_reviews
from annotation.services.queued import why_queued
from annotation.services.versions import KIND_OF_SLOT, newest_pretrained
from annotation.verdicts import in_words, outcome_of

STUCK, DECIDE, DUE = "stuck", "decide", "due"
LONGEST_ERROR = 180
NEWEST_JOBS = 100
"""Looked through for the newest of each kind."""
GATE_SECONDS = 120
"""A version made longer ago, and not judged, waits for a worker."""
SLOT_OF_STAGE = {
    JobKind.SFT: Slot.POLICY,
    JobKind.PPO: Slot.POLICY,
    JobKind.REWARD: Slot.REWARD,
}


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to do. kind: stuck, decide or due."""

    kind: str
    sentence: str
    url: str = ""
    act: str = ""
    """What the link says."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What the overview knows of the loop already."""

    project: Project
    in_force: dict[str, Promotion]
    active: list[TrainingJob]
    num_open: int
    due: Due
    rule: RetrainRule | None
    now: datetime


def advice_for(loop: Loop) -> list[Advice]:
    """All that an admin should do now, stuck things first; empty where nothing is wanted."""
    newest = _newest_of_each_kind(loop.project)
    found = [
        *_failed(loop, newest),
        *_silent(loop),
        *_alarmed(loop),
        *_candidates(loop),
        *_work_for_people(loop),
        *_next_training(loop, newest),
    ]
    return sorted(found, key=lambda one: (STUCK, DECIDE, DUE).index(one.kind))


def _newest_of_each_kind(project: Project) -> dict[str, TrainingJob]:
    """Jobs of the loop, by kind."""
    jobs = project.jobs.filter(lane=Lane.LOOP).order_by("-pk")[:NEWEST_JOBS]
    return {job.kind: job for job in reversed(jobs)}


def _failed(loop: Loop, newest: dict[str, TrainingJob]) -> Iterator[Advice]:
    """The newest job of its kind failed, and nobody has asked again."""
    for job in newest.values():
        if job.status == JobStatus.FAILED:
            error = fault_in_words(job.error.strip())[:LONGEST_ERROR]
            named = {"number": job.pk, "kind": job.get_kind_display(), "error": error}
            yield Advice(
                STUCK,
                _("Job %(number)s (%(kind)s) failed: %(error)s") % named,
                reverse("job", args=[loop.project.slug, job.pk]),
                _("Look at it"),
            )


def _silent(loop: Loop) -> Iterator[Advice]:
    """Jobs that no worker takes, and those whose worker says nothing any more."""
    slug = loop.project.slug
    queued = [job for job in loop.active if job.status == JobStatus.QUEUED]
    silent = [pk for pk, wait in why_queued(queued).items() if wait.silent_seconds]
    sentences = waits_of([job for job in queued if job.pk in silent])
    for job in queued:
        if job.pk in sentences:
            named = {"number": job.pk, "kind": job.get_kind_display(), "why": sentences[job.pk]}
            sentence = _("Job %(number)s (%(kind)s) is queued. %(why)s") % named
            yield Advice(STUCK, sentence, reverse("job", args=[slug, job.pk]), _("Look at it"))
    patience = timedelta(seconds=2 * settings.STALE_SECONDS)
    for job in loop.active:
        is_running = job.status == JobStatus.RUNNING and job.heartbeat_at is not None
        if is_running and job.heartbeat_at and loop.now - job.heartbeat_at > patience:
            seconds = int((loop.now - job.heartbeat_at).total_seconds())
            named = {"number": job.pk, "kind": job.get_kind_display(), "seconds": str(seconds)}
            sentence = _(
                "Job %(number)s (%(kind)s) has said nothing for %(seconds)s seconds, and nobody "
                "has taken it from its worker: is a worker running for the queue “light”?"
            )
            url = reverse("job", args=[slug, job.pk])
            yield Advice(STUCK, sentence % named, url, _("Look at it"))


def _alarmed(loop: Loop) -> Iterator[Advice]:
    """Running jobs in whose newest step something is out of bounds."""
    running = {job.pk: job for job in loop.active if job.status == JobStatus.RUNNING}
    for job_id, alarms in ringing(running.values()).items():
        for alarm in alarms:
            named = {
                "number": job_id,
                "kind": running[job_id].get_kind_display(),
                "figure": alarm.title,
                "value": alarm.last,
                "help": alarm.help,
            }
            sentence = _("Job %(number)s (%(kind)s) rings: %(figure)s is %(value)s. %(help)s")
            url = reverse("job", args=[loop.project.slug, job_id])
            yield Advice(DECIDE, sentence % named, url, _("Look at it"))


def _candidates(loop: Loop) -> Iterator[Advice]:
    """The newest version of each slot, where it is newer than what is in force and wants a word."""
    made = ModelVersion.objects.filter(
        job__project=loop.project, job__lane=Lane.LOOP, stage__in=SLOT_OF_STAGE
    )
    for slot in (Slot.REWARD, Slot.POLICY):
        version = made.filter(kind=KIND_OF_SLOT[slot]).order_by("-pk").first()
        promotion = loop.in_force.get(slot)
        if version is None or _is_settled(version, promotion):
            continue
        url = reverse("version", args=[loop.project.slug, version.pk])
        gate = version.metrics.get("gate")
        named = {"name": version.name}
        if gate is None:
            if loop.now - version.created_at > timedelta(seconds=GATE_SECONDS):
                sentence = _("%(name)s waits for its gate: is a worker running for “generate”?")
                yield Advice(STUCK, sentence % named, url, _("Look at it"))
            continue
        named["why"] = in_words(gate.get("why", ""))
        if (outcome := outcome_of(gate)) == "failed":
            sentence = _("%(name)s was refused by its gate. %(why)s")
        elif outcome == "undecided":
            sentence = _("%(name)s is undecided. %(why)s")
        elif not gate.get("passed"):
            sentence = _("%(name)s waits for you to decide. %(why)s")
        else:
            sentence = _("%(name)s passed its gate and waits for you to promote it. %(why)s")
        yield Advice(DECIDE, sentence % named, url, _("Decide"))


def _is_settled(version: ModelVersion, promotion: Promotion | None) -> bool:
    """It was in force, or something was put in force after it was made."""
    return promotion is not None and (
        promotion.version_id == version.pk or promotion.created_at > version.created_at
    )


def _work_for_people(loop: Loop) -> Iterator[Advice]:
    project, slug = loop.project, loop.project.slug
    if loop.num_open == 0:
        paused = Batch.objects.filter(
            project=project, paused=True, comparisons__open_slots__gt=0
        ).first()
        writes = any(job.kind == JobKind.SAMPLE for job in loop.active)
        if paused is not None:
            sentence = _("Labelers have nothing to do: “%(name)s” is paused with open questions.")
            url = reverse("batch", args=[slug, paused.pk])
            yield Advice(DECIDE, sentence % {"name": paused.name}, url, _("Look at it"))
        elif not writes and Slot.POLICY in loop.in_force:
            sentence = _("Labelers have nothing to do: let the policy write new answers.")
            url = reverse("job-new", args=[slug]) + "?kind=sample"
            yield Advice(DECIDE, sentence, url, _("Set it up"))
    if questions := project_questions(project):
        words = ngettext(
            "%(count)s question of a labeler waits for an answer.",
            "%(count)s questions of labelers wait for an answer.",
            questions,
        )
        url = reverse("questions", args=[slug])
        yield Advice(DECIDE, words % {"count": questions}, url, _("Answer"))
    if reviews := open_reviews(project).count():
        words = ngettext(
            "%(count)s disagreement waits for a reviewer.",
            "%(count)s disagreements wait for a reviewer.",
            reviews,
        )
        yield Advice(DUE, words % {"count": reviews}, reverse("reviews", args=[slug]), _("Review"))


def project_questions(project: Project) -> int:
    """Questions that nobody has answered."""
    return Question.objects.filter(project=project, state=QuestionState.OPEN).count()


def _next_training(loop: Loop, newest: dict[str, TrainingJob]) -> Iterator[Advice]:
    """The next station of the loop that nothing is on the way to."""
    kinds = {job.kind for job in loop.active}
    set_up = reverse("job-new", args=[loop.project.slug]) + "?kind="
    if Slot.POLICY not in loop.in_force:
        if JobKind.PRETRAIN not in kinds and JobKind.SFT not in kinds:
            yield from _first_policy(loop, newest)
        return
    is_off = loop.rule is None or not loop.rule.enabled
    if is_off and JobKind.REWARD not in kinds and loop.due.have:
        words = ngettext(
            "%(count)s answer has not been learned from, and the retrain rule is off.",
            "%(count)s answers have not been learned from, and the retrain rule is off.",
            loop.due.have,
        )
        words %= {"count": loop.due.have_in_words}
        yield Advice(DUE, words, set_up + "reward", _("Train on them"))
    sees_to_ppo = loop.rule is not None and loop.rule.enabled and loop.rule.ppo_after_reward
    reward = loop.in_force.get(Slot.REWARD)
    if reward and JobKind.PPO not in kinds and not sees_to_ppo:
        used = TrainingJob.objects.filter(project=loop.project, kind=JobKind.PPO, lane=Lane.LOOP)
        learned = Q(reward=reward.version_id) | Q(requested_at__gte=reward.created_at)
        if not used.filter(learned).exists():
            sentence = _("No policy has learned from %(name)s yet: run PPO.")
            url = set_up + "ppo"
            yield Advice(DUE, sentence % {"name": reward.version.name}, url, _("Set it up"))


def _first_policy(loop: Loop, newest: dict[str, TrainingJob]) -> Iterator[Advice]:
    """Where there is none and nothing is on the way to one. What failed is told by _failed."""
    set_up = reverse("job-new", args=[loop.project.slug])
    fine_tuning, pretraining = newest.get(JobKind.SFT), newest.get(JobKind.PRETRAIN)
    has_start = newest_pretrained(loop.project) is not None
    stopped = fine_tuning if has_start or pretraining is None else pretraining
    if stopped is not None and stopped.status == JobStatus.CANCELLED:
        named = {"number": stopped.pk, "kind": stopped.get_kind_display()}
        sentence = _(
            "Job %(number)s (%(kind)s) was stopped, and without it there is no policy: start it "
            "again, or register a model."
        )
        yield Advice(DUE, sentence % named, f"{set_up}?from={stopped.pk}", _("Start it again"))
    elif fine_tuning is None and has_start:
        sentence = _("There is a pretrained model: fine-tune it, and it is the first policy.")
        yield Advice(DUE, sentence, f"{set_up}?kind=sft", _("Set it up"))
    elif fine_tuning is None and pretraining is None:
        sentence = _("There is no policy yet: pretrain one, or register a model.")
        yield Advice(DUE, sentence, f"{set_up}?kind=pretrain", _("Set it up"))
