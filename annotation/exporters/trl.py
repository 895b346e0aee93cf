"""TRL preference rows: prompt, chosen, rejected, margin, conversational.

One row per strict pair of a vote (huggingface.co/docs/trl/dataset_formats#preference); `weight`
makes the rows of one comparison sum to 1, however many votes and pairs it has. Ties give no row.
RewardTrainer subtracts `margin` from the difference of the scores, so it is there in every row.
`split` keeps a row on its side wherever it is imported.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from annotation.exporters.pseudonyms import Pseudonyms

Row = dict[str, Any]
Pair = tuple[str, str]


def rows(row: Mapping[str, Any], names: Pseudonyms, left_out: Counter[str]) -> Iterator[Row]:
    """The rows of one comparison; what gives none is counted in left_out."""
    texts = {completion["id"]: completion["text"] for completion in row["completions"]}
    decided: list[tuple[Mapping[str, Any], list[Pair]]] = []
    for vote in row["votes"]:
        left_out["tied_pairs"] += sum(len(g) * (len(g) - 1) // 2 for g in vote["ranking"])
        if vote["weight"] == 0:
            left_out["votes_without_weight"] += 1
        elif pairs := strict_pairs(vote["ranking"]):
            decided.append((vote, pairs))
        else:
            left_out[f"votes_{vote['outcome']}"] += 1
    total = sum(vote["weight"] for vote, _pairs in decided)
    for vote, pairs in decided:
        for chosen, rejected in pairs:
            yield {
                "prompt": row["prompt"],
                "chosen": [{"role": "assistant", "content": texts[chosen]}],
                "rejected": [{"role": "assistant", "content": texts[rejected]}],
                "margin": margin_of(vote, chosen, rejected),
                **circumstances(row, vote, names),
                "weight": vote["weight"] / total / len(pairs),
            }


def strict_pairs(ranking: list[list[str]]) -> list[Pair]:
    """(better, worse) for any two completions that stand in different groups."""
    return [
        (better, worse)
        for upper, lower in combinations(ranking, 2)
        for better in upper
        for worse in lower
    ]


def margin_of(vote: Mapping[str, Any], better: str, worse: str) -> float:
    """From 0 for the weakest level to 1 for the strongest, over the gaps between two completions;
    0 where the vote has no strengths or the scale of them is not known.

    Four levels are Llama 2's 0, 1/3, 2/3, 1 (arXiv:2307.09288, table 27, "small").
    """
    levels, strengths = vote.get("strength_levels") or 0, vote.get("strength")
    if levels < 2 or not strengths:
        return 0.0
    places = {pk: place for place, group in enumerate(vote["ranking"]) for pk in group}
    between = strengths[places[better] : places[worse]]
    return float(sum(level - 1 for level in between)) / (levels - 1)


def circumstances(
    row: Mapping[str, Any], vote: Mapping[str, Any], names: Pseudonyms
) -> dict[str, Any]:
    """What a row says of its comparison and of who voted, beside the texts."""
    return {
        "split": row["split"],
        "comparison": row["id"],
        "group": row["group"],
        "language": row["language"],
        "axis": vote["axis"],
        "annotator": names.of(vote["annotator"]),
        "kind": vote["kind"],
    }
