"""RewardBench rows: `prompt`, `chosen`, `rejected`, who wrote each, `subset`, `id`.

The subset becomes the prompt's task. It is a benchmark: who trains on it can't measure with it.
"""

from collections.abc import Mapping
from typing import Any

from annotation.importers.hh_rlhf import comparison_of_two
from annotation.importers.rows import ComparisonRow, messages_of, require, text_of


def parse(row: Mapping[str, Any]) -> ComparisonRow:
    """The comparison of one row. Raises Refused with the reason."""
    require(row, "prompt", "chosen", "rejected", "subset")
    texts = text_of(row["chosen"], "chosen"), text_of(row["rejected"], "rejected")
    named = {key: value for key, value in row.items() if key != "subset"}
    # ids count within a subset
    named |= {"task": str(row["subset"])[:40], "id": f"{row['subset']}-{row.get('id', '')}"[:200]}
    return comparison_of_two(named, messages_of(row["prompt"], "prompt"), texts)
