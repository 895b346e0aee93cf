"""Which groups of train prompts a reward model learns from, and which its judge.

Pure: a rule and a group in, yes or no out. A group's side follows from its name, a share and a seed
alone, so it is the same in every round, and whoever knows a snapshot's query can tell it again. A
greater share moves groups from the reward model to the judge, none the other way.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from annotation.errors import BadInput

REWARD, JUDGE = "reward", "judge"
SIDES = (REWARD, JUDGE)
MOST_FOR_THE_JUDGE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupShare:
    """One side of the split. Dev and test stay whole: nothing is learned from them."""

    side: str
    judge_share: float
    """Of the groups, by chance: what the judge gets and the reward model goes without."""
    seed: int

    @classmethod
    def of(cls, value: object) -> Self | None:
        """As a query holds it; None for None. Raises BadInput with the value seen."""
        if value is None:
            return None
        fits = (
            isinstance(value, Mapping)
            and set(value) == {"side", "judge_share", "seed"}
            and value["side"] in SIDES
            and is_share(value["judge_share"])
            and type(value["seed"]) is int
        )
        if not fits:
            raise BadInput(f"groups must be a side, a judge_share and a seed: {value!r:.120}.")
        assert isinstance(value, Mapping)
        return cls(**value)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def holds(self, group: str) -> bool:
        """Whether this side learns from the group."""
        digest = hashlib.sha256(f"judge\x1f{self.seed}\x1f{group}".encode()).digest()
        for_the_judge = int.from_bytes(digest[:8], "big") < self.judge_share * 2**64
        return for_the_judge == (self.side == JUDGE)


def is_share(value: object) -> bool:
    """Whether a judge may get this share of the groups; 0 = there is none."""
    return type(value) in (int, float) and 0 <= value <= MOST_FOR_THE_JUDGE  # type: ignore[operator]


def are_disjoint(reward: GroupShare | None, judge: GroupShare | None) -> bool:
    """Whether no group stands on both sides, whatever the groups are."""
    return (
        reward is not None
        and judge is not None
        and (reward.side, judge.side) == SIDES
        and reward.seed == judge.seed
        and judge.judge_share <= reward.judge_share
    )
