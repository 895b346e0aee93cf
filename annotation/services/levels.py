"""Which of many lanes has anything for an annotator: one query, however many there are.

Somebody who has been through sixty due dates must not ask each of them again at every claim. The
query goes along the lanes in their order, in each from the annotator's place, and stops where the
first comparison for them is. In the lanes before it they have had everything, which is noted: the
next time only what was opened since is looked at there.
"""

import json
import time
from collections.abc import Sequence

from django.db import connection

from annotation.models import Annotator
from annotation.services import lanes
from annotation.services.lanes import IS_MINE, Lane, Place, in_walk, listed, note_all, place_on_ring


def first_with_any(
    among: Sequence[Lane], passed_over: frozenset[int], annotator: Annotator
) -> int | None:
    """Where in the list the first lane stands that has a comparison for the annotator, if any has.

    passed_over: batches.
    """
    if not among:
        return None
    looked_at, margin = time.time(), lanes.MARGIN_SECONDS
    with connection.cursor() as cursor:
        cursor.execute(
            # ids of rows, none of which is 0: an empty list is no SQL
            _FIRST[connection.vendor].replace("<passed over>", f"0{_more(passed_over)}"),
            {
                "lanes": json.dumps(among),
                "project": annotator.project_id,
                "annotator": annotator.pk,
                "home": place_on_ring(annotator),
                "paused": listed(passed_over),
                "margin": margin,
            },
        )
        rows = cursor.fetchall()
    had = [
        lane
        for lane, (_, has_any, stage, reached) in zip(among, rows, strict=False)
        if not has_any and (stage != 2 or reached < looked_at - 2 * margin)
    ]
    if had:
        note_all(annotator, had, passed_over, Place(2, looked_at - margin, looked_at))
    number, has_any, *_ = rows[-1]
    return number if has_any else None


def _more(passed_over: frozenset[int]) -> str:
    return "".join(f", {pk:d}" for pk in sorted(passed_over))


# SQL by hand, as in services.lanes.
def _one_from(key: str, start: str, end: str = "") -> str:
    """A comparison for the annotator, of the lane `item` and from a key on."""
    return f"""
        (SELECT 1 FROM annotation_comparison one
         WHERE {in_walk("one")} AND one.priority = item.priority AND one.due_day = item.due_day
         AND one.language = item.language AND one.skill = item.skill
         AND one.{key} >= {start} {end}
         AND one.batch_id NOT IN (<passed over>) AND NOT {IS_MINE}
         ORDER BY one.{key} LIMIT 1)
    """


_STAGE = "coalesce(place.stage, 0)"
_FROM = (
    f"CASE {_STAGE} WHEN 0 THEN coalesce(place.reached, %(home)s) ELSE 2 END",
    f"CASE {_STAGE} WHEN 0 THEN 0 WHEN 1 THEN place.reached ELSE 2 END",
    "CASE place.stage WHEN 2 THEN place.reached ELSE place.began_at - %(margin)s END",
)
_BY_STAGE = ", ".join(
    (
        _one_from("sort_key", _FROM[0]),
        _one_from("sort_key", _FROM[1], "AND one.sort_key < %(home)s"),
        _one_from("opened_at", _FROM[2]),
    )
)
"""What is left of the three stages, where 2 lies beyond all sort keys. Without a place it is the
whole ring, and then nothing."""
_ITEMS = {
    "postgresql": """
        SELECT place - 1 AS number, CAST(value->>0 AS integer) AS priority,
            CAST(value->>1 AS integer) AS due_day, value->>2 AS language, value->>3 AS skill
        FROM jsonb_array_elements(CAST(%(lanes)s AS jsonb)) WITH ORDINALITY AS one(value, place)
    """,
    "sqlite": """
        SELECT key AS number, json_extract(value, '$[0]') AS priority,
            json_extract(value, '$[1]') AS due_day, json_extract(value, '$[2]') AS language,
            json_extract(value, '$[3]') AS skill
        FROM json_each(%(lanes)s)
    """,
}
_FIRST = {
    vendor: f"""
        WITH RECURSIVE item AS MATERIALIZED ({items}),
        lane(number, has_any, stage, reached) AS (
            SELECT -1, 0, CAST(0 AS smallint), CAST(0 AS double precision)
            UNION ALL
            SELECT lane.number + 1, coalesce({_BY_STAGE}, 0), place.stage, place.reached
            FROM lane JOIN item ON item.number = lane.number + 1
            LEFT JOIN annotation_walkplace place
                ON place.annotator_id = %(annotator)s AND place.priority = item.priority
                AND place.due_day = item.due_day AND place.language = item.language
                AND place.skill = item.skill AND place.paused = %(paused)s
            WHERE lane.has_any = 0
        )
        SELECT number, has_any, stage, reached FROM lane WHERE number >= 0
    """
    for vendor, items in _ITEMS.items()
}
