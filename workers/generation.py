"""Completions from a registered policy, loaded once and kept between tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from annotation.models import Completion, ModelVersion, Origin, Prompt, Source, TrainingJob
from annotation.services import ledger, versions
from policy.backbone import context_of, load_causal_lm
from policy.config import require
from policy.data import Message
from policy.run import device_from
from policy.sampling import Sampled, sample
from policy.scoring import Scorer, load_scorer
from policy.text import decode_completion, render_prompt

KEPT_MODELS = 3
"""In force, candidate and root: what one gate needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How completions are drawn: temperature only."""

    temperature: float
    max_new_tokens: int

    def as_json(self) -> dict[str, float]:
        """What a Generation row keeps."""
        return {"temperature": self.temperature, "max_new_tokens": self.max_new_tokens}


@dataclass(frozen=True, slots=True)
class Written:
    """One completion with the ids it was sampled as."""

    text: str
    prompt_ids: list[int]
    sampled: Sampled
    seed: int


class Models:
    """Loaded models of one process by the hash of their files, the latest used kept."""

    def __init__(self, kept: int = KEPT_MODELS) -> None:
        self.kept = kept
        self._loaded: dict[str, Any] = {}

    def policy(self, version: ModelVersion) -> tuple[Any, Any]:
        """(model, tokenizer) of a policy version."""
        return self._get(version, load_causal_lm)

    def scorer(self, version: ModelVersion) -> Scorer:
        """The scorer of a reward version."""
        return self._get(version, load_scorer)

    def _get(self, version: ModelVersion, load: Any) -> Any:
        found = self._loaded.pop(version.sha256, None)
        if found is None:
            found = load(versions.directory_of(version), device=device_from("auto"))
        self._loaded[version.sha256] = found  # the newest stands last
        while len(self._loaded) > self.kept:
            del self._loaded[next(iter(self._loaded))]
        return found


MODELS = Models()
"""Of this worker process."""


def text_messages(prompt: Prompt) -> list[Message] | None:
    """The prompt's conversation, or None where it holds more than text."""
    if not prompt.text_alone:
        return None
    return [{"role": m["role"], "content": m["content"]} for m in prompt.messages]


def write_completions(
    policy: tuple[Any, Any],
    conversations: Sequence[Sequence[Message]],
    *,
    seeds: Sequence[int],
    sampling: Sampling,
) -> list[Written]:
    """One completion per conversation, in order, each from its own seed."""
    model, tokenizer = policy
    room = context_of(model) - sampling.max_new_tokens
    require(
        room > 0,
        f"max_new_tokens {sampling.max_new_tokens} leaves no room for a prompt in the model's "
        f"context of {context_of(model)}",
    )
    prompts = [render_prompt(tokenizer, each, max_tokens=room).ids for each in conversations]
    sampled = sample(
        model,
        tokenizer,
        prompts,
        temperature=sampling.temperature,
        max_new_tokens=sampling.max_new_tokens,
        seeds=seeds,
    )
    return [
        Written(decode_completion(tokenizer, one.tokens), ids, one, seed)
        for ids, one, seed in zip(prompts, sampled, seeds, strict=True)
    ]


def record_written(
    job: TrainingJob,
    version: ModelVersion,
    prompt: Prompt,
    source: Source,
    one: Written,
    sampling: Sampling,
) -> Completion:
    """The completion in the ledger, and that this version wrote it in this job."""
    completion, _ = ledger.add_completion(prompt=prompt, source=source, text=one.text)
    ledger.record_generation(
        completion=completion,
        origin=Origin.POLICY,
        model_version=version,
        sampling=sampling.as_json(),
        seed=one.seed,
        finish_reason=one.sampled.finish,
        job=job,
    )
    return completion
