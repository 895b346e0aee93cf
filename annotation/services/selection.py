"""Strategies: which comparison of a batch is handed out, where that is not left to chance.

The walk (services.lanes) decides which batch and language it is; here one comparison of these is
chosen. Every step is a seek in a small partial index of the batches that have a strategy; WINDOW
rows are looked at at most. What the annotator has had already is left out.

    fewest      those with the fewest answers and leases, one of them by the ring
    uncertain   with probability FLOOR one by the ring, else one of the TOP whose scores lie
                closest, each of them with the same chance
    disputed    likewise, with the TOP on which the members of an ensemble disagree most

The ring: a point u is drawn in [0, 1), and the next comparison from u on round the sort keys is
taken, if it is among the next WINDOW rows. So comparison c comes with the probability

    ring(c) = the distance round the ring from what lies before c to c

where "before c" is the next comparison that the annotator could take, or the WINDOW-th of any kind,
whichever is nearer. With it the propensity, given batch and language, is

    fewest      ring(c), among those with as few answers
    uncertain   FLOOR ring(c) + (1 - FLOOR) [c in TOP] / size of TOP, or ring(c) where TOP is empty
    disputed    the same

Where the ring finds nothing the walk's own comparison is taken, and no propensity is known.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from django.db import connection

from annotation.models import Annotator, Comparison, Strategy
from annotation.services.lanes import IS_MINE

WINDOW = 64
TOP = 20
FLOOR = 0.2
"""Share of picks by chance, so that what the model is sure of is asked about too."""

MEASURES = {Strategy.UNCERTAIN: "uncertainty", Strategy.DISPUTED: "disagreement"}
"""What the strategies of a model go by, the most of it first."""

Lot = Callable[[], float]
"""Draws in [0, 1)."""


class Choice(NamedTuple):
    """What was chosen, by which version of which selector, and how likely it was."""

    comparison: int
    selector: str
    propensity: float


class _Row(NamedTuple):
    pk: int
    key: float
    is_mine: bool


def choose(walked: Comparison, annotator: Annotator, lot: Lot = random.random) -> Choice | None:
    """By the strategy of what the walk found; None: take that."""
    if walked.strategy == Strategy.FEWEST:
        return _fewest(walked, annotator, lot)
    if walked.strategy in MEASURES:
        return _by_model(walked, annotator, lot)
    return None


def _fewest(walked: Comparison, annotator: Annotator, lot: Lot) -> Choice | None:
    taken = -1
    while (more := _next_number_taken(walked, taken)) is not None:
        taken = more
        look = _Look(walked, annotator, "AND c.answers_wanted - c.open_slots = %s", taken)
        if found := _ring(look, lot()):
            return Choice(found[0], "fewest-1", found[1])
    return None


def _by_model(walked: Comparison, annotator: Annotator, lot: Lot) -> Choice | None:
    top = _top(walked, annotator)
    by_chance = lot() < FLOOR or not top
    floor = FLOOR if top else 1.0
    look = _Look(walked, annotator)
    if by_chance:
        found = _ring(look, lot())
        if found is None:
            return None
        chosen, ring = found
    else:
        chosen = top[int(lot() * len(top))]
        ring = _chance_on_ring(look, chosen)
    propensity = floor * ring + (1 - floor) * (chosen in top) / max(len(top), 1)
    return Choice(chosen, f"{Strategy(walked.strategy).value}-1", propensity)


class _Look:
    """Rows of the walked comparison's batch and language along their sort keys."""

    def __init__(
        self, walked: Comparison, annotator: Annotator, condition: str = "", *values: int
    ) -> None:
        self.walked, self.annotator = walked, annotator
        self.condition, self.values = condition, values

    def ahead(self, u: float) -> list[_Row]:
        """The next WINDOW rows from u on, round the ring."""
        rows = self._rows("AND c.sort_key >= %s ORDER BY c.sort_key", u, WINDOW)
        if len(rows) < WINDOW:
            rest = WINDOW - len(rows)
            rows += self._rows("AND c.sort_key < %s ORDER BY c.sort_key", u, rest)
        return rows

    def behind(self, row: _Row) -> list[_Row]:
        """The WINDOW rows before one, the nearest first, round the ring."""
        rows = self._rows("AND c.sort_key < %s ORDER BY c.sort_key DESC", row.key, WINDOW)
        if len(rows) < WINDOW:
            rest = WINDOW - len(rows)
            rows += self._rows("AND c.sort_key > %s ORDER BY c.sort_key DESC", row.key, rest)
        return rows

    def row(self, pk: int) -> _Row:
        """One of them."""
        key = Comparison.objects.values_list("sort_key", flat=True).get(pk=pk)
        return _Row(pk, key, is_mine=False)

    def _rows(self, end: str, key: float, most: int) -> list[_Row]:
        strategy = Strategy(self.walked.strategy).value
        place: tuple[int, str] = (self.walked.batch_id, self.walked.language)
        values: list[int | float | str] = [*place, *self.values, key]
        rows = _select(self.annotator, strategy, f"{self.condition} {end}", values, most)
        return sorted(rows, key=lambda row: row.key, reverse=end.endswith("DESC"))


