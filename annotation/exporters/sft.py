"""Conversations to fine-tune on: `messages`, the ideal answer last."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from annotation.exporters.pseudonyms import Pseudonyms


def rows(
    row: Mapping[str, Any], names: Pseudonyms, left_out: Counter[str]
) -> Iterator[dict[str, Any]]:
    """The one row of a demonstration; it names no annotator, so names are not used."""
    yield {
        "messages": [*row["prompt"], {"role": "assistant", "content": row["completion"]}],
        "split": row["split"],
        "completion": row["id"],
        "group": row["group"],
        "language": row["language"],
    }
