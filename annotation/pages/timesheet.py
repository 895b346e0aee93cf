"""The timesheet: a labeler's own days, or for leads everybody's, as a page and as CSV."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.errors import BadInput
from annotation.models import Membership
from annotation.pages.shell import project_page, project_template, user_of
from annotation.permissions import ADMINISTER, LABEL, REVIEW
from annotation.services.projects import annotator_for
from annotation.services.worktime import Day, timesheet

DAYS_SHOWN, MOST_DAYS = 14, 366
COLUMNS = ("day", "annotator", "name", "answers", "skips", "active_seconds", "time_zone")
FORMULA = ("=", "+", "-", "@", "\t")


class SpanForm(forms.Form):
    """From which day to which, both included."""

    first = forms.DateField(label=gettext_lazy("From"), required=False)
    last = forms.DateField(label=gettext_lazy("To"), required=False)

    def __init__(self, data: Mapping[str, Any]) -> None:
        super().__init__(data)
        for field in self.fields.values():
            field.widget = forms.DateInput({"type": "date"}, format="%Y-%m-%d")


@dataclass(frozen=True)
class Line:
    """A day as shown."""

    day: Day
    name: str
    """Whose it is, for admins alone: others see the pseudonym."""
    clock: str

    @classmethod
    def of(cls, day: Day, *, named: bool) -> "Line":
        """active_seconds as hours and minutes, rounded."""
        minutes = round(day.active_seconds / 60)
        user = day.annotator.user
        return cls(
            day=day,
            name=user.get_username() if named and user else "",
            clock=f"{minutes // 60}:{minutes % 60:02d}",
        )


def _span(request: HttpRequest) -> tuple[date, date]:
    form = SpanForm(request.GET)
    if not form.is_valid():
        wrong = next(iter(form.errors))
        raise BadInput(
            _("A day is written like 2026-01-31: %(text)s")
            % {"text": request.GET.get(wrong, "")[:40]}
        )
    last = form.cleaned_data["last"] or timezone.localdate()
    _require_near(last)
    first = form.cleaned_data["first"] or last - timedelta(days=DAYS_SHOWN - 1)
    if not 0 <= (last - first).days < MOST_DAYS:
        raise BadInput(
            _("From a day to the same or a later one, %(most)s days at most: %(first)s to %(last)s")
            % {"most": MOST_DAYS, "first": first, "last": last}
        )
    return first, last


def _require_near(day: date) -> None:
    """A year that the arithmetic of days and time zones has no trouble with."""
    if not 2000 <= day.year < 3000:
        raise BadInput(_("A day of these centuries, please: %(day)s") % {"day": day})


def _lines(request: HttpRequest, membership: Membership, span: tuple[date, date]) -> list[Line]:
    """What the person may see: reviewers and admins everybody's days, others their own."""
    own = None
    if membership.role not in REVIEW:
        own = [annotator_for(user=user_of(request), project=membership.project)]
    named = membership.role in ADMINISTER
    return [Line.of(day, named=named) for day in timesheet(membership.project, *span, own)]


@project_page(*LABEL)
def timesheet_page(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Days, newest first, with their sums."""
    first, last = span = _span(request)
    lines = _lines(request, membership, span)
    whole = sum(line.day.active_seconds for line in lines)
    context = {
        "lines": lines,
        "form": SpanForm({"first": first.isoformat(), "last": last.isoformat()}),
        "first": first,
        "last": last,
        "answers": sum(line.day.answers for line in lines),
        "skips": sum(line.day.skips for line in lines),
        "clock": f"{round(whole / 60) // 60}:{round(whole / 60) % 60:02d}",
        "time_zone": settings.TIME_ZONE,
        "is_lead": membership.role in REVIEW,
    }
    return project_template(request, membership, "pages/timesheet.html", context)


@project_page(*LABEL)
def timesheet_csv(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The same days for a spreadsheet."""
    first, last = span = _span(request)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(_rows(_lines(request, membership, span)))
    name = f"{membership.project.slug}-timesheet-{first}-{last}.csv"
    return HttpResponse(
        text.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _rows(lines: list[Line]) -> Iterator[list[object]]:
    for line in lines:
        yield [
            line.day.day.isoformat(),
            _harmless(line.day.annotator.pseudonym),
            _harmless(line.name),
            line.day.answers,
            line.day.skips,
            round(line.day.active_seconds),
            settings.TIME_ZONE,
        ]


def _harmless(text: str) -> str:
    """A name that a spreadsheet would take for a formula gets a quote before it."""
    return f"'{text}" if text.startswith(FORMULA) else text
