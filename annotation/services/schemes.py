"""What an answer may hold beyond the order itself: strength, an acceptability line, ratings ...

A scheme keeps these as JSON in `options`; here they are read, checked and named. A scheme that
says nothing asks for none of it, so schemes of before need no migration.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from annotation.errors import BadInput
from annotation.storable import require_storable

STRENGTH_WORDS: Mapping[int, tuple[Promise, ...]] = {
    2: (_("slightly better"), _("clearly better")),
    3: (_("slightly better"), _("better"), _("much better")),
    4: (
        _("negligibly better"),
        _("slightly better"),
        _("better"),
        _("significantly better"),
    ),
}
"""Levels -> what each is called, weakest first; level 1 is the first. Four are Llama 2's words
(arXiv:2307.09288, section 3.2.1), three with a tie in the middle HelpSteer2's -3..3
(arXiv:2410.01257)."""
STRENGTH_STEPS = {0: 0, 2: 2, 4: 4, 7: 3}
"""What a lead chooses -> levels on either side; 7 steps are three, a tie, and three."""
REASONS = ("off", "optional", "required")
MAX_NAME = 40
MAX_ATTRIBUTES, MAX_FLAGS = 12, 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribute:
    """What each completion is rated on, in whole numbers from low to high."""

    name: str
    low: int = 1
    high: int = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a scheme asks for besides the order of its axes."""

    strength_steps: int = 0
    """0, 2, 4 or 7: how far a choice between two is graded."""
    allow_partial: bool = True
    """A ranking may leave completions out, which never means that they are last."""
    acceptability: bool = False
    """Whether a line may be drawn: what is above it is good enough."""
    ratings: tuple[Attribute, ...] = ()
    flags: tuple[str, ...] = ()
    """What a completion can be marked with, such as `unsafe`."""
    reason: str = "optional"
    """Whether the note is `off`, `optional` or `required`."""
    ideal: bool = False
    """Whether an annotator may write how the answer should have been."""

    @property
    def levels(self) -> int:
        """Strengths go from 1 to this; 0 where none is asked for."""
        return STRENGTH_STEPS[self.strength_steps]

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Options":
        """Options as JSON or a form gives them. Raises BadInput with the value seen."""
        known = {one.name for one in fields(cls)}
        if unknown := sorted(set(stored) - known):
            listed = ", ".join(sorted(known))
            raise BadInput(f"A scheme's options are {listed}: not {unknown[0]!r}.")
        values = dict(stored)
        values["ratings"] = tuple(_attribute(one) for one in values.get("ratings", ()))
        values["flags"] = tuple(values.get("flags", ()))
        options = cls(**values)
        options._check()
        return options

    def as_json(self) -> dict[str, Any]:
        """What differs from a scheme that asks for nothing more."""
        plain = asdict(Options())
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != plain[name]
        }

    def _check(self) -> None:
        if self.strength_steps not in STRENGTH_STEPS:
            raise BadInput(f"Strength has 0, 2, 4 or 7 steps: {self.strength_steps!r}.")
        for name in ("allow_partial", "acceptability", "ideal"):
            if not isinstance(getattr(self, name), bool):
                raise BadInput(f"{name} is true or false: {getattr(self, name)!r}.")
        if self.reason not in REASONS:
            raise BadInput(f"A reason is {', '.join(REASONS)}: {self.reason!r}.")
        _require_names("rating", [one.name for one in self.ratings], MAX_ATTRIBUTES)
        _require_names("flag", self.flags, MAX_FLAGS)


def _attribute(value: Any) -> Attribute:
    """{"name": ..., "low": ..., "high": ...} or an Attribute."""
    if isinstance(value, Attribute):
        found = value
    elif isinstance(value, Mapping) and set(value) <= {"name", "low", "high"} and "name" in value:
        found = Attribute(**value)
    else:
        raise BadInput(f"A rating has a name, a low and a high end: {value!r:.80}.")
    ends = (found.low, found.high)
    whole = all(isinstance(end, int) and not isinstance(end, bool) for end in ends)
    if not whole or not 0 <= found.low < found.high <= 10:
        raise BadInput(
            gettext("Rating %(name)r goes up from 0 or more to 10 or less: %(low)r to %(high)r.")
            % {"name": found.name, "low": found.low, "high": found.high}
        )
    return found


def _require_names(what: str, names: Any, most: int) -> None:
    names = list(names)
    if len(names) > most:
        raise BadInput(f"A scheme has at most {most} {what}s, not {len(names)}.")
    for name in names:
        if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME:
            raise BadInput(f"A {what} has a name of 1 to {MAX_NAME} characters: {name!r:.60}.")
        if names.count(name) > 1:
            raise BadInput(f"There are two {what}s {name!r}.")
    require_storable(names)
