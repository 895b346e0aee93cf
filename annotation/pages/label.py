"""The labeling page: claim, show, take the answer, show the next."""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from annotation import markdown
from annotation.errors import BadRanking, Conflict, LeaseLost, NothingToDo
from annotation.models import (
    Annotator,
    Assignment,
    Completion,
    LeaseKind,
    Membership,
    Preference,
    Prompt,
)
from annotation.pages.answers import letters, rankings_from
from annotation.pages.shell import project_page, project_template, user_of
from annotation.permissions import LABEL
from annotation.services import queue
from annotation.services.projects import annotator_for

MAX_NOTE_CHARACTERS = 4000
MAX_KEY_CHARACTERS = 80


@dataclass(frozen=True)
class Turn:
    """One message of the conversation, rendered."""

    role: str
    html: SafeString


@dataclass(frozen=True)
class Place:
    """One place input of a completion: its axis and what was typed before an error."""

    axis: int
    axis_name: str
    value: str


@dataclass(frozen=True)
class Option:
    """One completion as shown: a letter, nothing about who wrote it."""

    letter: str
    html: SafeString
    places: list[Place]


@dataclass(frozen=True)
class Work:
    """All that the page shows of one lease."""

    assignment: Assignment
    turns: list[Turn]
    options: list[Option]
    axes: list[tuple[int, str, str]]
    """Index, name, and the choice made before an error."""
    guideline: SafeString | None
    key: str
    note: str
    heartbeat_seconds: int

    @property
    def is_pair(self) -> bool:
        return len(self.options) == 2


def turns_of(prompt: Prompt, page: markdown.Page) -> list[Turn]:
    """A conversation for showing."""
    return [
        Turn(message["role"], page.render(markdown.plain(message["content"])))
        for message in prompt.messages
    ]


