"""Texts that are there already, for a new one to be asked about beside them.

A prompt's reference is what a person wrote to it, else what came with its dataset. Its anchor is
the text that was judged first: a vote that comes later does not change it, so it stays the same
while versions come and go. What a person wrote is no anchor, for it goes when their data is
deleted. Texts of checks are neither: labelers would learn what a check looks like.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from django.db.models import Exists, OuterRef, Q, QuerySet

from annotation.asking import Pairing
from annotation.leaks import identity_leak
from annotation.models import (
    ComparisonCompletion,
    Completion,
    Generation,
    Origin,
    Preference,
    Project,
    Prompt,
    Purpose,
    Split,
)
from annotation.services.human_answers import human_answers
from annotation.services.retraining import votes_that_train

AT_ONCE = 500
CHECKS = (Purpose.GOLD, Purpose.QUALIFICATION)


def prompts_with(project: Project, pairing: Pairing, splits: Collection[str]) -> QuerySet[Prompt]:
    """Prompts of these splits for which the pairing has a text; all where none is needed."""
    prompts = Prompt.objects.filter(project=project, split__in=splits)
    if pairing == Pairing.REFERENCE:
        has_one = Q(Exists(_of(_came_along(project))))
        for split in splits:
            has_one |= Q(Exists(_of(_by_people(project, split))))
        return prompts.filter(has_one)
    if pairing == Pairing.ANCHOR:
        return prompts.filter(Exists(_judged(project).filter(comparison__prompt=OuterRef("pk"))))
    return prompts


def can_be_had(project: Project, pairing: Pairing) -> bool:
    """Whether some prompt has a text for it."""
    if pairing == Pairing.REFERENCE:
        # in the words of the index generation_not_by_policy: without it every text is looked at
        others = Generation.objects.exclude(origin=Origin.POLICY)
        if not others.filter(completion__prompt__project=project).exists():
            return False
    if pairing == Pairing.ANCHOR:
        return _judged(project).exists()
    return prompts_with(project, pairing, list(Split)).exists()


def texts_for(project: Project, pairing: Pairing, prompts: Sequence[int]) -> dict[int, list[int]]:
    """Prompt -> ids of the completions that may stand beside a new text, in their order; prompts
    that have none are left out. One each for anchors."""
    found: dict[int, list[int]] = defaultdict(list)
    for start in range(0, len(prompts), AT_ONCE):
        for prompt, completion in _pairs(project, pairing, prompts[start : start + AT_ONCE]):
            if completion not in found[prompt]:
                found[prompt].append(completion)
    return {prompt: sorted(texts) for prompt, texts in found.items()}


def still_there(project: Project, completions: Sequence[int]) -> dict[int, Completion]:
    """Those of the texts, by id, that a policy wrote, that came with a dataset, or whose person's
    answer stands: whatever else could stand in their place by now."""
    found: dict[int, Completion] = {}
    for start in range(0, len(completions), AT_ONCE):
        some = Completion.objects.filter(
            prompt__project=project, pk__in=completions[start : start + AT_ONCE]
        )
        written = Generation.objects.filter(completion=OuterRef("pk"))
        stands = Q(Exists(written.exclude(origin=Origin.DEMONSTRATION)))
        for split in Split:
            human = human_answers(project, split).filter(completion=OuterRef("pk"))
            stands |= Q(Exists(human))
        found |= {one.pk: one for one in some.filter(stands)}
    return found


def names_its_maker(project: Project, text: str) -> bool:
    """Whether the project wants such a text put before nobody."""
    return project.catch_leaks and bool(identity_leak(text))


def _pairs(project: Project, pairing: Pairing, prompts: Sequence[int]) -> Iterator[tuple[int, int]]:
    if pairing == Pairing.REFERENCE:
        written: set[int] = set()
        for split in Split:
            human = _by_people(project, split).filter(completion__prompt__in=prompts)
            rows = list(human.values_list("completion__prompt", "completion"))
            written |= {prompt for prompt, _ in rows}
            yield from rows
        along = _came_along(project).filter(completion__prompt__in=prompts)
        yield from along.exclude(completion__prompt__in=written).values_list(
            "completion__prompt", "completion"
        )
    elif pairing == Pairing.ANCHOR:
        judged = _judged(project).filter(comparison__prompt__in=prompts)
        votes = _votes(project).filter(comparison=OuterRef("comparison")).order_by("pk")
        by_time = judged.annotate(first=votes.values("pk")[:1]).order_by("first", "position")
        done: set[int] = set()
        for prompt, completion in by_time.values_list("comparison__prompt", "completion"):
            if prompt not in done:
                done.add(prompt)
                yield prompt, completion


def _of(generations: QuerySet[Generation]) -> QuerySet[Generation]:
    return generations.filter(completion__prompt=OuterRef("pk"))


def _by_people(project: Project, split: str) -> QuerySet[Generation]:
    return human_answers(project, split).filter(~Exists(_in_checks()))


def _came_along(project: Project) -> QuerySet[Generation]:
    return Generation.objects.filter(
        ~Exists(_in_checks()), origin=Origin.IMPORTED, completion__prompt__project=project
    ).order_by()


def _in_checks() -> QuerySet[ComparisonCompletion]:
    return ComparisonCompletion.objects.filter(
        completion=OuterRef("completion"), comparison__purpose__in=CHECKS
    )


def _votes(project: Project) -> QuerySet[Preference]:
    """Of those whom reward models hear."""
    voters = votes_that_train(project.job_defaults.get("inputs", {}).get("reward", {}))
    return Preference.objects.valid().filter(project=project, annotator__kind__in=voters)


def _judged(project: Project) -> QuerySet[ComparisonCompletion]:
    """Places of texts in comparisons that somebody's vote stands on."""
    by_people = Generation.objects.filter(
        completion=OuterRef("completion"), origin=Origin.DEMONSTRATION
    )
    return ComparisonCompletion.objects.filter(
        Exists(_votes(project).filter(comparison=OuterRef("comparison"))),
        ~Exists(by_people),
        ~Exists(_in_checks()),
        comparison__project=project,
        comparison__purpose__in=(Purpose.PRODUCTION, Purpose.EVALUATION),
    ).order_by()
