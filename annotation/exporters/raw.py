"""Every vote of the project with everything that is known of it: one row per vote.

Voided and superseded votes, gold and evaluation ones too; `bucket` says where the funnel put each.
Users appear nowhere; annotators by pseudonym.
"""

from collections.abc import Iterator
from typing import Any

from annotation.exporters.pseudonyms import Pseudonyms
from annotation.funnel import Bucket
from annotation.models import Comparison, Decision, Preference, Ranking
from annotation.services.plans.rows import decision_row, group_name, writer_of

Row = dict[str, Any]


def vote(
    preference: Preference,
    comparison: Comparison,
    bucket: Bucket,
    names: Pseudonyms,
    decision: Decision | None = None,
) -> Row:
    """A vote's row; the comparison comes with what plans.comparisons prefetches.

    decision: the one in force on its comparison.
    """
    prompt = comparison.prompt
    return {
        "id": str(preference.pk),
        "bucket": str(bucket),
        "annotator": names.of(preference.annotator_id),
        "kind": preference.annotator.kind,
        "rankings": [_ranking(one) for one in preference.rankings.all()],
        "judgments": [
            {
                "completion": str(one.completion_id),
                "ratings": one.ratings,
                "flags": one.flags,
            }
            for one in preference.judgments.all()
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
        "created_at": _time(preference.created_at),
        "imported_from": preference.source_id,
        "external_id": preference.external_id,
        "comparison": {
            "id": str(comparison.pk),
            "purpose": comparison.purpose,
            "batch": comparison.batch_id,
            "language": comparison.language,
            "skill": comparison.skill,
            "decision": _decision(decision, names) if decision else None,
        },
        "prompt": {
            "id": str(prompt.pk),
            "split": prompt.split,
            "group": group_name(prompt),
            "messages": prompt.messages,
            "task": prompt.task,
            "language": prompt.language,
            "metadata": prompt.metadata,
            "source": prompt.source_id,
            "external_id": prompt.external_id,
        },
        "completions": [
            {
                "id": str(entry.completion_id),
                "text": entry.completion.text,
                "model": writer_of(entry.completion),
                "source": entry.completion.source_id,
            }
            for entry in comparison.entries.all()
        ],
    }


def votes_of(
    comparison: Comparison,
    buckets: dict[int, Bucket],
    names: Pseudonyms,
    decision: Decision | None = None,
) -> Iterator[Row]:
    """The rows of a comparison, in the order in which the votes came."""
    for preference in comparison.preferences.all():
        yield vote(preference, comparison, buckets[preference.pk], names, decision)


def _decision(decision: Decision, names: Pseudonyms) -> Row:
    return {**decision_row(decision), "annotator": names.of(decision.by_id)}


def _ranking(ranking: Ranking) -> Row:
    return {
        "axis": ranking.axis,
        "outcome": ranking.outcome,
        "groups": [[str(pk) for pk in group] for group in ranking.groups],
        "strengths": ranking.strengths,
        "acceptable": ranking.acceptable,
    }


def _time(moment: Any) -> str | None:
    return moment.isoformat() if moment else None
