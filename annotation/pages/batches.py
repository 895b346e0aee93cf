"""Batches: how far each is, what a lead decides about it, and its comparisons one by one."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation import markdown
from annotation.errors import ChangedMeanwhile
from annotation.models import Batch, Comparison, Membership, Project, Scheme, SkipMode, Strategy
from annotation.pages.sensitive import CapForm
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER, REVIEW
from annotation.services.batches import (
    HIGHEST_PRIORITY,
    MOST_ANSWERS,
    MOST_SKIPS,
    Progress,
    change_batch,
    progress_of,
    reopen_comparison,
    retire_comparison,
)
from annotation.services.ledger import pause_batch

BATCHES_PER_PAGE = 50
COMPARISONS_PER_PAGE = 50
SNIPPET_CHARACTERS = 90
STATES = {
    "open": (gettext_lazy("Open"), Q(open_slots__gt=0, retired_at__isnull=True)),
    "full": (gettext_lazy("No place free"), Q(open_slots=0, retired_at__isnull=True)),
    "retired": (gettext_lazy("Retired"), Q(retired_at__isnull=False)),
}


@dataclass(frozen=True)
class Line:
    """One batch of the list."""

    batch: Batch
    progress: Progress
    overdue: bool


class SchemeField(forms.ModelChoiceField):
    """A version of the project's scheme."""

    def label_from_instance(self, obj: Scheme) -> str:
        return _("version %(version)s") % {"version": obj.version}


