"""A writer's verbs: start a thread, say something, choose an answer and go on from it.

A turn that is chosen becomes, in one transaction, a prompt of the thread's split group, two
completions with who wrote them, a comparison for one answer, and that answer, counted. What was
never chosen leaves nothing in the ledger but its turn.
"""

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput, BadRanking, ConcordError, Conflict, NotAllowed
from annotation.models import (
    OPEN_STATES,
    Annotator,
    Assignment,
    AssignmentState,
    Completion,
    LiveAnswer,
    LiveThread,
    LiveTurn,
    Origin,
    Outcome,
    Preference,
    Project,
    Prompt,
    Purpose,
    Source,
    TurnState,
)
from annotation.services import answers
from annotation.services.answers import Answer
from annotation.services.checks import barred
from annotation.services.hints import wake_workers_on_commit
from annotation.services.ledger import (
    add_completion,
    add_prompt,
    batch_for,
    group_of_opening,
    open_comparison,
    prompt_hash,
    record_generation,
)
from annotation.services.live_setup import setup_of, sides_of
from annotation.services.projects import current_guideline, current_scheme
from annotation.services.queue import MAX_KEY, submit_preference
from annotation.services.rankings import AxisRanking
from annotation.storable import require_storable

MAX_MESSAGE = 8000
"""Characters."""
PLACES = (1, 2)
SOURCE = "written in chats"
DAY = timedelta(hours=24)

Message = dict[str, Any]


class NowhereToGo(BadInput):
    """Neither answer is the better one, and nothing says how the conversation goes on."""


REFUSALS: dict[str, tuple[type[ConcordError], str]] = {
    "closed": (NotAllowed, "The chat of this project is closed."),
    "enough": (
        Conflict,
        "You have started as many conversations as are wanted of one writer in 24 hours; go on "
        "with one of them, or come back tomorrow.",
    ),
    "no_policy": (Conflict, "No policy is in force in this project yet: nobody could answer."),
    "stopped": (NotAllowed, "Your work here is paused; talk to the lead of the project."),
    "not_qualified": (NotAllowed, "The qualification of this project comes first."),
}


# --- talking ------------------------------------------------------------------------------------


@transaction.atomic
def start_thread(*, annotator: Annotator, message: str, key: str, language: str = "") -> LiveThread:
    """A new thread with its first message; the same key gives the thread that it started.

    Raises NotAllowed where the project's chat is closed, Conflict beyond the day's limit or where
    there is no model to answer, BadInput for a message that can't be one.
    """
    _require_message(message)
    _require_key(key)
    if len(language) > 12:
        raise BadInput(
            gettext("A language has at most 12 characters: %(seen)r.") % {"seen": language[:40]}
        )
    require_storable(language)
    Annotator.objects.select_for_update(no_key=True).get(pk=annotator.pk)  # two tabs take turns
    if first := LiveThread.objects.filter(annotator=annotator, key=key).first():
        return first
    project = annotator.project
    setup = setup_of(project)
    if why_not := why_not_start(annotator):
        kind, words = REFUSALS[why_not]
        raise kind(words)
    version_a, version_b = sides_of(project)
    assert version_a is not None
    assert version_b is not None
    thread = LiveThread.objects.create(
        project=project,
        annotator=annotator,
        key=key,
        language=language,
        split_group=_group_of(project, message),
        version_a=version_a,
        temperature_a=setup.temperature_a,
        version_b=version_b,
        temperature_b=setup.temperature_b,
        max_new_tokens=setup.max_new_tokens,
        max_turns=setup.max_turns,
    )
    _add_turn(thread, 1, message, key)
    return thread


def why_not_start(annotator: Annotator) -> str:
    """Why the writer may start no thread now, a key of REFUSALS; empty where they may."""
    if not annotator.project.chat_open:
        return "closed"
    if why_not := barred(annotator):
        return why_not
    setup = setup_of(annotator.project)
    today = LiveThread.objects.filter(annotator=annotator, created_at__gt=timezone.now() - DAY)
    if today.count() >= setup.max_threads_per_day:
        return "enough"
    return "" if all(sides_of(annotator.project)) else "no_policy"


@transaction.atomic
def say(*, thread: LiveThread, message: str, key: str) -> LiveTurn:
    """The next message of a thread; the same key gives the turn that it made.

    Raises Conflict while the turn before is open, in a closed thread, and after the last turn,
    NotAllowed for a writer whom the bar has stopped.
    """
    _require_message(message)
    _require_key(key)
    thread = _locked(thread)
    if first := thread.turns.filter(key=key).first():
        return first
    _require_open(thread)
    if why_not := barred(thread.annotator):
        kind, words = REFUSALS[why_not]
        raise kind(words)
    turns = list(thread.turns.all())
    if turns[-1].state in OPEN_STATES:
        raise Conflict(gettext("The turn before is not settled yet: choose an answer first."))
    if len(turns) >= thread.max_turns:
        raise Conflict(
            gettext("A conversation has at most %(most)s messages here.")
            % {"most": thread.max_turns}
        )
    return _add_turn(thread, turns[-1].number + 1, message, key)


