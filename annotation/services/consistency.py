"""How far annotators agree with themselves: hidden repeats against their first answers."""

from collections import defaultdict
from collections.abc import Iterable

from annotation.accord import Said
from annotation.intervals import Statistic, share
from annotation.models import Comparison, Preference, Project, Purpose, Ranking
from annotation.overlap import differ

MOST_REPEATS = 2000
"""The newest questions of that kind."""


def agreement_with_self(project: Project, kinds: Iterable[str]) -> dict[int, Statistic]:
    """Annotator -> share of their repeats that do not differ from the first time on any axis
    (overlap.differ), with n and Wilson's interval. First revisions that stand, on both sides."""
    given = Preference.objects.filter(project=project, revision=1, voided_at=None)
    # from the newest answers back, a ledger with few repeats would be read whole
    asked_again = Comparison.objects.filter(project=project, purpose=Purpose.REPEAT)
    newest = list(asked_again.order_by("-pk").values_list("pk", flat=True)[:MOST_REPEATS])
    repeats = list(
        given.filter(comparison__in=newest, annotator__kind__in=list(kinds))
        .order_by("-pk")
        .values_list("annotator_id", "pk", "comparison__repeat_of")
    )
    if not repeats:
        return {}
    originals = given.filter(comparison__in={original for _, _, original in repeats})
    first: dict[tuple[int, int | None], int] = {
        (who, comparison): pk
        for who, comparison, pk in originals.values_list("annotator_id", "comparison_id", "pk")
    }
    pairs = [
        (who, first[who, original], again)
        for who, again, original in repeats
        if (who, original) in first
    ]
    said: dict[int, dict[str, Said]] = defaultdict(dict)
    asked = {pk for _, *both in pairs for pk in both}
    for pk, axis, outcome, groups in Ranking.objects.filter(preference__in=asked).values_list(
        "preference_id", "axis", "outcome", "groups"
    ):
        said[pk][axis] = Said(outcome, groups)
    alike: dict[int, list[bool]] = defaultdict(list)
    for who, before, again in pairs:
        alike[who].append(not differ(said[before], said[again]))
    return {who: share(sum(found), len(found)) for who, found in alike.items()}
