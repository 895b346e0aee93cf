"""Comparisons with their votes, as in README, "Files between the stages"; annotators by pseudonym.

Rows with ties alone are there too: nothing that a vote said is lost.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from annotation.exporters.pseudonyms import Pseudonyms


def rows(
    row: Mapping[str, Any], names: Pseudonyms, left_out: Counter[str]
) -> Iterator[dict[str, Any]]:
    """The one row of a comparison."""
    named = {**row, "votes": [_named(vote, names) for vote in row["votes"]]}
    if judgments := row.get("judgments"):
        named["judgments"] = [_named(judgment, names) for judgment in judgments]
    if decision := row.get("decision"):
        named["decision"] = _named(decision, names)
    yield named


def _named(said: Mapping[str, Any], names: Pseudonyms) -> dict[str, Any]:
    """What an annotator said, under their pseudonym and without the ledger's number."""
    kept = {key: value for key, value in said.items() if key != "preference"}
    if "decision" in kept:
        kept["decision"] = True  # a reviewer's, in the place of the votes
    return {**kept, "annotator": names.of(said["annotator"])}
