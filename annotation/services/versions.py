"""Model versions: published directories, and which of them is in force in a project.

A directory is published by a rename under ARTIFACTS_DIR/models and only then gets a row. What is in
force in a slot is the newest Promotion; a promotion is never changed, so a roll-back is a new one.
"""

import hashlib
import json
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict
from annotation.models import (
    DatasetSnapshot,
    JobKind,
    JobStatus,
    Lane,
    ModelVersion,
    Project,
    Promotion,
    RetrainRule,
    Slot,
    TrainingJob,
    User,
    VersionKind,
)
from annotation.services import audit
from annotation.services.jobs import request_training
from annotation.services.licences import require_shippable
from annotation.services.roles import lock_roles, require_never_rewarded, require_no_judge

GATED_STAGES = (JobKind.SFT, JobKind.REWARD, JobKind.JUDGE, JobKind.PPO)
KIND_OF_SLOT = {
    Slot.POLICY: VersionKind.POLICY,
    Slot.REWARD: VersionKind.REWARD,
    Slot.JUDGE: VersionKind.REWARD,
}


# --- directories --------------------------------------------------------------------------------


def directory_of(version: ModelVersion) -> Path:
    """Where a version's files lie, absolute."""
    return Path(settings.ARTIFACTS_DIR) / version.path


def sha256_of_directory(directory: Path) -> str:
    """SHA-256 over the sorted relative names and contents of a directory's files, none hidden."""
    whole = hashlib.sha256()
    shown = (p for p in directory.rglob("*") if p.is_file() and not p.name.startswith("."))
    for path in sorted(shown):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(directory).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()


def require_model_directory(directory: Path) -> None:
    """Raise BadInput unless this is a Hugging Face model directory with safetensors weights, or an
    ensemble of such directories (policy/ensemble.py)."""
    if not directory.is_dir():
        raise BadInput(gettext("No directory '%(path)s'.") % {"path": directory})
    if (directory / "ensemble.json").is_file():
        members = json.loads((directory / "ensemble.json").read_text(encoding="utf-8"))["members"]
        for member in members:
            require_model_directory(directory / member["directory"])
        return
    if not (directory / "config.json").is_file():
        told = {"path": directory}
        raise BadInput(gettext("'%(path)s' holds no config.json: not a Hugging Face model.") % told)
    if not any(directory.glob("*.safetensors")):
        told = {"path": directory}
        raise BadInput(
            gettext("'%(path)s' holds no .safetensors weights; others are not read.") % told
        )


def _adopt(directory: Path) -> Path:
    """A directory under ARTIFACTS_DIR with these files: itself, or a copy published by rename."""
    artifacts = Path(settings.ARTIFACTS_DIR).resolve()
    if directory.resolve().is_relative_to(artifacts):
        return directory.resolve()
    models = artifacts / "models"
    models.mkdir(parents=True, exist_ok=True)
    staging = models / f".staging-{uuid.uuid4().hex}"
    shutil.copytree(directory, staging)
    target = models / f"registered-{uuid.uuid4().hex[:12]}"
    staging.rename(target)
    return target


# --- versions -----------------------------------------------------------------------------------


def register_version(
    *,
    kind: str,
    stage: str,
    directory: Path,
    name: str = "",
    sha256: str = "",
    job: TrainingJob | None = None,
    init: ModelVersion | None = None,
    reference: ModelVersion | None = None,
    reward: ModelVersion | None = None,
    value_init: ModelVersion | None = None,
    snapshot: DatasetSnapshot | None = None,
    licence: str = "",
    metrics: Mapping[str, Any] | None = None,
) -> ModelVersion:
    """Give a published model directory its row; one from elsewhere is copied in first.

    sha256: as sha256_of_directory has it, where the caller knows it already.
    Raises BadInput if it is no Hugging Face model directory with safetensors weights.
    """
    if kind not in VersionKind.values:
        raise BadInput(f"kind must be one of {', '.join(VersionKind.values)}: {kind!r}.")
    require_model_directory(directory)
    place = _adopt(directory)
    return ModelVersion.objects.create(
        kind=kind,
        stage=stage,
        name=name or place.name,
        path=place.relative_to(Path(settings.ARTIFACTS_DIR).resolve()).as_posix(),
        sha256=sha256 or sha256_of_directory(place),
        job=job,
        init=init,
        reference=reference,
        reward=reward,
        value_init=value_init,
        snapshot=snapshot,
        licence=licence,
        metrics=dict(metrics or {}),
    )


