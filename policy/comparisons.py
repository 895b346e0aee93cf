"""Comparisons files to pair tables: what annotators answered, as soft targets with weights.

Two kinds of rows are read, one kind at a time or mixed: `comparisons` rows (README, "Files between
the stages") and TRL preference rows (`chosen`, `rejected`, with or without `prompt`, strings or
lists of messages), which are comparisons of two with one vote. TRL's unpaired rows (`prompt`,
`completion`, `label`) are one completion with a thumb up or down.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from policy.config import BadInput, require
from policy.data import (
    Message,
    checked_messages,
    checked_split,
    numbered_rows,
    require_awaits_answer,
    trained_on,
)
from policy.judgments import ACCEPTABLE, Judgment, is_wanted, read_judgments
from policy.rows import clip, parse_strengths, parse_string, parse_weight, require_keys

COMPARISON_KEYS = ("id", "split", "prompt", "completions", "votes")
VOTE_KEYS = ("axis", "ranking", "strength", "weight", "annotator", "kind")
COMPLETION_KEYS = ("id", "text", "model")

LABELS = ("source", "language", "task", "purpose", "subset")
"""Keys of a row that its figures are told apart by; `subset` is RewardBench's."""

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
"""Turn marks of hh-rlhf transcripts, the usual text of TRL rows that have no `prompt`."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One annotator's ranking on one axis, by completion index, best group first.

    Indices in one group are tied. An index in no group was not ranked, which says nothing of it.
    """

    ranking: tuple[tuple[int, ...], ...]
    weight: float = 1.0
    axis: str | None = None
    kind: str | None = None
    annotator: str | None = None
    strengths: tuple[float, ...] = ()
    """A level above 0 for each gap between neighbouring groups, or none. With them a group may be
    empty, whose completion was left out: the gaps on both sides of it still lie between others."""
    strength_levels: float | None = None
    """The highest level that could be given, where the row says so."""

    def places(self) -> dict[int, int]:
        """The number of each ranked completion's group, 0 the best."""
        return {index: place for place, group in enumerate(self.ranking) for index in group}

    def strict_pairs(self) -> list[tuple[int, int]]:
        """(better, worse) for every pair of ranked completions in different groups."""
        return [
            (better, worse)
            for place, group in enumerate(self.ranking)
            for lower in self.ranking[place + 1 :]
            for better in group
            for worse in lower
        ]

    def tied_pairs(self) -> list[tuple[int, int]]:
        """Every pair of completions of one group, the lower index first."""
        return [pair for group in self.ranking for pair in combinations(sorted(group), 2)]

    def num_ties(self) -> int:
        return len(self.tied_pairs())

    def among(self, places: Mapping[int, int]) -> "Vote":
        """What it says of some of the completions: old index -> new one."""
        groups = [
            tuple(places[index] for index in group if index in places) for group in self.ranking
        ]
        held = [number for number, group in enumerate(groups) if group]
        if not held:
            return replace(self, ranking=(), strengths=())
        first, last = held[0], held[-1]
        if self.strengths:
            ranking = tuple(groups[first : last + 1])
            return replace(self, ranking=ranking, strengths=self.strengths[first:last])
        return replace(self, ranking=tuple(filter(None, groups)))


