"""What a snapshot of demonstrations holds."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.db.models import Exists, OuterRef, Prefetch, QuerySet

from annotation.funnel import Bucket
from annotation.models import Completion, Generation, Origin, Project, Split
from annotation.services.audit import name_of
from annotation.services.plans.licensed import licence_parts, licences_at
from annotation.services.plans.prompts import prompt_bucket, prompt_options
from annotation.services.plans.rows import Row, group_name
from annotation.services.positions import (
    Position,
    forgotten_at,
    ledger_parts,
    pages,
    position_at,
    voids_at,
    votes_at,
    with_forgotten,
)


class DemonstrationsPlan:
    """Ideal answers. Those to test prompts are never given out: nothing may learn from them.

    One that annotators wrote beside a preference goes with it: void or replaced, it isn't given
    out either, unless somebody else stands by the same words.
    """

    def __init__(self, project: Project, options: Mapping[str, Any]) -> None:
        self.project = project
        self.query = prompt_options(options, (Split.TRAIN, Split.DEV))
        self.counts: Counter[str] = Counter()
        self.notes: dict[str, Any] = {}
        self.sources: Counter[int] = Counter()
        self.num_voids = 0

    def position(self, up_to: Any) -> Position:
        asked = licence_parts(self.project) if "licences" in self.query else {}
        return with_forgotten(self.project, position_at(up_to, ledger_parts(self.project) | asked))

    def _all(self, position: Position) -> QuerySet[Completion]:
        written = Generation.objects.filter(
            origin=Origin.DEMONSTRATION, pk__lte=position["generation"]
        )
        votes = votes_at(self.project, position)
        later = votes.filter(
            comparison=OuterRef("comparison"),
            annotator=OuterRef("annotator"),
            revision__gt=OuterRef("revision"),
        )
        return (
            Completion.objects.filter(
                Exists(written.filter(completion=OuterRef("pk"))), prompt__project=self.project
            )
            .select_related("prompt")
            .prefetch_related(
                Prefetch("generations", written),
                Prefetch("ideal_of", votes.annotate(is_superseded=Exists(later))),
            )
        )

    def rows(
        self, position: Position, on_row: Callable[[], object] = lambda: None
    ) -> Iterator[Row]:
        voided = set(voids_at(self.project, position).values_list("target", flat=True))
        self.num_voids = len(voided)
        forgotten = forgotten_at(self.project, position)
        licences = licences_at(self.project, position) if "licences" in self.query else {}
        for completion in pages(self._all(position)):
            on_row()
            prompt = completion.prompt
            bucket = _withdrawn(completion, voided, forgotten) or prompt_bucket(
                prompt, self.query, licences, completion.source_id
            )
            self.counts[bucket] += 1
            if bucket == prompt.split:
                self.sources.update({completion.source_id, prompt.source_id})
                yield {
                    "id": str(completion.pk),
                    "split": prompt.split,
                    "group": group_name(prompt),
                    "prompt": prompt.messages,
                    "completion": completion.text,
                    "language": prompt.language,
                }

    def is_complete(self, position: Position) -> bool:
        voids = voids_at(self.project, position).count()
        return sum(self.counts.values()) == self._all(position).count() and self.num_voids == voids


def _withdrawn(
    completion: Completion, voided: set[str], forgotten: frozenset[int]
) -> Bucket | None:
    """Why no answer stands by an ideal answer any more; None where one does, or somebody wrote it
    outside an answer."""
    if any(one.annotator_id is None for one in completion.generations.all()):
        return None
    written_by = {one.annotator_id for one in completion.generations.all()}
    votes: list[Any] = [  # annotated with is_superseded
        one for one in completion.ideal_of.all() if one.annotator_id not in forgotten
    ]
    if not votes and written_by & forgotten:
        return Bucket.FORGOTTEN
    if not votes or any(not v.is_superseded and name_of(v) not in voided for v in votes):
        return None
    return Bucket.VOIDED if any(name_of(vote) in voided for vote in votes) else Bucket.SUPERSEDED
