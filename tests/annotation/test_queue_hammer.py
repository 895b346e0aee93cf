"""Many real processes on one ledger: nothing lost, counted twice or beyond the overlap.

Each process is tests/annotation/hammer.py with a seed of its own. With a fault put in, the same
counts have to be wrong.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
from django.db import connection

from annotation.models import Assignment, Comparison, Preference, Project
from tests.annotation.faults import FOUND_BY_THE_HAMMER
from tests.annotation.making import make_annotator, make_comparisons, make_project

pytestmark = pytest.mark.django_db(transaction=True)

PROCESSES = 6
FURTHER_RUNS = 6
HAMMER = Path(__file__).with_name("hammer.py")


def database_url() -> str:
    """The test's own database, for processes that the test starts."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite://{settings['NAME']}"
    return f"postgresql://{settings['USER']}@/{settings['NAME']}?host={quote(settings['HOST'])}"


def hammer(fault: str = "", seconds: float = 6.0) -> dict[str, bool]:
    """What all processes were told: key -> whether the answer counts."""
    environment = {**os.environ, "DATABASE_URL": database_url()}
    started = [
        subprocess.Popen(
            [sys.executable, str(HAMMER), str(number), str(seconds), "7", fault],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    told: dict[str, bool] = {}
    for one in started:
        out, error = one.communicate(timeout=300)
        if one.returncode:
            assert fault, error
            continue  # a fault may also be seen by a constraint of the database
        told |= json.loads(out)["acknowledged"]
    return told


def wrongs(told: dict[str, bool]) -> Counter:
    """How many answers were lost, count twice or are beyond the overlap, and slots that don't add
    up: slow and simple, over all rows."""
    found: Counter = Counter()
    answers = list(Preference.objects.all())
    stored = {one.idempotency_key: one.counted for one in answers}
    found["lost"] = sum(stored.get(key) is not counts for key, counts in told.items())
    pairs = Counter((one.comparison_id, one.annotator_id) for one in answers if one.counted)
    found["counted twice"] = sum(number > 1 for number in pairs.values())
    held = Counter(Assignment.objects.filter(holds_slot=True).values_list("comparison", flat=True))
    counted = Counter(one.comparison_id for one in answers if one.counted)
    for comparison in Comparison.objects.all():
        taken = held[comparison.pk] + counted[comparison.pk]
        found["beyond the overlap"] += taken > comparison.answers_wanted
        found["slots"] += taken + comparison.open_slots != comparison.answers_wanted
    return found


@pytest.fixture
def world():
    project = make_project()
    make_comparisons(project, 40, answers_wanted=3)
    for _ in range(PROCESSES):
        make_annotator(project)


def test_nothing_is_lost_counted_twice_or_beyond_the_overlap(world):
    told = hammer()
    assert len(told) > PROCESSES
    assert wrongs(told).total() == 0


@pytest.mark.parametrize("fault", FOUND_BY_THE_HAMMER[connection.vendor])
def test_the_hammer_finds_a_seeded_fault(world, fault):
    """Whether two processes meet in the gap is up to the machine: more work finds what one run
    misses."""
    project = Project.objects.get()
    told = hammer(fault)
    for _ in range(FURTHER_RUNS):
        if wrongs(told).total() > 0:
            break
        make_comparisons(project, 40, answers_wanted=3)
        told |= hammer(fault)
    assert wrongs(told).total() > 0
