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

from annotation.exporters import folder
from annotation.exporters.files import FILES
from annotation.funnel import FEWEST_CHECKS, MOST_CHECKS, NUMBERS
from annotation.licences import forbids_commerce
from annotation.models import AnnotatorKind, DatasetSnapshot, Membership, Project, Split
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER, RESEARCH
from annotation.services.licences import override_licences
from annotation.services.search import tags_of
from annotation.services.snapshot_diff import diff
from annotation.services.snapshots import count

SNAPSHOTS_SHOWN = 12
EXPORTS_SHOWN = 30
FORMATS = {
    "trl": gettext_lazy("TRL: prompt, chosen, rejected, margin"),
    "unpaired": gettext_lazy("TRL unpaired: prompt, completion, label"),
    "sft": gettext_lazy("Conversations with ideal answers"),
    "comparisons": gettext_lazy("Comparisons with all their votes"),
    "raw": gettext_lazy("Raw: one row per vote"),
}
FILE_KINDS = {
    "jsonl": gettext_lazy("JSON lines"),
    "parquet": gettext_lazy("Parquet, typed and compressed"),
}
DROPPED = {
    "trl": gettext_lazy(
        "drops ties, both bad, cannot tell, single judgments, who wrote an answer, and what was "
        "not ranked"
    ),
    "unpaired": gettext_lazy(
        "drops the order on one side of the line, what lies between first and last where no line "
        "was drawn, ties and ratings"
    ),
    "sft": gettext_lazy("drops the votes: these are the ideal answers alone"),
    "comparisons": gettext_lazy(
        "drops votes that are void, revised, of gold or filtered out, with times, notes and "
        "guidelines"
    ),
    "raw": gettext_lazy(
        "drops prompts and comparisons without a vote, and who a person is; from it an equal "
        "ledger can be made again"
    ),
}
"""What each format leaves out, in one sentence; exporters/columns.py has it for the card."""
BUCKETS = {
    "trained": gettext_lazy("for training"),
    "dev": gettext_lazy("dev"),
    "test": gettext_lazy("test"),
    "evaluation": gettext_lazy("evaluation on a train prompt"),
    "gold": gettext_lazy("gold"),
    "qualification": gettext_lazy("qualification"),
    "repeat": gettext_lazy("repeat"),
    "superseded": gettext_lazy("revised since"),
    "voided": gettext_lazy("voided"),
    "no_strict_pair": gettext_lazy("ties alone"),
    "both_bad": gettext_lazy("both bad"),
    "cannot_tell": gettext_lazy("cannot tell"),
    "decided": gettext_lazy("decided by a reviewer"),
    "not_text": gettext_lazy("prompts with more than text"),
    "other_groups": gettext_lazy("groups of the judge, or of the reward model"),
    "filtered_kind": gettext_lazy("other kinds of annotators"),
    "filtered_language": gettext_lazy("other languages"),
    "filtered_purpose": gettext_lazy("other purposes"),
    "filtered_split": gettext_lazy("other splits"),
    "filtered_date": gettext_lazy("before or after the dates asked for"),
    "filtered_scheme": gettext_lazy("other schemes"),
    "filtered_guideline": gettext_lazy("other guidelines"),
    "filtered_source": gettext_lazy("other sources"),
    "filtered_licence": gettext_lazy("other licences"),
    "filtered_axis": gettext_lazy("other questions"),
    "filtered_tag": gettext_lazy("without the tags"),
    "filtered_accuracy": gettext_lazy("of annotators below the accuracy, or with too few checks"),
    "filtered_agreement": gettext_lazy("answers too far apart, or only one"),
    "later": gettext_lazy("given later"),
    "otherwise": gettext_lazy("the same votes, with another weight, writer or decision"),
}


MORE = ("schemes", "guidelines", "axes", "tags")
"""Lists that stand among the form's further filters."""
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
    """The query that the form asks for; ideal answers have no votes to choose among."""
    if asked["format"] == "sft":
        splits = [split for split in asked["splits"] if split != Split.TEST]
        return {"splits": splits or asked["splits"]}
    return {
        "splits": asked["splits"],
        "annotators": asked["annotators"],
        "decisions": asked["decisions"] or None,
        "weights": asked["weights"] or None,
        "since": asked["since"].isoformat() if asked["since"] else "",
        "until": asked["until"].isoformat() if asked["until"] else "",
        "sources": asked["sources"],
        "licences": asked["licences"],
        "schemes": asked["schemes"],
        "guidelines": asked["guidelines"],
        "axes": asked["axes"],
        "tags": asked["tags"],
        "accuracy": asked["accuracy"],
        "checks": asked["checks"] if asked["accuracy"] else None,
        "agreement": asked["agreement"],
    }


def bucket_name(bucket: str) -> str:
    """A bucket in the reader's language."""
    return str(BUCKETS.get(bucket, bucket))


def funnel(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Buckets that hold votes, in the order of the funnel, named in the reader's language."""
    known = [(str(words), counts[name]) for name, words in BUCKETS.items() if counts.get(name)]
    others = [(name, n) for name, n in counts.items() if n and name not in BUCKETS]
    return known + others


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
        .order_by("-pk")[:SNAPSHOTS_SHOWN]
    )
    licences = _licences(project)
    shown = [
        (one, funnel(one.counts), sum(one.counts.values()), _forbidding(one, licences))
        for one in snapshots
    ]
    context: dict[str, Any] = {
        "form": form,
        "more": MORE,
        "narrows": form.is_bound and any(form.data.get(name) for name in (*MORE, *NUMBERS)),
        "dropped": [(FORMATS[name], words) for name, words in DROPPED.items()],
        "exports": [
            {**manifest, "buckets": funnel(manifest["funnel"]), "files": _files(manifest)}
            for manifest in folder.exports_of(project)[:EXPORTS_SHOWN]
        ],
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
    return {"rows": list(rows.items()), "unanswered": sorted(set(rows) - answered)}


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
        folder.make_export(
            project=membership.project,
            format=asked["format"],
            files=asked["file_kind"] or FILES[0],
            query=query_of(asked),
            by=user_of(request),
        )
        messages.success(request, _("The export is ready."))
    return redirect("export", slug=membership.project.slug)


def _counted(request: HttpRequest, membership: Membership, form: ExportForm) -> HttpResponse:
    """The form again, with what freezing it would give."""
    asked = form.cleaned_data
    kind = "demonstrations" if asked["format"] == "sft" else "comparisons"
    with told(request):
        rows, counts = count(project=membership.project, kind=kind, query=query_of(asked))
        counted = {"rows": rows, "buckets": funnel(counts), "total": sum(counts.values())}
        return _page(request, membership, form, counted=counted)
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
