"""What takes a row of a file into the ledger: one for each kind of row.

Who judged is an annotator outside this installation, named "SOURCE:ID", or "SOURCE" where the file
names nobody. Rows are recognised by content and external id, so a second import adds nothing.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction

from annotation.errors import BadInput
from annotation.importers import comparisons, demonstrations, prompts
from annotation.importers.parsers import Parse, parse_of
from annotation.importers.rows import (
    ComparisonRow,
    DemonstrationRow,
    PromptRow,
    Refused,
    VoteRow,
    clip,
)
from annotation.importers.together import store_new
from annotation.importers.votes import Answer, annotator_name, is_there, store_answer, who_answers
from annotation.leaks import ALIKE, LEAK, fault_of
from annotation.models import Batch, Origin, Project, Prompt, Source
from annotation.services.audit import record
from annotation.services.batches import HIGHEST_PRIORITY
from annotation.services.disagreements import look_again
from annotation.services.ledger import (
    add_completion,
    add_imported_completions,
    add_prompt,
    batch_for,
    open_comparison,
    record_generation,
)
from annotation.services.outside import digest_of, forgotten_digests
from annotation.services.projects import lock_project

OF_FORGOTTEN = "votes of people whose data was deleted"
"""Counted among the fields that are not kept."""
NOT_TO_BE_SHOWN = {
    LEAK: "a completion names its maker",
    ALIKE: "two completions are near-identical",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """What a row came to: whether it held anything new, and what was decided otherwise than it
    says."""

    new: bool
    remark: str = ""
    caught: str = ""
    """leaks.LEAK or ALIKE: what a labeler here would not have been shown."""
    left_out: tuple[str, ...] = ()
    """Fields of the row that are not kept."""


Store = Callable[[Mapping[str, Any]], Stored]
"""Takes a row."""


@transaction.atomic
def source_for(*, project: Project, name: str, licence: str = "", terms: str = "") -> Source:
    """The project's source of this name, made at the first call.

    Raises BadInput where it exists with another licence: terms are not changed in passing. A colon
    is refused: annotator "c" of "a:b" would be annotator "b:c" of "a".
    """
    if not name.strip() or len(name) > 120:
        raise BadInput(f"A source needs a name of 1 to 120 characters: {clip(name)}.")
    if ":" in name:
        raise BadInput(f"A source's name has no colon: {clip(name)}.")
    if len(licence) > 80:
        raise BadInput(f"A licence has at most 80 characters: {clip(licence)}.")
    source, created = Source.objects.get_or_create(
        project=project, name=name, defaults={"licence": licence, "terms": terms}
    )
    if not created and licence and licence != source.licence:
        if source.licence:
            raise BadInput(
                f"Source {name!r} has the licence {source.licence!r} already, not {licence!r}."
            )
        source.licence = licence
        source.save(update_fields=["licence"])
        record(action="source.licence", target=source, project=project, licence=licence)
    return source


def preference_store(
    *,
    project: Project,
    source: Source,
    format: str,
    columns: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
) -> Store:
    """What takes a row of a preference format into the project.

    columns, values: as require_columns took them. Call it in the transaction of what it takes.
    """
    lock_project(project)  # nobody's data is deleted until these rows are committed
    batch = batch_for(
        project=project,
        name=f"import {source.name}"[:120],
        source=source,
        review_below=0.0,  # who was asked elsewhere goes to no reviewer here, unless a lead says so
    )
    parse = parse_of(format, columns or {}, values or {})
    return PreferenceStore(batch, parse, forgotten_digests(project))


@dataclass(frozen=True, slots=True)
class PreferenceStore:
    """Takes rows of a preference format: one, or many at once."""

    batch: Batch
    parse: Parse
    forgotten: frozenset[str] = frozenset()
    """Digests of people whose data was deleted: their votes are left out."""

    def __call__(self, row: Mapping[str, Any]) -> Stored:
        return _together([store_comparison(self.batch, one) for one in self._parsed(row)])

    def together(self, rows: Mapping[int, Mapping[str, Any]]) -> dict[int, Stored]:
        """What became of the first of these rows, by their place, up to one whose comparison is
        known. Raises what storing one of them alone would: then nothing is stored."""
        parsed: dict[int, list[ComparisonRow]] = {}
        for place, row in rows.items():
            with suppress(Refused):  # told when it is taken by itself
                parsed[place] = self._parsed(row)
        kept = store_new(self.batch, list(parsed.values()))
        return {
            place: _together(
                [
                    _stored_of(self.batch.project, one, prompt, new=True)
                    for one, prompt in zip(parsed[place], prompts, strict=True)
                ]
            )
            for place, prompts in zip(parsed, kept, strict=False)
        }

    def _parsed(self, row: Mapping[str, Any]) -> list[ComparisonRow]:
        found = self.parse(row)
        return self._without_forgotten(found if isinstance(found, list) else [found])

    def _without_forgotten(self, rows: list[ComparisonRow]) -> list[ComparisonRow]:
        """Raises Refused where no vote of them is left."""
        if not self.forgotten:
            return rows
        kept = []
        for row in rows:
            votes = [vote for vote in row.votes if not self._is_forgotten(vote)]
            if len(votes) == len(row.votes):
                kept.append(row)
            elif votes:
                kept.append(replace(row, votes=votes, left_out=[*row.left_out, OF_FORGOTTEN]))
        if rows and not kept:
            raise Refused("nothing is left of it: whoever voted had their data deleted here")
        return kept

    def _is_forgotten(self, vote: VoteRow) -> bool:
        return digest_of(vote.kind, annotator_name(self.batch, vote)) in self.forgotten


def _together(stored: list[Stored]) -> Stored:
    """What a row of several comparisons came to."""
    return Stored(
        any(one.new for one in stored),
        next(filter(None, (one.remark for one in stored)), ""),
        next(filter(None, (one.caught for one in stored)), ""),
        tuple(name for one in stored for name in one.left_out),
    )


def question_store(
    *, project: Project, source: Source, batch: str, answers_wanted: int, skill: str, priority: int
) -> Store:
    """What takes a row of completions without votes into a batch that labelers are handed.

    skill, priority: of the batch, if it is made now. Raises BadInput.
    """
    if answers_wanted < 1:
        raise BadInput(f"A comparison wants one answer or more: {answers_wanted}.")
    if abs(priority) > HIGHEST_PRIORITY:
        highest = HIGHEST_PRIORITY
        raise BadInput(f"A priority is from {-highest} to {highest}: {priority}.")
    if len(skill) > 40:
        raise BadInput(f"A skill has at most 40 characters: {clip(skill)}.")
    into = batch_for(project=project, name=batch, source=source, skill=skill, priority=priority)
    return lambda row: open_question(into, comparisons.parse_unanswered(row), answers_wanted)


def prompt_store(*, project: Project, source: Source) -> Store:
    """What takes a prompts row into the project."""

    def store(row: Mapping[str, Any]) -> Stored:
        parsed = prompts.parse(row)
        prompt, created = _prompt(project, source, parsed)
        return Stored(created, _split_remark(parsed, prompt))

    return store


def demonstration_store(*, project: Project, source: Source) -> Store:
    """What takes a demonstrations row into the project."""
    return lambda row: store_demonstration(project, source, demonstrations.parse(row))


def store_demonstration(project: Project, source: Source, row: DemonstrationRow) -> Stored:
    """Keep an ideal answer."""
    prompt, _ = _prompt(project, source, row.prompt)
    completion, _ = add_completion(prompt=prompt, source=source, text=row.completion.text)
    _, created = record_generation(
        completion=completion, origin=Origin.DEMONSTRATION, writer=row.completion.writer
    )
    return Stored(created, _split_remark(row.prompt, prompt))


def store_comparison(batch: Batch, row: ComparisonRow) -> Stored:
    """Keep a comparison and its votes.

    It wants no answer and holds no slot: the queue never hands it out. Raises Refused for a vote
    that contradicts one of the same annotator.
    """
    prompt, _ = _prompt(batch.project, batch.source, row.prompt)
    completions = add_imported_completions(
        prompt=prompt,
        source=batch.source,
        written=[(each.text, each.writer) for each in row.completions],
    )
    comparison, created = open_comparison(
        batch=batch, prompt=prompt, completions=completions, answers_wanted=0
    )
    new = False
    for vote in row.votes:
        annotator, said = who_answers(batch, vote), Answer.of(completions, vote)
        if created or not is_there(comparison, annotator, said):
            store_answer(batch, comparison, annotator, said, vote.external_id)
            new = True
    if new and (len(row.votes) > 1 or not created):
        look_again(comparison.pk)
    return _stored_of(batch.project, row, prompt, new=new)


def _stored_of(project: Project, row: ComparisonRow, prompt: Prompt, *, new: bool) -> Stored:
    texts = [completion.text for completion in row.completions]
    return Stored(
        new, _split_remark(row.prompt, prompt), _caught(project, texts), tuple(row.left_out)
    )


def open_question(batch: Batch, row: ComparisonRow, answers_wanted: int) -> Stored:
    """Put a prompt with its completions into the queue, once per batch.

    Raises Refused for what no labeler here may be shown; see annotation/leaks.py.
    """
    if fault := _caught(batch.project, [completion.text for completion in row.completions]):
        raise Refused(NOT_TO_BE_SHOWN[fault])
    prompt, _ = _prompt(batch.project, batch.source, row.prompt)
    completions = add_imported_completions(
        prompt=prompt,
        source=batch.source,
        written=[(each.text, each.writer) for each in row.completions],
    )
    _, created = open_comparison(
        batch=batch, prompt=prompt, completions=completions, answers_wanted=answers_wanted
    )
    remark = _split_remark(row.prompt, prompt)
    return Stored(created, remark, left_out=tuple(row.left_out))


def _caught(project: Project, texts: list[str]) -> str:
    """The first fault of the completions that the project looks for: they were voted on elsewhere
    and are kept, but counted."""
    looked_for = {"leaks": project.catch_leaks, "likeness": project.catch_alike}
    faults = (fault_of(text, texts[:place], **looked_for) for place, text in enumerate(texts))
    return next(filter(None, faults), "")


def _split_remark(row: PromptRow, prompt: Prompt) -> str:
    if row.split in (None, prompt.split):
        return ""
    return f"in split {prompt.split!r}, where its group is, not in {row.split!r}"


def _prompt(project: Project, source: Source, row: PromptRow) -> tuple[Prompt, bool]:
    return add_prompt(project=project, source=source, **row.as_fields())
