"""Lanes of the queue: what is open in one (priority, language, skill), and how far somebody went.

Each step here is a seek in a partial index of what may be handed out in turn; nothing is sorted or
counted. An annotator goes round a lane by sort key from a place of their own, so that people
rarely meet. Who has answered thousands that others still have to must not walk over them again: a
WalkPlace remembers how far they came. Everything before it was theirs already, closed or paused
when they passed, so the walk has three stages:

    0  from the annotator's place to the end of the ring
    1  from the beginning of the ring to the place
    2  once round: what was (re)opened since the round began, in the order of its opening

`Comparison.opened_at`, which a trigger keeps, makes stage 2 complete: a slot that comes free behind
somebody's back is met there. A place holds only while the same batches are passed over, be it that
they are paused, or sensitive and not for this annotator today.
"""

import hashlib
import time
from dataclasses import dataclass
from typing import NamedTuple

from django.db import connection

from annotation.models import Annotator, WalkPlace
from annotation.prepared import Prepared

FIRST_LOOK, GROWTH = 2, 4
"""Comparisons that the first query in a lane looks at, and how many times as many each further one
does."""
REMEMBERED = 4
"""A walk that passed so many notes how far it came."""
MARGIN_SECONDS = 900.0
"""Longer than any transaction that opens comparisons: until it ends nobody sees what it opens. The
clocks of two machines differ by less, too."""


class Lane(NamedTuple):
    """What is open in one priority, language and skill."""

    priority: int
    language: str
    skill: str


class Place(NamedTuple):
    """How far a walk came. reached: a sort key, or in stage 2 an `opened_at`; what lies before it
    in its stage is passed. began_at: when the round began."""

    stage: int
    reached: float
    began_at: float


class Found(NamedTuple):
    """A comparison that a walk looks at."""

    pk: int
    key: float
    batch: int
    is_mine: bool
    """Leased, answered or skipped by the annotator; an expired or released lease may come again."""


@dataclass(frozen=True, slots=True)
class View:
    """What a walk knows of its project before it starts, read by one query."""

    lanes: list[Lane]
    """All with something open, the highest priority first."""
    paused: frozenset[int]
    """Batches."""
    sensitive: frozenset[int]
    """Batches, paused or not."""


def view_of(project_id: int) -> View:
    """The lanes of a project: one seek each, whatever lies in them."""
    with connection.cursor() as cursor:
        cursor.execute(_LANES[connection.vendor], {"project": project_id})
        rows = cursor.fetchall()
    paused, sensitive = rows[0][3:] if rows else (None, None)
    return View(
        lanes=[Lane(*row[:3]) for row in rows],
        paused=_ids_in(paused),
        sensitive=_ids_in(sensitive),
    )


def _ids_in(listed: str | None) -> frozenset[int]:
    return frozenset(int(pk) for pk in (listed or "").split(",") if pk)


def next_in(lane: Lane, passed_over: frozenset[int], annotator: Annotator) -> list[int]:
    """The next comparisons of a lane for the annotator, a few; notes how far the walk came.

    passed_over: batches. Empty when there is nothing (more) for them.
    """
    home = place_on_ring(annotator)
    noted = _noted_place(annotator, lane, passed_over)
    place = noted or Place(0, home, time.time())
    look, passed = FIRST_LOOK, 0
    fresh: list[Found] = []
    while not fresh:
        seen = _look(lane, place, home, annotator, look)
        fresh = [one for one in seen if not one.is_mine and one.batch not in passed_over]
        passed += seen.index(fresh[0]) if fresh else len(seen)
        if fresh or len(seen) == look:
            place = place._replace(reached=(fresh or seen)[0 if fresh else -1].key)
            look *= GROWTH
        elif place.stage < 2:
            place, look = _next_stage(place), FIRST_LOOK
        else:
            break
    if passed >= REMEMBERED:
        _note(annotator, lane, passed_over, place)
    return [one.pk for one in fresh]


