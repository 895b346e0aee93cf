"""Rollouts for people to read: DIR/texts/step-NNNNN.jsonl, without what only a trainer needs.

At most MOST answers of a step, so that reading a file costs the same however large the steps are:
where there are more, the EXTREMES with the lowest and with the highest scores and the first others.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from policy.kl import k1
from policy.rollout import Rollouts

FOLDER = "texts"
"""In the run's folder."""
MOST, EXTREMES = 256, 32
LONGEST = 20_000
"""Characters kept of an answer and of each turn of its prompt."""


def chosen(scores: Sequence[float]) -> list[int]:
    """The rows that are kept, in order."""
    if len(scores) <= MOST:
        return list(range(len(scores)))
    order = sorted(range(len(scores)), key=lambda row: scores[row])
    kept = {*order[:EXTREMES], *order[-EXTREMES:]}
    others = [row for row in range(len(scores)) if row not in kept]
    return sorted([*kept, *others[: MOST - len(kept)]])


def rows_of(rollouts: Rollouts, decode: Callable[[list[int]], str]) -> list[dict[str, Any]]:
    """The rows that are kept, as their file holds them (README)."""
    kl_nats = rollouts.sequence_kl(k1).tolist()
    scores, baselines = rollouts.scores.tolist(), rollouts.baselines.tolist()
    found = []
    for row in chosen(scores):
        prompt, sample = rollouts.prompts[row], rollouts.samples[row]
        found.append(
            {
                "step": rollouts.step,
                "row": row,
                "of": len(rollouts),
                "prompt_id": prompt.id,
                "prompt": [
                    {"role": turn["role"], "content": turn["content"][:LONGEST]}
                    for turn in prompt.messages
                ],
                "text": decode(sample.tokens)[:LONGEST],
                "score": scores[row],
                "baseline": baselines[row],
                "kl": kl_nats[row],
                "tokens": len(sample.tokens),
                "finish": sample.finish,
                "parts": _finite(rollouts.parts, row),
                "seen": _finite(rollouts.seen, row),
            }
        )
    return found


def _finite(figures: Mapping[str, Sequence[float]], row: int) -> dict[str, float | None]:
    """One answer's figures; null is no finite number."""
    values = {name: values[row] for name, values in figures.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def write_texts(directory: Path, rollouts: Rollouts, decode: Callable[[list[int]], str]) -> Path:
    """Write a step's file by rename; a step written again replaces itself."""
    path = directory / FOLDER / f"step-{rollouts.step:05d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".part")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(rollouts, decode))
    staged.write_text("".join(lines), encoding="utf-8")
    staged.replace(path)
    return path
