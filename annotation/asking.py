"""What new comparisons are made of: who writes their texts, and how alike these are in length.

Pairs of one policy teach a reward model the differences that PPO will meet; pairs across versions,
with a text of a person or with an old one that stays the same tie the scale of one round to that of
the next. A pair of equal length can't be decided by length, which labelers and models lean to.

How a comparison was made is its selector, so that it goes wherever the ledger goes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from django.db.models import TextChoices
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from annotation.errors import BadInput


class LengthMatch(TextChoices):
    """What was wished for of the lengths of a comparison's texts, and had."""

    ANY = "", _("as they come")
    MATCHED = "length", _("of one length")
    UNLIKE = "unlike", _("no two of one length")
    """They were to be matched, and no such were found: these are unlike more often than others."""


class Pairing(TextChoices):
    """Who writes the text that the policy's own are put beside."""

    SAME = "same", _("the same policy")
    IN_FORCE = "in_force", _("the version in force")
    """Where that is the writer itself: the one that was in force before it."""
    REFERENCE = "reference", _("a person or the dataset")
    """What a person wrote to the prompt, else what came with its dataset."""
    ANCHOR = "anchor", _("the prompt's anchor")
    """The first text of the prompt that people ever judged: it stays the same for all versions."""


ACROSS = (Pairing.IN_FORCE, Pairing.REFERENCE, Pairing.ANCHOR)
"""Those that set a text by somebody else beside the policy's."""
LONGEST_BY_SHORTEST = 1.1
"""Characters of a comparison's longest text by those of its shortest, at most, where they are
matched in length: the first bucket of the page of length bias."""
UNIFORM = "uniform-1"
"""The selector of pairs of the same policy, as they come."""
_VERSION = "-1"
SUM_WITHIN = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """A project's mix, as shares from 0 to 1; the shares of pairings sum to 1."""

    same: float = 1.0
    in_force: float = 0.0
    reference: float = 0.0
    anchor: float = 0.0
    length_matched: float = 0.0
    """Share of the comparisons that models learn from whose texts are matched in length, across
    all pairings. What is held out is asked as it comes."""

    @classmethod
    def of(cls, stored: object) -> "Asking":
        """As JSON or a form gives it; {} is the plain mix. Raises BadInput with the value seen."""
        known = [one.name for one in fields(cls)]
        if not isinstance(stored, Mapping):
            raise BadInput(
                gettext("A mix is a JSON object of shares: %(seen)s.") % {"seen": f"{stored!r:.80}"}
            )
        if unknown := sorted(set(map(str, stored)) - set(known)):
            raise BadInput(
                gettext("A mix has %(known)s, not %(seen)s.")
                % {"known": ", ".join(known), "seen": f"{unknown[0]!r:.60}"}
            )
        for name, value in stored.items():
            _require_share(str(name), value)
        plain = {Pairing.SAME.value: 0.0} if set(stored) & set(Pairing.values) else {}
        asking = cls(**{**plain, **{name: float(value) for name, value in stored.items()}})
        total = math.fsum(asking.shares.values())
        if abs(total - 1) > SUM_WITHIN:
            shares = ", ".join(f"{name} {share:g}" for name, share in asking.shares.items())
            raise BadInput(
                gettext("The shares of a mix sum to 1, these to %(total)s: %(shares)s.")
                % {"total": f"{total:g}", "shares": shares}
            )
        return asking

    @property
    def shares(self) -> dict[Pairing, float]:
        """Pairing -> share."""
        return {one: getattr(self, one.value) for one in Pairing}

    def as_json(self) -> dict[str, float]:
        """What a project keeps: nothing of the plain mix."""
        return {} if self == Asking() else asdict(self)


def _require_share(name: str, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:  # type: ignore[operator]
        raise BadInput(
            gettext("%(name)s is a share from 0 to 1: %(seen)s.")
            % {"name": name, "seen": f"{value!r:.40}"}
        )


def selector_of(pairing: Pairing, length: LengthMatch = LengthMatch.ANY) -> str:
    """Under which selector such a comparison is kept."""
    if pairing == Pairing.SAME and not length:
        return UNIFORM
    return f"{pairing.value}{'-' if length else ''}{length.value}{_VERSION}"


MADE_AS: dict[str, tuple[Pairing, LengthMatch]] = {
    selector_of(pairing, length): (pairing, length) for pairing in Pairing for length in LengthMatch
}
"""Selector -> how its comparisons were made."""


def label_of(selector: str) -> str:
    """In words."""
    pairing, length = MADE_AS[selector]
    if not length:
        return str(pairing.label)
    return gettext("%(whose)s, %(length)s") % {"whose": pairing.label, "length": length.label}


def closest_in_length(texts: Sequence[str], wanted: int, fixed: str | None = None) -> list[int]:
    """Places of the `wanted` texts that lie closest in length, beside a fixed one where there is
    one, by the ratio of the longest to the shortest; the earlier ones where several lie as close.
    Empty where no choice is within LONGEST_BY_SHORTEST."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    best: tuple[float, list[int]] | None = None
    for start in range(len(order) - wanted + 1):
        places = sorted(order[start : start + wanted])
        lengths = [len(texts[place]) for place in places]
        lengths += [len(fixed)] if fixed is not None else []
        found = (max(lengths) / max(min(lengths), 1), places)
        if found[0] <= LONGEST_BY_SHORTEST and (best is None or found < best):
            best = found
    return best[1] if best else []
