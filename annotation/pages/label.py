"""The labeling page: claim, show, take the answer, show the next."""

import uuid
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation import markdown
from annotation.errors import BadInput, Conflict, LeaseLost, NothingToDo
from annotation.models import (
    Annotator,
    Assignment,
    Completion,
    LeaseKind,
    Membership,
    Preference,
    Prompt,
    Scheme,
    SendBack,
)
from annotation.pages.answers import Choice, answer_from, choices_of, fields_of, letters
from annotation.pages.guideline_sheets import panel_of
from annotation.pages.sensitive import standing_of
from annotation.pages.shell import project_page, project_template, user_of
from annotation.pages.waiting import desk_of
from annotation.permissions import LABEL
from annotation.services import queue
from annotation.services.projects import annotator_for
from annotation.services.review import BY_THE_ANNOTATOR, revise_preference
from annotation.services.schemes import Attribute, Options
from annotation.services.standing import is_warned
from annotation.services.worktime import note_activity

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
class Rating:
    """One rating input of a completion and what was typed before an error."""

    index: int
    attribute: Attribute
    value: str


@dataclass(frozen=True)
class Option:
    """One completion as shown: a letter, nothing about who wrote it."""

    letter: str
    html: SafeString
    text: str
    """As it was written, for whoever edits it."""
    places: list[Place]
    ratings: list[Rating]
    flags: list[tuple[str, bool]]
    """Each flag of the scheme and whether it was set before an error."""


@dataclass(frozen=True)
class Axis:
    """One question: its name, and what was answered before an error."""

    index: int
    name: str
    choice: str
    line: str


@dataclass(frozen=True)
class Work:
    """All that the page shows of one lease."""

    assignment: Assignment
    turns: list[Turn]
    options: list[Option]
    axes: list[Axis]
    choices: list[list[Choice]]
    """Rows of buttons, the same under every axis."""
    asks: Options
    """What the scheme asks for besides the order."""
    key: str
    note: str
    ideal: str
    heartbeat_seconds: int
    lease_seconds: int
    """How long the lease goes on if nothing renews it."""
    is_edit: bool = False
    """An answer that was given is open again: nothing to skip, no lease to keep."""

    @property
    def is_pair(self) -> bool:
        return len(self.options) == 2


def turns_of(prompt: Prompt, page: markdown.Page) -> list[Turn]:
    """A conversation for showing."""
    return [
        Turn(message["role"], page.render(markdown.plain(message["content"])))
        for message in prompt.messages
    ]


def texts_of(assignment: Assignment) -> list[str]:
    """The completions in the order that is shown."""
    found = Completion.objects.in_bulk(assignment.presented_order)
    return [found[pk].text for pk in assignment.presented_order]


