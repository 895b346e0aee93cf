"""What came of the comparisons that workers made: by whose text stands beside the policy's, and
whether they were matched in length.

Numbers asked and open are of all of them; what people said is counted on the NEWEST of each way, so
that the page costs the same however large the ledger is. Of each vote the first axis speaks.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.db.models import Count
from django.db.models.functions import Length

from annotation.asking import LONGEST_BY_SHORTEST, MADE_AS, LengthMatch, Pairing
from annotation.intervals import Statistic, share
from annotation.models import (
    Comparison,
    Completion,
    CompletionScore,
    JobKind,
    JobStatus,
    ModelVersion,
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
from annotation.services.opponents import can_be_had
from annotation.services.quality import PEOPLE

NEWEST = 500
"""Comparisons of each way to make one that the shares are counted on."""
NEWEST_JOBS = 50
DROPS = (
    *("identical_dropped", "alike_caught", "leaks_caught", "blank_dropped"),
    *("too_few_distinct", "opponent_gone", "without_text", "not_planned"),
)
"""What sample jobs count as not asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Came:
    """What came of one way to make comparisons."""

    pairing: Pairing
    length: LengthMatch
    selector: str
    asked: int
    open: int
    heldout: int
    """Of those asked, on dev and test prompts."""
    undecided: Statistic
    """Share of answers that prefer nothing: equal, both bad, cannot tell."""
    longer: Statistic
    """Share of preferences for the longer text, where one is longer by more than a tenth."""
    right: Statistic
    """Share of preferences on dev prompts that the reward model in force agrees with, of those it
    has scored: it never learned from these."""


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
        drawn = self.asked + alike + self.dropped["leaks_caught"] + self.dropped["blank_dropped"]
        return share(alike, drawn)


def what_came(project: Project, reward: ModelVersion | None) -> list[Came]:
    """One of each way that was ever used, in the order of MADE_AS."""
    asked: Counter[str] = Counter()
    heldout: Counter[str] = Counter()
    by_purpose = _made(project).order_by().values_list("selector", "purpose")
    for selector, purpose, number in by_purpose.annotate(Count("pk")):
        asked[selector] += number
        heldout[selector] += number if purpose == Purpose.EVALUATION else 0
    still_open = Comparison.objects.open().filter(project=project, selector__in=MADE_AS)
    open_now = dict(still_open.order_by().values_list("selector").annotate(Count("pk")))
    return [
        _came(
            project,
            selector,
            asked=asked[selector],
            open_now=open_now.get(selector, 0),
            heldout=heldout[selector],
            reward=reward,
        )
        for selector in MADE_AS
        if asked[selector]
    ]


def _made(project: Project) -> ComparisonQuerySet:
    """In the words of the index comparison_made_as, without which SQLite would not go along it."""
    return Comparison.objects.filter(project=project).exclude(selector="")


def _came(
    project: Project,
    selector: str,
    *,
    asked: int,
    open_now: int,
    heldout: int,
    reward: ModelVersion | None,
) -> Came:
    pairing, length = MADE_AS[selector]
    newest = [
        pk
        for purpose in (Purpose.PRODUCTION, Purpose.EVALUATION)
        for pk in _made(project)
        .filter(selector=selector, purpose=purpose)
        .order_by("-pk")
        .values_list("pk", flat=True)[:NEWEST]
    ]
    votes = Preference.objects.valid().filter(
        project=project,
        annotator__kind__in=PEOPLE,
        comparison__in=sorted(newest, reverse=True)[:NEWEST],
    )
    rankings = Ranking.objects.filter(preference__in=votes).order_by("preference", "pk")
    # of each vote the first axis: the others are no answers of their own
    said: dict[int, tuple[str, list[list[int]], str]] = {}
    for vote, outcome, groups, split in rankings.values_list(
        "preference", "outcome", "groups", "preference__comparison__prompt__split"
    ):
        said.setdefault(vote, (outcome, groups, split))
    strict = [
        (groups[0][0], groups[-1][0], split)
        for outcome, groups, split in said.values()
        if outcome == Outcome.RANKED and len(groups) > 1
    ]
    return Came(
        pairing=pairing,
        length=length,
        selector=selector,
        asked=asked,
        open=open_now,
        heldout=heldout,
        undecided=share(len(said) - len(strict), len(said)),
        longer=_longer(strict),
        right=_right([pair for pair in strict if pair[2] == Split.DEV], reward),
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
    # by id, not by their span as in known_scores: an anchor's text is old and its partner new
    found = CompletionScore.objects.filter(
        model_version=reward, completion__in={pk for pair in pairs for pk in pair}
    )
    scores = dict(found.values_list("completion", "score")) if reward else {}
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
    policy = versions.in_force(project, Slot.POLICY)
    return {
        Pairing.SAME: True,
        Pairing.IN_FORCE: policy is not None
        and versions.beside(project, Slot.POLICY, policy) is not None,
        Pairing.REFERENCE: can_be_had(project, Pairing.REFERENCE),
        Pairing.ANCHOR: can_be_had(project, Pairing.ANCHOR),
    }
