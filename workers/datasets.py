"""What a job works on, frozen: rows become files, "what is in force" becomes a version.

Chosen once, at the job's first start, and written into its row: a later attempt finds the same
files and versions, without which no checkpoint would fit.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from annotation.errors import BadInput
from annotation.models import (
    DatasetSnapshot,
    JobKind,
    ModelVersion,
    Project,
    Ranking,
    Slot,
    Split,
    TrainingJob,
)
from annotation.services import jobs, judges, versions
from annotation.services.inputs import NO_INIT
from annotation.services.licences import allowed_licences
from annotation.services.projects import current_scheme
from annotation.services.retraining import votes_that_train
from annotation.services.roles import require_no_judge
from annotation.services.snapshots import freeze
from annotation.tombstones import tombstone_of
from policy.config import BadInput as BadLaboratoryInput
from rewardmodel.anchors import sample_anchors, write_anchors


def job_folder(job: TrainingJob) -> Path:
    """Everything that a job's attempts leave behind."""
    return Path(settings.ARTIFACTS_DIR) / "jobs" / str(job.pk)


def freeze_inputs(job: TrainingJob) -> list[str]:
    """The arguments of the public command that name the job's inputs.

    Stores the versions and the snapshot it chose in the job's row. Raises BadInput with a sentence
    where something that the job needs is not there yet.
    """
    return COMMANDS[JobKind(job.kind)](job)


def _pretrain(job: TrainingJob) -> list[str]:
    first = job.inputs.get("judge_of")
    files = _copied_files(job) if first is None else _files_of(TrainingJob.objects.get(pk=first))
    return ["policy", "pretrain", "--data", *map(str, files)]


def _sft(job: TrainingJob) -> list[str]:
    project = job.project
    init = (
        job.init or versions.newest_pretrained(project) or versions.in_force(project, Slot.POLICY)
    )
    _choose(job, init=_needed(init, "a pretrained model to start from"))
    data = _data_file(job, "demonstrations", [Split.TRAIN])
    return ["policy", "sft", "--data", str(data), "--init", _directory(job.init)]


def _reward(job: TrainingJob) -> list[str]:
    """For a judge too, which has a start of its own and other groups."""
    is_judge = job.kind == JobKind.JUDGE
    if job.snapshot is None:  # once: the judge's own pretraining may end between two attempts
        start = judges.start_beside(job)
        _choose(job, init=judges.start_of(start, job.project) if is_judge else start)
    _choose_axis(job)
    if is_judge and "data" in job.inputs:
        raise BadInput(judges.NO_GROUPS)
    if job.snapshot is None and "data" not in job.inputs:
        _choose_groups(job)
    data = _data_file(job, "comparisons", [Split.TRAIN, Split.DEV])
    init = _directory(job.init) if job.init else NO_INIT
    anchors = _anchors(job.project, data)
    return [
        *("rewardmodel", "train", "--data", str(data), "--init", init),
        *(("--anchors", str(anchors)) if anchors else ()),
    ]


def _choose_groups(job: TrainingJob) -> None:
    """Freeze the groups that this job learns from, and ask for the judge of the others with it."""
    _choose(job, inputs={**job.inputs, "judge_share": judges.share_for(job)})
    if job.kind == JobKind.JUDGE and judges.groups_for(job) is None:
        raise BadInput(judges.NO_GROUPS)
    snapshot = _frozen(job, "comparisons", [Split.TRAIN, Split.DEV])
    with transaction.atomic():
        _choose(job, snapshot=snapshot)
        if job.kind == JobKind.REWARD:
            judges.request_judge(beside=job)


def _anchors(project: Project, data: Path) -> Path | None:
    """The project's anchors, drawn from the data of its first reward job and never again, so that
    the scores of every later round are on one scale. None where the data holds no two texts."""
    path = Path(settings.ARTIFACTS_DIR) / "anchors" / f"project-{project.pk}.jsonl"
    if not path.is_file():
        try:
            anchors = sample_anchors(data)
        except BadLaboratoryInput:
            return None  # the trainer says what is wrong with the file
        if len(anchors.items) < 2:
            return None
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        write_anchors(anchors, staged)
        with suppress(FileExistsError):  # another worker was quicker: its anchors stand
            os.link(staged, path)
        staged.unlink()
    return path


def _choose_axis(job: TrainingJob) -> None:
    """Say in the job which axis it learns, where its config names none and the votes have several:
    the first of the newest scheme that was voted on. One model of two orders would learn neither.
    """
    if job.config.get("axis") or job.config.get("axes"):
        return
    if axis := axis_voted_on(job.project):
        _choose(job, config={**job.config, "axis": axis})


