"""The chat of a writer: two blind answers to each message, a choice, and on from there."""

import uuid
from dataclasses import dataclass

from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.utils.safestring import SafeString
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from annotation import markdown
from annotation.chat_events import AT_WORK, turn_events
from annotation.errors import BadInput, Conflict
from annotation.models import LiveThread, LiveTurn, Membership, TurnState
from annotation.pages.answers import Choice, answer_from, choices_of
from annotation.pages.label import Option, Rating
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import LABEL, REVIEW
from annotation.services import live
from annotation.services.live_setup import setup_of
from annotation.services.projects import annotator_for, current_scheme
from annotation.services.schemes import Options

LISTED = 50
CHAT_LANGUAGES = ("en", "zh")
"""What a writer may choose whose membership names no languages."""
MOVED_ON = gettext_lazy("The conversation had moved on, perhaps in another tab; here it is now.")


@dataclass(frozen=True)
class Said:
    """One message of the conversation as far as it is settled."""

    role: str
    html: SafeString
    note: str = ""


@dataclass(frozen=True)
class Question:
    """What the writer is asked about a ready turn."""

    options: list[Option]
    axes: list[tuple[int, str, str]]
    """Number, name, and what was chosen before an error."""
    choices: list[list[Choice]]
    asks: Options
    go_on_with: str
    edited: str
    note: str
    key: str


def own_threads(request: HttpRequest, membership: Membership) -> QuerySet[LiveThread]:
    """The writer's threads in this project, and nobody else's."""
    return LiveThread.objects.filter(
        project=membership.project, annotator__user=user_of(request)
    ).select_related("project", "annotator")


def own_thread(request: HttpRequest, membership: Membership, thread_id: int) -> LiveThread:
    """One of the writer's; another's is 404."""
    return get_object_or_404(own_threads(request, membership), pk=thread_id)


