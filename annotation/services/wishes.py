"""Training that a person asks for: what can't possibly run is refused at once, in a sentence.

A rule asks through request_training itself, once its own conditions hold.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Model
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict
from annotation.job_schemas import require_config
from annotation.models import (
    Generation,
    JobKind,
    JobStatus,
    Lane,
    ModelVersion,
    Origin,
    Preference,
    Project,
    Slot,
    Split,
    TrainingJob,
    User,
    VersionKind,
)
from annotation.services.human_answers import human_answers
from annotation.services.jobs import request_training
from annotation.services.judges import request_own_start, share_for
from annotation.services.meetings import PEOPLE, split_of
from annotation.services.versions import in_force, versions_of


def ask_for_training(*, by: User, key: str | None = None, **wish: Any) -> TrainingJob:
    """request_training, for a person. Raises BadInput too for a setting that the kind of job has
    not, and where the job lacks what it needs.

    key: of the form that asks; the same wish under the same key returns the first job. Raises
    Conflict for another wish under it.
    """
    if key and (first := _first(key, wish)):
        return first
    try:
        return _asked(by, key, wish)
    except IntegrityError:
        if key and (first := _first(key, wish)):  # the other half of a double click was quicker
            return first
        raise


def _first(key: str, wish: Mapping[str, Any]) -> TrainingJob | None:
    """The job that was asked for under this key. Raises Conflict if that was another wish."""
    first = TrainingJob.objects.filter(wish_key=key).first()
    if first is not None and first.wish_sha256 != _sha256(wish):
        raise Conflict(
            gettext(
                "This form has queued job %(number)s already, and with other settings. Nothing "
                "more is queued; from a fresh form a second job can be asked for."
            )
            % {"number": first.pk}
        )
    return first


def _sha256(wish: Mapping[str, Any]) -> str:
    """Equal for equal wishes; what is left out or empty is all one."""
    said = {
        name: value.pk if isinstance(value, Model) else value
        for name, value in wish.items()
        if value not in (None, "", {})
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@transaction.atomic
def _asked(by: User, key: str | None, wish: dict[str, Any]) -> TrainingJob:
    job = request_training(by=by, **wish)
    require_config(job.kind, job.config)
    if missing := _missing(job):
        raise BadInput(missing)
    if job.kind == JobKind.JUDGE:
        request_own_start(job)
    if key:
        job.wish_key, job.wish_sha256 = key, _sha256(wish)
        job.save(update_fields=["wish_key", "wish_sha256"])
    return job


def _missing(job: TrainingJob) -> str:
    """What the job would fail for, or nothing."""
    project, kind, has_data = job.project, job.kind, "data" in job.inputs
    policy = job.init or in_force(project, Slot.POLICY)
    if kind == JobKind.PRETRAIN and not has_data:
        return gettext("Pretraining needs text: name one or more files in inputs.data.")
    if kind == JobKind.SFT and not (policy or _has_pretrained(project)):
        return gettext("Fine-tuning needs a model to start from: pretrain or register one first.")
    if kind == JobKind.SFT and not (has_data or _has_demonstrations(project)):
        return gettext("Fine-tuning needs demonstrations, and the project has none to train on.")
    if kind in (JobKind.REWARD, JobKind.JUDGE) and not (has_data or _has_votes(project)):
        return gettext("A reward model needs answers, and the project has none to train on.")
    if kind == JobKind.JUDGE and (has_data or not share_for(job)):
        return gettext(
            "A judge learns from groups that the reward model goes without, and the "
            "project keeps none back (inputs.judge_share)."
        )
    if kind in (JobKind.PPO, JobKind.SAMPLE) and not policy:
        return gettext("This job needs a policy in force, and the project has none.")
    if kind == JobKind.PPO and not (job.reward or in_force(project, Slot.REWARD)):
        return gettext("PPO needs a reward model in force, and the project has none.")
    if kind == JobKind.PPO and not (has_data or project.prompts.filter(split=Split.TRAIN).exists()):
        return gettext("PPO needs prompts, and the project has none to train on.")
    if "against" in job.inputs and (missing := _missing_head_to_head(job, policy)):
        return missing
    if kind == JobKind.SAMPLE and not project.prompts.exists():
        return gettext("Sampling needs prompts, and the project has none.")
    return ""


def _missing_head_to_head(job: TrainingJob, policy: ModelVersion | None) -> str:
    against, split = job.inputs["against"], split_of(job.inputs)
    if job.kind != JobKind.SAMPLE or job.init is None or not _is_other(job, policy):
        return gettext(
            "A head to head is a sampling job of two different policies of the project, or of one "
            "and people's own answers."
        )
    if against == PEOPLE and not human_answers(job.project, split).exists():
        return gettext("No %(split)s prompt of the project has an answer that a person wrote.") % {
            "split": split
        }
    if not job.project.prompts.filter(split=split).exists():
        return gettext("A head to head wants %(split)s prompts, and the project has none.") % {
            "split": split
        }
    return ""


def _is_other(job: TrainingJob, policy: ModelVersion | None) -> bool:
    """People, or another policy of the project."""
    against = job.inputs["against"]
    if against == PEOPLE:
        return True
    other = versions_of(job.project).filter(pk=against, kind=VersionKind.POLICY).first()
    return other is not None and other != policy


def _has_pretrained(project: Project) -> bool:
    """There already, or in the making: fine-tuning waits for it."""
    of_project = ModelVersion.objects.filter(job__project=project, stage=JobKind.PRETRAIN)
    in_the_making = project.jobs.filter(
        kind=JobKind.PRETRAIN,
        lane=Lane.LOOP,
        status__in=(JobStatus.QUEUED, JobStatus.RUNNING),
    )
    return of_project.exists() or in_the_making.exists()


def _has_demonstrations(project: Project) -> bool:
    return Generation.objects.filter(
        origin=Origin.DEMONSTRATION,
        completion__prompt__project=project,
        completion__prompt__split=Split.TRAIN,
    ).exists()


def _has_votes(project: Project) -> bool:
    """Valid ones on train prompts; whether they make pairs the snapshot will tell."""
    valid = Preference.objects.valid().filter(project=project)
    return valid.filter(comparison__prompt__split=Split.TRAIN).exists()
