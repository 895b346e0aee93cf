"""What a job's config may hold: a JSON Schema for each kind, by `python -m workers.job_schemas`.

Whatever the schema allows the laboratory may still refuse, for it knows which settings go together.
"""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from annotation.errors import BadInput

PATH_SETTINGS = ("tokenizer", "baseline_cache", "ptx_data")
"""Settings of the training commands that name a path; a job may not choose one."""
FOLDER = Path(__file__).parent
OF_TYPE = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
IN_WORDS = {
    "integer": gettext_lazy("a whole number"),
    "number": gettext_lazy("a number"),
    "string": gettext_lazy("a text"),
    "boolean": gettext_lazy("true or false"),
    "array": gettext_lazy("a list of numbers"),
    "object": gettext_lazy("an object of numbers"),
    "null": "null",
}
LARGEST = 2**63
"""Beyond it no number fits into what a trainer computes with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting of a kind of job."""

    name: str
    meaning: str
    """In English."""
    types: tuple[str, ...]
    """As JSON Schema names them."""
    default: Any
    choices: tuple[Any, ...]
    """All that is allowed, where that is a list; else empty."""
    least: float | None
    most: float | None
    above: float | None
    """The limit itself is not allowed."""
    below: float | None

    def fault_of(self, value: Any) -> str:
        """What is wrong with a value, as the end of "NAME must be"; empty where nothing is."""
        if self.choices and value not in self.choices:
            return _("one of %(choices)s") % {"choices": ", ".join(map(_json, self.choices))}
        fits = any(
            isinstance(value, OF_TYPE[kind]) and (isinstance(value, bool) == (kind == "boolean"))
            for kind in self.types
        )
        if not fits:
            return _(" or ").join(str(IN_WORDS[kind]) for kind in self.types)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._limit_passed(value)
        return ""

    def _limit_passed(self, value: float) -> str:
        if isinstance(value, float) and not math.isfinite(value):
            return _("finite")
        if self.least is not None and value < self.least:
            return _("at least %(limit)s") % {"limit": self.least}
        if self.above is not None and value <= self.above:
            return _("above %(limit)s") % {"limit": self.above}
        if self.most is not None and value > self.most:
            return _("at most %(limit)s") % {"limit": self.most}
        if self.below is not None and value >= self.below:
            return _("below %(limit)s") % {"limit": self.below}
        return "" if abs(value) < LARGEST else _("a number of at most 64 bits")


@cache
def settings_of(kind: str) -> Mapping[str, Setting]:
    """All settings of a kind of job, by name and in the order of its config class."""
    schema = json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    return {name: _setting(name, one) for name, one in schema["properties"].items()}


def _setting(name: str, schema: Mapping[str, Any]) -> Setting:
    kinds = schema["type"]
    return Setting(
        name=name,
        meaning=schema["description"],
        types=tuple(kinds if isinstance(kinds, list) else [kinds]),
        default=schema["default"],
        choices=tuple(schema.get("enum", ())),
        least=schema.get("minimum"),
        most=schema.get("maximum"),
        above=schema.get("exclusiveMinimum"),
        below=schema.get("exclusiveMaximum"),
    )


def meaning_in_words(meaning: str) -> str:
    """What a setting or an alarm means, in the reader's language."""
    if (get_language() or "").lower().startswith("zh"):
        return _meanings_zh().get(meaning, meaning)
    return meaning


@cache
def _meanings_zh() -> Mapping[str, str]:
    return dict(json.loads((FOLDER / "meanings.zh_Hans.json").read_text(encoding="utf-8")))


def require_no_paths(config: Mapping[str, Any]) -> None:
    """Raise BadInput for a setting that names a path."""
    for name in PATH_SETTINGS:
        if name in config:
            told = {"name": name, "value": f"{config[name]!r:.80}"}
            raise BadInput(_("config.%(name)s names a path, and a job may not: %(value)s.") % told)


def require_config(kind: str, config: Mapping[str, Any]) -> None:
    """Raise BadInput for a setting that this kind of job has not, or a value that it can't have."""
    require_no_paths(config)
    known = settings_of(kind)
    for name, value in config.items():
        told = {"kind": kind, "name": name[:80], "value": f"{value!r:.80}"}
        if name not in known:
            if near := difflib.get_close_matches(name, known, n=1):
                told["near"] = near[0]
                raise BadInput(
                    _("A %(kind)s job has no setting “%(name)s”; do you mean %(near)s?") % told
                )
            raise BadInput(_("A %(kind)s job has no setting “%(name)s”.") % told)
        if fault := known[name].fault_of(value):
            told["fault"] = fault
            raise BadInput(_("config.%(name)s must be %(fault)s: %(value)s.") % told)


def _json(value: Any) -> str:
    return "null" if value is None else str(value)
