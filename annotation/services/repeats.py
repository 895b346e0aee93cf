"""Hidden repeats: now and then an annotator is asked one of their own questions again.

How often somebody answers alike the second time says how much of the disagreement between people is
that of each with themselves. A repeat is a comparison of its own, for one annotator, with the same
completions in an order drawn anew; it looks like the batch it stands in, never trains, and is never
in the walk. A project that asks for none pays nothing (CheckRules.repeat_every).
"""

import random
from datetime import datetime

from django.db import transaction
from django.db.models import Exists, OuterRef

from annotation.gold import gap
from annotation.models import (
    Annotator,
    Assignment,
    Comparison,
    ComparisonCompletion,
    Preference,
    Purpose,
)
from annotation.services.checkrules import CheckRules
from annotation.services.leases import MAY_COME_AGAIN, take
from annotation.services.ledger import content_hash_of

LOOKED_AT = 200
"""Answers of an annotator among which one is drawn, the newest that lie far enough back."""


def lease_of_repeat(
    annotator: Annotator, instead_of: Comparison, kind: str, now: datetime
) -> Assignment | None:
    """A repeat in the place of a comparison of the walk, where one is due; else None. A sensitive
    question is repeated in the place of another alone.

    Each call counts one new comparison of the annotator. Raises IntegrityError as `take` does.
    """
    rules = CheckRules.of(annotator.project.checks)
    every = rules.repeat_every
    if not every:
        return None
    annotator.refresh_from_db(fields=["until_repeat"])
    left = gap(every, random.random()) if annotator.until_repeat is None else annotator.until_repeat
    left = min(left, gap(every, 0.999)) - 1
    annotator.until_repeat = left if left > 0 else None
    annotator.save(update_fields=["until_repeat"])
    if left > 0:
        return None
    with transaction.atomic():
        repeat = _given_back(annotator, instead_of) or _new_repeat(
            annotator, rules.repeat_gap, instead_of
        )
        return take(repeat, annotator, kind, now, instead_of.batch) if repeat else None


def _given_back(annotator: Annotator, instead_of: Comparison) -> Comparison | None:
    """A repeat that the annotator let expire, which nobody else can answer."""
    return (
        Comparison.objects.filter(
            batch__sensitive__in=_alike(instead_of),
            project=annotator.project_id,
            purpose=Purpose.REPEAT,
            open_slots__gt=0,
            retired_at__isnull=True,
            assignments__annotator=annotator,
            assignments__state__in=MAY_COME_AGAIN,
        )
        .order_by("pk")
        .first()
    )


def _new_repeat(annotator: Annotator, between: int, instead_of: Comparison) -> Comparison | None:
    """A copy of one of the annotator's own questions; None where none is old enough.

    Only those answered under the scheme that is asked now, so that both answers can be compared and
    nothing tells a repeat from the rest. At least `between` answers lie between.
    """
    own = Preference.objects.filter(annotator=annotator, revision=1).order_by("-pk")
    newest_allowed = own.values_list("pk", flat=True)[between : between + 1].first()
    if newest_allowed is None:
        return None
    asked_again = Comparison.objects.filter(
        repeat_of=OuterRef("comparison"), assignments__annotator=annotator
    )
    found = list(
        own.filter(
            ~Exists(asked_again),
            pk__lte=newest_allowed,
            voided_at=None,
            scheme=instead_of.batch.scheme_id,
            assignment__isnull=False,
            comparison__purpose=Purpose.PRODUCTION,
            comparison__batch__sensitive__in=_alike(instead_of),
            comparison__retired_at__isnull=True,
        ).values_list("comparison_id", flat=True)[:LOOKED_AT]
    )
    if not found:
        return None
    return _copy(Comparison.objects.get(pk=random.choice(found)), annotator)


def _alike(instead_of: Comparison) -> tuple[bool, ...]:
    """What Batch.sensitive may be of a question asked in this one's place."""
    return (False, True) if instead_of.batch.sensitive else (False,)


def _copy(first: Comparison, annotator: Annotator) -> Comparison:
    repeat = Comparison.objects.create(
        project_id=first.project_id,
        batch_id=first.batch_id,
        prompt_id=first.prompt_id,
        purpose=Purpose.REPEAT,
        repeat_of=first,
        content_hash=content_hash_of("repeat", first.pk, annotator.pk),
        answers_wanted=1,
        open_slots=1,
        language=first.language,
        skill=first.skill,
        priority=first.priority,
        sort_key=random.random(),
    )
    ComparisonCompletion.objects.bulk_create(
        ComparisonCompletion(
            comparison=repeat, completion_id=entry.completion_id, position=entry.position
        )
        for entry in first.entries.all()
    )
    return repeat
