"""What to ask next, and why: what the answers so far say of the mix. Rules in plain figures.

Each rule looks at one thing, says what it saw, and changes one thing; an interval that reaches the
bound is no reason.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.asking import ACROSS, Asking, Pairing
from annotation.intervals import Statistic, share
from annotation.services.asked import Came, Drawn
from annotation.services.heldout import HeldOut
from annotation.verdicts import FEWEST_GROUPS

FEWEST_ANSWERS = 30
"""A share of fewer is no reason for anything."""
UNDECIDED_ABOVE = 0.4
"""With more answers that prefer nothing, most of what is paid for teaches nothing."""
LONGER_ABOVE = 0.6
ALIKE_ABOVE = 0.25
MISSED_ABOVE = 0.5
HELDOUT_WHILE_UNJUDGED = 0.3
MATCHED_SHARE = 0.3
A_FEW = 0.1
MORE = 0.2
MOST_OF_ONE = 0.5
"""Beyond it nobody is advised to raise a share."""
FEW_OPEN = 40
"""With fewer open there is little to pick from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the rules look at."""

    asking: Asking
    heldout_share: float
    came: list[Came]
    drawn: Drawn
    to_be_had: Mapping[Pairing, bool]
    heldout: HeldOut
    more_groups: int | None
    """Held-out groups that the newest undecided reward model wants; None where none is."""
    has_reward: bool
    open_by_chance: int
    """Open production comparisons that are handed out by chance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Next:
    """One thing to do. changes: of the form, by field, as it would be; page: where else to act."""

    name: str
    sentence: str
    changes: Mapping[str, float] | None = None
    page: str = ""


def what_next(facts: Facts) -> list[Next]:
    """All that the figures give a reason for, the most pressing first."""
    return [one for rule in RULES for one in rule(facts)]


def _held_out(facts: Facts) -> Iterator[Next]:
    lacking = FEWEST_GROUPS - facts.heldout.answered
    if lacking > 0:
        sentence = ngettext(
            "A reward model is judged from %(wanted)s answered held-out questions on; %(count)s is "
            "lacking, and %(open)s are open.",
            "A reward model is judged from %(wanted)s answered held-out questions on; %(count)s "
            "are lacking, and %(open)s are open.",
            lacking,
        ) % {"wanted": FEWEST_GROUPS, "count": lacking, "open": facts.heldout.open}
    elif facts.more_groups:
        lacking = facts.more_groups
        sentence = _(
            "The newest reward model is undecided: when it was judged, about %(count)s more "
            "answered held-out questions would have told. %(open)s are open."
        ) % {"count": lacking, "open": facts.heldout.open}
    else:
        return
    if facts.heldout.open >= lacking:
        yield Next(name="held-out", sentence=f"{sentence} {_sooner()}", page="batches")
    elif facts.heldout_share < HELDOUT_WHILE_UNJUDGED:
        more = _("Ask more of these until then.")
        changes = {"heldout_share": HELDOUT_WHILE_UNJUDGED}
        yield Next(name="held-out", sentence=f"{sentence} {more}", changes=changes)
    else:
        yield Next(name="held-out", sentence=sentence)


def _sooner() -> str:
    return _("Give their batch a higher priority, and they are asked first.")


def _undecided(facts: Facts) -> Iterator[Next]:
    own = _together((one for one in facts.came if one.pairing == Pairing.SAME), "undecided")
    if not _is_above(own, UNDECIDED_ABOVE):
        return
    sentence = _(
        "%(share)s of the answers about two texts of one policy prefer neither (%(n)s answers): "
        "its texts hardly differ."
    ) % _figures(own)
    for pairing in ACROSS:
        there = _together((one for one in facts.came if one.pairing == pairing), "undecided")
        is_no_better = there.n >= FEWEST_ANSWERS and (there.value or 0) >= (own.value or 0)
        if facts.to_be_had[pairing] and facts.asking.shares[pairing] < MORE and not is_no_better:
            changes = _towards(facts.asking, pairing, MORE)
            if changes:
                more = _("Put more of them beside texts of %(whose)s.") % {"whose": pairing.label}
                yield Next(name="undecided", sentence=f"{sentence} {more}", changes=changes)
                return
    yield Next(name="undecided", sentence=f"{sentence} {_hotter()}", page="job-new")


def _hotter() -> str:
    return _("Let the policy write at a higher temperature.")


def _alike(facts: Facts) -> Iterator[Next]:
    found = facts.drawn.alike
    if _is_above(found, ALIKE_ABOVE):
        sentence = _(
            "%(share)s of the texts that were drawn were dropped, for they were the same as "
            "another or nearly (%(n)s texts)."
        ) % _figures(found)
        yield Next(name="alike", sentence=f"{sentence} {_hotter()}", page="job-new")


def _longer(facts: Facts) -> Iterator[Next]:
    found = _together((one for one in facts.came if not one.length), "longer")
    if list(_missed(facts)):
        return  # more would find as few
    if _is_above(found, LONGER_ABOVE) and facts.asking.length_matched < MATCHED_SHARE:
        sentence = _(
            "%(share)s of the preferences go to the longer text (%(n)s answers where one is longer "
            "by more than a tenth). Pairs of one length show what else decides."
        ) % _figures(found)
        yield Next(name="longer", sentence=sentence, changes={"length_matched": MATCHED_SHARE})


