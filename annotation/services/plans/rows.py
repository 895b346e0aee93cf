"""A comparison with its votes as a row of a dataset (ARCHITECTURE.md section 6)."""

import hashlib
from typing import Any

from annotation.models import Annotator, Decision, Outcome, Prompt
from annotation.services.plans.voted import Asked, Judged, Ranked, Vote, Voted
from annotation.services.schemes import Options
from annotation.services.weights import Weights

Row = dict[str, Any]


def group_name(prompt: Prompt | Asked) -> str:
    """What related prompts share, without their text: 16 digits of the split group's SHA-256."""
    return hashlib.sha256(prompt.split_group.encode()).hexdigest()[:16]


def comparison_row(
    comparison: Voted,
    votes: list[Vote],
    *,
    decision: Decision | None = None,
    instead: bool = False,
    weights: Weights | None = None,
) -> Row:
    """The row of a comparison with these votes; ids are texts.

    decision: the one in force. instead: it stands in the place of the votes; what it says weighs 1.
    """
    prompt, weights = comparison.prompt, weights or Weights()
    judgments = [judgment_row(vote, one) for vote in votes for one in _by_completion(vote)]
    row = {
        "id": str(comparison.pk),
        "split": prompt.split,
        "group": group_name(prompt),
        "language": prompt.language,
        "task": prompt.task,
        "purpose": comparison.purpose,
        "prompt": prompt.messages,
        "completions": [
            {"id": str(written.pk), "text": written.text, "model": written.writer}
            for written in comparison.completions
        ],
        "votes": decided_votes(decision)
        if decision and instead
        else [
            vote_row(vote, ranking, weights.weight(vote.annotator_id, ranking.axis))
            for vote in votes
            for ranking in _by_axis(vote)
        ],
    }
    if judgments:
        row["judgments"] = judgments
    return row | ({"decision": decision_row(decision)} if decision else {})


def decision_row(decision: Decision) -> Row:
    """What a reviewer decided, beside the votes."""
    return {
        "annotator": str(decision.by_id),
        "undecidable": decision.undecidable,
        "reason": decision.reason,
        "number": decision.number,
        "rankings": [
            {key: one[key] for key in ("axis", "outcome", "ranking", "strength")}
            for one in decided_votes(decision)
        ],
    }


def decided_votes(decision: Decision) -> list[Row]:
    """A decision as votes, one per axis."""
    return [
        _said(Ranked(**one), decision.by) | {"weight": 1.0, "decision": decision.pk}
        for one in sorted(decision.rankings, key=lambda one: str(one["axis"]))
    ]


def _by_axis(vote: Vote) -> list[Ranked]:
    return sorted(vote.rankings, key=lambda ranking: ranking.axis)


def _by_completion(vote: Vote) -> list[Judged]:
    return sorted(vote.judgments, key=lambda judgment: judgment.completion_id)


def vote_row(vote: Vote, ranking: Ranked, weight: float = 1.0) -> Row:
    """One axis of a vote; with a strength also `strength_levels`, the highest that was asked."""
    said = _said(ranking, vote.annotator) | {"weight": weight, "preference": vote.pk}
    levels = Options.of(vote.scheme.options).levels if ranking.strengths else 0
    return said | ({"strength_levels": levels} if levels else {})


def _said(ranking: Ranked, by: Annotator) -> Row:
    """Both bad and cannot tell have an empty ranking: they order nothing.

    `acceptable`, how many groups from the top are good enough, is there where a line was drawn.
    """
    ranked = ranking.outcome in (Outcome.RANKED, Outcome.EQUAL)
    line = {} if ranking.acceptable is None else {"acceptable": ranking.acceptable}
    return line | {
        "axis": ranking.axis,
        "outcome": ranking.outcome,
        "ranking": [[str(pk) for pk in group] for group in ranking.groups] if ranked else [],
        "strength": ranking.strengths or None,
        "annotator": str(by.pk),
        "kind": by.kind,
    }


def judgment_row(vote: Vote, judgment: Judged) -> Row:
    """What a vote says of one completion by itself; `scales` are the ends of its ratings."""
    rated = Options.of(vote.scheme.options).ratings if judgment.ratings else ()
    scales = {one.name: [one.low, one.high] for one in rated if one.name in judgment.ratings}
    return ({"scales": scales} if scales else {}) | {
        "annotator": str(vote.annotator_id),
        "kind": vote.annotator.kind,
        "preference": vote.pk,
        "completion": str(judgment.completion_id),
        "ratings": judgment.ratings,
        "flags": judgment.flags,
    }
