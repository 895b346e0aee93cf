"""One labeler process of the hammer, and what it may be told to break.

    python tests/annotation/hammer.py NUMBER SECONDS SEED [FAULT]

Claims, answers (some twice with the same key, some late), skips, lets leases go and sweeps, against
the database of the environment, and writes what was acknowledged as one JSON object.
"""

import json
import os
import random
import sys
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")


def main(number: int, seconds: float, seed: int, fault: str) -> dict[str, object]:
    """What this labeler was told: key -> whether the answer counts."""
    from django.utils import timezone

    from annotation.errors import Conflict, NothingToDo
    from annotation.models import Annotator
    from annotation.services import queue
    from tests.annotation.faults import FAULTS
    from tests.annotation.making import as_shown

    if fault:
        FAULTS[fault].put_in()
    rng = random.Random(f"{seed} {number}")
    annotators = list(Annotator.objects.order_by("pk"))
    annotator = annotators[number % len(annotators)]
    acknowledged: dict[str, bool] = {}
    until, errors = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        now = timezone.now()
        try:
            lease = queue.claim_comparison(annotator=annotator)
            chance = rng.random()
            if chance < 0.1:
                queue.skip_comparison(assignment=lease, reason="no")
                continue
            if chance < 0.2:
                queue.release_lease(assignment=lease)
                continue
            if chance < 0.4:  # too late: everything that is out has run out
                queue.sweep_expired_leases(now=now + timedelta(days=1))
            for _ in range(1 + (chance > 0.8)):
                answer = queue.submit_preference(
                    assignment=lease, rankings=as_shown(lease), key=f"hammer {lease.pk}"
                )
                acknowledged[f"hammer {lease.pk}"] = answer.counted
        except NothingToDo:
            break
        except Conflict:
            errors += 1
    return {"acknowledged": acknowledged, "conflicts": errors}


if __name__ == "__main__":
    import django

    django.setup()
    words = [*sys.argv[1:], ""]
    print(json.dumps(main(int(words[0]), float(words[1]), int(words[2]), words[3])))