def axis_voted_on(project: Project) -> str | None:
    """The first axis of the newest scheme that was voted on; None where votes have one alone."""
    voted = Ranking.objects.filter(preference__project=project).order_by("axis")
    axes = list(voted.values_list("axis", flat=True).distinct())
    if len(axes) < 2:
        return None
    wanted = [axis for axis in current_scheme(project).axes if axis in axes]
    return (wanted or axes)[0]


def _ppo(job: TrainingJob) -> list[str]:
    project = job.project
    init = _needed(
        job.init or versions.in_force(project, Slot.POLICY), "a policy in force to improve"
    )
    reward = _needed(
        job.reward or versions.in_force(project, Slot.REWARD), "a reward model in force"
    )
    require_no_judge(reward)  # by a row from before a waiting job kept its reward from it
    _choose(
        job,
        init=init,
        reference=job.reference or versions.root_of(init),
        reward=reward,
    )
    if project.kl_budget_nats and "kl_stop_nats" not in job.config:
        # what ends beyond the budget would fail its gate
        _choose(job, config={**job.config, "kl_stop_nats": project.kl_budget_nats})
    prompts = _data_file(job, "prompts", [Split.TRAIN])
    return [
        *("policy", "ppo", "--prompts", str(prompts), "--init", _directory(job.init)),
        *("--reference", _directory(job.reference), "--reward-model", _directory(job.reward)),
    ]


COMMANDS: dict[JobKind, Callable[[TrainingJob], list[str]]] = {
    JobKind.PRETRAIN: _pretrain,
    JobKind.SFT: _sft,
    JobKind.REWARD: _reward,
    JobKind.JUDGE: _reward,
    JobKind.PPO: _ppo,
}


def _needed(version: ModelVersion | None, what: str) -> ModelVersion:
    if version is None:
        raise BadInput(f"This job needs {what}, and the project has none.")
    return version


def _directory(version: ModelVersion | None) -> str:
    assert version is not None  # _choose has put it there
    return str(versions.directory_of(version))


def _choose(job: TrainingJob, **chosen: Any) -> None:
    """Write versions, snapshot or inputs into the row, and into the job at hand."""
    for name, value in chosen.items():
        setattr(job, name, value)
    if not jobs.store_inputs(job_id=job.pk, attempt=job.attempt, chosen=chosen):
        raise BadInput(f"Job {job.pk} was taken by another worker.")


def _data_file(job: TrainingJob, kind: str, splits: list[Split]) -> Path:
    """The file named in the job's inputs, copied, or else a snapshot of the ledger's rows."""
    if "data" in job.inputs:
        copies = _copied_files(job)
        if len(copies) != 1:
            raise BadInput(f"A {job.kind} job reads one file, inputs.data names {len(copies)}.")
        return copies[0]
    if job.snapshot is None:
        _choose(job, snapshot=_frozen(job, kind, splits))
    assert job.snapshot is not None
    if stone := tombstone_of(job.snapshot):
        raise BadInput(stone)
    return Path(settings.ARTIFACTS_DIR) / job.snapshot.path


def _frozen(job: TrainingJob, kind: str, splits: list[Split]) -> DatasetSnapshot:
    query: dict[str, Any] = {"splits": [split.value for split in splits]}
    if kind == "comparisons":
        query["annotators"] = votes_that_train(job.inputs)
        query |= {name: job.inputs[name] for name in ("decisions", "weights") if name in job.inputs}
        if groups := judges.groups_for(job):
            query["groups"] = groups.as_json()
    if (allowed := allowed_licences(job.project, job.inputs, job.lane)) is not None:
        query["licences"] = allowed
    snapshot = freeze(project=job.project, kind=kind, query=query, by=job.requested_by)
    if snapshot.rows == 0:
        raise BadInput(f"The project has no {kind} to train on ({', '.join(query['splits'])}).")
    return snapshot


def _files_of(other: TrainingJob) -> list[Path]:
    """What another job has copied, in its order. Raises BadInput where it is gone."""
    folder = job_folder(other) / "inputs"
    if not folder.is_dir():
        raise BadInput(f"The files of job {other.pk} are gone: {folder}.")
    return sorted(folder.iterdir(), key=lambda path: int(path.name.split("-")[0]))


def _copied_files(job: TrainingJob) -> list[Path]:
    """Copies of the files that inputs.data names, made once and published by a rename."""
    folder = job_folder(job) / "inputs"
    sources = jobs.readable_data_files(job.inputs.get("data"))
    names = [f"{number}-{path.name}" for number, path in enumerate(sources)]
    if not folder.is_dir():
        staging = folder.with_name(f".inputs-{job.attempt}")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for name, path in zip(names, sources, strict=True):
            shutil.copyfile(path, staging / name)
        staging.rename(folder)
    return [folder / name for name in names]