def work_of(assignment: Assignment, posted: QueryDict, *, is_edit: bool = False) -> Work:
    """What to show for a lease. posted: a refused answer, so that nothing typed is lost, or the
    one that is edited."""
    scheme, page = assignment.scheme, markdown.Page()
    asks, texts = Options.of(scheme.options), texts_of(assignment)
    answers = page.render_alike(texts)
    options = [
        Option(
            letter=letter,
            html=html,
            text=text,
            places=[
                Place(index, axis, posted.get(f"axis{index}-place-{letter}", ""))
                for index, axis in enumerate(scheme.axes)
            ],
            ratings=[
                Rating(index, attribute, posted.get(f"rating{index}-{letter}", ""))
                for index, attribute in enumerate(asks.ratings)
            ],
            flags=[(flag, flag in posted.getlist(f"flags-{letter}")) for flag in asks.flags],
        )
        for letter, html, text in zip(letters(len(texts)), answers, texts, strict=True)
    ]
    return Work(
        assignment=assignment,
        turns=turns_of(assignment.comparison.prompt, page),
        options=options,
        axes=[
            Axis(
                index,
                axis,
                posted.get(f"axis{index}-choice", ""),
                posted.get(f"axis{index}-line", ""),
            )
            for index, axis in enumerate(scheme.axes)
        ],
        choices=choices_of(scheme, asks, len(texts)),
        asks=asks,
        key=posted.get("key") or uuid.uuid4().hex,
        note=posted.get("note", ""),
        ideal=posted.get("ideal", ""),
        heartbeat_seconds=max(5, assignment.project.lease_seconds // 3),
        lease_seconds=max(0, int((assignment.expires_at - timezone.now()).total_seconds())),
        is_edit=is_edit,
    )


SAMPLES = (gettext_lazy("The first answer."), gettext_lazy("The second."), gettext_lazy("A third."))


def sample_works(scheme: Scheme, asks: Options) -> list[Work]:
    """What a pair and a list look like under a scheme that need not be kept yet."""
    return [_sample_work(scheme, asks, count) for count in (2, len(SAMPLES))]


def _sample_work(scheme: Scheme, asks: Options, count: int) -> Work:
    texts = [str(text) for text in SAMPLES[:count]]
    options = [
        Option(
            letter=letter,
            html=markdown.Page().render(text),
            text=text,
            places=[Place(index, axis, "") for index, axis in enumerate(scheme.axes)],
            ratings=[Rating(index, one, "") for index, one in enumerate(asks.ratings)],
            flags=[(flag, False) for flag in asks.flags],
        )
        for letter, text in zip(letters(count), texts, strict=True)
    ]
    return Work(
        assignment=Assignment(pk=0, scheme=scheme),
        turns=[],
        options=options,
        axes=[Axis(index, axis, "", "") for index, axis in enumerate(scheme.axes)],
        choices=choices_of(scheme, asks, count),
        asks=asks,
        key="",
        note="",
        ideal="",
        heartbeat_seconds=0,
        lease_seconds=0,
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
    """Claim and show a comparison, or say which of three reasons there is none.

    `painted` is the lease that the page shows already: then only the words around it are sent.
    """
    annotator = annotator_for(user=user_of(request), project=membership.project)
    context: dict[str, Any] = {"said": said, "warning": warning}
    try:
        assignment = queue.claim_comparison(annotator=annotator)
    except NothingToDo as nothing:
        return _answer(request, membership, annotator, context | {"nothing": nothing})
    if request.POST.get("painted") == str(assignment.pk):
        return _answer(request, membership, annotator, context, fragment="label/went_on.html")
    context["work"] = work_of(assignment, QueryDict())
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
    fragment: str = "label/work.html",
) -> HttpResponse:
    """The whole page, or for the page's own script what stands inside it."""
    is_fragment = bool(request.headers.get("HX-Request"))
    template = fragment if is_fragment else "label/page.html"
    context["today"] = answered_today(annotator)
    context["desk"] = desk_of(membership)
    if "work" in context and (guideline := context["work"].assignment.guideline):
        context["panel"] = panel_of(guideline, annotator)
    context["is_warned"] = is_warned(annotator)
    context["sensitive"] = standing_of(annotator)
    context["last"] = _own_answers(membership, request).order_by("-pk").first()
    return project_template(request, membership, template, context, status=status)


def lease_of(request: HttpRequest, membership: Membership, assignment_id: int) -> Assignment:
    """The user's own lease; anybody else's is 404."""
    return get_object_or_404(
        Assignment.objects.select_related(
            "comparison__prompt", "annotator", "scheme", "guideline", "project"
        ),
        pk=assignment_id,
        project=membership.project,
        annotator__user=user_of(request),
    )


def _activity(request: HttpRequest, assignment: Assignment) -> float | None:
    """Seconds at work on a lease, as measured and as the clock allows; None: not measured."""
    try:
        measured = float(request.POST.get("active_seconds", "")[:20])
    except ValueError:
        return None
    return note_activity(assignment=assignment, active_seconds=measured)


@project_page(*LABEL)
def label(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The comparison in hand, or the next."""
    return show_next(request, membership)


@project_page(*LABEL, methods=("POST",))
def submit(request: HttpRequest, membership: Membership, assignment_id: int) -> HttpResponse:
    """Take an answer. The same key twice is one answer; a late one is kept, and said so."""
    assignment = lease_of(request, membership, assignment_id)
    active = _activity(request, assignment)
    key = request.POST.get("key", "")[:MAX_KEY_CHARACTERS]
    note = request.POST.get("note", "").strip()
    if len(note) > MAX_NOTE_CHARACTERS:
        limit = _("A note has at most %(count)s characters.") % {"count": MAX_NOTE_CHARACTERS}
        return show_again(request, membership, assignment, limit)
    try:
        answer = answer_from(
            request.POST, assignment.scheme, assignment.presented_order, texts_of(assignment)
        )
        preference = queue.submit_preference(
            assignment=assignment,
            rankings=answer.rankings,
            judgments=answer.judgments,
            note=answer.note,
            ideal=answer.ideal,
            key=key,
        )
        Preference.objects.filter(pk=preference.pk, active_seconds=None).update(
            active_seconds=active
        )
    except BadInput as error:
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
    assignment = lease_of(request, membership, assignment_id)
    _activity(request, assignment)
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
    assignment = lease_of(request, membership, assignment_id)
    _activity(request, assignment)
    try:
        queue.renew_lease(assignment=assignment)
    except LeaseLost:
        return project_template(request, membership, "label/lease_lost.html")
    return HttpResponse(status=204)


@project_page(*LABEL, methods=("POST",))
def prefetch(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Hold the next comparison while this one is read; the page paints it when it needs it."""
    annotator = annotator_for(user=user_of(request), project=membership.project)
    try:
        ahead = queue.claim_comparison(annotator=annotator, kind=LeaseKind.PREFETCHED)
    except (NothingToDo, Conflict):  # none now; the claim after the answer will tell why
        return HttpResponse(status=204)
    context = {"work": work_of(ahead, QueryDict())}
    return _answer(request, membership, annotator, context)


def _own_answers(membership: Membership, request: HttpRequest) -> QuerySet[Preference]:
    """What the person may still change: their answers that stand and were given here."""
    return Preference.objects.valid().filter(
        project=membership.project, annotator__user=user_of(request), source=None
    )


@project_page(*LABEL, methods=("GET", "HEAD", "POST"))
def edit(request: HttpRequest, membership: Membership, preference_id: int) -> HttpResponse:
    """One's own answer again, to look at and to change; a change is a revision."""
    found = get_object_or_404(
        _own_answers(membership, request).select_related(
            "assignment__comparison__prompt", "assignment__project", "scheme", "guideline", "ideal"
        ),
        pk=preference_id,
    )
    assignment = found.assignment
    if assignment is None:
        raise Http404("This answer was not given on the page.")
    if request.method != "POST":
        return _edit_page(request, membership, found, fields_of(found))
    try:
        answer = answer_from(
            request.POST, found.scheme, found.presented_order, texts_of(assignment)
        )
        revise_preference(
            preference=found,
            rankings=answer.rankings,
            judgments=answer.judgments,
            note=answer.note,
            ideal=answer.ideal,
            cause=BY_THE_ANNOTATOR,
            by=user_of(request),
        )
    except BadInput as error:
        return _edit_page(request, membership, found, request.POST, error=error.detail)
    messages.success(request, _("Your answer is changed."))
    more = SendBack.objects.open().filter(annotator=found.annotator_id).exists()
    return redirect("sent-back" if more else "label", slug=membership.project.slug)


def _edit_page(
    request: HttpRequest,
    membership: Membership,
    preference: Preference,
    posted: QueryDict,
    error: str = "",
) -> HttpResponse:
    assert preference.assignment is not None
    work = work_of(preference.assignment, posted, is_edit=True)
    context = {
        "work": work,
        "error": error,
        "preference": preference,
        "sent": SendBack.objects.open().filter(preference=preference).first(),
    }
    if preference.guideline:
        context["panel"] = panel_of(preference.guideline, preference.annotator)
    status = 422 if error else 200
    return project_template(request, membership, "label/edit.html", context, status=status)
