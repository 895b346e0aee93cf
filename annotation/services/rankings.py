"""What an answer may look like, checked against the scheme and the order that was shown."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.utils.translation import gettext

from annotation.errors import BadRanking
from annotation.models import Outcome, Preference, Ranking, Scheme
from annotation.prepared import insert

WITH_GROUPS = (Outcome.RANKED, Outcome.EQUAL)


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisRanking:
    """One axis of an answer; the columns of models.Ranking, before they are stored."""

    axis: str = "overall"
    outcome: str = Outcome.RANKED
    groups: list[list[int]] = field(default_factory=list)
    """Completion ids best first; ids of one group are tied. Ids in no group were not ranked."""
    strengths: list[float] = field(default_factory=list)
    """One positive number per gap between neighbouring groups, or empty."""
    acceptable: int | None = None
    """How many groups from the top are good enough; None where nobody was asked."""


def checked(
    rankings: Sequence[AxisRanking], *, scheme: Scheme, presented_order: Sequence[int]
) -> list[AxisRanking]:
    """The rankings in the scheme's order of axes, `equal` spelled out as one group.

    Raises BadRanking, with the value seen, for whatever the scheme or the comparison that was
    shown does not allow.
    """
    for axis, times in Counter(one.axis for one in rankings).items():
        if axis not in scheme.axes:
            raise BadRanking(f"There is no axis {axis!r}; the axes are {_listed(scheme.axes)}.")
        if times > 1:
            raise BadRanking(f"Axis {axis!r} is answered {times} times.")
    by_axis = {one.axis: one for one in rankings}
    if missing := [axis for axis in scheme.axes if axis not in by_axis]:
        raise BadRanking(gettext("The answer lacks %(missing)s.") % {"missing": _listed(missing)})
    return [_checked(by_axis[axis], scheme, presented_order) for axis in scheme.axes]


def store(preference: Preference, rankings: Sequence[AxisRanking]) -> None:
    """One row per axis."""
    for one in rankings:
        insert(
            Ranking(
                preference=preference,
                axis=one.axis,
                outcome=one.outcome,
                groups=one.groups,
                strengths=one.strengths,
                acceptable=one.acceptable,
            )
        )


def _checked(one: AxisRanking, scheme: Scheme, presented_order: Sequence[int]) -> AxisRanking:
    allowed = {
        Outcome.RANKED: True,
        Outcome.EQUAL: scheme.allow_tie,
        Outcome.BOTH_BAD: scheme.allow_both_bad,
        Outcome.CANNOT_TELL: scheme.allow_cannot_tell,
    }
    if one.outcome not in allowed:
        raise BadRanking(
            f"Axis {one.axis!r}: an outcome is one of {_listed(allowed)}, not {one.outcome!r}."
        )
    if not allowed[Outcome(one.outcome)]:
        raise BadRanking(
            gettext("Axis %(axis)r: the scheme does not allow %(seen)r.")
            % {"axis": one.axis, "seen": one.outcome}
        )
    if one.outcome not in WITH_GROUPS:
        if one.groups or one.strengths or one.acceptable is not None:
            raise BadRanking(
                f"Axis {one.axis!r}: {one.outcome!r} has no groups, strengths or acceptable line; "
                f"seen: {one.groups}, {one.strengths}, {one.acceptable}."
            )
        return one
    if one.outcome == Outcome.EQUAL and not one.groups:
        one = replace(one, groups=[list(presented_order)])
    _check_groups(one, presented_order)
    if one.outcome == Outcome.RANKED and not scheme.allow_tie:
        tied = [group for group in one.groups if len(group) > 1]
        if tied:
            raise BadRanking(
                gettext("Axis %(axis)r: the scheme does not allow ties; seen: %(seen)s.")
                % {"axis": one.axis, "seen": tied[0]}
            )
    _check_strengths(one)
    _check_acceptable(one)
    return one


def _check_groups(one: AxisRanking, presented_order: Sequence[int]) -> None:
    where = f"Axis {one.axis!r}"
    if not isinstance(one.groups, list) or not all(isinstance(g, list) for g in one.groups):
        raise BadRanking(f"{where}: groups are lists of completion ids; seen: {one.groups!r}.")
    if [] in one.groups:
        raise BadRanking(f"{where}: group {one.groups.index([])} is empty.")
    ids = [identity for group in one.groups for identity in group]
    for identity in ids:
        if not _is_int(identity) or identity not in presented_order:
            raise BadRanking(f"{where}: completion {identity!r} was not shown.")
        if ids.count(identity) > 1:
            raise BadRanking(f"{where}: completion {identity} has two places.")
    if one.outcome == Outcome.RANKED and len(one.groups) < 2:
        raise BadRanking(
            gettext(
                "Axis %(axis)r: a ranking says of at least one completion that it is better than "
                "another; seen: %(seen)s."
            )
            % {"axis": one.axis, "seen": one.groups}
        )
    if one.outcome == Outcome.EQUAL and (len(one.groups) != 1 or len(ids) < 2):
        raise BadRanking(f"{where}: equal is one group of two or more; seen: {one.groups}.")


def _check_strengths(one: AxisRanking) -> None:
    if not one.strengths:
        return
    gaps = len(one.groups) - 1
    if not isinstance(one.strengths, list) or len(one.strengths) != gaps:
        raise BadRanking(
            f"Axis {one.axis!r}: {gaps} gaps between groups need {gaps} strengths or none; "
            f"seen: {one.strengths!r}."
        )
    for strength in one.strengths:
        number = isinstance(strength, int | float) and not isinstance(strength, bool)
        if not number or not math.isfinite(strength) or strength <= 0:
            raise BadRanking(f"Axis {one.axis!r}: a strength is a number above 0: {strength!r}.")


def _check_acceptable(one: AxisRanking) -> None:
    line = one.acceptable
    if line is not None and (not _is_int(line) or not 0 <= line <= len(one.groups)):
        raise BadRanking(
            f"Axis {one.axis!r}: the acceptable line lies from 0 to {len(one.groups)}: {line!r}."
        )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _listed(names: Any) -> str:
    return ", ".join(repr(str(name)) for name in names)
