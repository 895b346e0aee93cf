"""How a project's loop turns: what is kept open, what is retrained when, who promotes."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, transaction

from annotation.asking import Asking
from annotation.errors import BadInput
from annotation.job_schemas import require_config
from annotation.models import JobKind, Project, RetrainRule, User
from annotation.services.audit import record
from annotation.services.jobs import require_allowed

LOOP_FIELDS = (
    "auto_promote",
    "open_target",
    "heldout_share",
    "asking",
    "completions_per_comparison",
    "answers_wanted",
    "kl_budget_nats",
    "catch_leaks",
    "catch_alike",
    "job_defaults",
)
RULE_FIELDS = ("enabled", "after_preferences", "every_minutes", "ppo_after_reward")


@transaction.atomic
def change_loop(*, project: Project, changes: Mapping[str, Any], by: User | None) -> Project:
    """Change settings of the loop, named as in LOOP_FIELDS. Raises BadInput with what is wrong."""
    _require_known(changes, LOOP_FIELDS)
    if "job_defaults" in changes:
        _require_job_defaults(changes["job_defaults"])
    if "asking" in changes:
        changes = {**changes, "asking": Asking.of(changes["asking"]).as_json()}
    locked = Project.objects.select_for_update().get(pk=project.pk)
    before = _apply(locked, changes)
    record(
        action="project.loop", target=locked, project=locked, actor=by, before=before,
        after=dict(changes),
    )  # fmt: skip
    return locked


@transaction.atomic
def change_rule(*, project: Project, changes: Mapping[str, Any], by: User | None) -> RetrainRule:
    """Change the retrain rule, named as in RULE_FIELDS. Raises BadInput with what is wrong."""
    _require_known(changes, RULE_FIELDS)
    rule = RetrainRule.objects.select_for_update().filter(project=project).first()
    if rule is None:
        rule = RetrainRule(project=project)
    before = _apply(rule, changes)
    record(
        action="project.retrain_rule", target=project, project=project, actor=by, before=before,
        after=dict(changes),
    )  # fmt: skip
    return rule


def _apply(row: models.Model, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Set, check and save; returns what the fields held before."""
    before = {name: getattr(row, name) for name in changes}
    for name, value in changes.items():
        setattr(row, name, value)
    try:
        row.full_clean()
    except ValidationError as error:
        parts = [f"{name}: {' '.join(told)}" for name, told in error.message_dict.items()]
        raise BadInput(f"{' '.join(parts)} Seen: {dict(changes)!r}.") from None
    row.save()
    return before


def _require_known(changes: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := set(changes) - set(known):
        raise BadInput(f"Unknown setting {min(unknown)!r}; known are {', '.join(known)}.")


def _require_job_defaults(value: object) -> None:
    defaults = _of_kinds("job_defaults", value, [*JobKind.values, "inputs"])
    inputs = _of_kinds("job_defaults.inputs", defaults.get("inputs", {}), JobKind.values)
    for kind in JobKind.values:
        require_allowed(defaults.get(kind), inputs.get(kind))
        require_config(kind, defaults.get(kind, {}))


def _of_kinds(name: str, value: object, known: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The value, if it is a JSON object of JSON objects under known names; raises BadInput."""
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise BadInput(f"{name} holds a JSON object per job kind: {value!r:.80}.")
    if unknown := set(value) - set(known):
        raise BadInput(f"{name} knows {', '.join(sorted(known))}, not {min(unknown)!r}.")
    return value