class BatchForm(forms.Form):
    """What a lead decides about a batch."""

    priority = forms.IntegerField(
        label=gettext_lazy("Priority"),
        min_value=-HIGHEST_PRIORITY,
        max_value=HIGHEST_PRIORITY,
        help_text=gettext_lazy("Higher goes first."),
    )
    due_on = forms.DateField(
        label=gettext_lazy("Due on"),
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        help_text=gettext_lazy(
            "Labelers see it. Of batches with one priority, those due sooner go first, late ones "
            "before them and those without a date last."
        ),
    )
    scheme = SchemeField(
        label=gettext_lazy("Scheme"),
        queryset=Scheme.objects.none(),
        empty_label=None,
        help_text=gettext_lazy("Answers in hand keep theirs; whoever comes next follows this."),
    )
    overlap = forms.IntegerField(
        label=gettext_lazy("Answers per comparison"),
        required=False,
        min_value=1,
        max_value=MOST_ANSWERS,
        help_text=gettext_lazy(
            "Raising it opens places on all comparisons that are not retired. "
            "Empty: as each was opened."
        ),
    )

    adaptive = forms.BooleanField(
        label=gettext_lazy(
            "Two answers first, the others where these differ; one comparison in ten always gets "
            "all, so that agreement can be measured"
        ),
        required=False,
    )
    strategy = forms.ChoiceField(
        label=gettext_lazy("What comes first"),
        choices=Strategy.choices,
        help_text=gettext_lazy(
            "Scores are those of the reward model in force; workers keep them. A single model "
            "disagrees with nobody, then all is by chance, as evaluation always is."
        ),
    )
    sensitive = forms.BooleanField(
        label=gettext_lazy("Sensitive: veiled until a labeler looks"),
        required=False,
        help_text=gettext_lazy(
            "What may upset. A labeler can refuse such batches, the page Batches caps them by the "
            "day, and a skill keeps one to those who agreed."
        ),
    )
    skip_mode = forms.ChoiceField(
        label=gettext_lazy("What is skipped"),
        choices=SkipMode.choices,
    )
    skips_to_retire = forms.IntegerField(
        label=gettext_lazy("Skips that retire a comparison"),
        min_value=1,
        max_value=MOST_SKIPS,
        help_text=gettext_lazy("By different people; 1 retires it at once."),
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        schemes = self.fields["scheme"]
        assert isinstance(schemes, forms.ModelChoiceField)
        schemes.queryset = Scheme.objects.filter(project=project).order_by("-version")
        for field in self.fields.values():
            field.show_hidden_initial = True  # what the lead saw is sent along

    def changes(self) -> dict[str, Any]:
        """The fields that were set to something else than the lead saw."""
        return {name: self.cleaned_data[name] for name in self.changed_data}

    def seen(self) -> dict[str, Any]:
        """What the lead saw, of all fields that say so."""
        found = {}
        for name, field in self.fields.items():
            sent = self.data.get(self.add_initial_prefix(name))
            if sent is not None:
                with suppress(forms.ValidationError):
                    found[name] = field.to_python(sent)
        return found

    def overtaken(self, batch: Batch, now: Mapping[str, Any]) -> "BatchForm":
        """As it was typed, beside what others have set since; who saves that again means it."""
        data = dict(self.data.items())
        for name in self.fields:
            data[self.add_initial_prefix(name)] = _sent(getattr(batch, name))
            if name not in self.changed_data:
                data[name] = _sent(getattr(batch, name))
        form = BatchForm(data, project=batch.project)
        for name, value in now.items():
            words = _("Somebody else set this meanwhile: %(now)s. Save again to have yours.")
            form.add_error(name, words % {"now": _in_words(form.fields[name], value)})
        return form


@project_page(*REVIEW)
def batches(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The newest batches first; `before` is the last id of the page before."""
    found = Batch.objects.filter(project=membership.project).select_related("scheme", "source")
    before = _number(request.GET.get("before", ""))
    if before is not None:
        found = found.filter(pk__lt=before)
    page = list(found.order_by("-pk")[: BATCHES_PER_PAGE + 1])
    shown = page[:BATCHES_PER_PAGE]
    progress = progress_of(shown)
    context = {
        "lines": [_line(batch, progress[batch.pk]) for batch in shown],
        "older": shown[-1].pk if len(page) > BATCHES_PER_PAGE else None,
        "cap_form": CapForm(initial={"per_day": membership.project.sensitive_per_day}),
    }
    return project_template(request, membership, "pages/batches.html", context)


@project_page(*REVIEW)
def batch(request: HttpRequest, membership: Membership, batch_id: int) -> HttpResponse:
    """One batch: its progress, the form, and its comparisons, newest first."""
    found = _batch(membership, batch_id)
    form = BatchForm(
        project=membership.project,
        initial={name: getattr(found, name) for name in BatchForm.base_fields},
    )
    return _batch_page(request, membership, found, form)


def _batch_page(
    request: HttpRequest, membership: Membership, found: Batch, form: BatchForm, status: int = 200
) -> HttpResponse:
    comparisons = found.comparisons.filter(repeat_of=None).select_related("prompt").order_by("-pk")
    state = request.GET.get("state", "")
    if state in STATES:
        comparisons = comparisons.filter(STATES[state][1])
    before = _number(request.GET.get("before", ""))
    if before is not None:
        comparisons = comparisons.filter(pk__lt=before)
    page = list(comparisons[: COMPARISONS_PER_PAGE + 1])
    shown = page[:COMPARISONS_PER_PAGE]
    query = request.GET.copy()
    if len(page) > COMPARISONS_PER_PAGE:
        query["before"] = str(shown[-1].pk)
    context = {
        "line": _line(found, progress_of([found])[found.pk]),
        "form": form,
        "comparisons": [(one, _snippet(one)) for one in shown],
        "states": [(name, words, name == state) for name, (words, _asked) in STATES.items()],
        "older": query.urlencode() if len(page) > COMPARISONS_PER_PAGE else "",
    }
    return project_template(request, membership, "pages/batch.html", context, status=status)


@project_page(*ADMINISTER, methods=("POST",))
def change(request: HttpRequest, membership: Membership, batch_id: int) -> HttpResponse:
    """Save what the lead changed of what they saw; what is wrong with it, or was set otherwise by
    somebody else meanwhile, is said beside its field."""
    found = _batch(membership, batch_id)
    form = BatchForm(request.POST, project=membership.project)
    if not form.is_valid():
        return _batch_page(request, membership, found, form, status=422)
    with told(request):
        try:
            change_batch(batch=found, changes=form.changes(), by=user_of(request), seen=form.seen())
        except ChangedMeanwhile as error:
            found = _batch(membership, batch_id)
            form = form.overtaken(found, error.now)
            return _batch_page(request, membership, found, form, status=409)
        messages.success(request, _("The batch is changed."))
    return redirect("batch", slug=membership.project.slug, batch_id=found.pk)


@project_page(*ADMINISTER, methods=("POST",))
def pause(request: HttpRequest, membership: Membership, batch_id: int) -> HttpResponse:
    """Stop handing out a batch's comparisons, or go on."""
    found = _batch(membership, batch_id)
    paused = request.POST.get("paused") == "on"
    pause_batch(batch=found, paused=paused, by=user_of(request))
    if paused:
        messages.success(request, _("Paused: what is in hand can still be answered."))
    else:
        messages.success(request, _("The batch is handed out again."))
    return redirect("batch", slug=membership.project.slug, batch_id=found.pk)


@project_page(*REVIEW, methods=("POST",))
def retire(request: HttpRequest, membership: Membership, comparison_id: int) -> HttpResponse:
    """Take a comparison out of the queue, with a reason."""
    found = _comparison(membership, comparison_id)
    with told(request):
        reason = request.POST.get("reason", "")
        retire_comparison(comparison=found, by=user_of(request), reason=reason)
        messages.success(request, _("The comparison is retired; its answers stay."))
    return redirect("batch", slug=membership.project.slug, batch_id=found.batch_id)


@project_page(*REVIEW, methods=("POST",))
def reopen(request: HttpRequest, membership: Membership, comparison_id: int) -> HttpResponse:
    """Put a retired comparison back into the queue."""
    found = _comparison(membership, comparison_id)
    with told(request):
        reopen_comparison(comparison=found, by=user_of(request))
        messages.success(request, _("The comparison is in the queue again."))
    return redirect("batch", slug=membership.project.slug, batch_id=found.batch_id)


def _batch(membership: Membership, batch_id: int) -> Batch:
    batches = membership.project.batches.select_related("scheme", "source")
    return get_object_or_404(batches, pk=batch_id)


def _comparison(membership: Membership, comparison_id: int) -> Comparison:
    return get_object_or_404(membership.project.comparisons, pk=comparison_id)


def _sent(value: Any) -> str:
    """As a form's field sends it."""
    if isinstance(value, Scheme):
        return str(value.pk)
    return "" if value is None else str(value)


def _in_words(field: forms.Field, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(field, SchemeField):
        return field.label_from_instance(value)
    return str(dict(getattr(field, "choices", ())).get(value, value))


def _line(batch: Batch, progress: Progress) -> Line:
    late = batch.due_on is not None and batch.due_on < timezone.localdate()
    return Line(batch, progress, overdue=late and progress.free > 0)


def _snippet(comparison: Comparison) -> str:
    words = " ".join(markdown.plain(comparison.prompt.messages[-1]["content"]).split())
    return Truncator(words).chars(SNIPPET_CHARACTERS)


def _number(text: str) -> int | None:
    """An id as it stands in an address; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None
