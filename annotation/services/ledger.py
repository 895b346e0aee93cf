"""What is asked: prompts with their fixed split, completions and who wrote them, comparisons."""

import hashlib
import json
import random
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection, transaction
from django.db.models import Min

from annotation.errors import BadInput, Conflict
from annotation.models import (
    Annotator,
    Batch,
    Comparison,
    ComparisonCompletion,
    Completion,
    Generation,
    ModelVersion,
    Origin,
    Project,
    Prompt,
    Purpose,
    Scheme,
    Source,
    Split,
    Strategy,
    TrainingJob,
    User,
)
from annotation.models.projects import BY_MODEL
from annotation.overlap import FIRST, is_always_full
from annotation.services.audit import record
from annotation.services.projects import current_scheme, lock_project
from annotation.services.search_text import index_texts
from annotation.storable import require_storable

ROLES = ("system", "user", "assistant")
MAX_GROUP_CHARACTERS = 200
TAKEN_OVER = ("overlap", "adaptive", "skip_mode", "skips_to_retire", "strategy")
"""What a batch may inherit from the one before it."""
DEV_FROM, TEST_FROM = 0.8, 0.9
"""Hashes of split groups lie in [0, 1): train below 0.8, dev below 0.9, test above."""


@transaction.atomic
def add_prompt(
    *,
    project: Project,
    source: Source,
    messages: list[dict[str, Any]],
    task: str = "",
    language: str = "",
    metadata: dict[str, Any] | None = None,
    external_id: str = "",
    split_group: str | None = None,
    split: str | None = None,
) -> tuple[Prompt, bool]:
    """The prompt with this content, and whether it is new; its split is fixed for ever.

    split_group: thread or tree id; None = the normalised first user turn. split: an imported one,
    honoured where its group has none in this project yet, for related prompts stay together: look
    at the prompt's. Raises BadInput for messages that are no conversation awaiting an answer.
    """
    wanted = new_prompt(
        project=project, source=source, messages=messages, task=task, language=language,
        metadata=metadata, external_id=external_id, split_group=split_group, split=split,
    )  # fmt: skip
    there = Prompt.objects.filter(project=project, content_hash=wanted.content_hash)
    if prompt := there.first():
        return prompt, False
    lock_project(project)  # two imports at once must not part a group
    if prompt := there.first():
        return prompt, False
    place_prompts(project, [wanted])
    wanted.save(force_insert=True)
    return wanted, True


def new_prompt(
    *,
    project: Project,
    source: Source,
    messages: list[dict[str, Any]],
    task: str = "",
    language: str = "",
    metadata: dict[str, Any] | None = None,
    external_id: str = "",
    split_group: str | None = None,
    split: str | None = None,
) -> Prompt:
    """A prompt as add_prompt checks it, not stored yet; its split is what was asked for, or ""."""
    metadata = metadata or {}
    _require_conversation(messages)
    require_storable(messages, metadata, external_id, split_group or "")
    _require_length("task", task, 40)
    _require_length("language", language, 12)
    _require_length("external id", external_id, 200)
    if split is not None and split not in Split.values:
        raise BadInput(f"A split is one of {', '.join(Split.values)}: {split!r}.")
    return Prompt(
        project=project,
        source=source,
        content_hash=prompt_hash(messages, metadata),
        external_id=external_id,
        messages=messages,
        task=task,
        language=language,
        metadata=metadata,
        split_group=_short_group(split_group) if split_group else group_of_opening(messages),
        split=split or "",
    )


def place_prompts(project: Project, prompts: Iterable[Prompt]) -> None:
    """Give new prompts, in their order, the split of their group: the one it has in the project,
    else what its first prompt asks for, else what its hash says. With the project locked."""
    prompts = list(prompts)
    groups = {prompt.split_group for prompt in prompts}
    related = Prompt.objects.filter(project=project, split_group__in=groups)
    oldest = related.order_by().values("split_group").annotate(first=Min("pk")).values("first")
    splits = dict(Prompt.objects.filter(pk__in=oldest).values_list("split_group", "split"))
    for prompt in prompts:
        group = prompt.split_group
        prompt.split = str(splits.setdefault(group, prompt.split or split_of_group(group)))


@transaction.atomic
def add_completion(*, prompt: Prompt, source: Source, text: str) -> tuple[Completion, bool]:
    """The completion with this text, and whether it is new. Raises BadInput for blank text."""
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"A completion can't be empty: {text!r}.")
    require_storable(text)
    return Completion.objects.get_or_create(
        prompt=prompt, text_hash=_sha256(text), defaults={"source": source, "text": text}
    )


@transaction.atomic
def add_imported_completions(
    *, prompt: Prompt, source: Source, written: Sequence[tuple[str, str]]
) -> list[Completion]:
    """The completions with these texts, in order, and who wrote each as (text, writer).

    The same as add_completion and record_generation one by one, in four queries: imports are long.
    """
    hashes = text_hashes(written)
    Completion.objects.bulk_create(
        (
            Completion(prompt=prompt, source=source, text=text, text_hash=text_hash)
            for (text, _), text_hash in zip(written, hashes, strict=True)
        ),
        ignore_conflicts=True,
    )
    found = {
        one.text_hash: one for one in Completion.objects.filter(prompt=prompt, text_hash__in=hashes)
    }
    completions = [found[text_hash] for text_hash in hashes]
    Generation.objects.bulk_create(
        (
            Generation(completion=completion, origin=Origin.IMPORTED, writer=writer)
            for completion, (_, writer) in zip(completions, written, strict=True)
        ),
        ignore_conflicts=True,
    )
    return completions