@transaction.atomic
def ask_again(*, turn: LiveTurn) -> LiveTurn:
    """Have a failed turn answered once more, by other draws. Raises Conflict for any other."""
    thread = _locked(turn.thread)
    _require_open(thread)
    asked = thread.turns.filter(pk=turn.pk, state=TurnState.FAILED).update(
        state=TurnState.WAITING, draw=turn.draw + 1, lost_attempts=0, error=""
    )
    if not asked:
        raise Conflict(gettext("This turn did not fail, or is being answered again already."))
    wake_workers_on_commit()
    turn.refresh_from_db()
    return turn


@transaction.atomic
def end_thread(*, thread: LiveThread) -> LiveThread:
    """Close a thread; a turn that is not chosen is dropped. Ending twice is ending once."""
    thread = _locked(thread)
    _close(thread)
    return thread


def messages_of(turn: LiveTurn) -> list[Message]:
    """The conversation up to the turn's message: what is answered, and what is compared on."""
    messages: list[Message] = []
    for before in turn.thread.turns.filter(number__lt=turn.number).order_by("number"):
        messages.append({"role": "user", "content": before.message})
        messages.append({"role": "assistant", "content": before.continued_with})
    return [*messages, {"role": "user", "content": turn.message}]


# --- choosing -----------------------------------------------------------------------------------


@transaction.atomic
def choose(
    *,
    turn: LiveTurn,
    answer: Answer,
    key: str,
    go_on_with: int | None = None,
    edited: str = "",
    end: bool = False,
) -> LiveTurn:
    """Take the writer's answer to a ready turn; the same key gives the turn as it was settled.

    answer: its rankings and judgments name the two answers by their places, 1 and 2. go_on_with:
    the place that the conversation goes on from, or None for the one that is better on every axis.
    edited: what that answer should have been; it is gone on with, and becomes a demonstration.
    end: close the thread here. Raises BadInput where it can't be told how to go on, BadRanking for
    what the scheme doesn't allow, Conflict for a turn that is not to be chosen (any more).
    """
    _require_key(key)
    thread = _locked(turn.thread)
    turn = thread.turns.select_related("preference").get(pk=turn.pk)
    turn.thread = thread
    if turn.preference is not None and turn.preference.idempotency_key == key:
        return turn
    if turn.state != TurnState.READY:
        raise Conflict(
            gettext("This turn is not to be chosen: it was settled, or is not answered yet.")
        )
    _require_open(thread)
    texts = {one.place: one.text for one in turn.answers.all()}
    place = _place_to_go_on_from(answer, go_on_with)
    edited = _edited(edited, texts)
    is_last = end or turn.number >= thread.max_turns
    if not edited and place is None and not is_last:
        raise NowhereToGo("Say which answer the conversation goes on from, edit one, or end it.")
    turn.preference = _record(turn, answer, key)
    if edited:
        answers.add_ideal(turn.preference, edited)
    turn.comparison_id = turn.preference.comparison_id
    turn.state = TurnState.CHOSEN
    turn.continued_with = edited or (texts[place] if place else "")
    turn.save(update_fields=["preference", "comparison", "state", "continued_with"])
    if is_last:
        _close(thread)
    return turn


def _record(turn: LiveTurn, answer: Answer, key: str) -> Preference:
    """The rows of the ledger, by its own verbs."""
    thread, project = turn.thread, turn.thread.project
    assert turn.ready_at is not None  # it is ready
    source, _ = Source.objects.get_or_create(project=project, name=SOURCE)
    prompt = _prompt(turn, source)
    by_place = {one.place: _completion(one, prompt, source) for one in turn.answers.all()}
    scheme = current_scheme(project)
    batch = batch_for(
        project=project,
        name=f"Live, scheme {scheme.version}",
        source=source,
        purpose=Purpose.LIVE,
        scheme=scheme,
    )
    comparison, _ = open_comparison(
        batch=batch,
        prompt=prompt,
        completions=[by_place[place] for place in PLACES],
        answers_wanted=1,
    )
    # It holds no slot before it is answered: the answer takes the comparison's one, and no lease
    # of the writer's on the labeling page is in its way.
    assignment = Assignment.objects.create(
        project=project,
        comparison=comparison,
        annotator=thread.annotator,
        scheme=scheme,
        guideline=current_guideline(project),
        presented_order=[by_place[place].pk for place in PLACES],
        state=AssignmentState.LEASED,
        holds_slot=False,
        leased_at=turn.ready_at,
        expires_at=turn.ready_at,
    )
    named = _by_completions(answer, {place: by_place[place].pk for place in PLACES})
    return submit_preference(
        assignment=assignment,
        rankings=named.rankings,
        judgments=named.judgments,
        note=named.note,
        ideal=named.ideal,
        key=key,
    )


