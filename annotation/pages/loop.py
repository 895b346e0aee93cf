"""The loop as a picture: five stations, what each holds now, and which is at work."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import F, Func, IntegerField, Max, QuerySet, Subquery
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.models import (
    Assignment,
    Comparison,
    DatasetSnapshot,
    JobKind,
    JobStatus,
    Preference,
    Project,
    Promotion,
    Slot,
    TrainingJob,
)
from annotation.pages.due import Due

POLICY_JOBS = (JobKind.PRETRAIN, JobKind.SFT)


@dataclass(frozen=True)
class Station:
    """One place of the loop. job: what works here now; is_due: work is wanted here."""

    key: str
    name: str
    figure: str
    detail: str = ""
    url: str = ""
    job: TrainingJob | None = None
    is_due: bool = False


@dataclass(frozen=True)
class Counts:
    """Numbers of a project's ledger, as they stand."""

    open: int
    leased: int
    answered: int
    today: int


def counts_of(project: Project, midnight: datetime) -> Counts:
    """Open and leased comparisons, valid answers, and today's: each from an index alone, for the
    page asks again every few seconds."""
    answers = Preference.objects.filter(project=project)
    today = Preference.objects.valid().filter(
        annotator__in=project.annotators.values("pk"), created_at__gte=midnight
    )
    open_now, leased, all_answers, not_valid, of_today = (
        Project.objects.filter(pk=project.pk)
        .values_list(
            _number(Comparison.objects.open().filter(project=project)),
            _number(Assignment.objects.filter(project=project, holds_slot=True)),
            _number(answers),
            _number(answers.not_valid()),
            _number(today),
        )
        .get()
    )
    return Counts(open=open_now, leased=leased, answered=all_answers - not_valid, today=of_today)


def _number(rows: QuerySet[Any]) -> Subquery:
    """How many rows, as a part of one query for all numbers."""
    return Subquery(rows.order_by().values_list(Func(F("pk"), function="COUNT")), IntegerField())


def promotions_in_force(project: Project) -> dict[str, Promotion]:
    """The newest promotion of each slot, in one query."""
    newest = (
        Promotion.objects.filter(project=project)
        .order_by()
        .values("slot")
        .annotate(newest=Max("pk"))
        .values("newest")
    )
    rows = Promotion.objects.filter(pk__in=newest).select_related("version", "by")
    return {row.slot: row for row in rows}


def stations(
    project: Project,
    counts: Counts,
    in_force: dict[str, Promotion],
    active: Sequence[TrainingJob],
    due: Due,
) -> list[Station]:
    """comparisons -> snapshot -> reward model -> PPO -> policy, and from there back."""
    running = {job.kind: job for job in reversed(active) if job.status == JobStatus.RUNNING}
    writing = next((running[kind] for kind in POLICY_JOBS if kind in running), None)
    return [
        _comparisons(project, counts, running.get(JobKind.SAMPLE)),
        _snapshot(project),
        _model(project, _("Reward model"), Slot.REWARD, in_force, running.get(JobKind.REWARD), due),
        _ppo(project, running.get(JobKind.PPO)),
        _model(project, _("Policy"), Slot.POLICY, in_force, writing, None),
    ]


def _comparisons(project: Project, counts: Counts, job: TrainingJob | None) -> Station:
    answers = ngettext("%(count)s answer", "%(count)s answers", counts.answered)
    return Station(
        key="comparisons",
        name=_("Comparisons"),
        figure=_("%(count)s open") % {"count": counts.open},
        detail=answers % {"count": counts.answered},
        url=reverse("preferences", args=[project.slug]),
        job=job,
    )


def _snapshot(project: Project) -> Station:
    of_votes = DatasetSnapshot.objects.filter(project=project, kind="comparisons")
    newest = of_votes.order_by("-pk").first()
    if newest is None:
        return Station(key="snapshot", name=_("Snapshot"), figure=_("none yet"))
    rows = ngettext("%(count)s row", "%(count)s rows", newest.rows) % {"count": newest.rows}
    return Station(key="snapshot", name=_("Snapshot"), figure=rows, detail=newest.sha256[:10])


def _ppo(project: Project, job: TrainingJob | None) -> Station:
    last = (
        TrainingJob.objects.filter(project=project, kind=JobKind.PPO, status=JobStatus.DONE)
        .order_by("-pk")
        .first()
    )
    if last is None:
        figure = _("at work") if job else _("not run yet")
        return Station(key="ppo", name=_("PPO"), figure=figure, job=job)
    steps = ngettext("%(count)s step", "%(count)s steps", last.step) % {"count": last.step}
    return Station(
        key="ppo",
        name=_("PPO"),
        figure=steps,
        detail=_("job %(number)s") % {"number": last.pk},
        url=reverse("job", args=[project.slug, last.pk]),
        job=job,
    )


def _model(
    project: Project,
    name: str,
    slot: str,
    in_force: dict[str, Promotion],
    job: TrainingJob | None,
    due: Due | None,
) -> Station:
    promotion = in_force.get(slot)
    is_due = due is not None and due.is_due
    if promotion is None:
        figure = _("at work") if job else _("none yet")
        return Station(key=slot, name=name, figure=figure, job=job, is_due=is_due)
    return Station(
        key=slot,
        name=name,
        figure=promotion.version.name,
        detail=_("in force"),
        url=reverse("version", args=[project.slug, promotion.version_id]),
        job=job,
        is_due=is_due,
    )
