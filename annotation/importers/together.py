"""Many new comparisons of a file at once: what stores.store_comparison does one by one, in some
twenty queries instead of twenty each.

Rows are kept in their order, so that what stands first stays the first: the writer of a text, the
split of a group. Whatever is refused is refused as a whole, and the caller takes them one by one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from annotation.importers.rows import ComparisonRow, PromptRow
from annotation.importers.votes import Answer, annotator_name, new_answer
from annotation.models import (
    Annotator,
    Batch,
    Comparison,
    ComparisonCompletion,
    Completion,
    CompletionJudgment,
    Generation,
    Origin,
    Preference,
    Prompt,
    Ranking,
)
from annotation.services.disagreements import look_again
from annotation.services.ledger import (
    asked_of,
    content_hash_of,
    new_prompt,
    place_prompts,
    require_choice,
    text_hashes,
)
from annotation.services.projects import lock_project, outside_annotator
from annotation.services.search_text import index_texts

TextKey = tuple[str, str]
"""Hash of a prompt and of a text that answers it."""


@dataclass(slots=True)
class _Row:
    """A comparison on its way."""

    row: ComparisonRow
    prompt: Prompt
    keys: list[TextKey]
    """Of its completions, in their order."""
    completions: list[Completion] = field(default_factory=list)


def store_new(batch: Batch, rows: Sequence[Sequence[ComparisonRow]]) -> list[list[Prompt]]:
    """Keep comparisons with their votes, row by row, up to the first row with one that is there
    already, or came earlier among them; in a transaction. A row: the comparisons it holds.

    The prompts of every row that was kept. Raises what store_comparison would.
    """
    lock_project(batch.project)  # two imports at once must not part a group
    checked = [[_checked(batch, one) for one in row] for row in rows]
    hashes = {one.prompt.content_hash for row in checked for one in row}
    there = Prompt.objects.filter(project=batch.project, content_hash__in=hashes)
    prompts = {one.content_hash: one for one in there}
    texts = _texts_of(prompts.values())
    kept = checked[: _num_new(batch, checked, prompts, texts)]
    new = [one for row in kept for one in row]
    _store_prompts(batch, new, prompts)
    _store_texts(batch, new, prompts, texts)
    comparisons = _store_comparisons(batch, new)
    _store_votes(batch, new, comparisons)
    for one, comparison in zip(new, comparisons, strict=True):
        if len(one.row.votes) > 1:
            look_again(comparison.pk)
    return [[one.prompt for one in row] for row in kept]


def _checked(batch: Batch, row: ComparisonRow) -> _Row:
    prompt = prompt_of(batch, row.prompt)
    hashes = text_hashes([(each.text, each.writer) for each in row.completions])
    require_choice(hashes)
    return _Row(row, prompt, [(prompt.content_hash, one) for one in hashes])


def prompt_of(batch: Batch, row: PromptRow) -> Prompt:
    """The row's prompt, checked and not stored."""
    return new_prompt(project=batch.project, source=batch.source, **row.as_fields())


def _texts_of(prompts: Iterable[Prompt]) -> dict[TextKey, Completion]:
    """What is there of these prompts' completions."""
    hashes = {prompt.pk: prompt.content_hash for prompt in prompts}
    found = Completion.objects.filter(prompt__in=list(hashes))
    return {(hashes[one.prompt_id], one.text_hash): one for one in found}


def _num_new(
    batch: Batch,
    checked: Sequence[Sequence[_Row]],
    prompts: dict[str, Prompt],
    texts: dict[TextKey, Completion],
) -> int:
    """How many rows from the first on hold no comparison that is there or was seen before."""
    known: dict[frozenset[TextKey], str] = {}
    for one in (one for row in checked for one in row):
        if all(key in texts for key in one.keys):  # else it is new for sure
            ids = sorted(texts[key].pk for key in one.keys)
            prompt = prompts[one.prompt.content_hash]
            known[frozenset(one.keys)] = content_hash_of(batch.pk, prompt.pk, ids)
    asked = Comparison.objects.filter(project=batch.project, content_hash__in=list(known.values()))
    there = set(asked.values_list("content_hash", flat=True))
    seen = {keys for keys, content_hash in known.items() if content_hash in there}
    for number, row in enumerate(checked):
        for one in row:
            if frozenset(one.keys) in seen:
                return number
            seen.add(frozenset(one.keys))
    return len(checked)


