"""Which two models answer a project's writers, and how far a writer may go."""

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext

from annotation.errors import BadInput
from annotation.models import (
    LiveSetup,
    ModelVersion,
    Project,
    Slot,
    User,
    VersionKind,
)
from annotation.services import versions
from annotation.services.audit import record
from annotation.services.projects import lock_project

SETUP_FIELDS = (
    "version_a",
    "temperature_a",
    "version_b",
    "temperature_b",
    "max_new_tokens",
    "max_turns",
    "max_threads_per_day",
)


def setup_of(project: Project) -> LiveSetup:
    """The project's setup; one that was never saved is the policy in force at two temperatures."""
    found = LiveSetup.objects.select_related("version_a", "version_b").filter(project=project)
    return found.first() or LiveSetup(project=project)


@transaction.atomic
def change_setup(
    *, project: Project, changes: Mapping[str, Any], is_open: bool, by: User | None
) -> LiveSetup:
    """Change what SETUP_FIELDS names, and open or close the chat; threads that run go on as before.

    Raises BadInput for a version that is no policy of the project's, limits that make no sense, and
    two sides that are the same.
    """
    if unknown := sorted(set(changes) - set(SETUP_FIELDS)):
        raise BadInput(f"A live setup has {', '.join(SETUP_FIELDS)}: not {unknown[0]!r}.")
    lock_project(project)
    setup = setup_of(project)
    for name, value in changes.items():
        setattr(setup, name, value)
    _require_policy(project, setup.version_a)
    _require_policy(project, setup.version_b)
    if (setup.version_a, setup.temperature_a) == (setup.version_b, setup.temperature_b):
        raise BadInput(
            gettext(
                "Two answers of one version at one temperature (%(temperature)s) tell little: "
                "choose another version or another temperature for one of them."
            )
            % {"temperature": f"{setup.temperature_a:g}"}
        )
    try:
        setup.full_clean(validate_unique=False)
    except ValidationError as error:
        raise BadInput(" ".join(error.messages)) from None
    setup.save()
    Project.objects.filter(pk=project.pk).update(chat_open=is_open)
    project.chat_open = is_open
    record(
        action="live.setup",
        target=project,
        project=project,
        actor=by,
        is_open=is_open,
        **{name: _as_json(getattr(setup, name)) for name in SETUP_FIELDS},
    )
    return setup


def sides_of(project: Project) -> tuple[ModelVersion | None, ModelVersion | None]:
    """The versions that answer a thread that starts now; None where no policy is in force yet."""
    setup = setup_of(project)
    in_force = versions.in_force(project, Slot.POLICY)
    return setup.version_a or in_force, setup.version_b or in_force


def _require_policy(project: Project, version: ModelVersion | None) -> None:
    if version is None:
        return
    if version.kind != VersionKind.POLICY:
        raise BadInput(
            gettext("%(version)s is a %(kind)s version: it can't answer.")
            % {"version": version, "kind": version.kind}
        )
    if not versions.versions_of(project).filter(pk=version.pk).exists():
        raise BadInput(f"Version {version.pk} is not one of this project.")


def _as_json(value: Any) -> Any:
    return value.pk if isinstance(value, ModelVersion) else value
