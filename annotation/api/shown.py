"""What the desk's two busiest addresses read and write, without DRF's serializers.

A claim and an answer pass here with every click, and the serializers of annotation/api/desk.py
cost more than the database does. They stay what the API promises: tests hold these against them.
"""

from dataclasses import asdict
from typing import Any

from annotation.languages import reader_language
from annotation.models import (
    Assignment,
    Completion,
    CompletionJudgment,
    Guideline,
    Outcome,
    Preference,
    Ranking,
    Scheme,
)
from annotation.prepared import Prepared
from annotation.services.answers import MAX_NOTE
from annotation.services.queue import MAX_KEY
from annotation.services.schemes import Options

_TEXTS = Prepared(
    lambda comparison: Completion.objects.filter(entries__comparison=comparison).values_list(
        "pk", "text"
    ),
    comparison=1,
)
_RANKINGS = Prepared(lambda answer: Ranking.objects.filter(preference=answer), answer=1)
_JUDGMENTS = Prepared(lambda answer: CompletionJudgment.objects.filter(preference=answer), answer=1)
RANKING_KEYS = {"axis", "outcome", "groups", "strengths", "acceptable"}


def lease(assignment: Assignment) -> dict[str, Any]:
    """As AssignmentOut."""
    texts = dict(_TEXTS(comparison=assignment.comparison_id))
    guideline = assignment.guideline
    return {
        "id": assignment.pk,
        "comparison": assignment.comparison_id,
        "kind": assignment.kind,
        "state": assignment.state,
        "expires_at": assignment.expires_at,
        "prompt": assignment.comparison.prompt.messages,
        "completions": [{"id": pk, "text": texts[pk]} for pk in assignment.presented_order],
        "scheme": _scheme(assignment.scheme),
        "guideline": _guideline(guideline) if guideline else None,
    }


def answer(preference: Preference) -> dict[str, Any]:
    """As PreferenceOut."""
    guideline, ideal = preference.guideline, preference.ideal
    return {
        "id": preference.pk,
        "comparison": preference.comparison_id,
        "assignment": preference.assignment_id,
        "annotator": preference.annotator.pseudonym,
        "scheme": preference.scheme.version,
        "guideline": guideline.version if guideline else None,
        "presented_order": preference.presented_order,
        "rankings": [
            {
                "axis": one.axis,
                "outcome": one.outcome,
                "groups": one.groups,
                "strengths": one.strengths,
                "acceptable": one.acceptable,
            }
            for one in _RANKINGS(answer=preference.pk)
        ],
        "judgments": [
            {"completion": one.completion_id, "ratings": one.ratings, "flags": one.flags}
            for one in _JUDGMENTS(answer=preference.pk)
        ],
        "ideal": ideal.text if ideal else None,
        "note": preference.note,
        "seconds": preference.seconds,
        "revision": preference.revision,
        "cause": preference.cause,
        "current": preference.current,
        "counted": preference.counted,
        "voided_at": preference.voided_at,
        "void_reason": preference.void_reason,
        "created_at": preference.created_at,
    }


def plain_answer(body: Any) -> dict[str, Any] | None:
    """What PreferenceIn makes of an answer that is a key, rankings and perhaps a note.

    None for everything else, right or wrong: let the serializer look at it.
    """
    key, note, rankings = body.get("key"), body.get("note", ""), body.get("rankings")
    if not (
        _is_text(key, 1, MAX_KEY)
        and _is_text(note, 0, MAX_NOTE)
        and isinstance(rankings, list)
        and rankings
        and not body.keys() & {"judgments", "ideal"}
        and all(_is_plain_ranking(one) for one in rankings)
    ):
        return None
    return {
        "key": key,
        "rankings": [
            {
                "axis": one.get("axis", "overall"),
                "outcome": one["outcome"],
                "groups": one.get("groups", []),
                "strengths": [float(strength) for strength in one.get("strengths", [])],
                "acceptable": one.get("acceptable"),
            }
            for one in rankings
        ],
        "note": note,
        "judgments": [],
        "ideal": "",
    }


def _scheme(scheme: Scheme) -> dict[str, Any]:
    options = Options.of(scheme.options)
    return {
        "version": scheme.version,
        "axes": scheme.axes,
        "allow_tie": scheme.allow_tie,
        "allow_both_bad": scheme.allow_both_bad,
        "allow_cannot_tell": scheme.allow_cannot_tell,
        "options": {**asdict(options), "levels": options.levels},
    }


def _guideline(guideline: Guideline) -> dict[str, Any]:
    language = reader_language()
    return {
        "version": guideline.version,
        "language": guideline.nearest(language),
        "text": guideline.text_in(language),
        "faq": guideline.faq_in(language),
    }


def _is_text(value: object, least: int, most: int) -> bool:
    return isinstance(value, str) and least <= len(value) <= most and value == value.strip()


def _is_plain_ranking(one: object) -> bool:
    return (
        isinstance(one, dict)
        and one.keys() <= RANKING_KEYS
        and _is_text(one.get("axis", "overall"), 1, 40)
        and one.get("outcome") in Outcome.values
        and _is_list(one.get("groups", []), 9, lambda group: _is_list(group, 9, _is_whole))
        and _is_list(one.get("strengths", []), 8, lambda one: _is_whole(one) or type(one) is float)
        and (one.get("acceptable") is None or _is_whole(one["acceptable"]))
    )


def _is_list(value: object, most: int, fits: Any) -> bool:
    return isinstance(value, list) and len(value) <= most and all(map(fits, value))


def _is_whole(value: object) -> bool:
    return type(value) is int and abs(value) < 10**18
