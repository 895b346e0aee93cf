"""What votes of a file say beside their order: acceptability lines, ratings and flags.

A rating is a whole number. The ends of its scale are the scheme's here, so a row's own `scales` are
not kept; nor are judgments of somebody who gave no vote. Both are counted.
"""

from collections.abc import Mapping
from typing import Any

from annotation.importers.rows import JudgmentRow, Refused, clip, name_of, require, whole_of
from annotation.services.schemes import MAX_NAME

KNOWN = ("annotator", "kind", "completion", "ratings", "flags")
WITHOUT_A_VOTE = "judgments without a vote"

Who = tuple[str, str]
"""An annotator's id in the file and their kind here."""


def acceptable_of(vote: Mapping[str, Any], groups: list[list[int]]) -> int | None:
    """How many groups from the top are good enough; None where the row does not say."""
    if vote.get("acceptable") is None:
        return None
    line = whole_of(vote["acceptable"], "acceptable")
    if not groups or not 0 <= line <= len(groups):
        raise Refused(f"acceptable lies from 0 to the {len(groups)} groups of the ranking: {line}")
    return line


def judgments_of(
    row: Mapping[str, Any], places: Mapping[str, int], voters: list[Who], kinds: Mapping[str, str]
) -> tuple[dict[Who, list[JudgmentRow]], list[str]]:
    """By voter, and what was left out. Raises Refused for what cannot be read."""
    said = row.get("judgments") or []
    if not isinstance(said, list):
        raise Refused(f"judgments must be a list: {clip(said)}")
    found: dict[Who, list[JudgmentRow]] = {}
    left_out: list[str] = []
    for one in said:
        if not isinstance(one, dict):
            raise Refused(f"a judgment must be an object: {clip(one)}")
        require(one, "completion")
        judgment = _judgment(one, places)
        left_out += [f"judgments.{key}" for key in one if key not in KNOWN]
        voter = _voter(one, voters, kinds)
        if voter is None:
            left_out.append(WITHOUT_A_VOTE)
            continue
        if any(judgment.place == other.place for other in found.get(voter, [])):
            raise Refused(
                f"annotator {clip(voter[0])} judges completion {clip(one['completion'])} twice"
            )
        if judgment.ratings or judgment.flags:
            found.setdefault(voter, []).append(judgment)
    return found, left_out


def _voter(said: Mapping[str, Any], voters: list[Who], kinds: Mapping[str, str]) -> Who | None:
    name, kind = name_of(said, "annotator"), said.get("kind")
    same = [
        voter
        for voter in voters
        if voter[0] == name and (kind is None or voter[1] == kinds.get(str(kind)))
    ]
    return same[0] if len(same) == 1 else None


def _judgment(said: Mapping[str, Any], places: Mapping[str, int]) -> JudgmentRow:
    completion = name_of(said, "completion")
    if completion not in places:
        raise Refused(f"a judgment names a completion that the row hasn't: {clip(completion)}")
    ratings, flags = said.get("ratings") or {}, said.get("flags") or []
    if not isinstance(ratings, dict) or not isinstance(flags, list):
        raise Refused(f"ratings must be an object and flags a list: {clip(ratings)}, {clip(flags)}")
    rated = {_name(name): whole_of(value, f"rating {name}") for name, value in ratings.items()}
    flagged = [_name(flag) for flag in flags]
    for what, names, known in (("rating", ratings, rated), ("flag", flags, set(flagged))):
        if len(known) < len(names):
            raise Refused(f"a completion has a {what} twice: {clip(list(names))}")
    return JudgmentRow(place=places[completion], ratings=rated, flags=flagged)


def _name(said: Any) -> str:
    """Of a rating or flag, without the blanks around it."""
    if not isinstance(said, str) or not 0 < len(said.strip()) <= MAX_NAME:
        raise Refused(f"a rating or flag has a name of 1 to {MAX_NAME} signs: {clip(said)}")
    return said.strip()
