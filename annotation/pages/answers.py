"""What a labeler filled in, read against the order that was shown.

The form speaks of places in that order (1 and 2, or A to I): completion ids would tell which
completion is older. The lease knows which completion stood where.
"""

import re
import string
from collections import defaultdict
from collections.abc import Mapping, Sequence

from django.utils.translation import gettext as _

from annotation.errors import BadRanking
from annotation.models import Outcome
from annotation.services.rankings import AxisRanking

TIE = "tie"
BY_PLACES = "ranked"


def letters(count: int) -> list[str]:
    """What the completions are called on the page: numbers for two, letters for more."""
    return ["1", "2"] if count == 2 else list(string.ascii_uppercase[:count])


def rankings_from(
    posted: Mapping[str, str], axes: Sequence[str], order: Sequence[int]
) -> list[AxisRanking]:
    """One ranking per axis. Raises BadRanking with a sentence in the labeler's language."""
    read = _pair_ranking if len(order) == 2 else _list_ranking
    return [read(posted, index, axis, order) for index, axis in enumerate(axes)]


def _pair_ranking(
    posted: Mapping[str, str], index: int, axis: str, order: Sequence[int]
) -> AxisRanking:
    """axis0-choice holds 1, 2, tie, both_bad or cannot_tell."""
    left, right = order
    choice = posted.get(f"axis{index}-choice", "")
    if choice == "1":
        return AxisRanking(axis=axis, outcome=Outcome.RANKED, groups=[[left], [right]])
    if choice == "2":
        return AxisRanking(axis=axis, outcome=Outcome.RANKED, groups=[[right], [left]])
    if choice == TIE:
        return AxisRanking(axis=axis, outcome=Outcome.EQUAL, groups=[[left, right]])
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
    if len(groups) == 1:
        return AxisRanking(axis=axis, outcome=Outcome.EQUAL, groups=groups)
    return AxisRanking(axis=axis, outcome=Outcome.RANKED, groups=groups)


def _unranked(choice: str, axis: str) -> AxisRanking:
    if choice not in (Outcome.BOTH_BAD, Outcome.CANNOT_TELL):
        raise BadRanking(_("Choose an answer first."))
    return AxisRanking(axis=axis, outcome=choice, groups=[])


def _place(text: str, letter: str, highest: int) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= highest:
        raise BadRanking(
            _("The place of %(letter)s must be a number from 1 to %(highest)s: %(text)s")
            % {"letter": letter, "highest": highest, "text": text[:20]}
        )
    return int(text)
