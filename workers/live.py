"""One turn of a chat: two models answer a message, token by token, in step.

Both prompts are read before the first token of either, then each side draws a token in turn: the
slower one sets the pace of both, so that speed does not tell which is which. Only an answer that
ends leaves the other to go on alone.
"""

from collections.abc import Iterator
from functools import partial
from itertools import zip_longest
from typing import Any

from annotation.models import LiveAnswer, LiveTurn
from annotation.services import live, live_turns
from annotation.services.jobs import Pulse
from annotation.services.live_stream import Publisher
from annotation.services.live_turns import WholeAnswer
from policy.backbone import context_of
from policy.config import BadInput as BadLaboratoryInput
from policy.data import Message
from policy.run import seed_for
from policy.sampling import stream
from policy.streaming import TextStream
from policy.text import end_token_id, render_prompt
from workers.beating import Beating, Interrupted
from workers.generation import MODELS, Models
from workers.launch import OUT_OF_REACH
from workers.training import worker_name

ROUNDS = 2
"""Two answers that are alike are drawn once more before the thread goes on without a choice; so are
two of which one is blank or names its maker."""


def answer_turn(turn_id: int, models: Models = MODELS) -> None:
    """One attempt at a turn, if it is to be had."""
    turn = live_turns.claim_turn(turn_id=turn_id, worker=worker_name())
    if turn is None:
        return
    attempt = turn.attempt
    publisher = Publisher(turn.pk, turn.attempt)
    try:
        with Beating(
            partial(live_turns.heartbeat, turn_id=turn.pk, attempt=attempt), name=f"turn {turn.pk}"
        ) as beating:
            whole = write(turn, models, publisher, beating)
        state = live_turns.finish_turn(turn_id=turn.pk, attempt=attempt, whole=whole)
        settled = state is not None
    except Interrupted as interrupted:
        if interrupted.pulse is Pulse.GO_ON:  # this worker shuts down
            live_turns.release_turn(turn_id=turn.pk, attempt=attempt)
        return
    except BadLaboratoryInput as error:
        settled = live_turns.fail_turn(turn_id=turn.pk, attempt=attempt, error=str(error))
    except OUT_OF_REACH:
        raise  # left to the stale heartbeat: the next attempt draws the same
    except Exception as error:
        why = f"The worker failed: {type(error).__name__}: {error}"
        if live_turns.fail_turn(turn_id=turn.pk, attempt=attempt, error=why):
            publisher.end()
        raise
    if settled:
        publisher.end()


def write(
    turn: LiveTurn, models: Models, publisher: Publisher, beating: Beating
) -> dict[str, WholeAnswer]:
    """Both answers by side, told to the page as they are drawn. Raises Interrupted."""
    messages: list[Message] = [
        {"role": one["role"], "content": one["content"]} for one in live.messages_of(turn)
    ]
    whole: dict[str, WholeAnswer] = {}
    for number in range(ROUNDS):
        sides = [
            Side(turn, answer, models, messages, number)
            for answer in turn.answers.order_by("place")  # left before right, whoever they are
        ]
        publisher.begin()
        for tokens in zip_longest(*(side.tokens for side in sides)):
            for side, token in zip(sides, tokens, strict=True):
                if token is not None:
                    publisher.piece(side.place, live_turns.storable(side.words.add(token)))
            beating.check()
        for side in sides:
            publisher.piece(side.place, live_turns.storable(side.words.finish()))
        whole = {side.name: side.whole() for side in sides}
        texts = [one.text for one in whole.values()]
        if not live_turns.is_worth_another_draw(turn.thread.project, texts):
            break
    return whole


class Side:
    """One model at work on one answer."""

    def __init__(
        self,
        turn: LiveTurn,
        answer: LiveAnswer,
        models: Models,
        messages: list[Message],
        number: int,
    ) -> None:
        """number: the round. Raises BadInput where the model can't answer these messages."""
        thread = turn.thread
        self.name, self.place = answer.side, answer.place
        version = thread.version_a if self.name == "a" else thread.version_b
        self.temperature = thread.temperature_a if self.name == "a" else thread.temperature_b
        model, tokenizer = models.policy(version)
        context = context_of(model)
        self.max_new_tokens = max(1, min(thread.max_new_tokens, context // 2))
        self.prompt = render_prompt(tokenizer, messages, max_tokens=context - self.max_new_tokens)
        self.seed = seed_for("live", turn.pk, self.name, turn.draw, number)
        self.words = TextStream(tokenizer)
        self.end = end_token_id(tokenizer)
        self.tokens: Iterator[int] = stream(
            model,
            tokenizer,
            self.prompt.ids,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
        )

    def whole(self) -> WholeAnswer:
        """The answer as it came out."""
        sampling: dict[str, Any] = {
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
        }
        if self.prompt.dropped_turns:
            sampling["dropped_turns"] = self.prompt.dropped_turns
        return WholeAnswer(
            text=self.words.text,
            seed=self.seed,
            sampling=sampling,
            finish_reason="end" if self.words.tokens[-1:] == [self.end] else "length",
        )
