"""Every vote of the project with everything that is known of it: one row per vote.

Voided and superseded votes, gold and evaluation ones too; `bucket` says where the funnel put each.
Users appear nowhere; annotators by pseudonym. An answer to a gold item carries its verdict as it
stands when the file is written: experts may have changed their minds since it was given. Only who
may export sees it, never the labelers whom gold checks.
"""

from collections.abc import Iterator
from typing import Any

from annotation.exporters.pseudonyms import Pseudonyms
from annotation.funnel import Bucket
from annotation.models import Decision, GoldCheck
from annotation.services.gold import CHECKED
from annotation.services.plans.rows import decision_row, group_name
from annotation.services.plans.voted import Ranked, Vote, Voted, Written

Row = dict[str, Any]


def vote(
    preference: Vote,
    comparison: Voted,
    bucket: Bucket,
    names: Pseudonyms,
    decision: Decision | None = None,
    check: GoldCheck | None = None,
) -> Row:
    """A vote's row.

    decision: the one in force on its comparison. check: its score, where it answers a gold item.
    """
    prompt = comparison.prompt
    return {
        "id": str(preference.pk),
        "bucket": str(bucket),
        "annotator": names.of(preference.annotator_id),
        "kind": preference.annotator.kind,
        "rankings": [_ranking(one) for one in preference.rankings],
        "judgments": [
            {
                "completion": str(one.completion_id),
                "ratings": one.ratings,
                "flags": one.flags,
            }
            for one in preference.judgments
        ],
        "ideal": str(preference.ideal_id) if preference.ideal_id else None,
        "presented_order": [str(pk) for pk in preference.presented_order],
        "scheme": preference.scheme_id,
        "guideline": preference.guideline_id,
        "revision": preference.revision,
        "cause": preference.cause,
        "void_reason": preference.void_reason,
        "voided_at": _time(preference.voided_at),
        "note": preference.note,
        "seconds": preference.seconds,
        "active_seconds": preference.active_seconds,
        "created_at": _time(preference.created_at),
        "imported_from": preference.source_id,
        "external_id": preference.external_id,
        "check": _check(check) if check else None,
        "comparison": {
            "id": str(comparison.pk),
            "purpose": comparison.purpose,
            "batch": comparison.batch_id,
            "language": comparison.language,
            "skill": comparison.skill,
            "propensity": comparison.propensity,
            "selector": comparison.selector,
            "decision": _decision(decision, names) if decision else None,
            "decisions": [_whole_decision(one, names) for one in comparison.decisions],
        },
        "prompt": {
            "id": str(prompt.pk),
            "split": prompt.split,
            "group": group_name(prompt),
            "split_group": prompt.split_group,
            "messages": prompt.messages,
            "task": prompt.task,
            "language": prompt.language,
            "metadata": prompt.metadata,
            "source": prompt.source_id,
            "external_id": prompt.external_id,
        },
        "completions": [_completion(written, names) for written in comparison.completions]
        # an ideal answer is part of what was said, and stands in no place of the comparison
        + ([_completion(preference.ideal, names) | {"is_ideal": True}] if preference.ideal else []),
    }


def votes_of(
    comparison: Voted,
    buckets: dict[int, Bucket],
    names: Pseudonyms,
    decision: Decision | None = None,
) -> Iterator[Row]:
    """The rows of a comparison, in the order in which the votes came."""
    checks = _checks_of(comparison)
    for preference in comparison.votes:
        bucket, check = buckets[preference.pk], checks.get(preference.pk)
        yield vote(preference, comparison, bucket, names, decision, check)


def _checks_of(comparison: Voted) -> dict[int, GoldCheck]:
    """Vote -> its score; asks nothing of the database but for gold."""
    if comparison.purpose not in CHECKED:
        return {}
    votes = [preference.pk for preference in comparison.votes]
    checks = GoldCheck.objects.filter(preference__in=votes).select_related("item")
    return {check.preference_id: check for check in checks}


def _check(check: GoldCheck) -> Row:
    """`counts` is false once the answer is void or the item turned out to be wrong; `attempt` is
    the try of a qualification, 0 for a hidden check."""
    return {
        "item": str(check.item_id),
        "use": check.item.use,
        "attempt": check.attempt,
        "verdict": check.verdict,
        "counts": check.counts,
    }


def _decision(decision: Decision, names: Pseudonyms) -> Row:
    return {**decision_row(decision), "annotator": names.of(decision.by_id)}


def _whole_decision(decision: Decision, names: Pseudonyms) -> Row:
    """One of a comparison's decisions, in force or not, as its row has it."""
    return {
        "number": decision.number,
        "annotator": names.of(decision.by_id),
        "kind": decision.by.kind,
        "scheme": decision.scheme_id,
        "presented_order": [str(pk) for pk in decision.presented_order],
        "rankings": [
            {**one, "groups": [[str(pk) for pk in group] for group in one.get("groups", [])]}
            for one in decision.rankings
        ],
        "undecidable": decision.undecidable,
        "reason": decision.reason,
        "votes_seen": str(decision.votes_seen),
        "current": decision.current,
        "void_reason": decision.void_reason,
        "voided_at": _time(decision.voided_at),
        "created_at": _time(decision.created_at),
    }


def _completion(completion: Written, names: Pseudonyms) -> Row:
    """A text and every act that wrote it."""
    return {
        "id": str(completion.pk),
        "text": completion.text,
        "model": completion.writer,
        "source": completion.source_id,
        "generations": [
            {
                "origin": one.origin,
                "annotator": names.of(one.annotator.pk) if one.annotator else None,
                "annotator_kind": one.annotator.kind if one.annotator else None,
                "writer": one.version or one.writer,
                "sampling": one.sampling,
                "seed": one.seed,
                "finish_reason": one.finish_reason,
            }
            for one in completion.generations
        ],
    }


def _ranking(ranking: Ranked) -> Row:
    return {
        "axis": ranking.axis,
        "outcome": ranking.outcome,
        "groups": [[str(pk) for pk in group] for group in ranking.groups],
        "strengths": ranking.strengths,
        "acceptable": ranking.acceptable,
    }


def _time(moment: Any) -> str | None:
    return moment.isoformat() if moment else None
