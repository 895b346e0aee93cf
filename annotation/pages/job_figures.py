"""A job's figures, arranged: the few that matter first and large, one table of those with a single
value, and every other chart behind "More"."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from annotation.models import JobKind, TrainingJob
from annotation.pages.alarms import RUNG, Alarm
from annotation.pages.charts import Chart, line_chart
from annotation.pages.dev_answers import is_measured
from annotation.pages.measures import Figure, figure_of, name_of, phase_of, phase_rank
from annotation.services.curves import series_of

MACHINE = tuple(
    ("machine", key) for key in ("cpu_percent", "resident_mb", "gpu_percent", "gpu_memory_mb")
)
"""What the run took of its machine, by its worker; last of those that stand first."""
LEADING: Mapping[str, tuple[tuple[str, str], ...]] = {
    JobKind.PRETRAIN: (("train", "loss"), ("heldout", "bits_per_byte")),
    JobKind.SFT: (("train", "loss"), ("dev", "loss")),
    JobKind.REWARD: (
        *(("train", "loss"), ("dev", "log_loss"), ("dev", "accuracy")),
        *(("train", "accuracy"), ("train", "margin"), ("train", "grad_norm")),
    ),
    JobKind.PPO: (
        *(("ppo", "score"), ("ppo", "kl_nats"), ("ppo", "entropy")),
        *(("ppo", "response_tokens"), ("ppo", "clipfrac"), ("ppo", "explained_variance")),
        *(("ppo", "policy_loss"), ("ppo", "value_loss")),
    ),
}
"""(phase, key) of the charts that stand first, in this order, by kind of job."""
KL_TARGET_NATS, KL_COEF = 6.0, 0.05
"""PPO's own settings where a job's config names none (policy/ppo_config.py)."""


@dataclass(frozen=True)
class Phase:
    """What one phase of a job recorded."""

    name: str
    charts: list[Chart] = field(default_factory=list)
    singles: list[Figure] = field(default_factory=list)


@dataclass(frozen=True)
class JobFigures:
    """All that a job recorded, each once."""

    leading: list[Chart]
    singles: list[Phase]
    more: list[Phase]

    @property
    def any(self) -> bool:
        """Whether there is something to show."""
        return bool(self.leading or self.singles or self.more)


def figures_of(
    job: TrainingJob, alarms: Collection[Alarm] = (), num_dev: int | None = None
) -> JobFigures:
    """Arrange the numbers that the job recorded.

    alarms: marked on the charts of their figures, at the step when they rang first. num_dev: see
    dev_answers; what was measured on none of them is left out.
    """
    series = series_of(job, without=(RUNG,))
    order = leading_of(job)
    leading: list[Chart] = []
    charts: dict[str, list[Chart]] = defaultdict(list)
    singles: dict[str, list[Figure]] = defaultdict(list)
    for place in in_order(series, order):
        phase, key = place
        if not is_measured(phase, key, num_dev):
            continue
        target = target_of(job) if place == ("ppo", "kl_nats") else None
        marks = sorted({alarm.first_step for alarm in alarms if alarm.key == key})
        chart = line_chart(key, series[place], title=title_of(place), target=target, marks=marks)
        if chart is None:
            continue
        if chart.is_constant:
            singles[phase].append(figure_of(key, series[place][-1][1]))
        elif place in order:
            leading.append(chart)
        else:
            charts[phase].append(chart)
    return JobFigures(
        leading,
        [Phase(phase_of(each), singles=singles[each]) for each in sorted(singles, key=phase_rank)],
        [Phase(phase_of(phase), charts=rows) for phase, rows in charts.items()],
    )


def leading_of(job: TrainingJob) -> tuple[tuple[str, str], ...]:
    """(phase, key) of what stands first in a job of this kind."""
    first = LEADING.get(JobKind.REWARD if job.kind == JobKind.JUDGE else job.kind, ())
    return (*first, *MACHINE)


def in_order(
    places: Iterable[tuple[str, str]], order: tuple[tuple[str, str], ...]
) -> list[tuple[str, str]]:
    """(phase, key) as a page shows them."""
    return sorted(places, key=lambda place: _rank(place, order))


def _rank(place: tuple[str, str], order: tuple[tuple[str, str], ...]) -> tuple[int, str, str]:
    """The named ones in their order, then by phase and name."""
    phase, key = place
    return order.index(place) if place in order else len(order), phase, name_of(key)


def title_of(place: tuple[str, str]) -> str:
    """Losses and accuracies of several phases stand side by side, so each says of which it is."""
    phase, key = place
    if phase in ("train", "dev", "heldout") and key in ("loss", "log_loss", "accuracy"):
        return f"{phase_of(phase)}: {name_of(key)}"
    return name_of(key)


def target_of(job: TrainingJob) -> float | None:
    """Nats of KL that a PPO job steers its coefficient towards; None where it is fixed."""
    if not job.config.get("kl_coef", KL_COEF):
        return None
    target = job.config.get("kl_target_nats", KL_TARGET_NATS)
    return target if isinstance(target, int | float) else None
