"""Rows of reward_quality.py: synthetic answers with a known noise, and four sets of real ones.

Each function returns `comparisons` rows (README, "Files between the stages") with a split; groups
lie wholly in one split. SHARED is the folder of the real data sets.
"""

import gzip
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

from fixtures.answers import SHOWN, write
from fixtures.evaluation import FIXTURES, read_rows
from fixtures.gold import judge
from fixtures.grammar import combinations as combinations_of
from fixtures.grammar import conversation, draw_slots, pick, pick_weighted, seeded
from fixtures.labelers import TEMPERATURE, best_first, gumbel
from policy.comparisons import parse_row
from policy.config import BadInput

Row = dict[str, Any]
PAIRS_OF_FOUR = tuple(combinations(range(4), 2))


@dataclass(frozen=True, slots=True)
class Noise:
    """What an answer on two completions of utilities u and v is worth.

    flipped: how often an answer is the wrong way round, whatever the utilities; None: the first is
    better with probability sigmoid((u - v) / TEMPERATURE), as the labelers of fixtures/ answer.
    """

    flipped: float | None = None

    def prefers_first(self, u: float, v: float) -> float:
        """Probability that the first is called better."""
        if self.flipped is None:
            return 1 / (1 + math.exp((v - u) / TEMPERATURE))
        return 0.5 if u == v else 1 - self.flipped if u > v else self.flipped

    def bayes(self, u: float, v: float) -> float:
        """How often the best guess is right."""
        return max(self.prefers_first(u, v), self.prefers_first(v, u))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Of a synthetic set: prompts of each split, completions to a prompt."""

    train: int
    dev: int
    test: int
    shown: int = 7
    """In train and dev."""
    tested: int = 8
    answers: int = 20
    """On pairs of each test prompt."""


World = Callable[[str, Random], tuple[list[Any], Callable[[], tuple[str, float]]]]
"""From a split: a prompt, and what draws a completion to it with its utility."""


def demo_world(split: str, rng: Random) -> tuple[list[Any], Callable[[], tuple[str, float]]]:
    """Fresh prompts and completions of the demo's grammar, judged by its gold utility. Test prompts
    are about intents and products that no other split joins."""
    intent, product = pick(rng, combinations_of(split))
    slots = draw_slots(intent, product, "en" if rng.random() < 0.6 else "zh", rng)

    def draw() -> tuple[str, float]:
        text = write(pick_weighted(rng, SHOWN), slots, rng)
        return text, judge(slots, text).total

    return conversation(slots, 2 if rng.random() < 0.2 else 1, rng), draw


def word_world(_: str, rng: Random) -> tuple[list[Any], Callable[[], tuple[str, float]]]:
    """Strings of 5 to 12 of 60 made-up words; each has a worth, and a text is worth their sum. The
    prompt does not matter."""

    def draw() -> tuple[str, float]:
        words = [pick(rng, sorted(WORTHS)) for _ in range(5 + int(8 * rng.random()))]
        return " ".join(words), sum(WORTHS[word] for word in words)

    asked = " ".join(pick(rng, sorted(WORTHS)) for _ in range(6))
    return [_message("user", asked)], draw


def _worths() -> dict[str, float]:
    rng = seeded("quality", "words")
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]  # 60
    return {first + pick(rng, syllables): round(0.3 * rng.gauss(0, 1), 3) for first in syllables}


WORTHS = _worths()


def synthetic(world: World, sizes: Sizes, noise: Noise, *, seed: int) -> list[Row]:
    """Rows with the completions' utilities under `gold`.

    A train or dev row has one answer, a Plackett-Luce ranking, or with flipped answers each pair by
    itself. A test row has answers on pairs.
    """
    rows = []
    for split, count in (("train", sizes.train), ("dev", sizes.dev), ("test", sizes.test)):
        for number in range(count):
            rng = seeded(seed, "quality", split, number)
            prompt, draw = world(split, rng)
            texts: dict[str, float] = {}
            while len(texts) < (sizes.tested if split == "test" else sizes.shown):
                text, worth = draw()
                texts[text] = worth
            gold = list(texts.values())
            pairs = [(i, j) for i, j in combinations(range(len(gold)), 2) if gold[i] != gold[j]]
            if split == "test":
                asked = rng.sample(pairs * 2, sizes.answers)
                votes = [_noisy(pair, gold, noise, rng) for pair in asked]
            elif noise.flipped is None:
                felt = [u / TEMPERATURE + gumbel(rng) for u in gold]
                votes = [[[place] for place in best_first(felt)]]
            else:
                votes = [_noisy(pair, gold, noise, rng) for pair in pairs]
            name = f"{split}-{number}"
            rows.append(_row(name, split, prompt, list(texts), votes) | {"gold": gold})
    return rows


def _noisy(
    pair: tuple[int, int], gold: Sequence[float], noise: Noise, rng: Random
) -> list[list[int]]:
    i, j = pair
    first = rng.random() < noise.prefers_first(gold[i], gold[j])
    return [[i], [j]] if first else [[j], [i]]


def in_true_order(rows: Iterable[Row]) -> list[Row]:
    """Synthetic rows whose one answer is the order of the utilities."""
    found = []
    for row in rows:
        levels = sorted(set(row["gold"]), reverse=True)
        ranking = [[at for at, u in enumerate(row["gold"]) if u == level] for level in levels]
        found.append({**row, "votes": [_vote(ranking)]})
    return found


def majority_pairs(rows: Iterable[Row]) -> list[Row]:
    """What plain Bradley-Terry trains on: each pair that most answers order, a row of its own with
    one answer. Rows of other splits than train stay as they are."""
    found = []
    for number, row in enumerate(rows):
        if row["split"] != "train":
            found.append(row)
            continue
        answers = Counter(
            pair for vote in parse_row(row, line=number).votes for pair in vote.strict_pairs()
        )
        for (better, worse), count in answers.items():
            if count <= answers[worse, better]:
                continue
            both = [row["completions"][at] for at in (better, worse)]
            vote = {**row["votes"][0], "ranking": [[one["id"]] for one in both]}
            name = f"{row['id']}-{better}-{worse}"
            found.append({**row, "id": name, "completions": both, "votes": [vote]})
    return found


# --- real answers ---------------------------------------------------------------------------------


def hh_rlhf(shared: Path) -> list[Row]:
    """Pairs of answers to a conversation, one vote each."""
    rows = []
    for number, row in enumerate(_lines(shared / "hh-rlhf" / "harmless-base-test.jsonl.gz")):
        try:
            one = parse_row(row, line=number)
        except BadInput:
            continue  # three part before their last answer, others answer twice the same
        rows.append(
            _row(f"hh-{number}", _split(one.group), list(one.prompt), one.texts, [[[0], [1]]])
        )
    return rows


def oasst_zh(shared: Path) -> list[Row]:
    """Two to eight Chinese answers, ranked."""
    rows = []
    path = shared / "oasst1" / "oasst_rm_zh.json"
    for number, one in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        prompt = []
        for asked, answered in one["history"]:
            prompt += [_message("user", asked), _message("assistant", answered)]
        last = "\n".join(part for part in (one["instruction"], one["input"]) if part)
        prompt.append(_message("user", last))
        texts = list(dict.fromkeys(text.strip() for text in one["output"] if text.strip()))
        if len(texts) > 1:
            ranking = [[place] for place in range(len(texts))]
            # siblings of one conversation stay together
            split = _split(prompt[0]["content"])
            row = _row(f"zh-{number}", split, prompt, texts, [ranking])
            rows.append(row | {"group": prompt[0]["content"]})
    return rows


def fine_grained(shared: Path) -> list[Row]:
    """Four answers to a question; each two were compared, with ties."""
    rows = []
    path = shared / "fine-grained-rlhf" / "dev_feedback.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        read = json.load(file)
    for number, one in enumerate(read):
        texts = [one[f"prediction {place}"].strip() for place in range(1, 5)]
        if len(set(texts)) < 4:
            continue
        votes = [
            [[i, j]] if won == 0 else [[i], [j]] if won == 1 else [[j], [i]]
            for (i, j), won in zip(PAIRS_OF_FOUR, one["preference"], strict=True)
        ]
        prompt = [_message("user", one["question"])]
        rows.append(_row(f"fg-{number}", _split(one["question"]), prompt, texts, votes))
    return rows


def ukp(shared: Path) -> list[Row]:
    """Which of two arguments convinces more, by five people. Arguments lie wholly in one split,
    pairs across splits are left out, and every other train pair, to save time; a topic is a group,
    for its pairs share arguments."""
    folder = shared / "ukpconvarg1"
    texts, topics = {}, {}
    for one in _lines(folder / "arguments.jsonl.gz"):
        key = (one["topic"], one["id"])
        texts[key] = one["text"].strip()
        topics[one["topic"]] = f"{one['debate']}: {one['stance']}"
    rows = []
    for number, one in enumerate(_lines(folder / "pairs.jsonl.gz")):
        keys = [(one["topic"], one[name]) for name in ("a1", "a2")]
        both = [texts[key] for key in keys]
        splits = {_split(text) for text in both}
        if len(splits) > 1 or len(set(both)) < 2 or (splits == {"train"} and number % 2):
            continue
        given = {"a1": [[0], [1]], "a2": [[1], [0]], "equal": [[0, 1]]}
        votes = [given[each["label"]] for each in one["annotations"]]
        prompt = [_message("user", topics[one["topic"]])]
        row = _row(f"{one['topic']}-{one['pair_id']}", splits.pop(), prompt, both, votes)
        rows.append(row | {"group": one["topic"]})
    return rows


def demo_corpus(_: Path) -> list[Row]:
    """What the demo's GPT is pretrained on."""
    return read_rows(FIXTURES / "corpus.jsonl")


