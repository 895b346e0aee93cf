"""Files handed in: what a file is, what importing it would do, and then doing it."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from django import forms
from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from annotation.importers.formats import (
    FORMATS,
    QUESTIONS,
    SOURCE_OF,
    Column,
    Reading,
    Shown,
    columns_of,
    fitting_formats,
    shown_of,
    usual_columns,
    values_of,
)
from annotation.importers.lines import RawRow
from annotation.importers.load import read_as
from annotation.importers.parsers import ASKING, TABLE
from annotation.importers.rows import Refused, parse_json
from annotation.importers.table import COLUMNS, MEANINGS, TWO_WAYS
from annotation.models import AT_WORK, FileImport, ImportState, Membership, Preference
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import RESEARCH
from annotation.refusals import in_words
from annotation.services import imports as services

IMPORTS_SHOWN = 20
BATCHES_SHOWN = 5
ROWS_SHOWN = 5
ROWS_LOOKED_AT = 50
"""For the rows shown, of which some may be refused."""
NAMES = {
    "hh-rlhf": gettext_lazy("hh-rlhf: two transcripts, chosen and rejected"),
    "trl": gettext_lazy("TRL: prompt, chosen, rejected"),
    "unpaired": gettext_lazy("TRL unpaired: prompt, completion, label"),
    "comparisons": gettext_lazy("Concord's comparisons with all their votes"),
    "oasst-zh": gettext_lazy("OpenAssistant in Chinese: answers best first"),
    "oasst-trees": gettext_lazy("OpenAssistant's trees of messages"),
    "helpsteer2": gettext_lazy("HelpSteer2's preferences"),
    "ultrafeedback": gettext_lazy("UltraFeedback, plain or binarized"),
    "lmarena": gettext_lazy("LMArena's battles"),
    "rewardbench": gettext_lazy("RewardBench"),
    "argilla": gettext_lazy("Argilla's records"),
    "label-studio": gettext_lazy("Label Studio's tasks"),
    "csv": gettext_lazy("A table whose columns I explain"),
    "demonstrations": gettext_lazy("Prompts with an ideal answer each"),
    "questions": gettext_lazy("Prompts with answers to be compared here"),
    "prompts": gettext_lazy("Prompts alone"),
}
MEANS = {
    "prompt": gettext_lazy("the question"),
    "chosen": gettext_lazy("the better answer"),
    "rejected": gettext_lazy("the worse answer"),
    "first": gettext_lazy("the first answer"),
    "second": gettext_lazy("the second answer"),
    "winner": gettext_lazy("which of the two is better"),
    "annotator": gettext_lazy("who judged"),
    "id": gettext_lazy("the row's id there"),
    "group": gettext_lazy("what related rows share"),
    "language": gettext_lazy("language"),
    "split": gettext_lazy("split"),
    "task": gettext_lazy("task"),
    "first_model": gettext_lazy("who wrote the first answer"),
    "second_model": gettext_lazy("who wrote the second answer"),
}
VERDICTS = {
    "first": gettext_lazy("the first is better"),
    "second": gettext_lazy("the second is better"),
    "tie": gettext_lazy("both alike"),
    "both_bad": gettext_lazy("both bad"),
    "cannot_tell": gettext_lazy("cannot tell"),
}
PLACES = {"equal": VERDICTS["tie"], **VERDICTS}
LICENCES = (
    *("MIT", "Apache-2.0", "CC BY 4.0", "CC BY-SA 4.0", "CC BY-NC 4.0", "CC0-1.0", "ODC-BY"),
)


class LookForm(forms.Form):
    """What a file is and whose; the columns of a table stand beside it."""

    format = forms.ChoiceField(label=gettext_lazy("Format"))
    source = forms.CharField(
        label=gettext_lazy("Source"), required=False, max_length=120,
        help_text=gettext_lazy("Where the rows come from; one name for all files of a kind."),
    )  # fmt: skip
    licence = forms.CharField(
        label=gettext_lazy("Licence"), required=False, max_length=80,
        widget=forms.TextInput(attrs={"list": "licences"}),
    )  # fmt: skip
    terms = forms.CharField(label=gettext_lazy("Terms of use"), required=False, max_length=2000)
    asked = forms.CharField(
        label=gettext_lazy("Field with the question"), required=False, max_length=200,
        help_text=gettext_lazy("Only where it is none of the usual names."),
    )  # fmt: skip
    batch = forms.CharField(
        label=gettext_lazy("Into the batch"), required=False, max_length=120, initial="imported"
    )
    answers_wanted = forms.IntegerField(
        label=gettext_lazy("People who judge each"), required=False, min_value=1, max_value=50,
        initial=1,
    )  # fmt: skip

    def __init__(self, *args: Any, fitting: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        others = [name for name in FORMATS if name not in fitting]
        choices: list[tuple[str, Any]] = [(name, NAMES[name]) for name in fitting]
        if others:
            choices.append((_("others"), [(name, NAMES[name]) for name in others]))
        field = self.fields["format"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices
        if not {*fitting} & set(ASKING):
            del self.fields["asked"]
        if QUESTIONS not in fitting:
            del self.fields["batch"], self.fields["answers_wanted"]


@project_page(*RESEARCH)
def imports(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Hand a file in, and the files of before."""
    found = FileImport.objects.filter(project=membership.project).select_related("by")
    shown = [(one, _came_to(one)) for one in found.order_by("-pk")[:IMPORTS_SHOWN]]
    context = {"imports": shown, "formats": NAMES.values()}
    return project_template(request, membership, "pages/imports.html", context)


