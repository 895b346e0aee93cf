"""A checked vote of a file into the ledger, or the finding that it is there already."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from annotation.importers.rows import MAX_ID_LENGTH, Refused, VoteRow, clip
from annotation.models import (
    Annotator,
    Batch,
    Comparison,
    Completion,
    CompletionJudgment,
    Preference,
    Ranking,
)
from annotation.services.projects import outside_annotator

NO_LINE = -1
"""In place of an acceptability line, where nobody was asked for one."""


def who_answers(batch: Batch, vote: VoteRow) -> Annotator:
    """The outside annotator, told apart from one of the same id in another source."""
    name = annotator_name(batch, vote)
    return outside_annotator(project=batch.project, external_id=name, kind=vote.kind)


def annotator_name(batch: Batch, vote: VoteRow) -> str:
    """Under which the project knows who voted."""
    name = f"{batch.source.name}:{vote.annotator}" if vote.annotator else batch.source.name
    if len(name) > MAX_ID_LENGTH:
        raise Refused(f"annotator {clip(vote.annotator)} is too long a name")
    return name


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as rows of the ledger, before they are stored."""

    rankings: list[Ranking]
    judgments: list[CompletionJudgment]

    @classmethod
    def of(cls, completions: list[Completion], vote: VoteRow) -> "Answer":
        return cls(
            rankings=[
                Ranking(
                    axis=ranking.axis,
                    outcome=ranking.outcome,
                    groups=[[completions[place].pk for place in group] for group in ranking.groups],
                    strengths=ranking.strengths,
                    acceptable=ranking.acceptable,
                )
                for ranking in vote.rankings
            ],
            judgments=[
                CompletionJudgment(
                    completion=completions[one.place], ratings=one.ratings, flags=one.flags
                )
                for one in vote.judgments
            ],
        )

    def belongs_to(self, preference: Preference) -> None:
        """Its rows are this preference's."""
        for ranking in self.rankings:
            ranking.preference = preference
        for judgment in self.judgments:
            judgment.preference = preference


def is_there(comparison: Comparison, annotator: Annotator, said: Answer) -> bool:
    """True if the annotator gave this answer before; Refused if they gave another.

    One that holds no line and no judgment may have come before imports kept any: it is the same
    answer if it orders the same.
    """
    answers = Preference.objects.filter(comparison=comparison, annotator=annotator)
    first = answers.order_by("revision").prefetch_related("rankings", "judgments").first()
    if first is None:
        return False
    stored = _told(first.rankings.all(), first.judgments.all())
    told = _told(said.rankings, said.judgments)
    bare = not stored[1] and all(ranking[-1] == NO_LINE for ranking in stored[0])
    if stored != told and not (bare and stored[0] == [(*each[:-1], NO_LINE) for each in told[0]]):
        name = clip(annotator.external_id)
        raise Refused(f"annotator {name} has answered this comparison otherwise")
    return True


def new_answer(
    batch: Batch, comparison: Comparison, annotator: Annotator, external_id: str
) -> Preference:
    """The preference of an answer that was given elsewhere, not stored yet."""
    return Preference(
        project=batch.project,
        comparison=comparison,
        annotator=annotator,
        scheme=batch.scheme,
        source=batch.source,
        external_id=external_id,
    )


def store_answer(
    batch: Batch, comparison: Comparison, annotator: Annotator, said: Answer, external_id: str
) -> None:
    """Rows of an answer that was given elsewhere: no lease, not counted."""
    preference = new_answer(batch, comparison, annotator, external_id)
    preference.save(force_insert=True)
    said.belongs_to(preference)
    Ranking.objects.bulk_create(said.rankings)
    CompletionJudgment.objects.bulk_create(said.judgments)


def _told(
    rankings: Iterable[Ranking], judgments: Iterable[CompletionJudgment]
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """What an answer says, comparable: the order within a tied group, or of flags, says nothing,
    nor do blanks around a name, which imports kept once."""
    ordered = [
        (
            each.axis,
            each.outcome,
            [sorted(group) for group in each.groups],
            each.strengths,
            NO_LINE if each.acceptable is None else each.acceptable,
        )
        for each in rankings
    ]
    judged = [
        (
            each.completion_id,
            sorted((name.strip(), value) for name, value in each.ratings.items()),
            sorted(flag.strip() for flag in each.flags),
        )
        for each in judgments
    ]
    return sorted(ordered), sorted(judged)
