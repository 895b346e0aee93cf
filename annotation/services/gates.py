"""Looks of gates at dev: how many there were, and asking for one more.

A gate looks at a version once, and an undecided one waits for answers. When they have come an admin
has it looked at again, on the dev answers of then; the look before is kept and counted, for each
look may only claim what the number of them allows (workers/looks.py).
"""

from django.db import transaction
from django.utils.translation import gettext

from annotation.errors import Conflict
from annotation.models import Lane, ModelVersion, Project, Promotion, User
from annotation.services import audit
from annotation.verdicts import outcome_of

BEFORE = "gates_before"
"""In a version's metrics: what earlier looks said, the earliest first."""


def count_looks(version: ModelVersion, project: Project, stage: str, measured: str) -> int:
    """How often dev was asked whether a version of this stage is better, before the look at hand.

    measured: the key of a gate's numbers that says that dev was asked.
    """
    made = ModelVersion.objects.filter(job__project=project, stage=stage)
    once = made.filter(metrics__gate__numbers__has_key=measured).exclude(pk=version.pk)
    again = made.filter(metrics__has_key=BEFORE).values_list("metrics", flat=True)
    earlier = [gate for metrics in again for gate in metrics[BEFORE]]
    return once.count() + sum(measured in gate.get("numbers", {}) for gate in earlier)


def may_be_looked_at_again(version: ModelVersion, project: Project) -> bool:
    """An undecided version of the project's loop that was never in force."""
    gate = version.metrics.get("gate")
    return (
        gate is not None
        and outcome_of(gate) == "undecided"
        and version.job is not None
        and version.job.lane == Lane.LOOP
        and version.job.project_id == project.pk
        and not Promotion.objects.filter(project=project, version=version).exists()
    )


@transaction.atomic
def look_again(*, version: ModelVersion, project: Project, by: User) -> None:
    """Have an undecided version judged once more; its gate takes it up at its next tick.

    Raises Conflict for one that is not undecided, by now too.
    """
    locked = ModelVersion.objects.select_for_update(of=("self",)).get(pk=version.pk)
    if not may_be_looked_at_again(locked, project):
        raise Conflict(
            gettext("%(name)s is not undecided: only what is undecided is judged again.")
            % {"name": locked.name}
        )
    metrics = dict(locked.metrics)
    gate = metrics.pop("gate")
    locked.metrics = {**metrics, BEFORE: [*metrics.get(BEFORE, []), gate]}
    locked.save(update_fields=["metrics"])
    audit.record(action="version.look_again", target=locked, project=project, actor=by)
