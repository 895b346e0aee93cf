"""Votes as the tests of datasets need them: stored directly, of any kind, on any comparison."""

from annotation.models import Annotator, Comparison, Preference, Prompt, Ranking
from tests.annotation.making import make_comparisons, numbers


def make_voter(project, kind="person"):
    """An annotator of a kind, without a user."""
    number = next(numbers)
    return Annotator.objects.create(
        project=project, kind=kind, pseudonym=f"voter-{number}", external_id=f"voter-{number}"
    )


def compare(project, *, split="train", purpose="production", language="", k=2) -> Comparison:
    """A comparison on a prompt of a split."""
    (comparison,) = make_comparisons(
        project, k=k, purpose=purpose, batch=f"batch {purpose}", language=language
    )
    Prompt.objects.filter(pk=comparison.prompt_id).update(split=split)
    comparison.refresh_from_db()
    return comparison


def ids_of(comparison):
    """Completion ids in their stored order."""
    return list(comparison.entries.values_list("completion_id", flat=True))


def cast(comparison, voter=None, *, outcome="ranked", order=None, **fields) -> Preference:
    """A vote; ranked puts the first completion first unless an order of places is given."""
    ids = ids_of(comparison)
    places = order or [[place] for place in range(len(ids))]
    groups = {
        "ranked": [[ids[place] for place in group] for group in places],
        "equal": [ids],
        "both_bad": [],
        "cannot_tell": [],
    }[outcome]
    preference = Preference.objects.create(
        project=comparison.project,
        comparison=comparison,
        annotator=voter or make_voter(comparison.project),
        scheme=comparison.batch.scheme,
        **fields,
    )
    Ranking.objects.create(preference=preference, outcome=outcome, groups=groups)
    return preference


def revise(preference, *, order):
    """The next answer of the same annotator."""
    Preference.objects.filter(pk=preference.pk).update(current=False)
    return cast(
        preference.comparison,
        preference.annotator,
        order=order,
        revision=preference.revision + 1,
        cause="changed my mind",
    )
