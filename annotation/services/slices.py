"""Agreement in parts: by scheme version, language, skill and week; and labelers against leads.

The same answers as on the whole page (services.quality.read_rows), so a part is a part of that.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import fmean
from typing import Any

import numpy as np

from annotation import agreement
from annotation.accord import Said, nearness
from annotation.answers import tabulate
from annotation.intervals import Resampling, Statistic, group_numbers, of_measure, ratio
from annotation.models import Decision, Membership, Preference, Project, Ranking, Role
from annotation.services.quality import PEOPLE, RESAMPLES, AxisRows, Marks, Rows

BY = ("scheme", "language", "skill", "week")
WEEKS_SHOWN = 12
LEADS = (Role.REVIEWER, Role.ADMIN)
MOST_COMPARED = 20_000
"""Answers of leads and decisions, each, the newest; a page waits for it."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One part on one axis."""

    axis: str
    label: str
    percent: Statistic
    """Of pairs, as `alpha`."""
    alpha: Statistic
    concordance: Statistic
    """Of lists."""


def slices(rows: Rows, by: str) -> list[Slice]:
    """Every part that two people or more answered, by axis and label. Comparisons answered under
    two schemes are in no scheme's part; a week is that of a comparison's last answer."""
    how = Resampling(groups=rows.groups, resamples=RESAMPLES)
    found = []
    for axis, all_rows in rows.axes.items():
        for label, part in sorted(_parts(all_rows, rows.marks, by).items()):
            pairs = tabulate(part.pairs, how)
            found.append(
                Slice(
                    axis,
                    label,
                    agreement.percent_agreement(pairs, how),
                    agreement.krippendorff_alpha(pairs, how),
                    agreement.concordance(part.lists, how),
                )
            )
    return found


def answers_of(
    rows: Rows, by: str, *, axis: str, label: str, of_lists: bool
) -> set[tuple[int, int]]:
    """(comparison, annotator) of the answers that a part's figures on an axis are made of, those of
    pairs or those of lists."""
    of_axis = rows.axes.get(axis)
    part = _parts(of_axis, rows.marks, by).get(label) if of_axis else None
    if part is None:
        return set()
    given = part.lists if of_lists else part.pairs
    return {(unit, who) for unit, answers in given.items() for who in answers}


def answers_of_all(rows: Rows, *, axis: str, of_lists: bool) -> set[tuple[int, int]]:
    """The same of the whole axis, in no parts: what two people or more answered."""
    of_axis = rows.axes.get(axis)
    given = () if of_axis is None else (of_axis.lists if of_lists else of_axis.pairs).items()
    return {(unit, who) for unit, answers in given if len(answers) > 1 for who in answers}


def _parts(rows: AxisRows, marks: Mapping[int, Marks], by: str) -> dict[str, AxisRows]:
    parts: dict[str, AxisRows] = defaultdict(AxisRows)
    for unit, pair in rows.pairs.items():
        if len(pair) > 1 and (label := _label(marks[unit], by)) is not None:
            parts[label].pairs[unit] = pair
    for unit, groups in rows.lists.items():
        if len(groups) > 1 and (label := _label(marks[unit], by)) is not None:
            parts[label].lists[unit] = groups
    return parts


def _label(mark: Marks, by: str) -> str | None:
    if by == "scheme":
        return f"{min(mark.schemes):03d}" if len(mark.schemes) == 1 else None
    if by == "week":
        return week_of(mark.day).isoformat()
    return mark.language if by == "language" else mark.skill


def week_of(day: date) -> date:
    """Its Monday."""
    return day - timedelta(days=day.weekday())


@dataclass(frozen=True, slots=True)
class AgainstLeads:
    """One labeler."""

    pseudonym: str
    weeks: Mapping[date, tuple[float, int]]
    """Monday -> mean nearness (annotation/accord.py) and how many comparisons."""
    answers: Statistic
    """Against leads' own answers; over all weeks, interval over groups."""
    decisions: Statistic
    """Against what reviewers decided: only where people disagreed, so it lies lower."""


def against_leads(project: Project, kinds: Iterable[str] = PEOPLE) -> list[AgainstLeads]:
    """How near each labeler's first answers lie to what leads say of the same comparisons."""
    leads = set(
        project.annotators.filter(
            user__in=Membership.objects.filter(project=project, role__in=LEADS).values("user")
        ).values_list("pk", flat=True)
    )
    firsts = Preference.objects.filter(
        project=project, revision=1, voided_at=None, annotator__kind__in=list(kinds)
    )
    by_leads = list(
        firsts.filter(annotator__in=leads)
        .order_by("-pk")
        .values_list("comparison_id", flat=True)[:MOST_COMPARED]
    )
    decided = {
        one.comparison_id: one
        for one in Decision.objects.filter(
            project=project, current=True, undecidable=False
        ).order_by("-pk")[:MOST_COMPARED]
    }
    own: dict[tuple[int, str], list[Said]] = defaultdict(list)
    rows: list[_Compared] = []
    said = Ranking.objects.filter(
        preference__in=firsts, preference__comparison__in={*by_leads, *decided}
    ).order_by("preference_id", "pk")
    labelers = []
    for axis, outcome, groups, unit, group, who, name, day in said.values_list(
        "axis",
        "outcome",
        "groups",
        "preference__comparison_id",
        "preference__comparison__prompt__split_group",
        "preference__annotator_id",
        "preference__annotator__pseudonym",
        "preference__created_at__date",
    ):
        word = Said(outcome, groups)
        if who in leads:
            own[unit, axis].append(word)
        else:
            labelers.append((axis, word, unit, group, name, day))
    for axis, word, unit, group, name, day in labelers:
        near = [value for lead in own[unit, axis] if (value := nearness(word, lead)) is not None]
        if near:
            rows.append(_Compared(name, "answers", unit, group, week_of(day), fmean(near)))
        for lead in decided[unit].rankings if unit in decided else ():
            decision = Said(lead["outcome"], lead["groups"])
            value = nearness(word, decision) if lead["axis"] == axis else None
            if value is not None:
                rows.append(_Compared(name, "decisions", unit, group, week_of(day), value))
    return [_labeler(name, [row for row in rows if row.name == name]) for name in _names(rows)]


@dataclass(frozen=True, slots=True)
class _Compared:
    """One answer beside one lead's word."""

    name: str
    source: str
    unit: int
    group: str
    week: date
    near: float


def _names(rows: list[_Compared]) -> list[str]:
    return sorted({row.name for row in rows})


def _labeler(name: str, rows: list[_Compared]) -> AgainstLeads:
    by_week: dict[date, list[float]] = defaultdict(list)
    for row in rows:
        if row.source == "answers":
            by_week[row.week].append(row.near)
    return AgainstLeads(
        name,
        {week: (fmean(near), len(near)) for week, near in sorted(by_week.items())[-WEEKS_SHOWN:]},
        _mean([row for row in rows if row.source == "answers"]),
        _mean([row for row in rows if row.source == "decisions"]),
    )


def _mean(rows: list[_Compared]) -> Statistic:
    """Mean nearness; resampled over groups alone, for it speaks of one labeler."""
    units = list(range(len(rows)))
    near = np.array([row.near for row in rows])
    groups = group_numbers(units, {unit: rows[unit].group for unit in units})

    def measure(weights: Any, _annotators: Any) -> float:
        return ratio(weights @ near, weights.sum()) if len(near) else float("nan")

    how = Resampling(resamples=RESAMPLES)
    reason = "there is no comparison that a lead judged too"
    return of_measure(measure, groups, 1, n=len(rows), how=how, reason=reason)
