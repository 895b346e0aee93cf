"""Texts that are there already, for a new one to be asked about beside them.

A prompt's reference is what a person wrote to it, else what came with its dataset. Its anchor is
the text with the lowest id among those that people judged: it stays the same while versions come
and go. What a person wrote is no anchor, for it goes when their data is deleted.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from django.db.models import Exists, OuterRef, Q, QuerySet

from annotation.asking import Pairing
from annotation.models import (
    Comparison,
    ComparisonCompletion,
    Generation,
    Origin,
    Preference,
    Project,
    Prompt,
    Purpose,
)
from annotation.services.human_answers import human_answers

AT_ONCE = 500


def prompts_with(project: Project, pairing: Pairing, splits: Collection[str]) -> QuerySet[Prompt]:
    """Prompts of these splits for which the pairing has a text; all where none is needed."""
    prompts = Prompt.objects.filter(project=project, split__in=splits)
    if pairing == Pairing.REFERENCE:
        texts = [Q(Exists(_of(human_answers(project, split)))) for split in splits]
        has_one = Q(Exists(_of(_came_along(project))))
        for one in texts:
            has_one |= one
        return prompts.filter(has_one)
    if pairing == Pairing.ANCHOR:
        return prompts.filter(Exists(_judged(project).filter(comparison__prompt=OuterRef("pk"))))
    return prompts


def texts_for(project: Project, pairing: Pairing, prompts: Sequence[int]) -> dict[int, list[int]]:
    """Prompt -> ids of the completions that may stand beside a new text, in their order; prompts
    that have none are left out. One each for anchors."""
    found: dict[int, list[int]] = defaultdict(list)
    for start in range(0, len(prompts), AT_ONCE):
        for prompt, completion in _pairs(project, pairing, prompts[start : start + AT_ONCE]):
            if completion not in found[prompt]:
                found[prompt].append(completion)
    return {prompt: sorted(texts) for prompt, texts in found.items() if texts}


def _pairs(project: Project, pairing: Pairing, prompts: Sequence[int]) -> Iterator[tuple[int, int]]:
    if pairing == Pairing.REFERENCE:
        splits = Prompt.objects.filter(project=project, pk__in=prompts).values_list("split")
        written: set[int] = set()
        for (split,) in splits.order_by().distinct():
            human = human_answers(project, split).filter(completion__prompt__in=prompts)
            rows = list(human.values_list("completion__prompt", "completion"))
            written |= {prompt for prompt, _ in rows}
            yield from rows
        along = _came_along(project).filter(completion__prompt__in=prompts)
        yield from along.exclude(completion__prompt__in=written).values_list(
            "completion__prompt", "completion"
        )
    elif pairing == Pairing.ANCHOR:
        judged = _judged(project).filter(comparison__prompt__in=prompts).order_by("completion")
        first: set[int] = set()
        for prompt, completion in judged.values_list("comparison__prompt", "completion"):
            if prompt not in first:
                first.add(prompt)
                yield prompt, completion


def _of(generations: QuerySet[Generation]) -> QuerySet[Generation]:
    return generations.filter(completion__prompt=OuterRef("pk"))


def _came_along(project: Project) -> QuerySet[Generation]:
    return Generation.objects.filter(
        origin=Origin.IMPORTED, completion__prompt__project=project
    ).order_by()


def _judged(project: Project) -> QuerySet[ComparisonCompletion]:
    """Places of texts in comparisons that somebody's vote stands on; checks are none of them."""
    votes = Preference.objects.valid().filter(comparison=OuterRef("comparison"))
    by_people = Generation.objects.filter(
        completion=OuterRef("completion"), origin=Origin.DEMONSTRATION
    )
    asked = Comparison.objects.filter(
        project=project, purpose__in=(Purpose.PRODUCTION, Purpose.EVALUATION)
    )
    return ComparisonCompletion.objects.filter(
        Exists(votes), ~Exists(by_people), comparison__in=asked
    ).order_by()
