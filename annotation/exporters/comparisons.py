"""Comparisons with their votes, as in ARCHITECTURE.md section 6; annotators by pseudonym.

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
    votes = [
        {
            **{key: value for key, value in vote.items() if key != "preference"},
            "annotator": names.of(vote["annotator"]),
        }
        for vote in row["votes"]
    ]
    yield {**row, "votes": votes}
