"""Lanes of the queue: what is open in one level and pool, and how far somebody went.

Each step here is a seek in a partial index of what may be handed out in turn; nothing is sorted or
counted. Lanes of one priority and due date are a level, and the next levels are read when the first
has nothing; services.levels finds the lane of theirs that has. An annotator goes round a lane by
sort key from a place of their own, so that people rarely meet. Who has answered thousands that
others still have to must not walk over them again: a WalkPlace remembers how far they came.
Everything before it was theirs already, closed or paused when they passed, so the walk has three
stages:

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
"""Comparisons that the first query from a place on looks at, and how many times as many each
further one does."""
REMEMBERED = 4
"""A walk that passed so many notes how far it came."""
MARGIN_SECONDS = 900.0
"""Longer than any transaction that opens comparisons: until it ends nobody sees what it opens. The
clocks of two machines differ by less, too."""


class Level(NamedTuple):
    """What is handed out before anything of the next one."""

    priority: int
    due_day: int


class Lane(NamedTuple):
    """What is open in one level and pool."""

    priority: int
    due_day: int
    language: str
    skill: str

    @property
    def level(self) -> Level:
        return Level(self.priority, self.due_day)


ABOVE_ALL = Level(2**15, 0)
"""A priority is less than that."""


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
    """What a walk knows of its project before it looks into lanes, read by one query."""

    lanes: list[Lane]
    """Of some levels with something open: the highest priority first, of one priority what is due
    first."""
    paused: frozenset[int]
    """Batches."""
    sensitive: frozenset[int]
    """Batches, paused or not."""


def view_of(project_id: int, below: Level = ABOVE_ALL, levels: int = 1) -> View:
    """The lanes of the next so many levels of a project: one seek each, whatever lies in them."""
    values = {"project": project_id, "levels": levels, **below._asdict()}
    with connection.cursor() as cursor:
        cursor.execute(_LANES[connection.vendor], values)
        rows = cursor.fetchall()
    paused, sensitive = rows[0][4:] if rows else (None, None)
    return View(
        lanes=[Lane(*row[:4]) for row in rows],
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
    place, passed = Place(0, home, time.time()), 0
    # mostly the first one does, and nothing need be known of how far anybody came
    if fresh := _fresh(_look(lane, place, home, annotator, 1), passed_over):
        return [fresh[0].pk]
    place, look = _noted_place(annotator, lane, passed_over) or place, FIRST_LOOK
    while not fresh:
        seen = _look(lane, place, home, annotator, look)
        fresh = _fresh(seen, passed_over)
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


def _fresh(seen: list[Found], passed_over: frozenset[int]) -> list[Found]:
    return [one for one in seen if not one.is_mine and one.batch not in passed_over]


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
                **lane._asdict(),
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
    due_day=0,
    language="",
    skill="",
)


def _noted_place(annotator: Annotator, lane: Lane, passed_over: frozenset[int]) -> Place | None:
    noted = _PLACE.first(annotator=annotator.pk, paused=listed(passed_over), **lane._asdict())
    return Place(*noted) if noted else None


def _note(annotator: Annotator, lane: Lane, passed_over: frozenset[int], place: Place) -> None:
    if place.stage == 2:  # what is younger than that may still be under way
        place = place._replace(reached=min(place.reached, time.time() - MARGIN_SECONDS))
    note_all(annotator, [lane], passed_over, place)


def note_all(
    annotator: Annotator, lanes: list[Lane], passed_over: frozenset[int], place: Place
) -> None:
    """Remember for each of the lanes that the annotator's walk came to this place."""
    values = {**place._asdict(), "paused": listed(passed_over)}
    # sorted, so that two tabs of one person cannot wait for each other
    rows = [WalkPlace(annotator=annotator, **lane._asdict(), **values) for lane in sorted(lanes)]
    WalkPlace.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["annotator", *Lane._fields],
        update_fields=list(values),
    )


def listed(passed_over: frozenset[int]) -> str:
    """As a WalkPlace notes them."""
    return ",".join(map(str, sorted(passed_over)))


# SQL by hand: what the partial indexes hold must stand in it as constants, or neither database sees
# that they fit, and Django's queries have no recursion.
def in_walk(row: str) -> str:
    """Whether a comparison of the project may be handed out in turn."""
    return f"""
        {row}.open_slots > 0 AND {row}.retired_at IS NULL AND {row}.project_id = %(project)s
        AND ({row}.purpose = 'production' OR {row}.purpose = 'evaluation')
    """


_LANE = "c.priority, c.due_day, c.language, c.skill"


def _first_lane(columns: str, where: str) -> str:
    """The first lane of those that the condition, on `lane`, leaves."""
    return f"""
        SELECT {columns} FROM annotation_comparison c WHERE {in_walk("c")} AND {where}
        ORDER BY c.priority DESC, c.due_day, c.language, c.skill LIMIT 1
    """


_IN_LEVEL = (
    "lane.level > 0 AND c.priority = lane.priority AND c.due_day = lane.due_day "
    "AND (c.language, c.skill) > (lane.language, lane.skill)"
)
_IN_NEXT_LEVEL = (
    "lane.level < %(levels)s AND c.priority = lane.priority AND c.due_day > lane.due_day",
    "lane.level < %(levels)s AND c.priority < lane.priority",
)
_NEXT_LANE = {
    "postgresql": "SELECT one.* FROM lane CROSS JOIN LATERAL ("
    + " UNION ALL ".join(
        f"({_first_lane(f'{_LANE}, lane.level + {more}', where)})"
        for more, where in ((0, _IN_LEVEL), *((1, where) for where in _IN_NEXT_LEVEL))
    )
    + " LIMIT 1) AS one",
    "sqlite": f"""
        SELECT {_LANE}, lane.level + ((c.priority, c.due_day) <> (lane.priority, lane.due_day))
        FROM lane JOIN annotation_comparison c ON c.id = coalesce("""
    + ", ".join(f"({_first_lane('c.id', where)})" for where in (_IN_LEVEL, *_IN_NEXT_LEVEL))
    .replace("c.", "d.")
    .replace("comparison c", "comparison d")
    + ")",
}
_LISTED = {"postgresql": "string_agg(id::text, ',')", "sqlite": "group_concat(id)"}
_LANES = {
    vendor: f"""
        WITH RECURSIVE lane(priority, due_day, language, skill, level) AS (
            SELECT CAST(%(priority)s AS integer), CAST(%(due_day)s AS integer),
                CAST('' AS text), CAST('' AS text), 0
            UNION ALL {_NEXT_LANE[vendor]}
        )
        SELECT priority, due_day, language, skill,
            (SELECT {_LISTED[vendor]} FROM annotation_batch
             WHERE project_id = %(project)s AND paused),
            (SELECT {_LISTED[vendor]} FROM annotation_batch
             WHERE project_id = %(project)s AND sensitive)
        FROM lane WHERE level > 0
    """
    for vendor in _NEXT_LANE
}
"""The first row is the level that all are below, itself in none."""
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
            WHERE {in_walk("c")} AND c.priority = %(priority)s AND c.due_day = %(due_day)s
            AND c.language = %(language)s AND c.skill = %(skill)s AND c.{key} >= %(reached)s {end}
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
