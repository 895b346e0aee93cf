"""What formats that set answers beside each other share: places in, a checked comparison out."""

from collections.abc import Mapping
from typing import Any

from annotation.importers.rows import (
    ComparisonRow,
    CompletionRow,
    JudgmentRow,
    PromptRow,
    RankingRow,
    Refused,
    VoteRow,
    clip,
    digest,
    require,
    require_distinct,
    text_of,
)

EQUAL, BOTH_BAD, CANNOT_TELL = "equal", "both_bad", "cannot_tell"
ASKED = ("prompt", "question", "instruction", "text")
"""What a field with the question is called, where the caller names none."""
Said = tuple[str, RankingRow]
"""An annotator's id in the file, and their ranking."""


def ranked(*groups: list[int], strengths: list[float] | None = None) -> RankingRow:
    """Places best first; a group holds those that are tied."""
    kept = [group for group in groups if group]
    outcome = "ranked" if len(kept) > 1 else EQUAL
    return RankingRow(axis="overall", outcome=outcome, groups=kept, strengths=strengths or [])


def all_equal(num_completions: int) -> RankingRow:
    """A tie of all."""
    return ranked([*range(num_completions)])


def none_of_them(outcome: str) -> RankingRow:
    """Both bad, or cannot tell: nothing is ordered."""
    return RankingRow(axis="overall", outcome=outcome, groups=[])


def by_number(numbers: Mapping[int, float]) -> RankingRow:
    """Places by a number each, the highest best; equal numbers are tied."""
    groups = [
        [place for place, one in numbers.items() if one == value]
        for value in sorted(set(numbers.values()), reverse=True)
    ]
    return ranked(*groups)


def comparison(
    *,
    prompt: PromptRow,
    completions: list[CompletionRow],
    said: list[Said],
    kind: str = "outside",
    judgments: list[JudgmentRow] | None = None,
    left_out: list[str] | None = None,
) -> ComparisonRow:
    """A comparison with one vote per annotator. Raises Refused where one votes twice or nobody
    does."""
    require_distinct(completions)
    if not said:
        raise Refused("nobody has judged it: import_comparisons takes such rows")
    names = [name for name, _ranking in said]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused(f"annotator {clip(twice)} votes twice")
    external_id = prompt.external_id or digest(prompt.messages, [one.text for one in completions])
    votes = [
        VoteRow(
            annotator=name,
            kind=kind,
            rankings=[ranking],
            external_id=external_id,
            judgments=judgments or [],
        )
        for name, ranking in said
    ]
    return ComparisonRow(
        prompt=prompt, completions=completions, votes=votes, left_out=left_out or []
    )


def asked_in(
    fields: Mapping[str, Any], answers: list[str], named: str, within: str
) -> tuple[str, list[str]]:
    """The question of a row, and the names of its fields that are neither that nor an answer.

    named: the field that holds it, or several with commas between, whose texts stand below one
    another; "" = the first of ASKED. within: what the fields lie in. Raises Refused.
    """
    wanted = named.split(",") if named else [name for name in ASKED if name in fields][:1]
    if not wanted:
        raise Refused(
            f"none of its fields is {', '.join(ASKED)}: say which one is the question, "
            f"--columns prompt=FIELD: {clip(list(fields))}"
        )
    require(fields, *wanted)
    texts = [text_of(fields[name], name) for name in wanted]
    left_out = [
        f"{within}." + clip(name, 42).strip('"')
        for name, value in fields.items()
        if name not in (*wanted, *answers) and value not in (None, "", [], {})
    ]
    return "\n".join(texts), left_out


def list_of(row: Mapping[str, Any], key: str) -> list[Any]:
    """A list of the row. Raises Refused for anything else."""
    value = row.get(key)
    if not isinstance(value, list):
        raise Refused(f"{key} must be a list: {clip(value)}")
    return value


def object_of(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object of the row. Raises Refused for anything else."""
    value = row.get(key)
    if not isinstance(value, dict):
        raise Refused(f"{key} must be an object: {clip(value)}")
    return value