def versions_of(project: Project) -> QuerySet[ModelVersion]:
    """Versions a project made or put in force, newest first."""
    mine = Q(job__project=project) | Q(
        pk__in=Promotion.objects.filter(project=project).values("version")
    )
    return ModelVersion.objects.filter(mine).order_by("-pk")


def versions_without_verdict() -> QuerySet[ModelVersion]:
    """Versions of the loop that no gate has judged yet (workers/promotion.py), oldest first."""
    made = ModelVersion.objects.filter(job__lane=Lane.LOOP, stage__in=GATED_STAGES)
    return made.exclude(metrics__has_key="gate").order_by("pk")


def in_force(project: Project, slot: str) -> ModelVersion | None:
    """The version in force in a slot of a project."""
    newest = Promotion.objects.select_related("version").in_force(project, slot)
    return newest.version if newest else None


def beside(project: Project, slot: str, version: ModelVersion) -> ModelVersion | None:
    """The version in force, or where that is this one, what was in force before it; of what was
    rolled back nothing."""
    return next((one for one in reversed(_standing(project, slot)) if one != version), None)


def sft_root(project: Project) -> ModelVersion | None:
    """The policy that KL is measured from in every round: the root of the policy in force.

    While none is in force, the newest SFT version of the project's loop.
    """
    if policy := in_force(project, Slot.POLICY):
        return root_of(policy)
    return (
        ModelVersion.objects.filter(job__project=project, job__lane=Lane.LOOP, stage=JobKind.SFT)
        .order_by("-pk")
        .first()
    )


def newest_pretrained(project: Project) -> ModelVersion | None:
    """The project's newest pretrained version, those that judges start from left out."""
    return (
        ModelVersion.objects.filter(job__project=project, stage=JobKind.PRETRAIN)
        .exclude(job__inputs__has_key="judge_of")
        .order_by("-pk")
        .first()
    )


def root_of(policy: ModelVersion) -> ModelVersion:
    """What a policy descends from: its nearest ancestor that PPO did not make, maybe itself.

    Its reference leads there at once, for it was the root of its own round; where an older row has
    none, its start does.
    """
    while policy.stage == JobKind.PPO and (parent := policy.reference or policy.init):
        policy = parent
    return policy


# --- promotions ---------------------------------------------------------------------------------


@transaction.atomic
def promote(
    *,
    project: Project,
    slot: str,
    version: ModelVersion,
    verdict: str,
    numbers: Mapping[str, Any] | None = None,
    by: User | None = None,
    seen: int | None = None,
) -> Promotion:
    """Put a version in force, and queue what follows from it in the same transaction.

    seen: the promotion in force as whoever asks saw it, 0 for none; Conflict is raised where
    another is by now.

    A policy gets a job that samples new comparisons from it; a reward model makes a PPO job due
    where the project's rule says so. Raises BadInput for a version that does not fit the slot, or
    for a judge that is to reward or the reverse, Conflict if it is in force already.
    """
    lock_roles(version)
    if slot == Slot.REWARD:
        require_no_judge(version)
    elif slot == Slot.JUDGE:
        require_never_rewarded(version)
    if slot != Slot.JUDGE:  # which measures and is never given out
        require_shippable(version)
    promotion = _append(project, slot, version, verdict, numbers or {}, by, seen)
    audit.record(
        action="version.promote",
        target=version,
        project=project,
        actor=by,
        slot=slot,
        verdict=verdict,
    )
    if slot == Slot.POLICY:
        _request_top_up(project, version, f"{version.name} was promoted", by)
    elif slot == Slot.REWARD:
        _request_ppo(project, f"{version.name} was promoted", by)
    return promotion


@transaction.atomic
def roll_back(
    *, project: Project, slot: str, by: User | None = None, seen: int | None = None
) -> Promotion:
    """Put the version before the one in force back. Raises Conflict if there is none, BadInput
    where it may not be given out any more (services.licences).

    Rolling back twice goes back two versions, not there and back again.

    seen: the promotion that is to be taken back, which whoever asks saw in force. Asked for twice,
    it is taken back once; Conflict is raised where something else was put in force meanwhile.
    """
    _require_slot(slot)
    Project.objects.select_for_update().get(pk=project.pk)
    newest = Promotion.objects.in_force(project, slot)
    if seen is not None and newest is not None and newest.pk != seen:
        if newest.verdict == "rollback" and newest.numbers.get("takes_back") == seen:
            return newest
        _require_standing(newest, seen)
    standing = _standing(project, slot)
    if len(standing) < 2:
        raise Conflict(
            gettext("There is no %(slot)s version before the one in force.") % {"slot": slot}
        )
    left, back = standing[-1], standing[-2]
    if slot != Slot.JUDGE:  # a licence may have been noted since it was put in force
        require_shippable(back)
    numbers = {"instead_of": left.pk, "takes_back": newest.pk if newest else None}
    promotion = _append(project, slot, back, "rollback", numbers, by)
    audit.record(
        action="version.roll_back",
        target=back,
        project=project,
        actor=by,
        slot=slot,
        instead_of=left.pk,
    )
    if slot == Slot.POLICY:
        _request_top_up(project, back, f"rolled back to {back.name}", by)
    return promotion