def _prompt(turn: LiveTurn, source: Source) -> Prompt:
    """Of the thread's own, even where another thread went the same way: one question, one answer.

    The group is the opening's, so that all who begin alike share a split.
    """
    thread = turn.thread
    prompt, _ = add_prompt(
        project=thread.project,
        source=source,
        messages=messages_of(turn),
        task="dialogue",
        language=thread.language,
        metadata={"live_thread": thread.pk},
        split_group=thread.split_group,
    )
    return prompt


def _completion(one: LiveAnswer, prompt: Prompt, source: Source) -> Completion:
    completion, _ = add_completion(prompt=prompt, source=source, text=one.text)
    thread = one.turn.thread
    record_generation(
        completion=completion,
        origin=Origin.POLICY,
        model_version=thread.version_a if one.side == "a" else thread.version_b,
        sampling=one.sampling,
        seed=one.seed,
        finish_reason=one.finish_reason,
    )
    LiveAnswer.objects.filter(pk=one.pk).update(completion=completion)
    return completion


def _by_completions(answer: Answer, ids: dict[int, int]) -> Answer:
    """The answer with completion ids in the stead of places."""

    def named(place: Any) -> int:
        if place not in PLACES:
            raise BadRanking(f"The two answers are 1 and 2, there is no {place!r}.")
        return ids[place]

    return replace(
        answer,
        rankings=[
            replace(one, groups=[[named(place) for place in group] for group in one.groups])
            for one in answer.rankings
        ],
        judgments=[replace(one, completion=named(one.completion)) for one in answer.judgments],
    )


def _place_to_go_on_from(answer: Answer, go_on_with: int | None) -> int | None:
    if go_on_with is not None:
        if go_on_with not in PLACES:
            raise BadInput(
                gettext("The conversation goes on from answer 1 or 2, not %(seen)r.")
                % {"seen": go_on_with}
            )
        return go_on_with
    first = {_first_place(one) for one in answer.rankings}
    return first.pop() if len(first) == 1 else None


def _first_place(ranking: AxisRanking) -> int | None:
    """The place that is above the other; None where neither is."""
    if ranking.outcome != Outcome.RANKED or len(ranking.groups) != 2:
        return None
    return ranking.groups[0][0] if len(ranking.groups[0]) == 1 else None


def _edited(text: str, texts: dict[int, str]) -> str:
    """The edited text, or nothing where it is one of the two as they stand."""
    text = _in_lines(text)
    return "" if text in [_in_lines(one) for one in texts.values()] else text


def _in_lines(text: str) -> str:
    """As a browser's text field gives it back: whatever ended a line there, it is a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


# --- parts --------------------------------------------------------------------------------------


def _group_of(project: Project, message: str) -> str:
    """The split group of what begins with this message; an imported tree's where it is known."""
    opening = [{"role": "user", "content": message}]
    known = Prompt.objects.filter(project=project, content_hash=prompt_hash(opening, {})).first()
    return known.split_group if known else group_of_opening(opening)


def _add_turn(thread: LiveThread, number: int, message: str, key: str) -> LiveTurn:
    turn = LiveTurn.objects.create(thread=thread, number=number, message=message, key=key)
    places = random.sample(PLACES, k=2)
    LiveAnswer.objects.bulk_create(
        LiveAnswer(turn=turn, side=side, place=place)
        for side, place in zip("ab", places, strict=True)
    )
    wake_workers_on_commit()
    return turn


def _close(thread: LiveThread) -> None:
    if thread.closed_at is None:
        thread.closed_at = timezone.now()
        thread.save(update_fields=["closed_at"])
    thread.turns.filter(state__in=OPEN_STATES).update(state=TurnState.DROPPED)


def _locked(thread: LiveThread) -> LiveThread:
    """The thread's row, held until the transaction ends: two tabs take turns."""
    return (
        LiveThread.objects.select_for_update(no_key=True, of=("self",))
        .select_related("project", "annotator", "version_a", "version_b")
        .get(pk=thread.pk)
    )


def _require_open(thread: LiveThread) -> None:
    if thread.closed_at is not None:
        raise Conflict(gettext("This conversation has ended."))


def _require_message(message: str) -> None:
    if not isinstance(message, str) or not message.strip():
        raise BadInput(gettext("A message can't be empty."))
    if len(message) > MAX_MESSAGE:
        raise BadInput(
            gettext("A message has at most %(most)s characters, not %(seen)s.")
            % {"most": MAX_MESSAGE, "seen": len(message)}
        )
    require_storable(message)


def _require_key(key: str) -> None:
    if not 1 <= len(key) <= MAX_KEY:
        raise BadInput(f"A key has 1 to {MAX_KEY} characters, not {len(key)}.")
    require_storable(key)