def _ring(look: _Look, u: float) -> tuple[int, float] | None:
    """What comes next from u on, and how likely it was."""
    row = next((row for row in look.ahead(u) if not row.is_mine), None)
    return (row.pk, _distance_before(look, row)) if row else None


def _chance_on_ring(look: _Look, pk: int) -> float:
    return _distance_before(look, look.row(pk))


def _distance_before(look: _Look, row: _Row) -> float:
    behind = look.behind(row)
    place = next((place for place, one in enumerate(behind) if not one.is_mine), WINDOW - 1)
    if place >= len(behind):
        return 1.0  # the ring holds no other that it could be
    return (row.key - behind[place].key) % 1.0


def _top(walked: Comparison, annotator: Annotator) -> list[int]:
    """The TOP by the strategy's measure, of the WINDOW with the most of it."""
    strategy = Strategy(walked.strategy)
    measure = MEASURES[strategy]
    rows = _select(
        annotator,
        strategy.value,
        f"AND c.{measure} IS NOT NULL ORDER BY c.{measure} DESC",
        [walked.batch_id, walked.language],
        WINDOW,
        key=measure,
    )
    mine = sorted((row for row in rows if not row.is_mine), key=lambda row: (-row.key, row.pk))
    return [row.pk for row in mine[:TOP]]


# SQL by hand, as in services.lanes: what the partial indexes hold stands in it as constants.
_OPEN = """
    c.open_slots > 0 AND c.retired_at IS NULL
    AND (c.purpose = 'production' OR c.purpose = 'evaluation')
"""


def _select(
    annotator: Annotator,
    strategy: str,
    end: str,
    values: list[int | float | str],
    most: int,
    key: str = "sort_key",
) -> list[_Row]:
    sql = f"""
        SELECT one.id, one.{key}, {IS_MINE.replace("%(annotator)s", "%s")}
        FROM (
            SELECT c.id, c.{key} FROM annotation_comparison c
            WHERE {_OPEN} AND c.strategy = '{strategy}' AND c.batch_id = %s AND c.language = %s
            {end} LIMIT %s
        ) AS one
    """
    with connection.cursor() as cursor:
        cursor.execute(sql, [annotator.pk, annotator.pk, *values, most])
        return [_Row(pk, value, bool(mine)) for pk, value, mine in cursor.fetchall()]


def _next_number_taken(walked: Comparison, above: int) -> int | None:
    sql = f"""
        SELECT c.answers_wanted - c.open_slots FROM annotation_comparison c
        WHERE {_OPEN} AND c.strategy = 'fewest' AND c.batch_id = %s AND c.language = %s
        AND c.answers_wanted - c.open_slots > %s ORDER BY c.answers_wanted - c.open_slots LIMIT 1
    """
    with connection.cursor() as cursor:
        cursor.execute(sql, [walked.batch_id, walked.language, above])
        row = cursor.fetchone()
    return row[0] if row else None
