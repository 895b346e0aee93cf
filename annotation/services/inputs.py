"""What a job works on beyond versions: `TrainingJob.inputs`, checked before it becomes a row."""

from collections.abc import Callable, Mapping
from typing import Any

from annotation.errors import BadInput
from annotation.funnel import DECISIONS, WEIGHTS
from annotation.group_shares import MOST_FOR_THE_JUDGE, is_share
from annotation.models import AnnotatorKind, Split
from annotation.services.meetings import PEOPLE

NO_INIT = "none"
"""inputs.init of a reward or judge job that starts from random weights."""
NOTES = (
    "planned",
    "propensities",
    "asked",
    "opponent",
    "not_planned",
    "human",
    "blank",
    "judge_of",
)
"""What workers write there themselves: nobody asks for it, and it is no part of a copy."""
MAX_COMPARISONS = 100_000
MAX_PROCESSES = 64


def _is_list_of_paths(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _is_list_of_kinds(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(one in AnnotatorKind.values for one in value)
    )


def _is_list_of_licences(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _is_number_of_comparisons(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_COMPARISONS


def _is_id(value: object) -> bool:
    return type(value) is int and 1 <= value < 2**63


def _is_number_of_processes(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_PROCESSES


CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "data": (_is_list_of_paths, "a list of file paths"),
    "annotators": (_is_list_of_kinds, f"a list of kinds out of {', '.join(AnnotatorKind.values)}"),
    "decisions": (lambda value: value in DECISIONS, f"one of {', '.join(DECISIONS)}"),
    "weights": (lambda value: value in WEIGHTS, f"one of {', '.join(WEIGHTS)}"),
    "processes": (_is_number_of_processes, f"a whole number from 1 to {MAX_PROCESSES}"),
    "judge_share": (is_share, f"a share from 0 to {MOST_FOR_THE_JUDGE}"),
    "against": (
        lambda value: _is_id(value) or value == PEOPLE,
        f"the id of a policy version, or {PEOPLE!r}",
    ),
    "licences": (_is_list_of_licences, "a list of licences, as sources name them"),
    "split": (lambda value: value in (Split.DEV, Split.TEST), "dev or test"),
    "comparisons": (_is_number_of_comparisons, f"a whole number from 0 to {MAX_COMPARISONS}"),
}


def require_inputs(name: str, inputs: Mapping[str, Any]) -> None:
    """Raise BadInput, which calls the inputs `name`, where the workers could not read one."""
    for key, (fits, what) in CHECKS.items():
        if key in inputs and not fits(inputs[key]):
            raise BadInput(f"{name}.{key} must be {what}: {inputs[key]!r:.80}.")