@project_page(*RESEARCH, methods=("POST",))
def upload(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Keep a file; the next page says what it is."""
    file = request.FILES.get("file")
    if not isinstance(file, UploadedFile):
        messages.error(request, _("Choose a file first."))
        return redirect("imports", slug=membership.project.slug)
    with told(request):
        one = services.receive_file(
            project=membership.project,
            name=file.name or "",
            pieces=file.chunks(),
            by=user_of(request),
        )
        return redirect("import", slug=membership.project.slug, import_id=one.pk)
    return redirect("imports", slug=membership.project.slug)


@project_page(*RESEARCH)
def one_import(request: HttpRequest, membership: Membership, import_id: int) -> HttpResponse:
    """A file: what it is taken for, what is in it, what importing it would do or did."""
    one = get_object_or_404(membership.project.file_imports, pk=import_id)
    context = _context(one)
    if one.state not in (*AT_WORK, ImportState.DONE):
        context |= _questions(one)
    return project_template(request, membership, "pages/import.html", context)


@project_page(*RESEARCH)
def live(request: HttpRequest, membership: Membership, import_id: int) -> HttpResponse:
    """How far it is; once it is done the whole page comes anew."""
    one = get_object_or_404(membership.project.file_imports, pk=import_id)
    if one.state not in AT_WORK:
        return HttpResponse(status=204, headers={"HX-Refresh": "true"})
    return project_template(request, membership, "pages/import_live.html", _context(one))


@project_page(*RESEARCH, methods=("POST",))
def look(request: HttpRequest, membership: Membership, import_id: int) -> HttpResponse:
    """Take what is said of the file and read it to its end; nothing is imported."""
    one = get_object_or_404(membership.project.file_imports, pk=import_id)
    with told(request):
        form = LookForm(request.POST, fitting=_fitting(one))
        if not form.is_valid():
            for name, sentences in form.errors.items():
                label = form.fields[name].label if name in form.fields else name
                messages.error(request, f"{label}: {' '.join(str(each) for each in sentences)}")
            return redirect("import", slug=membership.project.slug, import_id=one.pk)
        said = form.cleaned_data
        reading = _reading(one, said, request.POST)
        terms = {name: said[name] for name in ("source", "licence", "terms")}
        if fault := _mapping_fault(reading):
            services.remember_reading(one=one, reading=reading, **terms)
            messages.error(request, fault)
            return redirect("import", slug=membership.project.slug, import_id=one.pk)
        if unsaid := _unsaid(one, reading):
            services.remember_reading(one=one, reading=reading, **terms)
            messages.info(
                request,
                _("Say what these values of the column %(name)s mean: %(values)s.")
                % {"name": reading.columns["winner"], "values": ", ".join(unsaid)},
            )
            return redirect("import", slug=membership.project.slug, import_id=one.pk)
        services.ask_for_look(one=one, reading=reading, **terms)
    return redirect("import", slug=membership.project.slug, import_id=one.pk)


@project_page(*RESEARCH, methods=("POST",))
def start(request: HttpRequest, membership: Membership, import_id: int) -> HttpResponse:
    """Import it, once however often it is pressed."""
    one = get_object_or_404(membership.project.file_imports, pk=import_id)
    with told(request):
        services.start_import(one=one, by=user_of(request))
    return redirect("import", slug=membership.project.slug, import_id=one.pk)


@project_page(*RESEARCH, methods=("POST",))
def discard(request: HttpRequest, membership: Membership, import_id: int) -> HttpResponse:
    """Forget it."""
    one = get_object_or_404(membership.project.file_imports, pk=import_id)
    with told(request):
        services.discard_import(one=one, by=user_of(request))
        messages.success(request, _("%(name)s is forgotten.") % {"name": one.name})
    return redirect("imports", slug=membership.project.slug)


def _fitting(one: FileImport) -> list[str]:
    return fitting_formats(services.path_of(one))


def _reading(one: FileImport, said: Mapping[str, Any], sent: Any) -> Reading:
    """What the form says the file is."""
    format = said["format"]
    more: dict[str, Any] = {}
    if format == TABLE:
        more["columns"] = {
            meaning: sent[f"column-{meaning}"]
            for meaning in COLUMNS
            if sent.get(f"column-{meaning}")
        }
        if more["columns"] == one.reading.get("columns"):  # else they were values of another column
            known = values_of(services.path_of(one), more["columns"])
            chosen = {value: sent.get(f"value-{n}", "") for n, value in enumerate(known)}
            more["values"] = {value: meaning for value, meaning in chosen.items() if meaning}
    elif format in ASKING and said.get("asked"):
        more["columns"] = {"prompt": said["asked"]}
    elif format == QUESTIONS:
        more["batch"] = said.get("batch") or "imported"
        more["answers_wanted"] = said.get("answers_wanted") or 1
    return Reading(format=format, **more)


def _mapping_fault(reading: Reading) -> str:
    """What a table's columns lack to mean a comparison, in the page's words; "" for nothing."""
    if reading.format != TABLE:
        return ""
    by_column: dict[str, list[str]] = {}
    for meaning, column in reading.columns.items():
        by_column.setdefault(column, []).append(str(MEANS[meaning]))
    for column, meanings in by_column.items():
        if len(meanings) > 1:
            return _("The column “%(column)s” is chosen twice: for %(meanings)s.") % {
                "column": column,
                "meanings": ", ".join(meanings),
            }
    if any(set(way) <= set(reading.columns) for way in TWO_WAYS):
        wanted: tuple[str, ...] = ("prompt",)
    else:
        begun = next((way for way in reversed(TWO_WAYS) if set(way) & set(reading.columns)), ())
        wanted = ("prompt", *begun)
        if not begun:
            return _(
                "Choose the columns of the better and the worse answer, or those of two answers "
                "and of which is better."
            )
    missing = [str(MEANS[one]) for one in wanted if one not in reading.columns]
    words = ", ".join(missing)
    return _("Choose a column for: %(missing)s.") % {"missing": words} if missing else ""


def _unsaid(one: FileImport, reading: Reading) -> list[str]:
    """Values of the winner's column that mean nothing yet."""
    if reading.format != TABLE:
        return []
    reading.require_columns(services.path_of(one))
    known = values_of(services.path_of(one), reading.columns)
    return [value for value, means in known.items() if not means and value not in reading.values]


def _context(one: FileImport) -> dict[str, Any]:
    account = one.account
    return _what_came(one) | {
        "one": one,
        "is_at_work": one.state in AT_WORK,
        "error": in_words(one.error),
        "format": NAMES.get(one.reading.get("format", "")),
        "refusals": [(line, in_words(reason)) for line, reason in account.get("refusals", [])],
        "more_refused": account.get("refused", 0) - len(account.get("refusals", [])),
        "new": account.get("good", 0) - account.get("already_there", 0),
        "left_out": list(account.get("left_out", {}).items()),
        "size": _size(one.num_bytes),
    }


def _what_came(one: FileImport) -> dict[str, Any]:
    """Where the rows of a file are seen that was imported; another file may share its source."""
    if one.state != ImportState.DONE:
        return {}
    source = one.project.sources.filter(name=one.source_name).order_by("pk").first()
    if source is None:
        return {}
    return {
        "source": source,
        "has_votes": Preference.objects.filter(project=one.project, source=source).exists(),
        "batches": one.project.batches.filter(source=source).order_by("-pk")[:BATCHES_SHOWN],
    }


def _size(num_bytes: int) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000  # type: ignore[assignment]
    return f"{num_bytes:.1f} GB"


def _questions(one: FileImport) -> dict[str, Any]:
    """The form, the columns of a table, the first rows as they would be stored."""
    path, reading = services.path_of(one), one.reading
    fitting = _fitting(one)
    format = reading.get("format") or (fitting[0] if fitting else FORMATS[0])
    form = LookForm(
        fitting=fitting or list(FORMATS),
        initial={
            "format": format,
            "source": one.source_name or SOURCE_OF.get(format, format),
            "licence": one.licence,
            "terms": one.terms,
            "batch": reading.get("batch") or "imported",
            "answers_wanted": reading.get("answers_wanted") or 1,
            "asked": (reading.get("columns") or {}).get("prompt", ""),
        },
    )
    found: dict[str, Any] = {"form": form, "licences": LICENCES, "is_known": bool(fitting)}
    if TABLE in fitting:
        columns = columns_of(path)
        mapping = reading.get("columns") or usual_columns(each.name for each in columns)
        found |= {"columns": columns, "meanings": _meanings(columns, mapping)}
        found["values"] = _values(one) if reading.get("columns") else []
    if one.state == ImportState.CHECKED:
        found["rows"] = _first_rows(one)
    return found


def _meanings(columns: list[Column], mapping: Mapping[str, str]) -> list[dict[str, Any]]:
    """What a table must or may hold, with the column that is meant."""
    return [
        {
            "name": meaning,
            "words": MEANS[meaning],
            "column": mapping.get(meaning, ""),
            "optional": meaning not in COLUMNS[:6],
        }
        for meaning in COLUMNS
    ]


def _values(one: FileImport) -> list[dict[str, Any]]:
    """What cells of the winner's column say, and what each means."""
    columns, said = one.reading["columns"], one.reading.get("values") or {}
    known = values_of(services.path_of(one), columns)
    return [
        {
            "number": number,
            "value": value,
            "means": said.get(value) or means,
            "choices": [(name, VERDICTS[name]) for name in MEANINGS],
        }
        for number, (value, means) in enumerate(known.items())
    ]


def _first_rows(one: FileImport) -> list[Shown]:
    """The first good rows, as they would be stored."""
    parse = services.reading_of(one).parse()
    found: list[Shown] = []
    for raw in islice(read_as(services.path_of(one), one.reading["format"]), ROWS_LOOKED_AT):
        if isinstance(raw, RawRow) and len(found) < ROWS_SHOWN:
            try:
                found += shown_of(raw.line, parse(parse_json(raw)))
            except Refused:
                continue
    for row in found:
        row.texts[:] = [(str(PLACES.get(place, place)), text) for place, text in row.texts]
    return found[:ROWS_SHOWN]


def _came_to(one: FileImport) -> str:
    """What became of it, in a few words, for the list."""
    good = one.account.get("good", 0)
    if one.state == ImportState.DONE:
        new = good - one.account.get("already_there", 0)
        return ngettext("%(count)s new row", "%(count)s new rows", new) % {"count": new}
    return ""