def text_hashes(written: Sequence[tuple[str, str]]) -> list[str]:
    """The hash by which a prompt's completions are told apart, of each (text, writer). Raises
    BadInput for what no completion may be."""
    for text, writer in written:
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"A completion can't be empty: {text!r}.")
        require_storable((text, writer))
        _require_length("writer", writer, 200)
    return [_sha256(text) for text, _writer in written]


@transaction.atomic
def record_generation(
    *,
    completion: Completion,
    origin: str,
    model_version: ModelVersion | None = None,
    writer: str = "",
    annotator: Annotator | None = None,
    sampling: dict[str, Any] | None = None,
    seed: int | None = None,
    finish_reason: str = "",
    job: TrainingJob | None = None,
) -> tuple[Generation, bool]:
    """Who wrote a completion and how, once: per (job, seed), else per (origin, writer)."""
    if origin not in Origin.values:
        raise BadInput(f"An origin is one of {', '.join(Origin.values)}: {origin!r}.")
    if origin == Origin.POLICY and model_version is None:
        raise BadInput("A completion of a policy names the version that wrote it.")
    if job is not None and seed is None:
        raise BadInput(f"A generation of job {job.pk} needs its seed, to be recorded once.")
    _require_length("writer", writer, 200)
    details = {
        "origin": origin,
        "model_version": model_version,
        "writer": writer,
        "annotator": annotator,
        "sampling": sampling or {},
        "finish_reason": finish_reason[:10],
    }
    if job is not None:
        return Generation.objects.get_or_create(
            completion=completion, job=job, seed=seed, defaults=details
        )
    # the database tells job-less generations apart by their writer
    details["writer"] = writer or (f"version {model_version.pk}" if model_version else "")
    return Generation.objects.get_or_create(
        completion=completion,
        origin=details.pop("origin"),
        writer=details.pop("writer"),
        job=None,
        defaults={**details, "seed": seed},
    )


@transaction.atomic
def batch_for(
    *,
    project: Project,
    name: str,
    source: Source,
    purpose: str = Purpose.PRODUCTION,
    scheme: Scheme | None = None,
    skill: str = "",
    priority: int = 0,
    review_below: float | None = None,
    like: Batch | None = None,
) -> Batch:
    """The batch of this name, made at the first call; scheme None = the project's newest.

    like: whose overlap, skip mode and strategy a new one takes over. Raises Conflict where the
    batch exists with another source or purpose.
    """
    _require_purpose(purpose)
    _require_length("batch name", name, 120)
    batch, created = Batch.objects.get_or_create(
        project=project,
        name=name,
        defaults={
            "source": source,
            "purpose": purpose,
            "scheme": scheme or current_scheme(project),
            "skill": skill,
            "priority": priority,
            "review_below": review_below,
            **({name: getattr(like, name) for name in TAKEN_OVER} if like else {}),
        },
    )
    if not created and (batch.source_id, batch.purpose) != (source.pk, purpose):
        raise Conflict(f"Batch {name!r} exists with another source or purpose ({batch.purpose}).")
    return batch


@transaction.atomic
def pause_batch(*, batch: Batch, paused: bool, by: User | None) -> Batch:
    """Stop (or go on) handing out a batch's comparisons; leases that are out stay good."""
    if Batch.objects.filter(pk=batch.pk).exclude(paused=paused).update(paused=paused):
        action = "batch.pause" if paused else "batch.resume"
        record(action=action, target=batch, project=batch.project, actor=by)
    batch.paused = paused
    return batch


@transaction.atomic
def open_comparison(
    *,
    batch: Batch,
    prompt: Prompt,
    completions: Sequence[Completion],
    answers_wanted: int,
    purpose: str | None = None,
    selector: str = "",
    propensity: float | None = None,
) -> tuple[Comparison, bool]:
    """Put a question to annotators, once per batch; answers_wanted 0 for imported ones.

    completions: 2 to 9 different ones of the prompt, in their stored order. A batch whose overlap a
    lead has set wants that many answers, an adaptive one at first two. selector, propensity: what
    chose the prompt, and how likely it was. Raises BadInput.
    """
    ids = [completion.pk for completion in completions]
    require_choice(ids)
    if strangers := [one.pk for one in completions if one.prompt_id != prompt.pk]:
        raise BadInput(f"Completion {strangers[0]} answers another prompt than {prompt.pk}.")
    if prompt.project_id != batch.project_id:
        raise BadInput(f"Prompt {prompt.pk} and batch {batch.name!r} are of two projects.")
    if not 0 <= answers_wanted <= 1000:
        raise BadInput(f"A comparison wants 0 to 1000 answers: {answers_wanted}.")
    _require_purpose(purpose or batch.purpose)
    if answers_wanted:
        batch = as_it_stands(batch)
    if answers_wanted and batch.overlap:
        answers_wanted = batch.overlap
    content_hash = content_hash_of(batch.pk, prompt.pk, sorted(ids))
    full_overlap = None
    if batch.adaptive and answers_wanted > FIRST and not is_always_full(content_hash):
        answers_wanted, full_overlap = FIRST, answers_wanted
    comparison, created = Comparison.objects.get_or_create(
        project_id=batch.project_id,
        content_hash=content_hash,
        defaults={
            **asked_of(batch, prompt, purpose or batch.purpose),
            "answers_wanted": answers_wanted,
            "full_overlap": full_overlap,
            "open_slots": answers_wanted,
            "selector": selector,
            "propensity": propensity,
        },
    )
    if created:
        ComparisonCompletion.objects.bulk_create(
            ComparisonCompletion(comparison=comparison, completion=one, position=place)
            for place, one in enumerate(completions)
        )
        index_texts([(comparison, prompt, completions)])
    return comparison, created


