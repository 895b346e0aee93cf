"""How many answers a comparison wants, decided again whenever its answers or leases change."""

from collections import defaultdict

from annotation.accord import Said
from annotation.models import Comparison, Preference, Ranking
from annotation.overlap import FIRST, answers_wanted


def settle(comparison_id: int) -> None:
    """Ask for the further answers of an adaptive comparison, or for them no more.

    Call it in the transaction that changed an answer or gave a lease back, with the comparison's
    row held. Slots that are leased or answered stay: only free ones are taken back.
    """
    comparison = Comparison.objects.get(pk=comparison_id)
    if comparison.full_overlap is None:
        return
    wanted = answers_wanted(_first_answers(comparison), comparison.full_overlap)
    more = max(wanted - comparison.answers_wanted, -comparison.open_slots)
    if more:
        comparison.answers_wanted += more
        comparison.open_slots += more
        comparison.save(update_fields=["answers_wanted", "open_slots"])


def _first_answers(comparison: Comparison) -> list[dict[str, Said]]:
    """The first two answers that count, in the order in which they were first given."""
    first_given: dict[int, int] = {}
    standing: dict[int, int] = {}
    rows = Preference.objects.filter(comparison=comparison).order_by("pk")
    for pk, who, counted in rows.values_list("pk", "annotator_id", "counted"):
        first_given.setdefault(who, pk)
        if counted:
            standing[who] = pk
    earliest = sorted(standing, key=first_given.__getitem__)[:FIRST]
    said: dict[int, dict[str, Said]] = defaultdict(dict)
    rankings = Ranking.objects.filter(preference__in=[standing[who] for who in earliest])
    for pk, axis, outcome, groups in rankings.values_list(
        "preference_id", "axis", "outcome", "groups"
    ):
        said[pk][axis] = Said(outcome, groups)
    return [said[standing[who]] for who in earliest]
