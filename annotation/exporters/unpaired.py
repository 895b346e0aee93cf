"""TRL unpaired rows: prompt, completion, label, conversational.

A label is what the vote itself says: above or below the acceptability line, or false for both bad.
A ranking without a line labels its first group true and its last false, and nothing between
(huggingface.co/docs/trl/dataset_formats#unpaired-preference). `weight` makes the rows of one
comparison sum to 1.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from annotation.exporters.pseudonyms import Pseudonyms
from annotation.exporters.trl import circumstances

Row = dict[str, Any]
Label = tuple[str, bool, str]
"""Completion, good enough, and what says so."""


def rows(row: Mapping[str, Any], names: Pseudonyms, left_out: Counter[str]) -> Iterator[Row]:
    """The rows of one comparison; what gives none is counted in left_out."""
    ids = [completion["id"] for completion in row["completions"]]
    texts = {completion["id"]: completion["text"] for completion in row["completions"]}
    labelled: list[tuple[Mapping[str, Any], list[Label]]] = []
    for vote in row["votes"]:
        if vote["weight"] == 0:
            left_out["votes_without_weight"] += 1
        elif labels := labels_of(vote, ids):
            labelled.append((vote, labels))
            left_out["completions_without_label"] += len(ids) - len(labels)
        else:
            left_out[f"votes_{vote['outcome']}"] += 1
    total = sum(vote["weight"] for vote, _labels in labelled)
    for vote, labels in labelled:
        for completion, label, said_by in labels:
            yield {
                "prompt": row["prompt"],
                "completion": [{"role": "assistant", "content": texts[completion]}],
                "label": label,
                "from": said_by,
                **circumstances(row, vote, names),
                "weight": vote["weight"] / total / len(labels),
            }


def labels_of(vote: Mapping[str, Any], ids: list[str]) -> list[Label]:
    """What a vote says of single completions."""
    if vote["outcome"] == "both_bad":
        return [(completion, False, "both_bad") for completion in ids]
    ranking, line = vote["ranking"], vote.get("acceptable")
    if line is not None:
        return [
            (completion, place < line, "line")
            for place, group in enumerate(ranking)
            for completion in group
        ]
    if len(ranking) < 2:
        return []
    first = [(completion, True, "order") for completion in ranking[0]]
    return first + [(completion, False, "order") for completion in ranking[-1]]
