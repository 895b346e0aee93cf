"""What a job would do, asked before it is queued: nothing is kept of the asking.

The wish itself is made and taken back, so that whatever would refuse it refuses here. What it would
read is counted, what it would take is guessed from the last run of its kind, and from the weights
that it would load: the web process knows no torch.
"""

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from annotation.errors import BadInput
from annotation.funnel import Bucket
from annotation.job_schemas import settings_of
from annotation.models import (
    DatasetSnapshot,
    JobKind,
    JobStatus,
    ModelVersion,
    Preference,
    Project,
    Slot,
    Split,
    TrainingJob,
    User,
)
from annotation.services import judges, versions
from annotation.services.heldout import heldout_of
from annotation.services.jobs import readable_data_files
from annotation.services.licences import allowed_licences
from annotation.services.retraining import votes_that_train
from annotation.services.snapshots import PLANS
from annotation.services.tokenizer_files import num_tokens_of
from annotation.services.wishes import ask_for_training

MOST_COUNTED = 50_000
"""Answers, or prompts, of a project of which a funnel is made while somebody waits."""
COPIES_OF_A_LEARNER = 4
"""Weights, their gradients, and the optimizer's two moments of each."""
DATA_KINDS = {
    JobKind.SFT: ("demonstrations", [Split.TRAIN]),
    JobKind.REWARD: ("comparisons", [Split.TRAIN, Split.DEV]),
    JobKind.JUDGE: ("comparisons", [Split.TRAIN, Split.DEV]),
    JobKind.PPO: ("prompts", [Split.TRAIN]),
}
"""What a kind of job reads from the ledger: a snapshot's kind, and its splits."""
ITEMS = {
    JobKind.PRETRAIN: ("steps", "windows_per_step"),
    JobKind.PPO: ("steps", "rollouts_per_step"),
}
"""Settings whose product says how much work a job is, where its data doesn't."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Funnel:
    """What becomes of every vote (or prompt, or demonstration), now and at the last run."""

    buckets: tuple[tuple[str, int, int | None], ...]
    """(bucket, now, at the last run); None where there was none."""
    rows: int

    @property
    def total(self) -> int:
        return sum(now for _, now, _ in self.buckets)


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """What would happen."""

    config: Mapping[str, Any]
    """The project's defaults and what was asked, laid over one another."""
    starts: tuple[tuple[str, ModelVersion], ...]
    """(edge, version): init, reference, reward."""
    files: tuple[tuple[str, int], ...] = ()
    """(name, bytes) of what inputs.data names."""
    funnel: Funnel | None = None
    num_new: int | None = None
    """Answers since the snapshot of the last run of the kind."""
    num_dev: int | None = None
    """Answers on held-out prompts that would measure the model; None where it needs none, or files
    hold them."""
    last: TrainingJob | None = None
    """The last run of the kind that ended well."""
    seconds: float | None = None
    memory_bytes: int = 0
    """At least, of weights, gradients and optimizer; 0 = not known before it starts."""
    disk_free_bytes: int = 0
    tokenizers: tuple[tuple[str, int | None], ...] = ()
    """(version's name, tokens that its tokenizer knows), once for each; None = only the job can
    read it."""
    faults: tuple[str, ...] = field(default=())
    """Versions whose files are not whole, and tokenizers that can't be read."""


def dry_run(*, project: Project, by: User, **wish: Any) -> DryRun:
    """Raises BadInput wherever asking for the job would."""
    with transaction.atomic():
        job = ask_for_training(project=project, by=by, **wish)
        transaction.set_rollback(True)
    return _described(job)  # counted with no lock held: on SQLite nobody could write meanwhile


def _described(job: TrainingJob) -> DryRun:
    """Of a job that is not in the ledger any more."""
    starts = _starts(job)
    files = tuple(
        (path.name, path.stat().st_size)
        for path in (readable_data_files(job.inputs["data"]) if "data" in job.inputs else ())
    )
    done = job.project.jobs.filter(kind=job.kind, status=JobStatus.DONE)
    last = done.select_related("snapshot").order_by("-pk").first()
    before = last.snapshot if last else None
    funnel = None if files else _funnel(job, before)
    tokenizers, faults = _looked_at(starts.values())
    artifacts = Path(settings.ARTIFACTS_DIR)
    artifacts.mkdir(parents=True, exist_ok=True)
    return DryRun(
        config=job.config,
        starts=tuple(starts.items()),
        files=files,
        funnel=funnel,
        num_new=_num_new(job, before) if not files else None,
        num_dev=_num_dev(job, funnel) if not files else None,
        last=last,
        seconds=_seconds(job, funnel.rows if funnel else None, last),
        memory_bytes=_memory(job, starts),
        disk_free_bytes=shutil.disk_usage(artifacts).free,
        tokenizers=tuple(tokenizers.items()),
        faults=tuple(faults),
    )


def _starts(job: TrainingJob) -> dict[str, ModelVersion]:
    """As workers/datasets.py chooses them when the job starts; what is not there is left out."""
    project, kind = job.project, job.kind
    in_force = versions.in_force
    found: dict[str, ModelVersion | None] = {}
    if kind == JobKind.SFT:
        found["init"] = (
            job.init or versions.newest_pretrained(project) or in_force(project, Slot.POLICY)
        )
    elif kind in (JobKind.REWARD, JobKind.JUDGE):
        start = judges.start_beside(job)
        found["init"] = judges.start_of(start, project) if kind == JobKind.JUDGE else start
    elif kind == JobKind.SAMPLE:
        found["init"] = job.init or in_force(project, Slot.POLICY)
    elif kind == JobKind.PPO:
        init = job.init or in_force(project, Slot.POLICY)
        found["init"] = init
        found["reference"] = job.reference or (versions.root_of(init) if init else None)
        found["reward"] = job.reward or in_force(project, Slot.REWARD)
    return {edge: version for edge, version in found.items() if version is not None}


