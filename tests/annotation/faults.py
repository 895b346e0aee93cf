"""Deliberate breakages of the queue, so that the tests which guard it can be seen to find them.

Each replaces one function, or one expression, by what somebody in a hurry might have written.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import F

from annotation.models import Assignment, Comparison
from annotation.services import batches, leases, queue, review
from annotation.services.answers import Answer

whole_take, whole_state = leases.take, queue._STATE
PAUSE_SECONDS = 0.005
"""Between a look and the act on it: what a busy machine does by itself, now and then."""


@dataclass(frozen=True)
class Fault:
    """What is broken: (module, name) -> what stands there instead."""

    what: str
    changes: tuple[tuple[Any, str, Any], ...]

    def put_in(self, setattr: Callable[[Any, str, Any], None] = setattr) -> None:
        for module, name, broken in self.changes:
            setattr(module, name, broken)


def check_then_act(comparison: Comparison, *arguments: Any, **more: Any) -> Any:
    """Looks whether a slot is free, then writes one fewer than it saw."""
    seen = Comparison.objects.get(pk=comparison.pk)
    if seen.open_slots < 1 or seen.retired_at is not None:
        return None
    time.sleep(PAUSE_SECONDS)
    with transaction.atomic():
        Comparison.objects.filter(pk=comparison.pk).update(open_slots=seen.open_slots)
        lease = whole_take(comparison, *arguments, **more)
        Comparison.objects.filter(pk=comparison.pk).update(open_slots=seen.open_slots - 1)
    return lease


def no_lock(comparison_id: int) -> Comparison:
    """Reads the row and leaves it to everybody."""
    return Comparison.objects.get(pk=comparison_id)


def state_and_pause(*, pk: int) -> Any:
    """The state of a lease as it was a moment ago; without a lock it may have changed since."""
    seen = whole_state(pk=pk)
    time.sleep(4 * PAUSE_SECONDS)
    return seen


def lost_release(lease: Any, state: str) -> int:
    """Ends the lease and forgets its slot."""
    return int(lease.filter(holds_slot=True).update(holds_slot=False, state=state))


def released_twice(lease: Any, state: str) -> int:
    """Gives a slot back whether or not the lease still held one."""
    ids = list(lease.values_list("comparison_id", flat=True))
    given = int(lease.update(holds_slot=False, state=state))
    Comparison.objects.filter(pk__in=ids, open_slots__lt=F("answers_wanted")).update(
        open_slots=F("open_slots") + 1
    )
    return given


def always_counted(*, pk: int) -> list[tuple[str, bool, Any]]:
    """Counts a late answer as if its lease still held a slot."""
    lease = Assignment.objects.get(pk=pk)
    return [(lease.state, True, lease.leased_at)]


class SameAsBefore:
    """F(name) + n that adds nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __add__(self, other: Any) -> F:
        return F(self.name)


def no_first(key: str, assignment: Assignment, answer: Answer) -> None:
    """Never remembers that a key was used."""


def opens_no_slot(batch: Any, rows: Any, **values: Any) -> int:
    """Asks for more answers and opens no slots for them."""
    values.pop("open_slots", None)
    return int(rows.update(**values))


FAULTS = {
    fault.what: fault
    for fault in (
        Fault("check then act", ((queue, "take", check_then_act),)),
        Fault(
            "no lock", ((queue, "lock_comparison", no_lock), (leases, "lock_comparison", no_lock))
        ),
        Fault(
            "lost release",
            ((queue, "give_back", lost_release), (leases, "give_back", lost_release)),
        ),
        Fault(
            "released twice",
            ((queue, "give_back", released_twice), (leases, "give_back", released_twice)),
        ),
        Fault("double count", ((queue, "_STATE", always_counted),)),
        Fault("void opens nothing", ((review, "F", SameAsBefore),)),
        Fault("forgotten key", ((queue, "_first_with", no_first),)),
        Fault("raised without slots", ((batches, "_in_groups", opens_no_slot),)),
    )
}
FOUND_BY_THE_MACHINE = (
    "lost release",
    "released twice",
    "double count",
    "void opens nothing",
    "forgotten key",
    "raised without slots",
)
FOUND_BY_THE_HAMMER = {
    "sqlite": ("check then act", "lost release", "double count"),
    "postgresql": ("check then act", "no lock", "lost release", "double count"),
}
"""SQLite has one writer, so there a missing lock breaks nothing."""
