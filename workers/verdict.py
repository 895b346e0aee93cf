"""What a gate found: numbers, and a yes or no."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a gate found. verdict: passed, failed, first (nothing in force to compare with),
    unjudged: it passes, for there are too few answers to say anything by (a later SFT version does
    not, nor is it refused), or undecided: it does not pass, for it is not shown to be as good, nor
    is it refused. An admin may promote any.

    warnings: what an admin should know, in sentences of annotation/verdicts.py; none of them
    refuses."""

    passed: bool
    verdict: str
    why: str
    numbers: Mapping[str, Any]
    warnings: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Numbers that are none (NaN, infinite) are None: JSON has no word for them, and the ledger
        takes none."""
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "why": self.why,
            "numbers": _finite(self.numbers),
            "warnings": list(self.warnings),
        }


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