def place_on_ring(annotator: Annotator) -> float:
    """Where the annotator's rounds begin, in [0, 1)."""
    digest = hashlib.sha256(f"place {annotator.pk}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def _next_stage(place: Place) -> Place:
    if place.stage == 0:
        return place._replace(stage=1, reached=0.0)
    return place._replace(stage=2, reached=place.began_at - MARGIN_SECONDS)


def _look(lane: Lane, place: Place, home: float, annotator: Annotator, most: int) -> list[Found]:
    """What comes next in the lane from a place on, whoever it is for."""
    with connection.cursor() as cursor:
        cursor.execute(
            _LOOK[place.stage],
            {
                "project": annotator.project_id,
                "annotator": annotator.pk,
                "priority": lane.priority,
                "language": lane.language,
                "skill": lane.skill,
                "reached": place.reached,
                "home": home,
                "most": most,
            },
        )
        found = [Found(*row) for row in cursor.fetchall()]
    return sorted(found, key=lambda one: one.key)


_PLACE = Prepared(
    lambda **lane: WalkPlace.objects.filter(**lane).values_list("stage", "reached", "began_at"),
    annotator=1,
    paused="",
    priority=0,
    language="",
    skill="",
)


def _noted_place(annotator: Annotator, lane: Lane, passed_over: frozenset[int]) -> Place | None:
    noted = _PLACE.first(annotator=annotator.pk, paused=_listed(passed_over), **lane._asdict())
    return Place(*noted) if noted else None


def _note(annotator: Annotator, lane: Lane, passed_over: frozenset[int], place: Place) -> None:
    if place.stage == 2:  # what is younger than that may still be under way
        place = place._replace(reached=min(place.reached, time.time() - MARGIN_SECONDS))
    WalkPlace.objects.update_or_create(
        annotator=annotator,
        **lane._asdict(),
        defaults={**place._asdict(), "paused": _listed(passed_over)},
    )


def _listed(passed_over: frozenset[int]) -> str:
    return ",".join(map(str, sorted(passed_over)))


# SQL by hand: what the partial indexes hold must stand in it as constants, or neither database sees
# that they fit, and Django's queries have no recursion.
_IN_WALK = """
    c.open_slots > 0 AND c.retired_at IS NULL AND c.project_id = %(project)s
    AND (c.purpose = 'production' OR c.purpose = 'evaluation')
"""


def _first_lane(columns: str, where: str) -> str:
    """The first lane, or the first of those beyond `lane`."""
    return f"""
        SELECT {columns} FROM annotation_comparison c WHERE {_IN_WALK} AND {where}
        ORDER BY c.priority DESC, c.language, c.skill LIMIT 1
    """


_LANE = "c.priority, c.language, c.skill"
_BEYOND = (
    "c.priority = lane.priority AND c.language = lane.language AND c.skill > lane.skill",
    "c.priority = lane.priority AND c.language > lane.language",
    "c.priority < lane.priority",
)
_NEXT_LANE = {
    "postgresql": "SELECT one.* FROM lane CROSS JOIN LATERAL ("
    + " UNION ALL ".join(f"({_first_lane(_LANE, where)})" for where in _BEYOND)
    + " LIMIT 1) AS one",
    "sqlite": f"SELECT {_LANE} FROM lane JOIN annotation_comparison c ON c.id = coalesce("
    + ", ".join(f"({_first_lane('c.id', where)})" for where in _BEYOND)
    .replace("c.", "d.")
    .replace("comparison c", "comparison d")
    + ")",
}
_LISTED = {"postgresql": "string_agg(id::text, ',')", "sqlite": "group_concat(id)"}
_LANES = {
    vendor: f"""
        WITH RECURSIVE lane(priority, language, skill) AS (
            SELECT * FROM ({_first_lane(_LANE, "1 = 1")}) AS first
            UNION ALL {_NEXT_LANE[vendor]}
        )
        SELECT priority, language, skill,
            (SELECT {_LISTED[vendor]} FROM annotation_batch
             WHERE project_id = %(project)s AND paused),
            (SELECT {_LISTED[vendor]} FROM annotation_batch
             WHERE project_id = %(project)s AND sensitive)
        FROM lane
    """
    for vendor in _NEXT_LANE
}
IS_MINE = """
    coalesce((SELECT true FROM annotation_assignment a
              WHERE a.comparison_id = one.id AND a.annotator_id = %(annotator)s
              AND a.state NOT IN ('released', 'expired') LIMIT 1),
             (SELECT true FROM annotation_preference p
              WHERE p.comparison_id = one.id AND p.annotator_id + 0 = %(annotator)s LIMIT 1),
             false)
"""
"""Neither by EXISTS nor without "+ 0": with old statistics PostgreSQL takes the annotator's index,
and reads all that they ever answered."""
_LOOK = [
    f"""
        SELECT one.id, one.{key}, one.batch_id, {IS_MINE}
        FROM (
            SELECT c.id, c.{key}, c.batch_id FROM annotation_comparison c
            WHERE {_IN_WALK} AND c.priority = %(priority)s AND c.language = %(language)s
            AND c.skill = %(skill)s AND c.{key} >= %(reached)s {end}
            ORDER BY c.{key} LIMIT %(most)s
        ) AS one
    """
    for key, end in (
        ("sort_key", ""),
        ("sort_key", "AND c.sort_key < %(home)s"),
        ("opened_at", ""),
    )
]
"""By stage. The inner query stands alone so that no more rows are held against the annotator's."""