def work_of(assignment: Assignment, posted: Mapping[str, str]) -> Work:
    """What to show for a lease. posted: a refused answer, so that nothing typed is lost."""
    texts = Completion.objects.in_bulk(assignment.presented_order)
    axes, page = assignment.scheme.axes, markdown.Page()
    answers = page.render_alike([texts[pk].text for pk in assignment.presented_order])
    options = [
        Option(
            letter=letter,
            html=html,
            places=[
                Place(index, axis, posted.get(f"axis{index}-place-{letter}", ""))
                for index, axis in enumerate(axes)
            ],
        )
        for letter, html in zip(letters(len(answers)), answers, strict=True)
    ]
    return Work(
        assignment=assignment,
        turns=turns_of(assignment.comparison.prompt, page),
        options=options,
        axes=[
            (index, axis, posted.get(f"axis{index}-choice", "")) for index, axis in enumerate(axes)
        ],
        guideline=page.render(assignment.guideline.text) if assignment.guideline else None,
        key=posted.get("key") or uuid.uuid4().hex,
        note=posted.get("note", ""),
        heartbeat_seconds=max(5, assignment.project.lease_seconds // 3),
    )


def answered_today(annotator: Annotator) -> int:
    """How many comparisons an annotator answered since midnight of the site's time zone."""
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    return Preference.objects.filter(
        annotator=annotator, created_at__gte=midnight, current=True
    ).count()


def show_next(
    request: HttpRequest, membership: Membership, *, said: str = "", warning: str = ""
) -> HttpResponse:
    """Claim and show a comparison, or say which of three reasons there is none."""
    annotator = annotator_for(user=user_of(request), project=membership.project)
    context: dict[str, Any] = {"said": said, "warning": warning}
    try:
        assignment = queue.claim_comparison(annotator=annotator)
        context["work"] = work_of(assignment, {})
    except NothingToDo as nothing:
        context["nothing"] = nothing
    return _answer(request, membership, annotator, context)


def show_again(
    request: HttpRequest, membership: Membership, assignment: Assignment, error: str
) -> HttpResponse:
    """The same lease with what was filled in, and the sentence that says what is wrong."""
    context = {"work": work_of(assignment, request.POST), "error": error}
    return _answer(request, membership, assignment.annotator, context, status=422)


def _answer(
    request: HttpRequest,
    membership: Membership,
    annotator: Annotator,
    context: dict[str, Any],
    status: int = 200,
) -> HttpResponse:
    """The whole page, or for htmx what stands inside it."""
    is_fragment = bool(request.headers.get("HX-Request"))
    template = "label/work.html" if is_fragment else "label/page.html"
    context["today"] = answered_today(annotator)
    return project_template(request, membership, template, context, status=status)


def _lease(request: HttpRequest, membership: Membership, assignment_id: int) -> Assignment:
    """The user's own lease; anybody else's is 404."""
    return get_object_or_404(
        Assignment.objects.select_related(
            "comparison__prompt", "annotator", "scheme", "guideline", "project"
        ),
        pk=assignment_id,
        project=membership.project,
        annotator__user=user_of(request),
    )


@project_page(*LABEL)
def label(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The comparison in hand, or the next."""
    return show_next(request, membership)


@project_page(*LABEL, methods=("POST",))
def submit(request: HttpRequest, membership: Membership, assignment_id: int) -> HttpResponse:
    """Take an answer. The same key twice is one answer; a late one is kept, and said so."""
    assignment = _lease(request, membership, assignment_id)
    key = request.POST.get("key", "")[:MAX_KEY_CHARACTERS]
    note = request.POST.get("note", "").strip()
    if len(note) > MAX_NOTE_CHARACTERS:
        limit = _("A note has at most %(count)s characters.") % {"count": MAX_NOTE_CHARACTERS}
        return show_again(request, membership, assignment, limit)
    try:
        rankings = rankings_from(request.POST, assignment.scheme.axes, assignment.presented_order)
        preference = queue.submit_preference(
            assignment=assignment, rankings=rankings, key=key, note=note
        )
    except BadRanking as error:
        return show_again(request, membership, assignment, error.detail)
    except Conflict:
        lost = _("This comparison had been answered or given back before; here is the next.")
        return _go_on(request, membership, warning=lost)
    if not preference.counted:
        late = _(
            "Your answer came after its time and somebody else had answered: "
            "it is kept, but does not count."
        )
        return _go_on(request, membership, warning=late)
    return _go_on(request, membership, said=_("Saved. Here is the next."))


@project_page(*LABEL, methods=("POST",))
def skip(request: HttpRequest, membership: Membership, assignment_id: int) -> HttpResponse:
    """Give a comparison back for good, with a reason."""
    assignment = _lease(request, membership, assignment_id)
    reason = " ".join(
        filter(None, [request.POST.get("reason", ""), request.POST.get("other", "").strip()])
    )[:200]
    if not reason:
        return show_again(request, membership, assignment, _("Say why you skip it."))
    try:
        queue.skip_comparison(assignment=assignment, reason=reason)
    except Conflict:
        lost = _("This comparison had been answered or given back before; here is the next.")
        return _go_on(request, membership, warning=lost)
    return _go_on(request, membership, said=_("Skipped. Here is the next."))


def _go_on(request: HttpRequest, membership: Membership, **words: str) -> HttpResponse:
    """The next comparison at once; a browser without htmx is sent to it, so that F5 is harmless."""
    if request.headers.get("HX-Request"):
        return show_next(request, membership, **words)
    return redirect("label", slug=membership.project.slug)


@project_page(*LABEL, methods=("POST",))
def renew(request: HttpRequest, membership: Membership, assignment_id: int) -> HttpResponse:
    """The page's heartbeat: the lease goes on while somebody looks at it."""
    try:
        queue.renew_lease(assignment=_lease(request, membership, assignment_id))
    except LeaseLost:
        return project_template(request, membership, "label/lease_lost.html")
    return HttpResponse(status=204)


@project_page(*LABEL, methods=("POST",))
def prefetch(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Hold the next comparison while this one is read, and render it into the cache."""
    annotator = annotator_for(user=user_of(request), project=membership.project)
    with suppress(NothingToDo, Conflict):  # none now; the claim after the answer will tell why
        work_of(queue.claim_comparison(annotator=annotator, kind=LeaseKind.PREFETCHED), {})
    return HttpResponse(status=204)