def chinese_texts(shared: Path) -> list[Row]:
    """For pretraining, none of them in the sets above."""
    talks = [
        {"text": "\n".join(message["message"] for message in row["messages"])}
        for row in _lines(shared / "kdconv" / "test.jsonl.gz")
    ]
    with gzip.open(
        shared / "llama-factory" / "alpaca_zh_demo.json.gz", "rt", encoding="utf-8"
    ) as file:
        tasks = json.load(file)
    return talks + [
        {"text": f"{task['instruction']}\n{task['input']}\n{task['output']}"} for task in tasks
    ]


def _lines(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _split(key: str) -> str:
    """By hash: six in ten train, one dev, three test."""
    place = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 10
    return "train" if place < 6 else "dev" if place < 7 else "test"


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _row(
    name: str,
    split: str,
    prompt: Sequence[Any],
    texts: Sequence[str],
    rankings: Sequence[Sequence[Sequence[int]]],
) -> Row:
    return {
        "id": name,
        "split": split,
        "prompt": list(prompt),
        "completions": [
            {"id": str(place), "text": text, "model": None} for place, text in enumerate(texts)
        ],
        "votes": [_vote(ranking) for ranking in rankings],
    }


def _vote(ranking: Sequence[Sequence[int]]) -> Row:
    return {
        "axis": None,
        "ranking": [[str(place) for place in group] for group in ranking],
        "strength": None,
        "weight": None,
        "annotator": None,
        "kind": None,
    }