def require_choice(completions: Sequence[Any]) -> None:
    """Raise BadInput unless these, by their id or hash, are 2 to 9 different ones."""
    if not 2 <= len(completions) <= 9:
        raise BadInput(f"A comparison has 2 to 9 completions, not {len(completions)}.")
    if len(set(completions)) != len(completions):
        raise BadInput(f"A comparison's completions differ; seen twice among {completions}.")


def asked_of(batch: Batch, prompt: Prompt, purpose: str) -> dict[str, Any]:
    """What a new comparison has of its batch and prompt."""
    return {
        "batch": batch,
        "prompt": prompt,
        "purpose": purpose,
        "language": prompt.language,
        "skill": batch.skill,
        "priority": batch.priority,
        "due_day": batch.due_day,
        "strategy": _strategy(batch, purpose),
        "sort_key": random.random(),
    }


def as_it_stands(batch: Batch) -> Batch:
    """The batch's row, which on PostgreSQL nobody changes until the transaction ends: a change
    finds what opens here when it brings the batch's comparisons in line, or is found here. Those
    who open do not wait for each other."""
    lock = " FOR SHARE" if connection.vendor == "postgresql" else ""
    table = connection.ops.quote_name(Batch._meta.db_table)
    return Batch.objects.raw(f"SELECT * FROM {table} WHERE id = %s{lock}", [batch.pk])[0]


def content_hash_of(*what: Any) -> str:
    """What makes a comparison the same question as another."""
    return _sha256(_canonical(list(what)))


def _strategy(batch: Batch, purpose: str) -> str:
    """The batch's; no model picks what is not production."""
    by_model = batch.strategy in BY_MODEL
    return Strategy.RANDOM if by_model and purpose != Purpose.PRODUCTION else batch.strategy


def prompt_hash(messages: list[dict[str, Any]], metadata: dict[str, Any]) -> str:
    """SHA-256 of messages and metadata as canonical JSON; key order and spacing don't matter."""
    return _sha256(_canonical({"messages": messages, "metadata": metadata}))


def normalised_first_turn(messages: list[dict[str, Any]]) -> str:
    """The first user turn in NFKC, lower case, single spaces: two spellings are one group."""
    first = next(message for message in messages if message["role"] == "user")
    content = first["content"]
    text = content if isinstance(content, str) else _canonical(content)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def group_of_opening(messages: list[dict[str, Any]]) -> str:
    """The split group of a conversation that has no thread or tree id."""
    return _short_group(normalised_first_turn(messages))


def split_of_group(group: str) -> str:
    """The split of a group by its hash alone, so that it is the same in every project."""
    place = int(_sha256(f"split {group}")[:13], 16) / 16**13
    if place < DEV_FROM:
        return Split.TRAIN
    return Split.DEV if place < TEST_FROM else Split.TEST


def _short_group(group: str) -> str:
    """The group itself where it fits its column, else its hash."""
    return group if len(group) <= MAX_GROUP_CHARACTERS else f"sha256:{_sha256(group)}"


def _require_conversation(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise BadInput(f"A prompt is a list of messages: {str(messages)[:80]!r}.")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise BadInput(
                f"Message {place} needs a role of {', '.join(ROLES)}: {str(message)[:80]!r}."
            )
        content = message.get("content")
        if not isinstance(content, str) and not _typed_parts(content):
            raise BadInput(
                f"Message {place} needs a text or typed parts as content: {str(content)[:80]!r}."
            )
    last = messages[-1]
    if last["role"] != "user":
        raise BadInput(f"A prompt ends with the user's turn, not the {last['role']}'s.")
    if isinstance(last["content"], str) and not last["content"].strip():
        raise BadInput("A prompt's last turn is empty.")


def _typed_parts(content: Any) -> bool:
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in content)
    )


def _require_length(what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise BadInput(f"A {what} has at most {most} characters, not {len(text)}.")


def _require_purpose(purpose: str) -> None:
    if purpose not in Purpose.values:
        raise BadInput(f"A purpose is one of {', '.join(Purpose.values)}: {purpose!r}.")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