@dataclass(frozen=True, slots=True)
class PairTable:
    """The pairs of one comparison that at least one vote decides.

    pairs: (i, j) with i < j, completion indices. targets: the weighted share, among the votes that
    decide the pair, that put i above j. weights: sum to 1 over the table; each vote shares its own
    weight equally among the pairs that it decides, so neither K nor the number of votes makes a
    comparison count for more. num_answers: votes that decide a pair; num_strict, num_ties: pairs
    that the votes decide and leave tied, counted per vote. Ties give no pair.
    """

    pairs: tuple[tuple[int, int], ...]
    targets: tuple[float, ...]
    weights: tuple[float, ...]
    num_answers: int
    num_strict: int
    num_ties: int

    @classmethod
    def of(cls, votes: Sequence[Vote]) -> "PairTable":
        decided = [(vote, strict) for vote in votes if (strict := vote.strict_pairs())]
        total = sum(vote.weight for vote, _ in decided)
        mass: dict[tuple[int, int], float] = defaultdict(float)
        for_first: dict[tuple[int, int], float] = defaultdict(float)
        for vote, strict in decided:
            share = vote.weight / total / len(strict)
            for better, worse in strict:
                pair = (min(better, worse), max(better, worse))
                mass[pair] += share
                for_first[pair] += share if better < worse else 0.0
        pairs = tuple(sorted(mass))
        return cls(
            pairs=pairs,
            targets=tuple(for_first[pair] / mass[pair] for pair in pairs),
            weights=tuple(mass[pair] for pair in pairs),
            num_answers=len(decided),
            num_strict=sum(len(strict) for _, strict in decided),
            num_ties=sum(vote.num_ties() for vote in votes),
        )

    @classmethod
    def of_axes(cls, tables: Sequence["PairTable"]) -> "PairTable":
        """The tables of one comparison's A axes as one, over (N x A) scores: completion n on axis a
        is n x A + a. The axes that decide a pair share the weight equally."""
        decided = sum(bool(table.pairs) for table in tables)
        rows = [
            ((i * len(tables) + axis, j * len(tables) + axis), target, weight / decided)
            for axis, table in enumerate(tables)
            for (i, j), target, weight in zip(
                table.pairs, table.targets, table.weights, strict=True
            )
        ]
        return cls(
            pairs=tuple(pair for pair, _, _ in rows),
            targets=tuple(target for _, target, _ in rows),
            weights=tuple(weight for _, _, weight in rows),
            num_answers=sum(table.num_answers for table in tables),
            num_strict=sum(table.num_strict for table in tables),
            num_ties=sum(table.num_ties for table in tables),
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt with its K completions and what the votes say about them.

    group: the unit that is drawn in a bootstrap; the row's `group`, else a hash of the prompt.
    split: as in the row, None where it has none (such rows are trained on). weight: what it counts
    for in training, beside others. judgments: of single completions; a row of one has no votes.
    """

    id: str
    split: str | None
    group: str
    prompt: tuple[Message, ...]
    completion_ids: tuple[str, ...]
    texts: tuple[str, ...]
    votes: tuple[Vote, ...]
    table: PairTable
    judgments: tuple[Judgment, ...] = ()
    weight: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    """What else the row says of itself: source, language, task, subset, and its `attributes`."""

    def in_split(self, split: str) -> bool:
        """split: train (with the rows that have none), dev, test or all."""
        return (
            split == "all" or self.split == split or (split == "train" and trained_on(self.split))
        )

    def on(self, axis: str) -> "Comparison":
        """With nothing but the votes and the judgments on this axis."""
        votes = tuple(vote for vote in self.votes if vote.axis == axis)
        judgments = tuple(one for one in self.judgments if one.axis == axis)
        return replace(self, votes=votes, table=PairTable.of(votes), judgments=judgments)

    def among(self, kept: Sequence[int]) -> "Comparison":
        """Of some of its completions, and what was said of these, as if no other had been shown.

        kept: rising indices. A ranking of four says of three what it says of their pairs, by Luce's
        axiom too: the order of some does not depend on what else was there.
        """
        places = {index: place for place, index in enumerate(kept)}
        votes = tuple(vote.among(places) for vote in self.votes)
        return replace(
            self,
            completion_ids=tuple(self.completion_ids[index] for index in kept),
            texts=tuple(self.texts[index] for index in kept),
            votes=votes,
            table=PairTable.of(votes),
            judgments=tuple(
                replace(one, completion=places[one.completion])
                for one in self.judgments
                if one.completion in places
            ),
        )


def read_comparisons(
    path: Path, *, axis: str | Collection[str] | None = None
) -> Iterator[Comparison]:
    """Every row of the file, in order, in bounded memory.

    axis: keep only votes on this axis, or on one of these; None keeps all, each as a vote of its
    own. Votes of weight 0 are left out. Raises BadInput with file and line for a row that is not
    what it should be.
    """
    for line, row in numbered_rows(path):
        try:
            yield parse_row(row, line=line, axis=axis)
        except BadInput as problem:
            raise BadInput(f"{path} line {line}: {problem}") from problem


def parse_row(
    row: Mapping[str, Any], *, line: int, axis: str | Collection[str] | None = None
) -> Comparison:
    """One row of either kind. Raises BadInput that names neither file nor line."""
    if "chosen" in row or "rejected" in row:
        return _preference(row, line)
    if "label" in row and "completion" in row:
        return _thumb(row, line)
    require_keys(row, COMPARISON_KEYS, "the row")
    prompt = checked_messages(row["prompt"], "prompt")
    completions = row["completions"]
    require(isinstance(completions, list), f"completions must be a list: {clip(completions)}")
    for completion in completions:
        require_keys(completion, COMPLETION_KEYS, "a completion")
    ids = [parse_string(completion["id"], "a completion's id") for completion in completions]
    require(len(set(ids)) == len(ids), f"completion ids must differ: {clip(ids)}")
    texts = [parse_string(completion["text"], "a completion's text") for completion in completions]
    require(isinstance(row["votes"], list), f"votes must be a list: {clip(row['votes'])}")
    index = {completion_id: place for place, completion_id in enumerate(ids)}
    votes = [_vote(vote, index) for vote in row["votes"]]
    kept = [vote for vote in votes if vote.weight > 0 and is_wanted(vote.axis, axis)]
    judgments = read_judgments(row, index, axis)
    row_id = parse_string(row["id"], "id")
    require(len(texts) >= 2, f"a comparison needs two completions or more: it has {len(texts)}")
    return _comparison(row, row_id, prompt, ids, texts, kept, judgments)


def prompt_group(prompt: Sequence[Message]) -> str:
    """The group of a row that names none: rows with the same prompt belong together."""
    text = json.dumps([[m["role"], m["content"]] for m in prompt], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _comparison(
    row: Mapping[str, Any],
    row_id: str,
    prompt: Sequence[Message],
    ids: Sequence[str],
    texts: Sequence[str],
    votes: Sequence[Vote],
    judgments: Sequence[Judgment] = (),
) -> Comparison:
    require(len(set(texts)) == len(texts), f"two completions have the same text: {clip(texts)}")
    require_awaits_answer(prompt, "prompt")
    group = row.get("group")
    return Comparison(
        id=row_id,
        split=checked_split(row, "the row"),
        group=prompt_group(prompt) if group is None else str(group),
        prompt=tuple(prompt),
        completion_ids=tuple(ids),
        texts=tuple(texts),
        votes=tuple(votes),
        table=PairTable.of(votes),
        judgments=tuple(judgments),
        weight=parse_weight(row.get("weight"), "weight of a row"),
        labels=_labels(row),
    )


def _labels(row: Mapping[str, Any]) -> dict[str, str]:
    """By name, as texts; what is neither a text nor a number is passed over."""
    attributes = row.get("attributes")
    named = {name: row.get(name) for name in LABELS}
    named |= attributes if isinstance(attributes, dict) else {}
    return {
        str(name): str(value)
        for name, value in named.items()
        if isinstance(value, str | int | float) and value != ""
    }


def _vote(row: object, index: Mapping[str, int]) -> Vote:
    require_keys(row, VOTE_KEYS, "a vote")
    assert isinstance(row, Mapping)  # require_keys has looked
    ranking, weight = row["ranking"], row["weight"]
    require(
        isinstance(ranking, list) and all(isinstance(group, list) for group in ranking),
        f"ranking must be a list of lists of completion ids: {clip(ranking)}",
    )
    ranked = [completion_id for group in ranking for completion_id in group]
    for completion_id in ranked:
        if not isinstance(completion_id, str) or completion_id not in index:
            raise BadInput(
                f"ranking names a completion that the row has not: {clip(completion_id)}"
            )
    require(len(set(ranked)) == len(ranked), f"ranking names a completion twice: {clip(ranking)}")
    groups = tuple(tuple(index[name] for name in group) for group in ranking if group)
    return Vote(
        ranking=groups,
        weight=parse_weight(weight, "weight of a vote"),
        axis=row["axis"],
        kind=row["kind"],
        annotator=row["annotator"],
        strengths=parse_strengths(row["strength"], len(groups) - 1),
        strength_levels=row.get("strength_levels"),
    )


def _preference(row: Mapping[str, Any], line: int) -> Comparison:
    """A TRL preference row (huggingface.co/docs/trl/dataset_formats#preference)."""
    require_keys(row, ("chosen", "rejected"), "a preference row")
    chosen, rejected = row["chosen"], row["rejected"]
    strings = isinstance(chosen, str) and isinstance(rejected, str)
    if "prompt" in row:
        prompt = checked_messages(row["prompt"], "prompt")
    elif strings:
        prompt, chosen, rejected = _split_transcripts(chosen, rejected)
    else:
        prompt, chosen, rejected = _split_messages(
            checked_messages(chosen, "chosen"), checked_messages(rejected, "rejected")
        )
    if not strings:
        chosen, rejected = _only_answer(chosen), _only_answer(rejected)
    texts = [parse_string(chosen, "chosen"), parse_string(rejected, "rejected")]
    vote = Vote(ranking=((0,), (1,)))
    row_id = str(row.get("id", f"line-{line}"))
    return _comparison(row, row_id, prompt, ("chosen", "rejected"), texts, [vote])


def _thumb(row: Mapping[str, Any], line: int) -> Comparison:
    """A TRL unpaired preference row: one completion, good or not."""
    require_keys(row, ("prompt", "completion", "label"), "an unpaired row")
    label = row["label"]
    require(isinstance(label, bool), f"label must be true or false: {clip(label)}")
    completion = row["completion"]
    text = completion if isinstance(completion, str) else _only_answer(completion)
    return _comparison(
        row,
        str(row.get("id", f"line-{line}")),
        checked_messages(row["prompt"], "prompt"),
        ("completion",),
        [parse_string(text, "completion")],
        votes=(),
        judgments=[Judgment(0, ACCEPTABLE, int(label), 0, 1)],
    )


def _split_messages(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """The messages that both begin with are the prompt."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    require(shared > 0, f"chosen and rejected share no message: {clip(chosen[:1])}")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _only_answer(messages: object) -> str:
    answer = checked_messages(messages, "chosen and rejected") if messages else []
    require(
        len(answer) == 1 and answer[0]["role"] == "assistant",
        f"chosen and rejected must part at one last assistant message: {clip(messages)}",
    )
    return answer[0]["content"]


def _split_transcripts(chosen: str, rejected: str) -> tuple[list[Message], str, str]:
    """The text that both begin with, up to the last answer, is the prompt.

    Only transcripts can be split with certainty: a plain shared beginning may be a shared prompt
    or two answers that open with the same words.
    """
    cuts = chosen.rfind(ASSISTANT), rejected.rfind(ASSISTANT)
    require(
        cuts[0] == cuts[1] > 0 and chosen[: cuts[0]] == rejected[: cuts[0]],
        "chosen and rejected without a prompt must be transcripts that are the same up to the last "
        f"{ASSISTANT.strip()!r}: {clip(chosen)}",
    )
    cut = cuts[0] + len(ASSISTANT)
    return parse_transcript(chosen[: cuts[0]]), chosen[cut:].strip(), rejected[cut:].strip()


def parse_transcript(text: str) -> list[Message]:
    """Turns of an hh-rlhf transcript, in order. Text before the first mark is a system message."""
    messages: list[Message] = []
    role, start = "system", 0
    while True:
        found = [(text.find(mark, start), mark) for mark in (HUMAN, ASSISTANT)]
        end, mark = min(((at, mark) for at, mark in found if at >= 0), default=(len(text), ""))
        content = text[start:end].strip()
        if content or role != "system":
            messages.append({"role": role, "content": content})
        if not mark:
            require(bool(messages), f"the transcript holds no turn: {clip(text)}")
            return messages
        role, start = ("user" if mark == HUMAN else "assistant"), end + len(mark)
