"""What an answer to gold leads to: a score, a warning, a stop, a qualification passed or failed.

Everything here runs inside the transaction that stored the answer. Rows are taken in the order
comparison, gold item, project, annotator, and several annotators by ascending id, so that nothing
can deadlock.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import Conflict
from annotation.gold import shown_accuracy, standing_after, verdict_of
from annotation.intervals import Statistic
from annotation.models import (
    Annotator,
    AnnotatorStanding,
    AuditEntry,
    CheckVerdict,
    GoldCheck,
    GoldItem,
    GoldState,
    GoldUse,
    MailKind,
    Membership,
    Preference,
    QualificationState,
    User,
)
from annotation.services.audit import record
from annotation.services.checkrules import CheckRules
from annotation.services.checks import num_left_for
from annotation.services.gold import CHECKED, constraints_of, said_by
from annotation.services.mails import owe_admins
from annotation.services.projects import change_pool
from annotation.services.reasons import said_why

WARNING_DELAY = timedelta(minutes=30)
"""A warning is shown this much later than its cause, or the last comparison were known as gold."""


def score_answer(preference: Preference, purpose: str, now: datetime) -> None:
    """Score a first answer if its comparison is gold, and draw the consequences."""
    if purpose not in CHECKED:
        return
    item = _locked_item(preference)
    if item is None or item.state != GoldState.LIVE:
        return
    annotator = _locked(preference.annotator_id)
    is_hidden = item.use == GoldUse.HIDDEN
    GoldCheck.objects.create(
        item=item,
        annotator=annotator,
        preference=preference,
        attempt=0 if is_hidden else annotator.qualification_try,
        verdict=_verdict(item, preference),
        created_at=now,
    )
    if is_hidden:
        _weigh_standing(annotator, now)
    else:
        _weigh_qualification(annotator)


def score_revision(preference: Preference, old: Preference) -> None:
    """Let the score follow a changed answer; what it has led to already stays."""
    check = GoldCheck.objects.filter(preference=old.pk).first()
    if check is None or (item := _locked_item(preference)) is None:
        return
    verdict = _verdict(item, preference) if item.constraints else check.verdict
    GoldCheck.objects.filter(pk=check.pk).update(preference=preference, verdict=verdict)


def unscore(preference: Preference) -> None:
    """Leave a void answer out of every accuracy; an expert's vote that scores anew meanwhile would
    take it in again, so the item is held."""
    _locked_item(preference)
    GoldCheck.objects.filter(preference=preference.pk).update(counts=False)


def is_warned(annotator: Annotator) -> bool:
    """Whether the annotator is to read a warning by now; asks nothing of the database."""
    since = annotator.standing_from if annotator.standing == AnnotatorStanding.WARNED else None
    return since is not None and since <= timezone.now()


def checks_of(annotator: Annotator) -> QuerySet[GoldCheck]:
    """Hidden checks that count, of one annotator."""
    return GoldCheck.objects.filter(annotator=annotator, attempt=0, counts=True)


def accuracies(annotators: Iterable[int]) -> dict[int, list[str]]:
    """Annotator -> verdicts of the hidden checks that count, oldest first."""
    rows = GoldCheck.objects.filter(annotator__in=annotators, attempt=0, counts=True)
    found: dict[int, list[str]] = {}
    for annotator, verdict in rows.order_by("pk").values_list("annotator_id", "verdict"):
        found.setdefault(annotator, []).append(verdict)
    return found


def own_accuracy(annotator: Annotator) -> Statistic:
    """What an annotator is told: checks of the days before today, in whole blocks, rounded."""
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    before = checks_of(annotator).filter(created_at__lt=midnight).order_by("pk")
    return shown_accuracy(list(before.values_list("verdict", flat=True)))


@transaction.atomic
def recover_without(item: GoldItem, now: datetime | None = None) -> None:
    """After an item was found wrong: whoever was warned and is above the bar without it is good
    again. A stop is lifted by a person."""
    warned = Annotator.objects.filter(
        gold_checks__item=item, standing=AnnotatorStanding.WARNED
    ).order_by("pk")
    for pk in list(warned.values_list("pk", flat=True)):
        _weigh_standing(_locked(pk), now or timezone.now(), may_stop=False)


@transaction.atomic
def lift_stop(*, annotator: Annotator, by: User, reason: str) -> Annotator:
    """Let a stopped annotator work on; the bar looks at checks from now on alone."""
    reason = said_why(reason, gettext("Lifting a stop needs a reason"))
    locked = _locked(annotator.pk)
    if locked.standing != AnnotatorStanding.STOPPED:
        raise Conflict(f"{locked.pseudonym} is {locked.standing}, not stopped.")
    _stand(locked, AnnotatorStanding.GOOD, timezone.now())
    _note(locked, "annotator.lift", by, reason=reason)
    return locked


@transaction.atomic
def grant_try(*, annotator: Annotator, by: User) -> Annotator:
    """Another try at the qualification. Raises Conflict where too few items are new to them."""
    locked = _locked(annotator.pk)
    if locked.qualification != QualificationState.FAILED:
        raise Conflict(
            gettext("%(name)s has not failed the qualification.") % {"name": locked.pseudonym}
        )
    wanted = CheckRules.of(locked.project.checks).qualification_items
    if (left := num_left_for(locked)) < wanted:
        raise Conflict(
            gettext(
                "A try takes %(wanted)s items, and %(left)s are new to %(name)s: make more, or "
                "pass them by hand."
            )
            % {"wanted": wanted, "left": left, "name": locked.pseudonym}
        )
    locked.qualification_try += 1
    _qualify(locked, QualificationState.OPEN)
    _note(locked, "annotator.try", by, number=locked.qualification_try)
    return locked


@transaction.atomic
def pass_by_hand(*, annotator: Annotator, by: User) -> Annotator:
    """Count an annotator as qualified, whatever they answered."""
    locked = _locked(annotator.pk)
    if locked.qualification == QualificationState.PASSED:
        raise Conflict(gettext("%(name)s is qualified already.") % {"name": locked.pseudonym})
    _pass(locked, CheckRules.of(locked.project.checks))
    _note(locked, "annotator.pass", by, by_hand=True)
    return locked


def _weigh_standing(annotator: Annotator, now: datetime, *, may_stop: bool = True) -> None:
    rules = CheckRules.of(annotator.project.checks)
    if not rules.bar_percent:
        return
    counted = checks_of(annotator)
    if annotator.standing == AnnotatorStanding.GOOD and annotator.standing_from is not None:
        counted = counted.filter(created_at__gt=annotator.standing_from)
    newest = list(counted.order_by("-pk").values_list("verdict", flat=True)[: rules.bar_window])
    since_warning = 0
    if annotator.standing == AnnotatorStanding.WARNED and may_stop:
        since_warning = counted.filter(created_at__gte=annotator.standing_from).count()
    after = standing_after(
        annotator.standing,
        newest[::-1],
        since_warning=since_warning,
        bar_percent=rules.bar_percent,
        window=rules.bar_window,
        more=rules.bar_more,
    )
    if after == annotator.standing:
        return
    facts: dict[str, Any] = {"held": newest.count(CheckVerdict.HELD), "of": len(newest)}
    if after == AnnotatorStanding.WARNED:
        _stand(annotator, after, now + WARNING_DELAY)
        _tell_admins(annotator, _note(annotator, "annotator.warn", None, **facts), facts)
    elif after == AnnotatorStanding.STOPPED:
        _stand(annotator, after, now)
        _tell_admins(annotator, _note(annotator, "annotator.stop", None, **facts), facts)
    else:
        _stand(annotator, after, None)
        _note(annotator, "annotator.recover", None, **facts)


def _weigh_qualification(annotator: Annotator) -> None:
    rules = CheckRules.of(annotator.project.checks)
    if not rules.qualification_items or annotator.qualification != QualificationState.OPEN:
        return
    verdicts = list(
        GoldCheck.objects.filter(
            annotator=annotator, attempt=annotator.qualification_try, counts=True
        ).values_list("verdict", flat=True)
    )
    if len(verdicts) < rules.qualification_items:
        return
    held = verdicts.count(CheckVerdict.HELD)
    facts = {"held": held, "of": len(verdicts), "number": annotator.qualification_try}
    if held * 100 >= rules.qualification_percent * len(verdicts):
        _pass(annotator, rules)
        _note(annotator, "annotator.pass", None, **facts)
    else:
        _qualify(annotator, QualificationState.FAILED)
        _note(annotator, "annotator.fail", None, **facts)


def _pass(annotator: Annotator, rules: CheckRules) -> None:
    _qualify(annotator, QualificationState.PASSED)
    if not rules.qualification_skill:
        return
    membership = Membership.objects.filter(
        project=annotator.project_id, user__isnull=False, user=annotator.user_id
    ).first()
    if membership and rules.qualification_skill not in membership.skills:
        skills = [*membership.skills, rules.qualification_skill]
        change_pool(membership=membership, languages=membership.languages, skills=skills, by=None)


def _verdict(item: GoldItem, preference: Preference) -> CheckVerdict:
    return verdict_of(constraints_of(item), said_by(preference.rankings.all()))


def _stand(annotator: Annotator, standing: str, since: datetime | None) -> None:
    annotator.standing, annotator.standing_from = standing, since
    annotator.save(update_fields=["standing", "standing_from"])


def _qualify(annotator: Annotator, state: str) -> None:
    annotator.qualification = state
    annotator.save(update_fields=["qualification", "qualification_try"])


def _locked_item(preference: Preference) -> GoldItem | None:
    rows = GoldItem.objects.select_for_update(no_key=True)
    return rows.filter(comparison=preference.comparison_id).first()


def _locked(annotator_id: int) -> Annotator:
    rows = Annotator.objects.select_for_update(of=("self",), no_key=True)
    return rows.select_related("project").get(pk=annotator_id)


def _note(annotator: Annotator, action: str, by: User | None, **data: Any) -> AuditEntry:
    return record(action=action, target=annotator, project=annotator.project, actor=by, **data)


def _tell_admins(annotator: Annotator, entry: AuditEntry, facts: Mapping[str, Any]) -> None:
    owe_admins(
        project=annotator.project,
        kind=MailKind.BELOW_BAR,
        event=f"audit:{entry.pk}",
        annotator=annotator.pseudonym,
        annotator_id=annotator.pk,
        stopped=annotator.standing == AnnotatorStanding.STOPPED,
        **facts,
    )
