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


@dataclass(frozen=True, slots=True)
class Trial:
    """What one prompt says of two players: the mean of its answers' words, or the texts' own."""

    left: str
    right: str
    score: float
    at: datetime
    """When the first answer came; of what nobody was asked, the answer that it came in with."""
    asked: bool = True


def in_turn(
    drawn: Sequence[Battle | None], answered: Sequence[Trial], since: datetime
) -> list[tuple[Trial, Battle | None]]:
    """The trials of one job that have had their turn, and the battle of those that nobody gave.

    drawn: of each prompt in the order drawn, the battle that it is by itself; None: people are
    asked. answered: as the answers came, which is not the order drawn: the k-th takes the place of
    the k-th prompt that people are asked about. since: when the job began. Once nobody is left to
    be asked, all are in.
    """
    found: list[tuple[Trial, Battle | None]] = []
    waiting: list[Battle] = []
    to_come = deque(answered)
    now = since

    def let_in() -> None:
        found.extend((_by_itself(one, now), one) for one in waiting)
        waiting.clear()

    for battle in drawn:
        if battle is not None:
            waiting.append(battle)
        elif to_come:
            now = to_come[0].at
            let_in()
            found.append((to_come.popleft(), None))
        else:
            return found
    let_in()
    return [*found, *((trial, None) for trial in to_come)]


def _by_itself(battle: Battle, at: datetime) -> Trial:
    return Trial(str(battle.left), str(battle.right), battle.score, at, asked=False)
