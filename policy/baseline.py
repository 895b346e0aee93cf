"""What the reference would have scored: the mean score of its own answers to the same prompt.

Subtracting it says how much better an answer is than the reference's, and takes away how easy the
prompt is. It depends on nothing that PPO changes, so every prompt is answered once and kept.
"""

import hashlib
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from policy.config import BadInput
from policy.optim import require_finite
from policy.ppo_config import PPOConfig
from policy.processes import ALONE, Processes
from policy.rollout import PromptTokens
from policy.run import seed_for
from policy.sampling import Sampled


@dataclass(frozen=True, slots=True)
class ReferenceAnswers:
    """The reference's m answers to one prompt."""

    tokens: list[list[int]]
    finish: list[str]
    scores: list[float]


SampleFn = Callable[[Sequence[list[int]], Sequence[int]], Sequence[Sampled]]
"""The reference's answers to rows of prompt ids, one seed per row."""
CompletionScores = Callable[[Sequence[PromptTokens], Sequence[Sampled]], Sequence[float]]


class ReferenceBaseline:
    """Answers of the reference by prompt, in memory, in the run's folder, in a shared folder.

    folder: this run's, one shard per step, so that a resumed attempt carries them over.
    shared: a file per key, grown line by line, for the runs that follow; None = not kept.
    """

    def __init__(
        self,
        *,
        sample: SampleFn,
        score: CompletionScores,
        answers_per_prompt: int,
        folder: Path,
        shared: Path | None,
        key: Mapping[str, Any],
        processes: Processes = ALONE,
    ) -> None:
        """key: whatever the scores depend on besides the prompt (reference, reward model,
        sampling), of plain JSON values. processes: the first reads and writes the files; `sample`
        and `score` share the work out."""
        self.sample = sample
        self.score = score
        self.answers_per_prompt = answers_per_prompt
        self.folder = folder
        self.processes = processes
        described = json.dumps({**key, "m": answers_per_prompt}, sort_keys=True)
        digest = hashlib.sha256(described.encode()).hexdigest()
        self.shared = None if shared is None else shared / f"baseline-{digest[:24]}.jsonl"
        self.known = processes.from_first(self._read_all)

    def answers(self, prompts: Sequence[PromptTokens], *, step: int) -> list[ReferenceAnswers]:
        """The reference's answers to these prompts, in order; those not known yet are sampled."""
        hashes = [prompt_hash(prompt) for prompt in prompts]
        missing = {
            name: prompt
            for name, prompt in zip(hashes, prompts, strict=True)
            if name not in self.known
        }
        if missing:
            found = self._answered(missing)
            if self.processes.is_first:
                self._keep(found, step)
            self.known.update(found)
        return [self.known[name] for name in hashes]

    def _read_all(self) -> dict[str, ReferenceAnswers]:
        known: dict[str, ReferenceAnswers] = {}
        for path in (self.shared, *sorted(self.folder.glob("step-*.jsonl"))):
            if path is not None and path.is_file():
                known.update(_read(path))
        return known

    def _answered(self, missing: Mapping[str, PromptTokens]) -> dict[str, ReferenceAnswers]:
        m = self.answers_per_prompt
        prompts = [prompt for prompt in missing.values() for _ in range(m)]
        seeds = [seed_for("reference", name, copy) for name in missing for copy in range(m)]
        samples = self.sample([prompt.ids for prompt in prompts], seeds)
        scores = list(self.score(prompts, samples))
        require_finite(baseline_score=torch.tensor(scores))  # before they are kept
        return {
            name: ReferenceAnswers(
                [list(sample.tokens) for sample in samples[first : first + m]],
                [sample.finish for sample in samples[first : first + m]],
                scores[first : first + m],
            )
            for name, first in zip(missing, range(0, len(prompts), m), strict=True)
        }

    def _keep(self, found: Mapping[str, ReferenceAnswers], step: int) -> None:
        lines = "".join(
            json.dumps({"prompt_hash": name, **asdict(answers)}) + "\n"
            for name, answers in found.items()
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        shard = self.folder / f"step-{step:05d}.jsonl"
        staged = shard.with_suffix(".part")
        staged.write_text(lines, encoding="utf-8")
        staged.replace(shard)
        if self.shared is not None:
            self.shared.parent.mkdir(parents=True, exist_ok=True)
            with self.shared.open("a", encoding="utf-8") as file:
                file.write("\n" + lines)  # a line that a kill tore in two ends here


def missing_end(
    config: PPOConfig, sample: Sampled, score: float, answers: ReferenceAnswers | None
) -> float:
    """What missing end tokens add to score - baseline: the answer's own share minus the mean share
    of the reference's answers, which are held to the same rule."""

    def added(finish: str, score: float) -> float:
        if finish == "end" or config.missing_end == "off":
            return 0.0
        replaced = config.missing_end == "replace"
        return -config.missing_end_score - (score if replaced else 0.0)

    own = added(sample.finish, score)
    if answers is None:
        return own
    return own - statistics.fmean(map(added, answers.finish, answers.scores))


def prompt_hash(prompt: PromptTokens) -> str:
    """sha256 of the prompt as the reference reads it, its ids, and of all that was said: a reward
    model may read turns that were dropped for the reference."""
    read = json.dumps([prompt.ids, prompt.messages])
    return hashlib.sha256(read.encode()).hexdigest()


def _read(path: Path) -> Iterator[tuple[str, ReferenceAnswers]]:
    """Rows of a cache file; a torn line is passed over, it is only answered again."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the baseline cache {path} cannot be read: {error}") from error
    for line in lines:
        try:
            row = json.loads(line)
            yield row["prompt_hash"], ReferenceAnswers(row["tokens"], row["finish"], row["scores"])
        except (ValueError, KeyError, TypeError):
            continue