def _looked_at(chosen: Iterable[ModelVersion]) -> tuple[dict[str, int | None], list[str]]:
    """Each version's tokenizer, read; and one sentence for each that could not be loaded."""
    tokenizers: dict[str, int | None] = {}
    faults = []
    for version in {one.pk: one for one in chosen}.values():
        directory = versions.directory_of(version)
        try:
            versions.require_model_directory(directory)
            tokenizers[version.name] = num_tokens_of(directory)
        except BadInput as error:
            faults.append(f"{version.name}: {error.detail}")
    return tokenizers, faults


def _funnel(job: TrainingJob, before: DatasetSnapshot | None) -> Funnel | None:
    """None for a kind that reads no snapshot, or where there is too much to count in a request."""
    if (reads := DATA_KINDS.get(JobKind(job.kind))) is None:
        return None
    kind, splits = reads
    project = job.project
    size = project.preferences if kind == "comparisons" else project.prompts
    if size.count() > MOST_COUNTED:
        return None
    plan = PLANS[kind](project, _query(job, kind, splits))
    rows = sum(1 for _ in plan.rows(plan.position({})))
    earlier = before.counts if before is not None and before.kind == kind else None
    names = {str(bucket) for bucket in plan.counts} | set(earlier or ())
    order = {str(bucket): place for place, bucket in enumerate(Bucket)}
    counted = {str(bucket): number for bucket, number in plan.counts.items()}
    buckets = tuple(
        (name, counted.get(name, 0), None if earlier is None else earlier.get(name, 0))
        for name in sorted(names, key=lambda name: (order.get(name, len(order)), name))
        if counted.get(name) or (earlier or {}).get(name)
    )
    return Funnel(buckets=buckets, rows=rows)


def _query(job: TrainingJob, kind: str, splits: list[Split]) -> dict[str, Any]:
    """As workers/datasets.py asks for the job's snapshot."""
    query: dict[str, Any] = {"splits": [split.value for split in splits]}
    if kind == "comparisons":
        query["annotators"] = votes_that_train(job.inputs)
        query |= {name: job.inputs[name] for name in ("decisions", "weights") if name in job.inputs}
        if groups := judges.groups_for(job):
            query["groups"] = groups.as_json()
    if (allowed := allowed_licences(job.project, job.inputs, job.lane)) is not None:
        query["licences"] = allowed
    return query


def _num_new(job: TrainingJob, before: DatasetSnapshot | None) -> int | None:
    """Valid answers of the kinds that count, since the last run's position in the ledger."""
    if job.kind not in (JobKind.REWARD, JobKind.JUDGE):
        return None
    answers = Preference.objects.valid().filter(
        project=job.project, annotator__kind__in=votes_that_train(job.inputs)
    )
    position = before.ledger_position.get("preference") if before else None
    return answers.filter(pk__gt=position).count() if position is not None else answers.count()


def _num_dev(job: TrainingJob, funnel: Funnel | None) -> int | None:
    """Of the kinds that learn from votes: as the funnel has it, or by a count where it is too much
    for one."""
    if job.kind not in (JobKind.REWARD, JobKind.JUDGE):
        return None
    if funnel is None:
        return heldout_of(job.project).answered
    return next((now for name, now, _before in funnel.buckets if name == Bucket.DEV), 0)


def _seconds(job: TrainingJob, rows: int | None, last: TrainingJob | None) -> float | None:
    """By the last run's seconds for as much work; None without one."""
    if last is None or not last.result.get("wall_seconds"):
        return None
    before = last.snapshot.rows if last.snapshot else None
    now, then = _work(job, rows), _work(last, before)
    return float(last.result["wall_seconds"]) * now / then if now and then else None


def _work(job: TrainingJob, rows: int | None) -> float:
    """Rows times passes, or what the settings say; 0 = not known."""
    if names := ITEMS.get(JobKind(job.kind)):
        return math.prod(_setting(job, name) for name in names)
    if rows is None:
        return 0
    return rows * _setting(job, "epochs") * (_setting(job, "members") or 1)


def _setting(job: TrainingJob, name: str) -> float:
    known = settings_of(job.kind).get(name)
    return float(job.config.get(name, known.default)) if known else 0.0


def _memory(job: TrainingJob, starts: Mapping[str, ModelVersion]) -> int:
    """Bytes of what is loaded to learn, and of what is loaded to be asked."""
    weights = {edge: _weights(version) for edge, version in starts.items()}
    init = weights.get("init", 0)
    if job.kind == JobKind.SAMPLE:
        return init
    learner = init * (1 if job.config.get("lora_rank") else COPIES_OF_A_LEARNER)
    learner *= int(_setting(job, "members") or 1)
    if job.kind != JobKind.PPO:
        return learner
    has_values = (job.config.get("advantage", "gae"), job.config.get("value", "separate"))
    values = COPIES_OF_A_LEARNER if has_values == ("gae", "separate") else 0
    reward = weights.get("reward", 0)
    return learner + weights.get("reference", 0) + reward * (1 + values)


def _weights(version: ModelVersion) -> int:
    """Bytes of the weights on disk; 0 where they are gone."""
    folder = versions.directory_of(version)
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
