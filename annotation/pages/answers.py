"""What a labeler filled in, read against the order that was shown.

The form speaks of places in that order (1 and 2, or A to I): completion ids would tell which
completion is older. The lease knows which completion stood where.
"""

import re
import string
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.http import QueryDict
from django.utils.translation import gettext as _

from annotation.errors import BadRanking
from annotation.models import Outcome, Preference, Ranking, Scheme
from annotation.services.answers import Answer, Judgment
from annotation.services.rankings import AxisRanking
from annotation.services.schemes import STRENGTH_WORDS, Options

TIE = "tie"
BY_PLACES = "ranked"


@dataclass(frozen=True)
class Choice:
    """One button of an axis."""

    value: str
    key: str
    words: str
    side: str = ""
    """1 or 2 where it puts that answer first."""


def letters(count: int) -> list[str]:
    """What the completions are called on the page: numbers for two, letters for more."""
    return ["1", "2"] if count == 2 else list(string.ascii_uppercase[:count])


def choices_of(scheme: Scheme, options: Options, count: int) -> list[list[Choice]]:
    """The rows of buttons under an axis: of two answers all that can be said of them, of a list
    what is said instead of places. A graded scale has a row of its own."""
    scale = _pair_choices(scheme, options) if count == 2 else []
    found = [] if options.levels else scale
    if scheme.allow_both_bad:
        words = _("Both bad") if count == 2 else _("All bad")
        found.append(Choice(Outcome.BOTH_BAD, "b", words))
    if scheme.allow_cannot_tell:
        found.append(Choice(Outcome.CANNOT_TELL, "c", _("Cannot tell")))
    return [row for row in (scale if options.levels else [], found) if row]


def _pair_choices(scheme: Scheme, options: Options) -> list[Choice]:
    """From `1 is much better` to `2 is much better`; the digits count along the scale."""
    tie = [Choice(TIE, "t", _("Tie"))] if scheme.allow_tie else []
    if not options.levels:
        return [
            Choice("1", "1", _("1 is better"), "1"),
            Choice("2", "2", _("2 is better"), "2"),
            *tie,
        ]
    words = STRENGTH_WORDS[options.levels]
    left = [
        (f"1+{level}", _("1 %(words)s") % {"words": words[level - 1]}, "1")
        for level in range(options.levels, 0, -1)
    ]
    right = [
        (f"2+{level}", _("2 %(words)s") % {"words": words[level - 1]}, "2")
        for level in range(1, options.levels + 1)
    ]
    graded = [
        Choice(value, str(digit), text, side)
        for digit, (value, text, side) in enumerate([*left, *right], start=1)
    ]
    return [*graded[: options.levels], *tie, *graded[options.levels :]]


def answer_from(
    posted: QueryDict, scheme: Scheme, order: Sequence[int], texts: Sequence[str]
) -> Answer:
    """The whole answer. texts: as shown; an ideal answer that is one of them was never edited.

    Raises BadRanking with a sentence in the labeler's language.
    """
    options = Options.of(scheme.options)
    note = posted.get("note", "").strip()
    if options.reason == "required" and not note:
        raise BadRanking(_("Say why: this project asks for a reason."))
    ideal = posted.get("ideal", "").replace("\r\n", "\n").strip()
    return Answer(
        rankings=rankings_from(posted, scheme.axes, order),
        judgments=_judgments(posted, options, order),
        note=note,
        ideal="" if ideal in [text.strip() for text in texts] else ideal,
    )


def fields_of(preference: Preference) -> QueryDict:
    """The form as it was filled in for a stored answer: what answer_from reads it from."""
    fields = QueryDict(mutable=True)
    options, order = Options.of(preference.scheme.options), preference.presented_order
    named = dict(zip(order, letters(len(order)), strict=True))
    by_axis = {ranking.axis: ranking for ranking in preference.rankings.all()}
    for index, axis in enumerate(preference.scheme.axes):
        for name, value in _axis_fields(by_axis[axis], order, named).items():
            fields[f"axis{index}-{name}"] = value
    for judgment in preference.judgments.all():
        letter = named[judgment.completion_id]
        for index, attribute in enumerate(options.ratings):
            fields[f"rating{index}-{letter}"] = str(judgment.ratings[attribute.name])
        fields.setlist(f"flags-{letter}", judgment.flags)
    fields["note"] = preference.note
    fields["ideal"] = preference.ideal.text if preference.ideal else ""
    return fields


def _axis_fields(
    ranking: Ranking, order: Sequence[int], named: Mapping[int, str]
) -> dict[str, str]:
    """choice, line and places of one axis."""
    if ranking.outcome in (Outcome.BOTH_BAD, Outcome.CANNOT_TELL):
        return {"choice": ranking.outcome}
    found = {}
    if ranking.acceptable is not None:
        above = sum(len(group) for group in ranking.groups[: ranking.acceptable])
        found["line"] = str(above if len(order) == 2 else ranking.acceptable)
    if len(order) > 2:
        for place, group in enumerate(ranking.groups, start=1):
            found |= {f"place-{named[completion]}": str(place) for completion in group}
    elif ranking.outcome == Outcome.EQUAL:
        found["choice"] = TIE
    else:
        level = f"+{ranking.strengths[0]:g}" if ranking.strengths else ""
        found["choice"] = f"{named[ranking.groups[0][0]]}{level}"
    return found


