"""What came of the comparisons that workers made: by whose text stands beside the policy's, and
whether they were matched in length.

Numbers asked and open are of all of them; what people said is counted on the NEWEST of each way, so
that the page costs the same however large the ledger is. Test prompts are left out of what a model
says: they stay sealed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q
from django.db.models.functions import Length

from annotation.asking import LONGEST_BY_SHORTEST, MADE_AS, Pairing
from annotation.intervals import Statistic, share
from annotation.models import (
    Comparison,
    Completion,
    Generation,
    JobKind,
    JobStatus,
    ModelVersion,
    Origin,
    Outcome,
    Preference,
    Project,
    Purpose,
    Ranking,
    Slot,
    Split,
    TrainingJob,
)
from annotation.models.comparisons import ComparisonQuerySet
from annotation.services import versions
from annotation.services.quality import PEOPLE
from annotation.services.scores import known_scores

NEWEST = 500
"""Comparisons of each way to make one that the shares are counted on."""
NEWEST_JOBS = 50
DROPS = ("identical_dropped", "alike_caught", "leaks_caught", "too_few_distinct", "opponent_gone")
"""What sample jobs count as not asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Came:
    """What came of one way to make comparisons."""

    pairing: Pairing
    matched: bool
    asked: int
    open: int
    heldout: int
    """Of those asked, on dev and test prompts."""
    undecided: Statistic
    """Share of answers that prefer nothing: equal, both bad, cannot tell. n: answers, each axis."""
    longer: Statistic
    """Share of preferences for the longer text, where one is longer by more than a tenth."""
    right: Statistic
    """Share of preferences that the reward model in force agrees with, of those it has scored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """What became of the texts that the newest sample jobs drew."""

    jobs: int
    asked: int
    """Texts that stand in the ledger."""
    dropped: Mapping[str, int]
    """By name in DROPS."""
    matched: int
    missed: int
    """Comparisons that were to be matched in length, and were not."""

    @property
    def alike(self) -> Statistic:
        """Share of the texts drawn that were the same as the other, or nearly."""
        alike = self.dropped["identical_dropped"] + self.dropped["alike_caught"]
        drawn = self.asked + alike + self.dropped["leaks_caught"]
        return share(alike, drawn)


def what_came(project: Project, reward: ModelVersion | None) -> list[Came]:
    """One of each way that was ever used, in the order of MADE_AS."""
    made = _made(project).filter(selector__in=MADE_AS)
    counts = {
        row["selector"]: row
        for row in made.order_by()
        .values("selector")
        .annotate(
            asked=Count("pk"),
            open=Count("pk", filter=Q(open_slots__gt=0, retired_at=None)),
            heldout=Count("pk", filter=Q(purpose=Purpose.EVALUATION)),
        )
    }
    return [
        _came(project, selector, counts[selector], reward)
        for selector in MADE_AS
        if selector in counts
    ]


def _made(project: Project) -> ComparisonQuerySet:
    """In the words of the index comparison_made_as, without which SQLite would not go along it."""
    return Comparison.objects.filter(project=project, repeat_of=None).exclude(selector="")


def _came(
    project: Project, selector: str, counts: Mapping[str, Any], reward: ModelVersion | None
) -> Came:
    pairing, matched = MADE_AS[selector]
    made = _made(project).filter(selector=selector)
    newest = list(made.order_by("-pk").values_list("pk", flat=True)[:NEWEST])
    votes = Preference.objects.valid().filter(
        project=project, annotator__kind__in=PEOPLE, comparison__in=newest
    )
    said = list(
        Ranking.objects.filter(preference__in=votes).values_list(
            "outcome", "groups", "preference__comparison__prompt__split"
        )
    )
    strict = [
        (groups[0][0], groups[-1][0], split)
        for outcome, groups, split in said
        if outcome == Outcome.RANKED and len(groups) > 1
    ]
    return Came(
        pairing=pairing,
        matched=matched,
        asked=counts["asked"],
        open=counts["open"],
        heldout=counts["heldout"],
        undecided=share(len(said) - len(strict), len(said)),
        longer=_longer(strict),
        right=_right([pair for pair in strict if pair[2] != Split.TEST], reward),
    )


Strict = tuple[int, int, str]
"""(the best, the worst, the split)."""


def _longer(strict: Iterable[Strict]) -> Statistic:
    pairs = [(winner, loser) for winner, loser, _ in strict]
    texts = Completion.objects.filter(pk__in={pk for pair in pairs for pk in pair})
    lengths = dict(texts.values_list("pk", Length("text")))
    unlike = [
        lengths[winner] > lengths[loser]
        for winner, loser in pairs
        if max(lengths[winner], lengths[loser])
        > LONGEST_BY_SHORTEST * min(lengths[winner], lengths[loser])
    ]
    return share(sum(unlike), len(unlike))


def _right(strict: Iterable[Strict], reward: ModelVersion | None) -> Statistic:
    pairs = [(winner, loser) for winner, loser, _ in strict]
    scores = known_scores(reward, {pk for pair in pairs for pk in pair}) if reward else {}
    agrees = [
        scores[winner] > scores[loser]
        for winner, loser in pairs
        if winner in scores and loser in scores
    ]
    return share(sum(agrees), len(agrees))


def what_was_drawn(project: Project) -> Drawn:
    """Of the newest sample jobs that are done, head to heads left out."""
    jobs = TrainingJob.objects.filter(
        project=project, kind=JobKind.SAMPLE, status=JobStatus.DONE
    ).exclude(inputs__has_key="against")
    results = list(jobs.order_by("-pk").values_list("result", flat=True)[:NEWEST_JOBS])
    total: Counter[str] = Counter()
    for result in results:
        total.update({name: n for name, n in result.items() if isinstance(n, int)})
    return Drawn(
        jobs=len(results),
        asked=total["completions"],
        dropped={name: total[name] for name in DROPS},
        matched=total["length_matched"],
        missed=total["length_missed"],
    )


def to_be_had(project: Project) -> dict[Pairing, bool]:
    """Whether a pairing has a text at all, for some prompt."""
    texts = Generation.objects.filter(completion__prompt__project=project)
    votes = Preference.objects.valid().filter(
        project=project, comparison__purpose__in=(Purpose.PRODUCTION, Purpose.EVALUATION)
    )
    policy = versions.in_force(project, Slot.POLICY)
    return {
        Pairing.SAME: True,
        Pairing.IN_FORCE: policy is not None
        and versions.beside(project, Slot.POLICY, policy) is not None,
        Pairing.REFERENCE: texts.filter(
            origin__in=(Origin.IMPORTED, Origin.DEMONSTRATION)
        ).exists(),
        Pairing.ANCHOR: votes.exists(),
    }
