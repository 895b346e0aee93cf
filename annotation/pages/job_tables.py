"""What a job was told and what it ended with, as lines to read instead of JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.job_schemas import meaning_in_words, settings_of
from annotation.models import AnnotatorKind, JobKind, JobStatus, TrainingJob
from annotation.pages.dev_answers import is_measured
from annotation.pages.job_figures import Phase
from annotation.pages.measures import figures, phase_of, phase_rank
from annotation.services.inputs import NO_INIT

INPUT_NAMES: Mapping[str, str | Promise] = {
    "data": gettext_lazy("Files"),
    "annotators": gettext_lazy("Votes of"),
    "decisions": gettext_lazy("Reviewers' decisions"),
    "weights": gettext_lazy("Votes weigh"),
    "judge_share": gettext_lazy("Share of groups kept for a judge"),
    "processes": gettext_lazy("Processes"),
    "comparisons": gettext_lazy("Comparisons to write"),
    "init": gettext_lazy("Starts from"),
    "judge_of": gettext_lazy("Makes the judge's start beside job"),
    "against": gettext_lazy("Head to head with version"),
    "split": gettext_lazy("Split"),
    "planned": gettext_lazy("Prompts chosen"),
    "opponent": gettext_lazy("Version that may stand beside it"),
}
FEW_STEPS = 3
"""With fewer done there is nothing to foretell from."""


@dataclass(frozen=True, slots=True)
class ConfigLine:
    """One setting that was given."""

    name: str
    value: str
    default: str
    """Empty where the kind has no such setting."""
    meaning: str


def config_lines(job: TrainingJob) -> list[ConfigLine]:
    """The settings that were given, in the order of the kind's; unknown ones stand last."""
    known = settings_of(job.kind)
    order = {name: place for place, name in enumerate(known)}
    return [
        ConfigLine(
            name,
            _text(value),
            _text(known[name].default) if name in known else "",
            meaning_in_words(known[name].meaning) if name in known else "",
        )
        for name, value in sorted(
            job.config.items(), key=lambda item: (order.get(item[0], len(order)), item[0])
        )
    ]


def input_lines(job: TrainingJob) -> list[tuple[str, str]]:
    """What the job works on beyond versions; of what the worker planned, how many."""
    kinds = dict(AnnotatorKind.choices)
    found = []
    for name, value in job.inputs.items():
        if name in ("propensities", "asked", "human", "blank", "not_planned"):
            continue  # of the planned, one each; counted in the result
        if name == "planned" and isinstance(value, list):
            said = str(len(value))
        elif name == "init" and value == NO_INIT:
            said = _("random weights")
        elif name == "annotators" and isinstance(value, list):
            said = ", ".join(str(kinds.get(one, one)) for one in value)
        else:
            said = ", ".join(map(str, value)) if isinstance(value, list) else _text(value)
        found.append((str(INPUT_NAMES.get(name, name)), said))
    return found


def result_phases(job: TrainingJob, num_dev: int | None = None) -> list[Phase]:
    """The figures that it ended with, by phase of the run; num_dev as in job_figures."""
    values = dict(job.result)
    final = values.pop("final", {})
    found = [Phase("", singles=list(figures(values)))] if values else []
    if not isinstance(final, Mapping):
        return [*found, Phase("", singles=list(figures({"final": final})))]
    for phase in sorted(final, key=phase_rank):
        of_phase = final[phase] if isinstance(final[phase], Mapping) else {phase: final[phase]}
        shown = {
            key: value
            for key, value in of_phase.items()
            if key not in ("step", "phase") and is_measured(phase, key, num_dev)
        }
        if not shown:
            continue
        found.append(Phase(phase_of(phase), singles=list(figures(shown))))
    return found


def minutes_left(job: TrainingJob, now: datetime) -> int | None:
    """Of a running job, by its own steps so far; None while that says nothing.

    An attempt that went on from a checkpoint did fewer of the steps than the count says, so only a
    first attempt is foretold from.
    """
    if job.status != JobStatus.RUNNING or job.started_at is None or job.attempt > 1:
        return None
    if job.step < FEW_STEPS or not job.total_steps or job.kind == JobKind.SAMPLE:
        return None
    per_step = (now - job.started_at).total_seconds() / job.step
    return math.ceil(per_step * max(0, job.total_steps - job.step) / 60)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return str(value)
