"""What is known of two players, trial by trial, in an order that may be looked at at any time.

Such an interval (annotation/sequential.py) wants every trial to have the same mean given those
before it. Answers come over days, but what the texts say by themselves is there at once: counted
at once, all ties of a job would stand before all of its answers. So the order in which the job
drew its prompts, which knows nothing of what became of them, says how many come in before the next
answer.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from annotation.standings import Battle

ASKED, ALIKE, BLANK = "asked", "alike", "blank"
"""How a trial was decided: by people, or by itself as both texts are one, or as one or both are
blank."""


@dataclass(frozen=True, slots=True)
class ByItself:
    """What nobody is asked about. how: ALIKE or BLANK."""

    battle: Battle
    how: str


@dataclass(frozen=True, slots=True)
class Trial:
    """What one prompt says of two players: the mean of its answers' words, or the texts' own."""

    left: str
    right: str
    score: float
    at: datetime
    """When the first answer came; of what nobody was asked, the answer that it came in with."""
    how: str = ASKED


def in_turn(
    drawn: Sequence[ByItself | None], answered: Sequence[Trial], since: datetime
) -> list[tuple[Trial, Battle | None]]:
    """The trials of one job that have had their turn, and the battle of those that nobody gave.

    drawn: of each prompt in the order drawn, what it is by itself; None: people are
    asked. answered: as the answers came, which is not the order drawn: the k-th takes the place of
    the k-th prompt that people are asked about. since: when the job began. Once nobody is left to
    be asked, all are in.
    """
    found: list[tuple[Trial, Battle | None]] = []
    waiting: list[ByItself] = []
    to_come = deque(answered)
    now = since

    def let_in() -> None:
        found.extend((_trial_of(one, now), one.battle) for one in waiting)
        waiting.clear()

    for by_itself in drawn:
        if by_itself is not None:
            waiting.append(by_itself)
        elif to_come:
            now = to_come[0].at
            let_in()
            found.append((to_come.popleft(), None))
        else:
            return found
    let_in()
    return [*found, *((trial, None) for trial in to_come)]


def _trial_of(one: ByItself, at: datetime) -> Trial:
    return Trial(str(one.battle.left), str(one.battle.right), one.battle.score, at, one.how)
