"""Comparisons as Concord itself writes them (README), with their votes.

Beyond that row a vote may say its `outcome` (ranked, equal, both_bad, cannot_tell) and `strength`
may be one number per gap. Lines, ratings and flags are kept (judgments.py). People of another
installation are outside annotators here; a reviewer's `decision` there is none here.
"""

import sys
from collections.abc import Mapping
from typing import Any

from annotation.importers.judgments import acceptable_of, judgments_of
from annotation.importers.rows import (
    ComparisonRow,
    CompletionRow,
    RankingRow,
    Refused,
    VoteRow,
    clip,
    digest,
    left_out_of,
    messages_of,
    name_of,
    prompt_of,
    require,
    require_distinct,
    text_of,
)

KINDS = {"person": "outside", "outside": "outside", "model": "model", "simulated": "simulated"}
ROW_FIELDS = ("completions", "votes", "judgments", "purpose")
VOTE_FIELDS = (
    *("axis", "ranking", "outcome", "strength", "acceptable", "weight", "annotator", "kind"),
)
COMPLETION_FIELDS = ("id", "text", "model")
WITHOUT_GROUPS = ("both_bad", "cannot_tell")


def parse(row: Mapping[str, Any]) -> ComparisonRow:
    """The comparison of one row with all its votes. Raises Refused with the reason."""
    require(row, "prompt", "completions", "votes")
    messages = messages_of(row["prompt"], "prompt")
    completions, places = _completions(row["completions"])
    if not isinstance(row["votes"], list) or not row["votes"]:
        raise Refused(f"votes must be a list with one vote or more: {clip(row['votes'])}")
    answers: dict[tuple[str, str], list[RankingRow]] = {}
    for vote in row["votes"]:
        if not isinstance(vote, dict):
            raise Refused(f"a vote must be an object: {clip(vote)}")
        key, ranking = _ranking(vote, places)
        if any(ranking.axis == other.axis for other in answers.get(key, [])):
            raise Refused(f"annotator {clip(key[0])} votes twice on axis {clip(ranking.axis)}")
        answers.setdefault(key, []).append(ranking)
    judgments, unheard = judgments_of(row, places, list(answers), KINDS)
    prompt = prompt_of(row, messages)
    external_id = prompt.external_id or digest(messages, [each.text for each in completions])
    votes = [
        VoteRow(
            annotator=annotator,
            kind=kind,
            rankings=rankings,
            external_id=external_id,
            judgments=judgments.get((annotator, kind), []),
        )
        for (annotator, kind), rankings in answers.items()
    ]
    unread = left_out_of(row, ROW_FIELDS)
    for name, known in (("votes", VOTE_FIELDS), ("completions", COMPLETION_FIELDS)):
        for one in row[name]:
            unread += left_out_of(one, known, f"{name}.")
    return ComparisonRow(
        prompt=prompt, completions=completions, votes=votes, left_out=[*unread, *unheard]
    )


def parse_unanswered(row: Mapping[str, Any]) -> ComparisonRow:
    """A prompt with completions that nobody has judged yet. Raises Refused with the reason.

    A completion is a text or an object with `text` and, if known, `model`.
    """
    require(row, "prompt", "completions")
    if row.get("votes"):
        raise Refused("it has votes already: import_preferences takes such rows")
    messages = messages_of(row["prompt"], "prompt")
    if not isinstance(row["completions"], list):
        raise Refused(f"completions must be a list: {clip(row['completions'])}")
    completions = []
    for place, entry in enumerate(row["completions"], start=1):
        found = {"text": entry} if isinstance(entry, str) else entry
        if not isinstance(found, dict) or "text" not in found:
            raise Refused(f"completion {place} must be a text or an object with one: {clip(entry)}")
        text = text_of(found["text"], f"completion {place}")
        completions.append(CompletionRow(text=text, writer=name_of(found, "model")))
    require_distinct(completions)
    return ComparisonRow(
        prompt=prompt_of(row, messages),
        completions=completions,
        votes=[],
        left_out=left_out_of(row, ("completions", "votes", "purpose")),
    )


def _completions(value: object) -> tuple[list[CompletionRow], dict[str, int]]:
    """The completions and the place of each id."""
    if not isinstance(value, list):
        raise Refused(f"completions must be a list: {clip(value)}")
    completions, places = [], {}
    for place, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise Refused(f"a completion must be an object: {clip(entry)}")
        require(entry, "id", "text")
        completion_id = name_of(entry, "id")
        if completion_id in places:
            raise Refused(f"two completions have the id {clip(completion_id)}")
        places[completion_id] = place
        text = text_of(entry["text"], f"completion {place + 1}")
        completions.append(CompletionRow(text=text, writer=name_of(entry, "model")))
    require_distinct(completions)
    return completions, places


def _ranking(
    vote: Mapping[str, Any], places: Mapping[str, int]
) -> tuple[tuple[str, str], RankingRow]:
    """Who votes, as (id in the file, kind here), and one axis of their answer."""
    require(vote, "ranking")
    kind = KINDS.get(str(vote.get("kind") or "outside"))
    if kind is None:
        raise Refused(f"kind must be one of {', '.join(KINDS)}: {clip(vote['kind'])}")
    if vote.get("weight") not in (None, 1):
        raise Refused(f"weight must be 1, votes are kept one by one: {clip(vote['weight'])}")
    groups = _groups(vote["ranking"], places)
    outcome = name_of(vote, "outcome") or ("equal" if len(groups) == 1 else "ranked")
    fits = {
        "ranked": len(groups) >= 2,
        "equal": len(groups) == 1 and len(groups[0]) >= 2,
        **dict.fromkeys(WITHOUT_GROUPS, not groups),
    }
    if not fits.get(outcome, False):
        raise Refused(f"outcome {clip(outcome)} doesn't fit ranking {clip(vote['ranking'])}")
    strengths = _strengths(vote.get("strength"), len(groups) - 1)
    axis = name_of(vote, "axis", 40) or "overall"
    ranking = RankingRow(
        axis=axis,
        outcome=outcome,
        groups=groups,
        strengths=strengths,
        acceptable=acceptable_of(vote, groups),
    )
    return (name_of(vote, "annotator"), kind), ranking


def _groups(value: object, places: Mapping[str, int]) -> list[list[int]]:
    if not isinstance(value, list) or not all(isinstance(group, list) for group in value):
        raise Refused(f"ranking must be a list of lists of completion ids: {clip(value)}")
    names = [str(name) for group in value for name in group]
    for name in names:
        if name not in places:
            raise Refused(f"ranking names a completion that the row hasn't: {clip(name)}")
    if len(set(names)) < len(names):
        raise Refused(f"ranking names a completion twice: {clip(value)}")
    return [[places[str(name)] for name in group] for group in value if group]


def _strengths(value: object, num_gaps: int) -> list[float]:
    """One number per gap; a single number stands for a single gap."""
    if value is None or value == []:
        return []
    numbers: list[Any] = value if isinstance(value, list) else [value]
    if len(numbers) != num_gaps or not all(
        isinstance(number, int | float) and not isinstance(number, bool) for number in numbers
    ):
        raise Refused(f"strength must be one number per gap ({num_gaps}): {clip(value)}")
    if bad := [number for number in numbers if not 0 < number <= sys.float_info.max]:
        raise Refused(f"strength must be above 0 and finite: {clip(bad[0])}")
    return [float(number) for number in numbers]
