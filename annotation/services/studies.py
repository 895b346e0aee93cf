"""Ask for a study of a project's votes, claim it, and keep what came out of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput
from annotation.models import (
    Comparison,
    CompletionScore,
    DatasetSnapshot,
    ModelVersion,
    Outcome,
    Preference,
    Project,
    Ranking,
    Slot,
    Study,
    StudyState,
    User,
    VersionKind,
)
from annotation.services import claims, versions
from annotation.services.audit import record
from annotation.services.hints import wake_workers_on_commit
from annotation.services.jobs import Pulse

AT_WORK = (StudyState.QUEUED, StudyState.RUNNING)
MOST_ATTEMPTS = 5
"""A study whose worker vanished this often is failed instead of tried again."""
LOST = "Its worker fell silent again and again."
"""As page and row say it; the page in the reader's language."""
SCORES_AT_ONCE = 500


def request_study(
    *, project: Project, by: User | None, reward: ModelVersion | None = None
) -> Study:
    """Queue a study with the features of a reward model, the one in force unless it is named; one
    that waits or runs is given back instead. Raises BadInput without such a model.
    """
    reward = reward or versions.in_force(project, Slot.REWARD)
    if reward is None or reward.kind != VersionKind.REWARD:
        raise BadInput(gettext("This needs a reward model in force, and the project has none."))
    try:
        with transaction.atomic():
            study = Study.objects.create(project=project, reward=reward, by=by)
            record(action="study.request", target=study, project=project, actor=by)
            wake_workers_on_commit()
    except IntegrityError:  # study_one_at_work
        waiting = Study.objects.filter(project=project, state__in=AT_WORK).first()
        return waiting or request_study(project=project, by=by, reward=reward)
    return study


def waiting_studies() -> QuerySet[Study]:
    """Those that a worker may claim, oldest first: queued, or with a worker that fell silent."""
    return Study.objects.filter(claims.is_unattended(), state__in=AT_WORK).order_by("pk")


def claim_study(study_id: int) -> Study | None:
    """Take a study. None if it is not to be had, or was lost too often and is failed."""
    found = waiting_studies().select_related("project", "reward", "snapshot")
    study = found.filter(pk=study_id).first()
    if study is None or not claims.claim(study, state=StudyState.RUNNING):
        return None
    if study.attempt > MOST_ATTEMPTS:
        fail_study(study, error=LOST)
        return None
    return study


def study_heartbeat(study: Study, *, step: int = 0, total: int = 0, phase: str = "") -> Pulse:
    """Say that the attempt lives and how far it is."""
    told = {"step": step, "total": total} if total else {}
    return Pulse.GO_ON if claims.lives(study, **told) else Pulse.FENCED_OFF


def finish_study(study: Study, *, snapshot: DatasetSnapshot, result: Mapping[str, Any]) -> bool:
    """Keep what came out. False, and nothing changed, if the attempt is fenced off."""
    kept = {"snapshot": snapshot, "result": dict(result), "error": ""}
    return claims.let_go(study, StudyState.DONE, finished_at=timezone.now(), **kept)


def fail_study(study: Study, *, error: str) -> bool:
    """End it with the sentence that says why. False if the attempt is fenced off."""
    sentence = error.replace("\x00", "\ufffd")[:2000]
    return claims.let_go(study, StudyState.FAILED, finished_at=timezone.now(), error=sentence)


def release_study(study: Study) -> bool:
    """Give it back because its worker shuts down. False if the attempt is fenced off."""
    return claims.let_go(study, StudyState.QUEUED)


def labels_of(project: Project) -> Iterator[dict[str, Any]]:
    """What a study tells train votes apart by, beside their annotators: a row of
    rewardmodel/contributions.py for each."""
    votes = train_votes(project).order_by("pk")
    rows = votes.values_list("pk", "comparison__batch__name", "guideline__version")
    for pk, batch, guideline in rows.iterator():
        row = {"preference": pk, "batch": batch}
        yield row if guideline is None else row | {"guideline": str(guideline)}


def train_votes(project: Project) -> QuerySet[Preference]:
    """Valid votes on what may train a model, whoever gave them."""
    asked = Comparison.objects.filter(project=project).for_training()
    return Preference.objects.valid().filter(project=project, comparison__in=asked)


def votes_behind(study: Study, *, by: str, name: str) -> QuerySet[Preference]:
    """The strict votes that a part of a finished study is counted by, as they stand now: what was
    voided since is not among them."""
    strict = Ranking.objects.filter(preference=OuterRef("pk"), outcome=Outcome.RANKED)
    if axis := study.result.get("axis"):
        strict = strict.filter(axis=axis)
    snapshot = study.snapshot
    votes = train_votes(study.project).filter(Exists(strict))
    if snapshot is not None:
        newest = snapshot.ledger_position.get("preference", 0)
        votes = votes.filter(pk__lte=newest, annotator__kind__in=snapshot.query["annotators"])
    match by:
        case "annotator":
            return votes.filter(annotator=int(name))
        case "guideline":
            return votes.filter(guideline__version=int(name))
        case _:
            return votes.filter(comparison__batch__name=name)


def store_scores(reward: ModelVersion, scores: Mapping[int, float]) -> None:
    """Keep a model's scores by completion, for the pages of analysis; what is there stays."""
    CompletionScore.objects.bulk_create(
        (
            CompletionScore(completion_id=pk, model_version=reward, score=score)
            for pk, score in scores.items()
        ),
        batch_size=SCORES_AT_ONCE,
        ignore_conflicts=True,
    )