def _wrong(facts: Facts) -> Iterator[Next]:
    """Where the model is wrong more often than elsewhere, by intervals that do not meet."""
    for pairing in ACROSS:
        here = _together((one for one in facts.came if one.pairing == pairing), "right")
        rest = _together((one for one in facts.came if one.pairing != pairing), "right")
        if min(here.n, rest.n) < FEWEST_ANSWERS or here.high is None or rest.low is None:
            continue
        if here.high < rest.low and facts.to_be_had[pairing]:
            sentence = _(
                "Beside texts of %(whose)s the reward model agrees with people in %(share)s of "
                "%(n)s preferences, elsewhere in %(other)s: there is most to learn."
            ) % {**_figures(here), "whose": pairing.label, "other": _percent(rest)}
            wanted = min(facts.asking.shares[pairing] + MORE, MOST_OF_ONE)
            changes = _towards(facts.asking, pairing, wanted)
            if changes and wanted > facts.asking.shares[pairing]:
                yield Next(name=f"wrong-{pairing.value}", sentence=sentence, changes=changes)


def _untied(facts: Facts) -> Iterator[Next]:
    """Pairings that could be had and are never asked for."""
    sentences = {
        Pairing.IN_FORCE: _(
            "No question sets the policy beside the version before it, so the scale of one round "
            "is not tied to that of the next."
        ),
        Pairing.REFERENCE: _(
            "There are texts of people or of a dataset, and none is asked about beside the "
            "policy's."
        ),
        Pairing.ANCHOR: _(
            "No question sets new texts beside one that stays the same over all versions."
        ),
    }
    for pairing, sentence in sentences.items():
        was_asked = any(one.pairing == pairing for one in facts.came)
        if facts.to_be_had[pairing] and not facts.asking.shares[pairing] and not was_asked:
            changes = _towards(facts.asking, pairing, A_FEW)
            if changes:
                yield Next(name=f"untied-{pairing.value}", sentence=sentence, changes=changes)
            if pairing == Pairing.IN_FORCE:
                return  # an anchor does the same, and one thing at a time


def _not_to_be_had(facts: Facts) -> Iterator[Next]:
    for pairing in ACROSS:
        if facts.asking.shares[pairing] and not facts.to_be_had[pairing]:
            sentence = {
                Pairing.IN_FORCE: _(
                    "The mix asks for texts of the version in force, and there is none but the one "
                    "that writes: the other shares take its place."
                ),
                Pairing.REFERENCE: _(
                    "The mix asks for texts of people or of a dataset, and no prompt has one: the "
                    "other shares take its place."
                ),
                Pairing.ANCHOR: _(
                    "The mix asks for anchors, and nothing has been judged yet: the other shares "
                    "take its place."
                ),
            }[pairing]
            yield Next(name=f"none-{pairing.value}", sentence=sentence)


def _missed(facts: Facts) -> Iterator[Next]:
    tried = facts.drawn.matched + facts.drawn.missed
    found = share(facts.drawn.missed, tried)
    if _is_above(found, MISSED_ABOVE):
        sentence = _(
            "For %(share)s of %(n)s questions no texts of one length were found: they were asked "
            "as they came."
        ) % _figures(found)
        yield Next(name="missed", sentence=sentence)


def _by_model(facts: Facts) -> Iterator[Next]:
    if facts.has_reward and facts.open_by_chance >= FEW_OPEN:
        sentence = _(
            "%(count)s open questions are handed out by chance. A batch can be asked in the order "
            "of what the reward model is least sure of."
        ) % {"count": facts.open_by_chance}
        yield Next(name="by-model", sentence=sentence, page="batches")


Rule = Callable[[Facts], Iterator[Next]]
RULES: tuple[Rule, ...] = (
    *(_held_out, _undecided, _alike, _longer, _wrong),
    *(_untied, _not_to_be_had, _missed, _by_model),
)


def _together(some: Iterable[Came], figure: str) -> Statistic:
    """The share over several ways."""
    found = [getattr(one, figure) for one in some]
    return share(sum(round((one.value or 0) * one.n) for one in found), sum(one.n for one in found))


def _is_above(found: Statistic, bound: float) -> bool:
    """Certainly, and of enough."""
    return found.n >= FEWEST_ANSWERS and found.low is not None and found.low > bound


def _towards(asking: Asking, pairing: Pairing, wanted: float) -> dict[str, float] | None:
    """The shares with one of them raised, at the cost of pairs of the same policy; None where these
    do not suffice."""
    shares = {one: share for one, share in asdict(asking).items() if one in Pairing.values}
    if pairing == Pairing.SAME:
        return None
    left = round(shares[Pairing.SAME] - (wanted - shares[pairing]), 6)
    if left < 0:
        return None
    return {**shares, pairing.value: round(wanted, 6), Pairing.SAME.value: left}


def _figures(found: Statistic) -> dict[str, str]:
    return {"share": _percent(found), "n": str(found.n)}


def _percent(found: Statistic) -> str:
    if found.value is None:
        return "–"
    rounded = f"{found.value:.0%}"
    is_end = rounded in ("0%", "100%") and 0 < found.value < 1
    return f"{found.value:.1%}" if is_end else rounded
