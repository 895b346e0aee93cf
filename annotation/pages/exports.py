"""Datasets to take away: make an export, look at the funnels. The API serves the files."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.errors import BadInput
from annotation.exporters import folder
from annotation.exporters.files import FILES
from annotation.funnel import FEWEST_CHECKS, MOST_CHECKS, NUMBERS
from annotation.licences import forbids_commerce
from annotation.models import (
    AnnotatorKind,
    DatasetSnapshot,
    ExportOrder,
    Membership,
    OrderState,
    Project,
    Split,
)
from annotation.pages.export_orders import counts_of, orders_of
from annotation.pages.export_words import (
    DROPPED,
    FILE_KINDS,
    FORMATS,
    SNAPSHOTS,
    bucket_name,
    funnel,
)
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER, RESEARCH
from annotation.services.exports import order_export
from annotation.services.licences import override_licences
from annotation.services.search import tags_of
from annotation.services.snapshot_diff import diff
from annotation.tombstones import tombstone_of

SNAPSHOTS_SHOWN = 12
EXPORTS_SHOWN = 30
MORE = ("schemes", "guidelines", "axes", "tags")
"""Lists that stand among the form's further filters."""
OF_VOTES = ("since", "until", "sources", *MORE, "accuracy", "agreement")
DAY = forms.DateInput(attrs={"type": "date"})