def _store_prompts(batch: Batch, new: Iterable[_Row], prompts: dict[str, Prompt]) -> None:
    """Those that are new; every row then has the stored one."""
    missing: dict[str, Prompt] = {}
    for one in new:
        if one.prompt.content_hash not in prompts:
            missing.setdefault(one.prompt.content_hash, one.prompt)
    place_prompts(batch.project, missing.values())
    prompts |= {one.content_hash: one for one in Prompt.objects.bulk_create(missing.values())}
    for one in new:
        one.prompt = prompts[one.prompt.content_hash]


def _store_texts(
    batch: Batch,
    new: Iterable[_Row],
    prompts: dict[str, Prompt],
    texts: dict[TextKey, Completion],
) -> None:
    """Completions that are new, and who wrote each; every row then has its own in their order."""
    missing: dict[TextKey, Completion] = {}
    for one in new:
        for key, said in zip(one.keys, one.row.completions, strict=True):
            if key not in texts and key not in missing:
                missing[key] = Completion(
                    prompt=one.prompt, source=batch.source, text=said.text, text_hash=key[1]
                )
    Completion.objects.bulk_create(missing.values())
    texts |= missing
    for one in new:
        one.completions = [texts[key] for key in one.keys]
    Generation.objects.bulk_create(
        (
            Generation(completion=completion, origin=Origin.IMPORTED, writer=said.writer)
            for one in new
            for completion, said in zip(one.completions, one.row.completions, strict=True)
        ),
        ignore_conflicts=True,
    )


def _store_comparisons(batch: Batch, new: Iterable[_Row]) -> list[Comparison]:
    """They want no answer and hold no slot: the queue never hands them out."""
    made, entries, said = [], [], []
    for one in new:
        ids = sorted(completion.pk for completion in one.completions)
        comparison = Comparison(
            project=batch.project,
            content_hash=content_hash_of(batch.pk, one.prompt.pk, ids),
            answers_wanted=0,
            open_slots=0,
            **asked_of(batch, one.prompt, batch.purpose),
        )
        made.append(comparison)
        said.append((comparison, one.prompt, one.completions))
        entries += [
            ComparisonCompletion(comparison=comparison, completion=completion, position=place)
            for place, completion in enumerate(one.completions)
        ]
    Comparison.objects.bulk_create(made)
    ComparisonCompletion.objects.bulk_create(entries)
    index_texts(said)
    return made


def _store_votes(batch: Batch, new: Sequence[_Row], comparisons: Sequence[Comparison]) -> None:
    annotators = _annotators(batch, new)
    made: list[Preference] = []
    rankings: list[Ranking] = []
    judgments: list[CompletionJudgment] = []
    for one, comparison in zip(new, comparisons, strict=True):
        for vote in one.row.votes:
            by = annotators[vote.kind, annotator_name(batch, vote)]
            said = Answer.of(one.completions, vote)
            made.append(new_answer(batch, comparison, by, vote.external_id))
            said.belongs_to(made[-1])
            rankings += said.rankings
            judgments += said.judgments
    Preference.objects.bulk_create(made)
    Ranking.objects.bulk_create(rankings)
    CompletionJudgment.objects.bulk_create(judgments)


def _annotators(batch: Batch, new: Iterable[_Row]) -> dict[tuple[str, str], Annotator]:
    """(kind, name) -> who voted; those who are new are made."""
    wanted = {
        (vote.kind, annotator_name(batch, vote)): None for one in new for vote in one.row.votes
    }
    there = Annotator.objects.filter(
        project=batch.project, external_id__in=[name for _kind, name in wanted]
    )
    found = {(one.kind, one.external_id): one for one in there}
    for kind, name in wanted:
        if (kind, name) not in found:
            found[kind, name] = outside_annotator(
                project=batch.project, external_id=name, kind=kind
            )
    return found
