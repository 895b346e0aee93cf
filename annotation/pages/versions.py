"""Model versions: the list, one with its lineage both ways, promotion, roll-back, download."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.errors import Conflict
from annotation.models import JobKind, Membership, ModelVersion, Project, Slot
from annotation.pages.dev_answers import is_measured, num_dev_of
from annotation.pages.gate_table import rows_of
from annotation.pages.judgement import what_is_missing
from annotation.pages.loop import promotions_in_force
from annotation.pages.measures import Figure, figures, phase_of, phase_rank
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER, WATCH
from annotation.services import versions as services
from annotation.services.ancestry import way_to
from annotation.services.gates import BEFORE, look_again, may_be_looked_at_again
from annotation.services.lineage import lineage_of_version
from annotation.services.roles import may_stand_in
from annotation.tombstones import tombstone_of
from annotation.verdicts import in_words, outcome_of

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
        services.versions_of(project).select_related("job__snapshot", "snapshot"), pk=version_id
    )


@dataclass(frozen=True)
class Measured:
    """Figures of one phase of the run that made a version."""

    name: str
    figures: list[Figure]


def measured(version: ModelVersion) -> list[Measured]:
    """What was measured of it, the gate left out: by phase where a run of ours made it."""
    values = {
        name: value for name, value in version.metrics.items() if name not in ("gate", BEFORE)
    }
    num_dev = num_dev_of(version.job) if version.job else None
    last_of = values.pop("final", {})
    found = [Measured("", list(figures(values)))] if values else []
    if not isinstance(last_of, Mapping):
        return [*found, Measured("", list(figures({"final": last_of})))]
    for phase in sorted(last_of, key=phase_rank):
        if not isinstance(of_phase := last_of[phase], Mapping):
            found.append(Measured("", list(figures({phase: of_phase}))))
            continue
        shown = {
            name: one
            for name, one in of_phase.items()
            if name not in ("step", "phase") and is_measured(phase, name, num_dev)
        }
        if not shown:
            continue
        name = phase_of(phase)
        if step := of_phase.get("step"):
            name = _("%(phase)s, step %(step)s") % {"phase": name, "step": step}
        found.append(Measured(name, list(figures(shown))))
    return found


def made_by(version: ModelVersion) -> str:
    """The kind of job that made it."""
    if version.stage == "registered":
        return _("Registered from outside")
    return str(dict(JobKind.choices).get(version.stage, version.stage))


@dataclass(frozen=True)
class Judged:
    """What a gate said of a version. outcome: passed, failed, undecided or unjudged."""

    outcome: str
    says: str
    warnings: list[str]


def judged(version: ModelVersion) -> Judged | None:
    """None for a version that has met no gate."""
    gate = version.metrics.get("gate")
    return judged_by(gate) if gate else None


def judged_by(gate: Mapping[str, Any]) -> Judged:
    """A gate's words in the reader's language."""
    warnings = [in_words(one) for one in gate.get("warnings", ())]
    return Judged(outcome_of(gate), in_words(gate.get("why", "")), warnings)


@project_page(*WATCH)
def versions(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Every version of the project, newest first, and what is in force."""
    project = membership.project
    in_force = promotions_in_force(project)
    holders: dict[int, list[str]] = {}
    for slot, promotion in in_force.items():
        holders.setdefault(promotion.version_id, []).append(str(Slot(slot).label))
    rows = [
        (version, holders.get(version.pk, []), judged(version), made_by(version))
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
    in_force = promotions_in_force(project)
    context = {
        "version": found,
        "lineage": lineage,
        "made_by": made_by(found),
        "way": way_to(found),
        "gate": judged(found),
        "withdrawn": tombstone_of(found.snapshot) if found.snapshot else "",
        "gate_rows": rows_of(gate.get("numbers", {})),
        "gate_figures": list(figures(gate.get("numbers", {}))),
        "looks_before": [judged_by(one) for one in found.metrics.get(BEFORE, ())],
        "may_look_again": may_be_looked_at_again(found, project),
        "missing": what_is_missing(project, found),
        "measured": measured(found),
        "parents": [(PARENT_WORDS[edge], parent) for edge, parent in lineage.parents.items()],
        "children": [(CHILD_WORDS[edge], made) for edge, made in lineage.children.items()],
        "mine": set(services.versions_of(project).values_list("pk", flat=True)),
        "slots": [
            (
                slot,
                slot.value in in_force and in_force[slot.value].version_id == found.pk,
                in_force[slot.value].pk if slot.value in in_force else 0,
            )
            for slot in Slot
            if services.KIND_OF_SLOT[slot] == found.kind and may_stand_in(found, slot)
        ],
    }
    return project_template(request, membership, "pages/version.html", context)


def standing_in(request: HttpRequest) -> int | None:
    """The promotion that the page of the button showed in force, 0 for none; None = not said."""
    said = request.POST.get("standing", "")
    return int(said) if said.isdecimal() and len(said) <= 18 else None


@project_page(*ADMINISTER, methods=("POST",))
def promote(request: HttpRequest, membership: Membership, version_id: int) -> HttpResponse:
    """Put a version in force by an admin's decision; the gate's numbers go along."""
    found = version_of(membership.project, version_id)
    slot = request.POST.get("slot", "")
    with told(request):
        try:
            services.promote(
                project=membership.project,
                slot=slot,
                version=found,
                verdict="by_admin",
                numbers=found.metrics.get("gate", {}),
                by=user_of(request),
                seen=standing_in(request),
            )
        except Conflict:
            if services.in_force(membership.project, slot) != found:
                raise  # else it is the other half of a double click, or an admin of one mind
        messages.success(request, _("%(name)s is in force.") % {"name": found.name})
    return redirect("version", slug=membership.project.slug, version_id=found.pk)


@project_page(*ADMINISTER, methods=("POST",))
def judge_again(request: HttpRequest, membership: Membership, version_id: int) -> HttpResponse:
    """Have the gate look once more at an undecided version."""
    found = version_of(membership.project, version_id)
    with told(request):
        look_again(version=found, project=membership.project, by=user_of(request))
        messages.success(request, _("%(name)s is judged again.") % {"name": found.name})
    return redirect("version", slug=membership.project.slug, version_id=found.pk)


@project_page(*ADMINISTER, methods=("POST",))
def roll_back(request: HttpRequest, membership: Membership, slot: str) -> HttpResponse:
    """Put the version before the one in force back."""
    with told(request):
        promotion = services.roll_back(
            project=membership.project,
            slot=slot,
            by=user_of(request),
            seen=standing_in(request),
        )
        messages.success(
            request, _("%(name)s is in force again.") % {"name": promotion.version.name}
        )
    return redirect("versions", slug=membership.project.slug)