class ExportForm(forms.Form):
    """What to take away."""

    format = forms.ChoiceField(label=gettext_lazy("Format"), choices=list(FORMATS.items()))
    file_kind = forms.ChoiceField(
        label=gettext_lazy("Files"), choices=list(FILE_KINDS.items()), required=False
    )
    splits = forms.MultipleChoiceField(
        label=gettext_lazy("Splits"),
        choices=Split.choices,
        initial=Split.values,
        widget=forms.CheckboxSelectMultiple,
    )
    annotators = forms.MultipleChoiceField(
        label=gettext_lazy("Votes of"),
        choices=AnnotatorKind.choices,
        initial=[AnnotatorKind.PERSON, AnnotatorKind.OUTSIDE],
        widget=forms.CheckboxSelectMultiple,
    )
    since = forms.DateField(label=gettext_lazy("Given from"), required=False, widget=DAY)
    until = forms.DateField(label=gettext_lazy("and before"), required=False, widget=DAY)
    sources = forms.MultipleChoiceField(
        label=gettext_lazy("Prompts of"), required=False, widget=forms.CheckboxSelectMultiple
    )
    licences = forms.MultipleChoiceField(
        label=gettext_lazy("Under the licence"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    schemes = forms.MultipleChoiceField(
        label=gettext_lazy("Under the scheme"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    guidelines = forms.MultipleChoiceField(
        label=gettext_lazy("Under the guideline"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    axes = forms.MultipleChoiceField(
        label=gettext_lazy("Answers to the question"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    tags = forms.MultipleChoiceField(
        label=gettext_lazy("Tagged"), required=False, widget=forms.CheckboxSelectMultiple
    )
    accuracy = forms.FloatField(
        label=gettext_lazy("Of annotators right on hidden checks, at least"),
        required=False,
        min_value=0,
        max_value=1,
        widget=forms.NumberInput(attrs={"step": "0.05", "placeholder": "0.8"}),
    )
    checks = forms.IntegerField(
        label=gettext_lazy("with so many checks"),
        required=False,
        min_value=1,
        max_value=MOST_CHECKS,
        widget=forms.NumberInput(attrs={"placeholder": str(FEWEST_CHECKS)}),
    )
    agreement = forms.FloatField(
        label=gettext_lazy("Comparisons whose answers agree, at least"),
        required=False,
        min_value=0,
        max_value=1,
        widget=forms.NumberInput(attrs={"step": "0.05", "placeholder": "0.5"}),
    )
    decisions = forms.ChoiceField(
        label=gettext_lazy("Reviewers' decisions"),
        choices=[
            ("off", gettext_lazy("beside the votes")),
            ("instead", gettext_lazy("instead of the votes")),
        ],
        required=False,
    )
    weights = forms.ChoiceField(
        label=gettext_lazy("Votes weigh"),
        choices=[
            ("none", gettext_lazy("all the same")),
            ("dawid_skene", gettext_lazy("by reliability (Dawid-Skene)")),
            ("bradley_terry", gettext_lazy("by reliability (Bradley-Terry)")),
        ],
        required=False,
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sources = list(project.sources.order_by("name").values_list("name", "licence"))
        names = [(name, name) for name, _licence in sources]
        licences = sorted({licence for _name, licence in sources if licence})
        schemes = list(project.schemes.order_by("version").values_list("version", "axes"))
        guidelines = project.guidelines.order_by("version").values_list("version", flat=True)
        axes = sorted({axis for _version, axes in schemes for axis in axes})
        menus = {
            "sources": names,
            "licences": _menu(licences),
            "schemes": _menu(str(version) for version, _axes in schemes),
            "guidelines": _menu(str(version) for version in guidelines),
            "axes": _menu(axes),
            "tags": _menu(tags_of(project)),
        }
        for name, choices in menus.items():
            field = self.fields[name]
            assert isinstance(field, forms.MultipleChoiceField)
            field.choices = choices


def _menu(values: Iterable[str]) -> list[tuple[str, str]]:
    return [(value, value) for value in values]


def query_of(asked: dict[str, Any]) -> dict[str, Any]:
    """The query that the form asks for. Raises BadInput for a filter of votes where ideal answers
    are asked for: they have none."""
    if asked["format"] == "sft":
        if of_votes := [name for name in OF_VOTES if asked[name]]:
            label = str(ExportForm.base_fields[of_votes[0]].label)
            raise BadInput(
                _("Ideal answers are chosen by split and licence alone, not by “%(filter)s”.")
                % {"filter": label}
            )
        splits = [split for split in asked["splits"] if split != Split.TEST]
        return {"splits": splits or asked["splits"], "licences": asked["licences"]}
    query = {name: asked[name] for name in ("splits", "annotators", "licences", *OF_VOTES)}
    for day in ("since", "until"):
        query[day] = asked[day].isoformat() if asked[day] else ""
    for choice in ("decisions", "weights"):
        query[choice] = asked[choice] or None
    return query | {"checks": asked["checks"] if asked["accuracy"] else None}


@project_page(*RESEARCH)
def export(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Exports made so far, and the snapshots that jobs and exports froze."""
    return _page(request, membership, ExportForm(project=membership.project))


def _page(
    request: HttpRequest, membership: Membership, form: ExportForm, **more: Any
) -> HttpResponse:
    project = membership.project
    snapshots = (
        DatasetSnapshot.objects.filter(project=project)
        .select_related("created_by")
        .prefetch_related("versions", "overrides__by")
        .select_related("tombstone__forgotten", "tombstone__successor")
        .order_by("-pk")[:SNAPSHOTS_SHOWN]
    )
    licences = _licences(project)
    shown = [
        (
            one,
            SNAPSHOTS.get(one.kind, one.kind),
            funnel(one.counts),
            sum(one.counts.values()),
            _forbidding(one, licences),
        )
        for one in snapshots
    ]
    context: dict[str, Any] = {
        "form": form,
        "more": MORE,
        "narrows": form.is_bound and any(form.data.get(name) for name in (*MORE, *NUMBERS)),
        "dropped": [(FORMATS[name], words) for name, words in DROPPED.items()],
        "exports": [
            {
                **manifest,
                "words": FORMATS.get(manifest["format"], manifest["format"]),
                "buckets": funnel(manifest["funnel"]),
                "files": _files(manifest),
                "is_withdrawn": folder.is_withdrawn(project, manifest),
            }
            for manifest in folder.exports_of(project)[:EXPORTS_SHOWN]
        ],
        **orders_of(project),
        "snapshots": shown,
        "comparable": [one for one, *_more in shown if one.kind == "comparisons"],
    }
    return project_template(request, membership, "pages/export.html", context | more)


def _licences(project: Project) -> dict[str, str]:
    """Of sources that forbid commercial use: number -> licence."""
    sources = project.sources.values_list("pk", "licence")
    return {str(pk): licence for pk, licence in sources if forbids_commerce(licence)}


def _forbidding(snapshot: DatasetSnapshot, licences: dict[str, str]) -> dict[str, Any]:
    """Rows of a snapshot by the licences that forbid commercial use, and what nobody answered."""
    rows: Counter[str] = Counter()
    for pk, number in (snapshot.sources or {}).items():
        if pk in licences:
            rows[licences[pk]] += number
    answered = {one for made in snapshot.overrides.all() for one in made.licences}
    return {
        "rows": list(rows.items()),
        "unanswered": sorted(set(rows) - answered),
        "tombstone": tombstone_of(snapshot),
    }


def _files(manifest: dict[str, Any]) -> list[tuple[str, int | None]]:
    """Names with their rows; the manifest and the card have none."""
    data = [(file["name"], file["rows"]) for file in manifest["files"]]
    return [*data, (folder.MANIFEST, None), (folder.CARD, None)]


@project_page(*RESEARCH, methods=("POST",))
def make(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Freeze what is there now and write it out; or, where it is asked for, count first."""
    form = ExportForm(request.POST, project=membership.project)
    if not form.is_valid():
        for name, sentences in form.errors.items():
            label = form.fields[name].label if name in form.fields else name
            messages.error(request, f"{label}: {' '.join(str(one) for one in sentences)}")
        return redirect("export", slug=membership.project.slug)
    asked = form.cleaned_data
    if "count" in request.POST:
        return _counted(request, membership, form)
    with told(request):
        order = _ordered(request, membership, asked)
        if order.state == OrderState.DONE:
            messages.success(request, _("The export is ready."))
        elif order.state == OrderState.FAILED:
            messages.error(request, order.error)
    return redirect("export", slug=membership.project.slug)


def _ordered(
    request: HttpRequest, membership: Membership, asked: dict[str, Any], **more: Any
) -> ExportOrder:
    return order_export(
        project=membership.project,
        format=asked["format"],
        files=asked["file_kind"] or FILES[0],
        query=query_of(asked),
        by=user_of(request),
        **more,
    )


def _counted(request: HttpRequest, membership: Membership, form: ExportForm) -> HttpResponse:
    """The form again, with what freezing it would give; of a large project that comes later."""
    with told(request):
        order = _ordered(request, membership, form.cleaned_data, counts_only=True)
        if order.state == OrderState.DONE:
            return _page(request, membership, form, counted=counts_of(order))
        if order.state == OrderState.FAILED:
            messages.error(request, order.error)
    return redirect("export", slug=membership.project.slug)


@project_page(*ADMINISTER, methods=("POST",))
def override(request: HttpRequest, membership: Membership, snapshot_id: int) -> HttpResponse:
    """Answer for a dataset whose rows forbid commercial use."""
    snapshot = get_object_or_404(DatasetSnapshot, project=membership.project, pk=snapshot_id)
    with told(request):
        override_licences(
            snapshot=snapshot, reason=request.POST.get("reason", ""), by=user_of(request)
        )
        messages.success(request, _("You answer for this dataset; the audit log says so."))
    return redirect("export", slug=membership.project.slug)


@project_page(*RESEARCH)
def compare(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Two frozen datasets of comparisons: what came, what went, what changed, and why."""
    found = DatasetSnapshot.objects.filter(project=membership.project)
    asked = [request.GET.get(name, "") for name in ("before", "after")]
    if not all(one.isascii() and one.isdecimal() and len(one) < 18 for one in asked):
        return redirect("export", slug=membership.project.slug)
    before, after = (get_object_or_404(found, pk=int(one)) for one in asked)
    held = diff(before, after)
    parts = [
        (heading, part, [(bucket_name(name), n) for name, n in part.why.most_common()])
        for heading, part in (
            (_("Gone"), held.gone),
            (_("New"), held.new),
            (_("Changed"), held.changed),
        )
    ]
    context = {"before": before, "after": after, "same": held.same, "parts": parts}
    return project_template(request, membership, "pages/export_diff.html", context)