@project_page(*LABEL)
def chats(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The writer's conversations, and where to begin another."""
    opening = LiveTurn.objects.filter(thread=OuterRef("pk"), number=1)
    threads = (
        own_threads(request, membership)
        .annotate(opening=Subquery(opening.values("message")[:1]), num_turns=Count("turns"))
        .order_by("-pk")[:LISTED]
    )
    annotator = annotator_for(user=user_of(request), project=membership.project)
    context = {
        "threads": threads,
        "why_not": live.why_not_start(annotator),
        "languages": _languages(membership),
        "key": uuid.uuid4().hex,
        "max_message": live.MAX_MESSAGE,
        "may_read_all": membership.role in REVIEW,
        "setup": setup_of(membership.project),
    }
    return project_template(request, membership, "chat/list.html", context)


def _languages(membership: Membership) -> list[str]:
    """What the writer may say the conversation is in, their own first."""
    if membership.languages:
        return list(membership.languages)
    spoken = (get_language() or "en").partition("-")[0]
    return sorted(CHAT_LANGUAGES, key=lambda one: one != spoken)


@project_page(*LABEL, methods=("POST",))
def start(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Begin a conversation with its first message."""
    with told(request):
        thread = live.start_thread(
            annotator=annotator_for(user=user_of(request), project=membership.project),
            message=_text(request, "message"),
            key=request.POST.get("key", ""),
            language=request.POST.get("language", ""),
        )
        return redirect("chat", slug=membership.project.slug, thread_id=thread.pk)
    return redirect("chats", slug=membership.project.slug)


@project_page(*LABEL)
def chat(request: HttpRequest, membership: Membership, thread_id: int) -> HttpResponse:
    """One conversation. htmx gets the part that changes, and 204 while it has not."""
    thread = own_thread(request, membership, thread_id)
    turn = thread.turns.last()
    assert turn is not None  # a thread starts with its first
    if request.GET.get("seen") == _sight(turn):
        return HttpResponse(status=204)
    return _show(request, membership, thread)


@project_page(*LABEL, methods=("POST",))
def say(request: HttpRequest, membership: Membership, thread_id: int) -> HttpResponse:
    """The next message."""
    thread = own_thread(request, membership, thread_id)
    try:
        live.say(thread=thread, message=_text(request, "message"), key=request.POST.get("key", ""))
    except BadInput as error:
        return _show(request, membership, thread, error=error.detail)
    except Conflict:
        return _show(request, membership, thread, error=str(MOVED_ON))
    return _go_on(request, membership, thread)


@project_page(*LABEL, methods=("POST",))
def choose(
    request: HttpRequest, membership: Membership, thread_id: int, number: int
) -> HttpResponse:
    """Take the choice of a turn, and go on."""
    thread = own_thread(request, membership, thread_id)
    turn = get_object_or_404(thread.turns, number=number)
    scheme = current_scheme(membership.project)
    texts = [one.text for one in turn.answers.all()]
    go_on_with = request.POST.get("on", "")
    try:
        live.choose(
            turn=turn,
            answer=answer_from(request.POST, scheme, live.PLACES, texts),
            key=request.POST.get("key", ""),
            go_on_with=int(go_on_with) if go_on_with in ("1", "2") else None,
            edited=request.POST.get("edited", ""),
            end=request.POST.get("end") == "1",
        )
    except live.NowhereToGo:
        where = _("Say which answer the conversation goes on from, edit one, or end it.")
        return _show(request, membership, thread, error=where, posted=request.POST)
    except BadInput as error:
        return _show(request, membership, thread, error=error.detail, posted=request.POST)
    except Conflict:
        return _show(request, membership, thread, error=str(MOVED_ON))
    return _go_on(request, membership, thread)


@project_page(*LABEL, methods=("POST",))
def again(request: HttpRequest, membership: Membership, thread_id: int) -> HttpResponse:
    """Have a turn that failed answered once more."""
    thread = own_thread(request, membership, thread_id)
    turn = thread.turns.last()
    assert turn is not None
    try:
        live.ask_again(turn=turn)
    except Conflict:
        return _show(request, membership, thread, error=str(MOVED_ON))
    return _go_on(request, membership, thread)


@project_page(*LABEL, methods=("POST",))
def end(request: HttpRequest, membership: Membership, thread_id: int) -> HttpResponse:
    """End the conversation; a turn without a choice is dropped."""
    thread = own_thread(request, membership, thread_id)
    live.end_thread(thread=thread)
    return _go_on(request, membership, thread)


@project_page(*LABEL)
def stream(
    request: HttpRequest, membership: Membership, thread_id: int, number: int
) -> HttpResponse:
    """The answers to a turn as they are written."""
    thread = own_thread(request, membership, thread_id)
    turn = get_object_or_404(thread.turns, number=number)
    return turn_events(request, turn, user_of(request))


# --- what is shown ------------------------------------------------------------------------------


def _go_on(request: HttpRequest, membership: Membership, thread: LiveThread) -> HttpResponse:
    """The conversation as it stands; without htmx a browser is sent to it: F5 is harmless then."""
    if request.headers.get("HX-Request"):
        return _show(request, membership, thread)
    return redirect("chat", slug=membership.project.slug, thread_id=thread.pk)


def _show(
    request: HttpRequest,
    membership: Membership,
    thread: LiveThread,
    *,
    error: str = "",
    posted: QueryDict | None = None,
) -> HttpResponse:
    thread.refresh_from_db(fields=["closed_at"])
    turns = list(thread.turns.prefetch_related("answers"))
    turn, page = turns[-1], markdown.Page()
    is_open = thread.closed_at is None
    context = {
        "thread": thread,
        "turn": turn,
        "sight": _sight(turn),
        "said": said_in(turns, page),
        "is_busy": turn.state in AT_WORK,
        "question": (
            question_of(turn, membership, page, posted or QueryDict())
            if turn.state == TurnState.READY
            else None
        ),
        "may_say": (
            is_open
            and turn.state in (TurnState.CHOSEN, TurnState.ALIKE)
            and len(turns) < thread.max_turns
        ),
        "is_open": is_open,
        "turns_left": thread.max_turns - len(turns),
        "key": uuid.uuid4().hex,
        "message": (request.POST.get("message", "") if error else ""),
        "max_message": live.MAX_MESSAGE,
        "error": error,
    }
    is_part = bool(request.headers.get("HX-Request"))
    template = "chat/block.html" if is_part else "chat/page.html"
    return project_template(request, membership, template, context, status=422 if error else 200)


def said_in(turns: list[LiveTurn], page: markdown.Page) -> list[Said]:
    """Every message, and the answers that the conversation went on from."""
    said = []
    for turn in turns:
        said.append(Said("user", page.render(turn.message)))
        if turn.continued_with:
            notes = {
                TurnState.ALIKE: _("Both answers were the same, or nearly: nothing to choose."),
                TurnState.CHOSEN: "" if _is_one_of_two(turn) else _("in your words"),
            }
            note = notes[TurnState(turn.state)]
            said.append(Said("assistant", page.render(turn.continued_with), note))
    return said


def _is_one_of_two(turn: LiveTurn) -> bool:
    return turn.continued_with in [one.text for one in turn.answers.all()]


def question_of(
    turn: LiveTurn, membership: Membership, page: markdown.Page, posted: QueryDict
) -> Question:
    """The form under a ready turn. posted: a refused choice, so that nothing typed is lost."""
    scheme = current_scheme(membership.project)
    asks = Options.of(scheme.options)
    texts = [one.text for one in turn.answers.all()]
    options = [
        Option(
            letter=letter,
            html=html,
            text=text,
            places=[],
            ratings=[
                Rating(index, rating, posted.get(f"rating{index}-{letter}", ""))
                for index, rating in enumerate(asks.ratings)
            ],
            flags=[(flag, flag in posted.getlist(f"flags-{letter}")) for flag in asks.flags],
        )
        for letter, html, text in zip("12", page.render_alike(texts), texts, strict=True)
    ]
    return Question(
        options=options,
        axes=[
            (index, axis, posted.get(f"axis{index}-choice", ""))
            for index, axis in enumerate(scheme.axes)
        ],
        choices=choices_of(scheme, asks, 2),
        asks=asks,
        go_on_with=posted.get("on", ""),
        edited=posted.get("edited", ""),
        note=posted.get("note", ""),
        key=posted.get("key") or uuid.uuid4().hex,
    )


def _sight(turn: LiveTurn) -> str:
    """What the page looks like, as far as it changes by itself."""
    state = "busy" if turn.state in AT_WORK else turn.state
    return f"{turn.number}-{state}"


def _text(request: HttpRequest, name: str) -> str:
    return request.POST.get(name, "").replace("\r\n", "\n").strip()
