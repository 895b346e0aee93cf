"""Model versions: the list, one with its lineage both ways, promotion, roll-back, download."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import Membership, ModelVersion, Project, Slot
from annotation.pages.charts import number
from annotation.pages.judgement import what_is_missing
from annotation.pages.loop import promotions_in_force
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER, WATCH
from annotation.services import versions as services
from annotation.services.lineage import lineage_of_version
from annotation.services.roles import may_stand_in
from annotation.verdicts import in_words, outcome_of

MAX_FIGURES = 60
PARENT_WORDS = {
    "init": gettext_lazy("Starts from"),
    "reference": gettext_lazy("KL is measured from"),
    "reward": gettext_lazy("Rewarded by"),
    "value_init": gettext_lazy("Value model from"),
}
CHILD_WORDS = {
    "init": gettext_lazy("Started from it"),
    "reference": gettext_lazy("Measured KL from it"),
    "reward": gettext_lazy("Were rewarded by it"),
    "value_init": gettext_lazy("Took their value model from it"),
}


def version_of(project: Project, version_id: int) -> ModelVersion:
    """A version the project made or uses; another project's is 404."""
    return get_object_or_404(
        services.versions_of(project).select_related("job", "snapshot"), pk=version_id
    )


def figures(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested metrics as flat lines: accuracy.dev 0.71."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from figures(value, f"{before}{name}.")
        elif isinstance(value, bool) or value is None:
            yield f"{before}{name}", {True: _("yes"), False: _("no"), None: "–"}[value]
        elif isinstance(value, int | float):
            yield f"{before}{name}", number(value)
        else:
            yield f"{before}{name}", str(value)[:200]


@dataclass(frozen=True)
class Judged:
    """What a gate said of a version. outcome: passed, failed or unjudged."""

    outcome: str
    says: str


def judged(version: ModelVersion) -> Judged | None:
    """None for a version that has met no gate."""
    gate = version.metrics.get("gate")
    return Judged(outcome_of(gate), in_words(gate.get("why", ""))) if gate else None


@project_page(*WATCH)
def versions(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Every version of the project, newest first, and what is in force."""
    project = membership.project
    in_force = promotions_in_force(project)
    holders: dict[int, list[str]] = {}
    for slot, promotion in in_force.items():
        holders.setdefault(promotion.version_id, []).append(str(Slot(slot).label))
    rows = [
        (version, holders.get(version.pk, []), judged(version))
        for version in services.versions_of(project).select_related("job", "snapshot")[:200]
    ]
    context = {
        "rows": rows,
        "slots": [(slot, in_force.get(slot.value)) for slot in Slot],
        "to_roll_back": services.slots_to_roll_back(project),
    }
    return project_template(request, membership, "pages/versions.html", context)


@project_page(*WATCH)
def version(request: HttpRequest, membership: Membership, version_id: int) -> HttpResponse:
    """One version: its numbers, its gate, where it came from and what came of it."""
    project = membership.project
    found = version_of(project, version_id)
    lineage = lineage_of_version(found, project)
    gate = found.metrics.get("gate", {})
    numbers = {name: value for name, value in found.metrics.items() if name != "gate"}
    in_force = promotions_in_force(project)
    context = {
        "version": found,
        "lineage": lineage,
        "gate": judged(found),
        "gate_figures": list(figures(gate.get("numbers", {})))[:MAX_FIGURES],
        "missing": what_is_missing(project, found),
        "figures": list(figures(numbers))[:MAX_FIGURES],
        "parents": [(PARENT_WORDS[edge], parent) for edge, parent in lineage.parents.items()],
        "children": [(CHILD_WORDS[edge], made) for edge, made in lineage.children.items()],
        "mine": set(services.versions_of(project).values_list("pk", flat=True)),
        "slots": [
            (slot, slot.value in in_force and in_force[slot.value].version_id == found.pk)
            for slot in Slot
            if services.KIND_OF_SLOT[slot] == found.kind and may_stand_in(found, slot)
        ],
    }
    return project_template(request, membership, "pages/version.html", context)


@project_page(*ADMINISTER, methods=("POST",))
def promote(request: HttpRequest, membership: Membership, version_id: int) -> HttpResponse:
    """Put a version in force by an admin's decision; the gate's numbers go along."""
    found = version_of(membership.project, version_id)
    with told(request):
        services.promote(
            project=membership.project,
            slot=request.POST.get("slot", ""),
            version=found,
            verdict="by_admin",
            numbers=found.metrics.get("gate", {}),
            by=user_of(request),
        )
        messages.success(request, _("%(name)s is in force.") % {"name": found.name})
    return redirect("version", slug=membership.project.slug, version_id=found.pk)


@project_page(*ADMINISTER, methods=("POST",))
def roll_back(request: HttpRequest, membership: Membership, slot: str) -> HttpResponse:
    """Put the version before the one in force back."""
    with told(request):
        promotion = services.roll_back(project=membership.project, slot=slot, by=user_of(request))
        messages.success(
            request, _("%(name)s is in force again.") % {"name": promotion.version.name}
        )
    return redirect("versions", slug=membership.project.slug)