def rankings_from(
    posted: Mapping[str, str], axes: Sequence[str], order: Sequence[int]
) -> list[AxisRanking]:
    """One ranking per axis. Raises BadRanking with a sentence in the labeler's language."""
    read = _pair_ranking if len(order) == 2 else _list_ranking
    return [read(posted, index, axis, order) for index, axis in enumerate(axes)]


def _pair_ranking(
    posted: Mapping[str, str], index: int, axis: str, order: Sequence[int]
) -> AxisRanking:
    """axis0-choice holds 1, 2, 1+3 (much better), tie, both_bad or cannot_tell."""
    left, right = order
    choice = posted.get(f"axis{index}-choice", "")
    side, _plus, level = choice.partition("+")
    line = _line(posted, index, 2)
    if side in ("1", "2"):
        groups = [[left], [right]] if side == "1" else [[right], [left]]
        return AxisRanking(
            axis=axis,
            outcome=Outcome.RANKED,
            groups=groups,
            strengths=[int(level)] if _is_number(level) else [],
            acceptable=line,
        )
    if choice == TIE:
        if line == 1:
            raise BadRanking(_("Of two equal answers both are good enough or neither is."))
        return AxisRanking(
            axis=axis,
            outcome=Outcome.EQUAL,
            groups=[[left, right]],
            acceptable=None if line is None else line // 2,
        )
    return _unranked(choice, axis)


def _list_ranking(
    posted: Mapping[str, str], index: int, axis: str, order: Sequence[int]
) -> AxisRanking:
    """axis0-place-A ... hold digits; axis0-choice nothing, ranked, both_bad or cannot_tell."""
    choice = posted.get(f"axis{index}-choice", "")
    at_place: dict[int, list[int]] = defaultdict(list)
    for letter, completion in zip(letters(len(order)), order, strict=True):
        if place := posted.get(f"axis{index}-place-{letter}", "").strip():
            at_place[_place(place, letter, len(order))].append(completion)
    if choice not in ("", BY_PLACES):
        if at_place:
            raise BadRanking(_("Give places or say that none can be ranked, not both."))
        return _unranked(choice, axis)
    groups = [at_place[place] for place in sorted(at_place)]
    if sum(len(group) for group in groups) < 2:
        raise BadRanking(_("Give a place to two answers or more."))
    line = _line(posted, index, len(order))
    return AxisRanking(
        axis=axis,
        outcome=Outcome.EQUAL if len(groups) == 1 else Outcome.RANKED,
        groups=groups,
        acceptable=None if line is None else sum(place <= line for place in at_place),
    )


def _line(posted: Mapping[str, str], index: int, highest: int) -> int | None:
    """axis0-line: down to which place the answers are good enough, 0 = none is; None = not said."""
    text = posted.get(f"axis{index}-line", "").strip()
    if not text:
        return None
    if not _is_number(text) or int(text) > highest:
        raise BadRanking(
            _("Good enough down to a place from 0 to %(highest)s: %(text)s")
            % {"highest": highest, "text": text[:20]}
        )
    return int(text)


def _judgments(posted: QueryDict, options: Options, order: Sequence[int]) -> list[Judgment]:
    """rating0-A holds a digit of the first attribute, flags-A the flags of completion A."""
    return [
        Judgment(
            completion=completion,
            ratings={
                attribute.name: _rating(
                    posted.get(f"rating{index}-{letter}", "").strip(),
                    letter,
                    attribute.name,
                    attribute.low,
                    attribute.high,
                )
                for index, attribute in enumerate(options.ratings)
            },
            flags=posted.getlist(f"flags-{letter}"),
        )
        for letter, completion in zip(letters(len(order)), order, strict=True)
    ]


def _rating(text: str, letter: str, name: str, low: int, high: int) -> int:
    if not _is_number(text) or not low <= int(text) <= high:
        raise BadRanking(
            _("Answer %(letter)s needs a %(name)s from %(low)s to %(high)s: %(text)s")
            % {"letter": letter, "name": name, "low": low, "high": high, "text": text[:20] or "–"}
        )
    return int(text)


def _unranked(choice: str, axis: str) -> AxisRanking:
    if choice not in (Outcome.BOTH_BAD, Outcome.CANNOT_TELL):
        raise BadRanking(_("Choose an answer first."))
    return AxisRanking(axis=axis, outcome=choice, groups=[])


def _place(text: str, letter: str, highest: int) -> int:
    if not _is_number(text) or not 1 <= int(text) <= highest:
        raise BadRanking(
            _("The place of %(letter)s must be a number from 1 to %(highest)s: %(text)s")
            % {"letter": letter, "highest": highest, "text": text[:20]}
        )
    return int(text)


def _is_number(text: str) -> bool:
    """A few digits; of thousands Python makes no number."""
    return re.fullmatch("[0-9]{1,3}", text) is not None
