"""workers.live: two real (tiny) models answer a message, told in step, whole at the end."""

from typing import Any

import pytest

from annotation.models import LiveTurn
from annotation.services import live, live_turns, versions
from annotation.services.jobs import Pulse
from annotation.services.live_setup import change_setup
from annotation.services.projects import annotator_for
from policy.data import Message
from policy.sampling import sample
from policy.text import decode_completion, render_prompt
from tests.annotation.making import make_member
from tests.workers.tiny import tiny_policy
from workers import live as live_work
from workers.beating import Beating
from workers.generation import MODELS
from workers.launch import shutting_down

pytestmark = pytest.mark.django_db


class Told:
    """What a page would have been told."""

    def __init__(self, turn_id: int, attempt: int) -> None:
        self.said: list[tuple[Any, ...]] = [("attempt", attempt)]
        ALL_TOLD.append(self)

    def begin(self) -> None:
        self.said.append(("begin",))

    def piece(self, place: int, text: str) -> None:
        self.said.append((place, text))

    def end(self) -> None:
        self.said.append(("end",))

    def text(self, place: int) -> str:
        """What stands at the place after the last beginning."""
        last = max(at for at, one in enumerate(self.said) if one == ("begin",))
        return "".join(one[1] for one in self.said[last:] if one[0] == place)


ALL_TOLD: list[Told] = []


@pytest.fixture(autouse=True)
def told(monkeypatch) -> list[Told]:
    ALL_TOLD.clear()
    monkeypatch.setattr(live_work, "Publisher", Told)
    return ALL_TOLD


@pytest.fixture
def policies(project, artifacts):
    """Two models of a project whose chat is open."""
    made = []
    for seed in (0, 1):
        folder = tiny_policy(artifacts / "models" / f"p{seed}", seed=seed)
        version = versions.register_version(kind="policy", stage="registered", directory=folder)
        versions.promote(project=project, slot="policy", version=version, verdict="registered")
        made.append(version)
    return made


@pytest.fixture
def ask(project, policies):
    def start(message: str = "Where is the cat?", **changes) -> LiveTurn:
        sides = {"version_a": policies[0], "version_b": policies[1], "max_new_tokens": 12}
        change_setup(project=project, changes={**sides, **changes}, is_open=True, by=None)
        project.refresh_from_db()
        annotator = annotator_for(user=make_member(project), project=project)
        annotator.project = project
        thread = live.start_thread(annotator=annotator, message=message, key="s")
        return thread.turns.get()

    return start


def drawn_at_once(turn: LiveTurn, answer: Any) -> str:
    """The answer's text by the batch sampler, from what the row says of it."""
    thread = turn.thread
    version = thread.version_a if answer.side == "a" else thread.version_b
    model, tokenizer = MODELS.policy(version)
    messages: list[Message] = [{"role": "user", "content": turn.message}]
    prompt = render_prompt(tokenizer, messages, max_tokens=64 - answer.sampling["max_new_tokens"])
    (one,) = sample(
        model,
        tokenizer,
        [prompt.ids],
        temperature=answer.sampling["temperature"],
        max_new_tokens=answer.sampling["max_new_tokens"],
        seeds=[answer.seed],
    )
    assert answer.finish_reason == one.finish
    return live_turns.storable(decode_completion(tokenizer, one.tokens))


def test_both_answers_are_those_of_the_batch_sampler_and_were_told_as_they_are(ask, told):
    turn = ask()
    live_work.answer_turn(turn.pk)
    turn.refresh_from_db()
    assert turn.state == "ready", turn.error
    (page,) = told
    for answer in turn.answers.all():
        assert answer.text == drawn_at_once(turn, answer) == page.text(answer.place)
    assert page.said[0] == ("attempt", 1)
    assert page.said[-1] == ("end",)
    temperatures = {one.side: one.sampling["temperature"] for one in turn.answers.all()}
    assert temperatures == {"a": turn.thread.temperature_a, "b": turn.thread.temperature_b}


def test_the_two_are_told_in_turns_left_before_right(ask, told):
    live_work.answer_turn(ask().pk)
    places = [one[0] for one in told[0].said if one[0] in (1, 2)]
    both = places[: 2 * min(places.count(1), places.count(2)) - 2]
    assert both == [1, 2] * (len(both) // 2)


def test_an_answer_that_is_delivered_twice_is_written_once(ask, told):
    turn = ask()
    live_work.answer_turn(turn.pk)
    live_work.answer_turn(turn.pk)
    assert len(told) == 1


def test_another_attempt_writes_the_same(ask, told, monkeypatch):
    turn = ask()
    real = live_work.write

    def dies(*arguments):
        real(*arguments)
        raise SystemExit  # killed with both answers in hand and neither in the ledger

    monkeypatch.setattr(live_work, "write", dies)
    with pytest.raises(SystemExit):
        live_work.answer_turn(turn.pk)
    monkeypatch.setattr(live_work, "write", real)
    assert live_turns.release_turn(turn_id=turn.pk, attempt=1)
    live_work.answer_turn(turn.pk)
    first, second = told
    assert [first.text(1), first.text(2)] == [second.text(1), second.text(2)]
    turn.refresh_from_db()
    assert (turn.state, turn.attempt) == ("ready", 2)


def test_answers_that_are_alike_are_drawn_once_more(ask, told, policies):
    """Greedy, one model against itself: whatever the seed, they are the same."""
    turn = ask(version_b=policies[0], temperature_a=0.0, temperature_b=1e-6)
    live_work.answer_turn(turn.pk)
    turn.refresh_from_db()
    assert turn.state == "alike", turn.error
    assert told[0].said.count(("begin",)) == 2
    assert turn.continued_with == told[0].text(1) == told[0].text(2)


def test_a_model_that_is_not_there_fails_the_turn(ask, told, policies, artifacts):
    turn = ask()
    MODELS._loaded.clear()
    for file in (artifacts / "models" / "p1").iterdir():
        file.unlink()
    live_work.answer_turn(turn.pk)
    turn.refresh_from_db()
    assert turn.state == "failed"
    assert "p1" in turn.error
    assert told[0].said[-1] == ("end",)


def test_a_worker_that_shuts_down_gives_its_turn_back(ask, told):
    turn = ask()
    shutting_down.set()
    try:
        live_work.answer_turn(turn.pk)
    finally:
        shutting_down.clear()
    turn.refresh_from_db()
    assert (turn.state, turn.attempt) == ("waiting", 1)
    assert ("end",) not in told[0].said


def test_one_that_was_fenced_off_says_nothing_more(ask, told, monkeypatch):
    turn = ask()

    def thought_dead(self):
        self.pulse = Pulse.FENCED_OFF

    monkeypatch.setattr(Beating, "_beat", thought_dead)
    live_work.answer_turn(turn.pk)
    turn.refresh_from_db()
    assert turn.state == "writing"
    assert ("end",) not in told[0].said


def test_a_long_conversation_leaves_out_its_beginning(ask, told):
    turn = ask("Where is the red cat? " * 20)
    live_work.answer_turn(turn.pk)
    turn.refresh_from_db()
    assert turn.state == "ready", turn.error
    assert {one.sampling["dropped_turns"] for one in turn.answers.all()} == {1}


def test_no_answer_takes_more_than_half_of_the_context(ask, told):
    turn = ask(max_new_tokens=500)
    live_work.answer_turn(turn.pk)
    turn.refresh_from_db()
    assert turn.state == "ready", turn.error
    assert {one.sampling["max_new_tokens"] for one in turn.answers.all()} == {32}
