"""UltraFeedback: an instruction, up to four completions, and GPT-4's ratings of each.

The order is that of `fine-grained_score`, else of the mean of the four ratings: `overall_score` is
known to be wrong in places (huggingface.co/datasets/openbmb/UltraFeedback). Votes are a model's.
Its binarized shape, with `chosen` and `rejected` as whole conversations, is taken too.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from annotation.importers.hh_rlhf import comparison_of_two
from annotation.importers.rows import (
    ComparisonRow,
    CompletionRow,
    JudgmentRow,
    Refused,
    clip,
    left_out_of,
    messages_of,
    name_of,
    prompt_of,
    require,
    text_of,
)
from annotation.importers.side_by_side import by_number, comparison, list_of

JUDGE = "gpt-4"
BINARIZED = ("chosen", "rejected", "score_chosen", "score_rejected", "prompt_id", "messages")


def parse(row: Mapping[str, Any]) -> ComparisonRow:
    """The comparison of one row. Raises Refused with the reason."""
    if "chosen" in row:
        return _binarized(row)
    require(row, "instruction", "completions")
    completions, scores, judgments = [], {}, []
    for place, one in enumerate(list_of(row, "completions")):
        if not isinstance(one, dict):
            raise Refused(f"a completion must be an object: {clip(one)}")
        require(one, "response")
        text = text_of(one["response"], f"completion {place + 1}")
        completions.append(CompletionRow(text=text, writer=name_of(one, "model")))
        ratings = _ratings(one.get("annotations"))
        scores[place] = _score(one, ratings, place)
        judgments.append(JudgmentRow(place=place, ratings=ratings))
    messages = [{"role": "user", "content": text_of(row["instruction"], "instruction")}]
    return comparison(
        prompt=prompt_of({"language": "en", "task": name_of(row, "source", 40)}, messages),
        completions=completions,
        said=[(JUDGE, by_number(scores))],
        kind="model",
        judgments=[one for one in judgments if one.ratings],
        left_out=left_out_of(row, ("instruction", "completions", "source", "models")),
    )


def _ratings(annotations: Any) -> dict[str, int]:
    """Aspect -> rating; what is N/A is left out."""
    found = {}
    for aspect, said in annotations.items() if isinstance(annotations, dict) else ():
        rating = said.get("Rating") if isinstance(said, dict) else None
        if str(rating).isdecimal() and int(str(rating)) <= 10:
            found[str(aspect)] = int(str(rating))
    return found


def _score(completion: Mapping[str, Any], ratings: Mapping[str, int], place: int) -> float:
    score = completion.get("fine-grained_score")
    if isinstance(score, int | float) and not isinstance(score, bool):
        return float(score)
    if ratings:
        return fmean(ratings.values())
    raise Refused(f"completion {place + 1} has neither fine-grained_score nor ratings")


def _binarized(row: Mapping[str, Any]) -> ComparisonRow:
    require(row, "chosen", "rejected")
    chosen, rejected = (messages_of(row[key], key) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
        raise Refused("chosen and rejected must share all but their last answer")
    texts = chosen[-1]["content"], rejected[-1]["content"]
    named = {key: value for key, value in row.items() if key not in BINARIZED}
    two = {"chosen": chosen, "rejected": rejected, "annotator": JUDGE, "id": row.get("prompt_id")}
    return comparison_of_two({**named, **two}, chosen[:-1], texts)
