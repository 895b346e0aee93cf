"""What a gate found: numbers, and a yes or no."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a gate found. verdict: passed, failed, first (nothing in force to compare with),
    unjudged: it passes, for there are too few answers to say anything by, or undecided: it does
    not pass, for it is not shown to be as good, nor is it refused. An admin may promote any.

    warnings: what an admin should know, in sentences of annotation/verdicts.py; none of them
    refuses."""

    passed: bool
    verdict: str
    why: str
    numbers: Mapping[str, Any]
    warnings: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "why": self.why,
            "numbers": dict(self.numbers),
            "warnings": list(self.warnings),
        }