def slots_to_roll_back(project: Project) -> set[str]:
    """The slots in which something stood before what is in force."""
    depth: Counter[str] = Counter()
    rows = Promotion.objects.filter(project=project).order_by("pk")
    for slot, verdict in rows.values_list("slot", "verdict"):
        depth[slot] += -1 if verdict == "rollback" else 1
    return {slot for slot, number in depth.items() if number > 1}


def _standing(project: Project, slot: str) -> list[ModelVersion]:
    """What was put in force and not rolled back, the one in force last."""
    standing: list[ModelVersion] = []
    rows = Promotion.objects.filter(project=project, slot=slot).select_related("version")
    for row in rows.order_by("pk"):
        if row.verdict == "rollback":
            standing.pop()
        else:
            standing.append(row.version)
    return standing


def _append(
    project: Project,
    slot: str,
    version: ModelVersion,
    verdict: str,
    numbers: Mapping[str, Any],
    by: User | None,
    seen: int | None = None,
) -> Promotion:
    _require_slot(slot)
    if version.kind != KIND_OF_SLOT[Slot(slot)]:
        raise BadInput(
            gettext("A %(kind)s version cannot be put in the slot %(slot)s: %(version)s.")
            % {"kind": version.kind, "slot": slot, "version": version}
        )
    # Promotions of one project are made one after the other (a row lock; SQLite has one writer).
    Project.objects.select_for_update().get(pk=project.pk)
    if in_force(project, slot) == version:
        raise Conflict(gettext("%(version)s is in force already.") % {"version": version})
    if seen is not None:
        _require_standing(Promotion.objects.in_force(project, slot), seen)
    return Promotion.objects.create(
        project=project, slot=slot, version=version, verdict=verdict, numbers=dict(numbers), by=by
    )


def _require_standing(newest: Promotion | None, seen: int) -> None:
    """Raise Conflict unless this promotion is in force; 0 stands for none."""
    if (newest.pk if newest else 0) != seen:
        name = newest.version.name if newest else "–"
        raise Conflict(
            gettext(
                "%(name)s was put in force meanwhile. Nothing is changed: look at it, and ask "
                "again if you still want to."
            )
            % {"name": name}
        )


def _require_slot(slot: str) -> None:
    if slot not in Slot.values:
        raise BadInput(f"slot must be one of {', '.join(Slot.values)}: {slot!r}.")


def _waiting(project: Project, kind: str) -> QuerySet[TrainingJob]:
    return TrainingJob.objects.filter(
        project=project, kind=kind, lane=Lane.LOOP, status=JobStatus.QUEUED
    )


def _request_top_up(project: Project, version: ModelVersion, reason: str, by: User | None) -> None:
    """New comparisons by this policy, however many of older ones are still open.

    The job names the policy, so that no other serves: one that waits may have chosen the policy
    before (its worker gave it back), be claimed at this moment, or write less.
    """
    same = {"init": version, "inputs__comparisons": project.open_target}
    if project.open_target and not _waiting(project, JobKind.SAMPLE).filter(**same).exists():
        request_training(
            project=project,
            kind=JobKind.SAMPLE,
            init=version,
            inputs={"comparisons": project.open_target},
            reason=reason,
            by=by,
        )


def _request_ppo(project: Project, reason: str, by: User | None) -> None:
    """PPO against the reward model now in force; a job that has chosen nothing yet will do it."""
    rule = RetrainRule.objects.filter(project=project, enabled=True, ppo_after_reward=True)
    if not rule.exists() or in_force(project, Slot.POLICY) is None:
        return
    # Locked until the promotion is committed: whoever claims the job then sees the new version.
    undecided = _waiting(project, JobKind.PPO).filter(init=None, reward=None)
    if undecided.select_for_update(no_key=True).first() is None:
        request_training(project=project, kind=JobKind.PPO, reason=reason, by=by)
