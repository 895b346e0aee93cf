"""For which prompts the next comparisons are written, and what these are made of.

A draw falls on a kind of splits, held out or train, with the probability of its share. Held-out
prompts are drawn uniformly, whatever the mix: the pairing is drawn afterwards, of those that can be
had for the prompt. Of train the draw falls on a pairing too, so that its share is kept, and prompts
are drawn uniformly from those that it can be had for; one prompt may be drawn for two pairings:
these are two questions. Always without repeats, and those that wait for no answer first.
"""

import random
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from annotation.asking import Asking, Pairing
from annotation.models import Comparison, ModelVersion, Project, Slot, Split
from annotation.services import versions
from annotation.services.opponents import prompts_with

HELDOUT, TRAIN = (Split.DEV, Split.TEST), (Split.TRAIN,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """One comparison to be written."""

    prompt: int
    pairing: Pairing
    matched: bool
    """Its texts are to be matched in length."""
    propensity: float
    """Probability with which the plan chose the prompt; of train for this pairing."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """What a draw may fall on."""

    splits: tuple[Split, ...]
    shares: dict[Pairing, float]
    """Of what its questions may be made."""
    prompts: dict[Pairing, set[int]]
    """For which prompts each can be had."""
    share: float
    first: list[int]
    """Prompts without an open comparison."""
    later: list[int]

    def pairing_of(self, prompt: int, rng: random.Random) -> Pairing:
        """One that can be had for the prompt, by the shares of those that can."""
        able = [one for one in self.shares if prompt in self.prompts[one]]
        able = [one for one in able if self.shares[one]] or able
        if len(able) == 1:
            return able[0]  # no draw where it could not matter: the plan of a seed stays as it was
        return rng.choices(able, weights=[self.shares[one] for one in able])[0]

    def propensities(self, draws: int, of_all: float) -> dict[int, float]:
        """How likely each prompt is among `draws` of them; of_all: the sum of all cells' shares.

        The number k of draws that fall here is binomial. Of the n first prompts one is chosen with
        probability E min(k, n) / n, of the m others with E min(max(k - n, 0), m) / m.
        """
        numbers = np.arange(draws + 1)
        chances = binom.pmf(numbers, draws, self.share / of_all)
        found: dict[int, float] = {}
        for group, before in ((self.first, 0), (self.later, len(self.first))):
            expected = chances @ np.clip(numbers - before, 0, len(group))
            found |= {pk: float(expected / len(group)) for pk in group}
        return found


def plan(project: Project, *, writer: ModelVersion, count: int, seed: int) -> list[Planned]:
    """`count` comparisons, or fewer where the prompts do not suffice.

    Where a kind of splits has no prompt that a pairing can be had for, its other pairings take over
    the share, and where there is no other, pairs of the same policy; where it has no prompt at all,
    the other kind of splits does, unless its share is 0.
    """
    rng = random.Random(seed)
    cells = _cells(project, writer)
    if not cells:
        return []
    pools = [_shuffled(cell, rng) for cell in cells]
    drawn = rng.choices(range(len(cells)), weights=[cell.share for cell in cells], k=count)
    of_all = sum(cell.share for cell in cells)
    chances = [cell.propensities(count, of_all) for cell in cells]
    matched = Asking.of(project.asking).length_matched
    planned = []
    for number in drawn:
        if pools[number]:
            cell, prompt = cells[number], pools[number].pop()
            planned.append(
                Planned(
                    prompt=prompt,
                    pairing=cell.pairing_of(prompt, rng),
                    matched=bool(matched) and cell.splits == TRAIN and rng.random() < matched,
                    propensity=chances[number][prompt],
                )
            )
    return planned


def shares_of_splits(project: Project) -> dict[tuple[Split, ...], float]:
    """Kinds of splits that comparisons are to be written for, and how often each."""
    shares = {HELDOUT: project.heldout_share, TRAIN: 1 - project.heldout_share}
    return {splits: share for splits, share in shares.items() if share > 0}


def opponent_of(project: Project, writer: ModelVersion) -> ModelVersion | None:
    """Which version the writer meets where it is to meet the one in force."""
    return versions.beside(project, Slot.POLICY, writer)


def _cells(project: Project, writer: ModelVersion) -> list[_Cell]:
    """Those that some prompt is in; the shares of a kind of splits sum to its own."""
    busy = set(
        Comparison.objects.open().filter(project=project).values_list("prompt_id", flat=True)
    )
    cells = []
    for splits, share in shares_of_splits(project).items():
        found = _to_be_had(project, writer, splits)
        shares = {pairing: wanted for pairing, (wanted, _) in found.items()}
        prompts = {pairing: set(ids) for pairing, (_, ids) in found.items()}
        of_all = sum(shares.values())
        parts = [[one] for one in found] if splits == TRAIN else [list(found)] if found else []
        for part in parts:
            ids = sorted(set().union(*(prompts[one] for one in part)))
            cells.append(
                _Cell(
                    splits,
                    {one: shares[one] for one in part},
                    prompts,
                    share * sum(shares[one] for one in part) / of_all,
                    [pk for pk in ids if pk not in busy],
                    [pk for pk in ids if pk in busy],
                )
            )
    return cells


def _to_be_had(
    project: Project, writer: ModelVersion, splits: tuple[Split, ...]
) -> dict[Pairing, tuple[float, list[int]]]:
    """Pairing -> its share and its prompts, without those that have none; the policy's own pairs
    where the mix has nothing that can be had, and for each held-out prompt that it has nothing for.
    """
    shares = {one: share for one, share in Asking.of(project.asking).shares.items() if share}
    if opponent_of(project, writer) is None:
        shares.pop(Pairing.IN_FORCE, None)
    found = {
        pairing: (share, ids)
        for pairing, share in shares.items()
        if (ids := _ids(project, pairing, splits))
    }
    everything = {pk for _, ids in found.values() for pk in ids}
    for_all = _ids(project, Pairing.SAME, splits)
    if for_all and (not found or (splits == HELDOUT and len(everything) < len(for_all))):
        # what is held out is drawn from all, and asked as it can be
        share = found[Pairing.SAME][0] if Pairing.SAME in found else 0.0 if found else 1.0
        found[Pairing.SAME] = (share, for_all)
    return found


def _ids(project: Project, pairing: Pairing, splits: tuple[Split, ...]) -> list[int]:
    prompts = prompts_with(project, pairing, splits).order_by("pk")
    return list(prompts.values_list("pk", flat=True))


def _shuffled(cell: _Cell, rng: random.Random) -> list[int]:
    """The cell's prompts in random order, to be taken from the end: first those that wait for no
    answer."""
    ids = sorted([*cell.first, *cell.later])
    rng.shuffle(ids)
    first = set(cell.first)
    return sorted(ids, key=lambda pk: pk in first)
