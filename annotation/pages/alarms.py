"""Alarms that a run rang: when first, with which value, and the sentence that helps.

Trainers write them as numbers (phases `alarms` and `skipped` of a job's metrics). What each kind
says is in job_schemas/alarms.json, by `python -m workers.job_schemas`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from django.db.models import OuterRef, Subquery
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.job_schemas import FOLDER, meaning_in_words
from annotation.models import JobMetric, TrainingJob
from annotation.pages.charts import number
from annotation.pages.measures import name_of

RUNG, OF_STEPS, SKIPPED = "alarms", "ppo", "skipped"
"""Phases: what rang, the steps that it is asked of, and steps that were left out."""
NUM_SKIPPED = "num_skipped"
ANY = "*"
CHARTED = {"kl_below_zero": "kl_nats", NUM_SKIPPED: "loss"}
"""The figure that an alarm is of, where its name does not say it."""
TITLES: Mapping[str, str | Promise] = {
    NUM_SKIPPED: gettext_lazy("Steps skipped"),
    "_drift": gettext_lazy("%(name)s, against the first answers'"),
    "_fallen": gettext_lazy("%(name)s, fall from its peak"),
    "_against": gettext_lazy("%(name)s, correlation with the score"),
}
"""By how an alarm's name ends, where its value is not the figure itself."""


@dataclass(slots=True)
class Alarm:
    """One kind of alarm in one run."""

    name: str
    key: str
    """Of the figure that it rings for."""
    first_step: int
    first_value: float | None
    """None: it was no finite number."""
    last_step: int
    last_value: float | None
    steps: int = 1
    """In so many it rang."""
    is_on: bool = False
    """It rang in the newest step."""

    @property
    def title(self) -> str:
        """What its value is of, in words."""
        for ending, words in TITLES.items():
            if self.name.endswith(ending):
                return str(words) % {"name": name_of(self.key)}
        return name_of(self.key)

    @property
    def first(self) -> str:
        """Its value as it rang first."""
        return _("no number") if self.first_value is None else number(self.first_value)

    @property
    def last(self) -> str:
        """Its value as it rang last."""
        return _("no number") if self.last_value is None else number(self.last_value)

    @property
    def healthy(self) -> str:
        """Its bounds, in words."""
        return meaning_in_words(_says().get(_kind_of(self.name), {}).get("healthy", ""))

    @property
    def help(self) -> str:
        """What helps."""
        return meaning_in_words(_says().get(_kind_of(self.name), {}).get("help", ""))


def alarms_of(job: TrainingJob) -> list[Alarm]:
    """All that rang in a run, those that ring now first, then by the step when they began."""
    found: dict[str, Alarm] = {}
    rows = job.metrics.filter(phase__in=(RUNG, SKIPPED)).order_by("step")
    for step, values in rows.values_list("step", "values"):
        for name, value in values.items():
            if NUM_SKIPPED in values and name != NUM_SKIPPED:
                continue
            _take(found, name, step, value)
    if found:
        newest = job.metrics.filter(phase=OF_STEPS).order_by("-step").values_list("step", flat=True)
        now = newest.first()
        for alarm in found.values():
            alarm.is_on = alarm.last_step == now
    return sorted(found.values(), key=lambda one: (not one.is_on, one.first_step, one.name))


def _take(found: dict[str, Alarm], name: str, step: int, value: float | None) -> None:
    if (alarm := found.get(name)) is None:
        found[name] = Alarm(name, key_of(name), step, value, step, value)
    else:
        alarm.last_step, alarm.last_value, alarm.steps = step, value, alarm.steps + 1


def ringing(jobs: Iterable[TrainingJob]) -> dict[int, list[Alarm]]:
    """What rings in the newest step of each of these jobs, by job."""
    newest = JobMetric.objects.filter(job=OuterRef("job"), phase=OF_STEPS).order_by("-step")
    rows = JobMetric.objects.filter(
        job__in=[job.pk for job in jobs], phase=RUNG, step=Subquery(newest.values("step")[:1])
    )
    return {
        job_id: [Alarm(name, key_of(name), step, one, step, one) for name, one in values.items()]
        for job_id, step, values in rows.values_list("job_id", "step", "values")
    }


def key_of(name: str) -> str:
    """The metric that an alarm rings for: response_tokens of response_tokens_drift."""
    if name in CHARTED:
        return CHARTED[name]
    for kind in _says():
        if kind.startswith(ANY) and name.endswith(kind[1:]):
            return name if kind == "*_spread" else name.removesuffix(kind[1:])
    return name.removesuffix("_drift")


def _kind_of(name: str) -> str:
    """What alarms.json calls an alarm of this name."""
    if name in _says():
        return name
    return next((kind for kind in _says() if kind[0] == ANY and name.endswith(kind[1:])), "")


@cache
def _says() -> Mapping[str, Mapping[str, str]]:
    return dict(json.loads((FOLDER / "alarms.json").read_text(encoding="utf-8")))
