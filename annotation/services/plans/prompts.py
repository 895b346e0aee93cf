"""What a snapshot of prompts holds, and which prompts a query takes at all."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.db.models import QuerySet

from annotation.funnel import Bucket, checked_options
from annotation.models import Project, Prompt, Split
from annotation.services.plans.licensed import licence_parts, licences_at, stated
from annotation.services.plans.rows import Row, group_name
from annotation.services.positions import Position, newest, pages, position_at


def prompt_options(options: Mapping[str, Any], splits: tuple[str, ...]) -> Row:
    """Splits (default train), languages and licences (default any) of a query, checked; licences
    stand in it where they are asked for alone."""
    known = {"languages": None, "splits": splits, "licences": None}
    checked = checked_options(options, known)
    licences = checked.get("licences")
    return {
        "languages": list(checked.get("languages", ())),
        "splits": list(checked.get("splits", (Split.TRAIN.value,))),
        **({"licences": list(licences)} if licences else {}),
    }


def prompt_bucket(
    prompt: Prompt, query: Row, licences: Mapping[int, str], written: int | None = None
) -> str:
    """licences: of sources, by their numbers, where a query asks for some. written: the source of
    an answer to it."""
    if query["languages"] and prompt.language not in query["languages"]:
        return Bucket.FILTERED_LANGUAGE
    if prompt.split not in query["splits"]:
        return Bucket.FILTERED_SPLIT
    if "licences" in query and not stated(prompt.source_id, [written], licences) <= set(
        query["licences"]
    ):
        return Bucket.FILTERED_LICENCE
    return prompt.split if prompt.text_alone else Bucket.NOT_TEXT


class PromptsPlan:
    """Prompts of some splits; every prompt of the project falls in one bucket."""

    def __init__(self, project: Project, options: Mapping[str, Any]) -> None:
        self.project = project
        self.query = prompt_options(options, tuple(Split.values))
        self.counts: Counter[str] = Counter()
        self.notes: dict[str, Any] = {}
        self.sources: Counter[int] = Counter()

    def position(self, up_to: Any) -> Position:
        parts = {"prompt": lambda: newest(Prompt.objects.filter(project=self.project))}
        asked = licence_parts(self.project) if "licences" in self.query else {}
        return position_at(up_to, parts | asked)

    def _all(self, position: Position) -> QuerySet[Prompt]:
        return Prompt.objects.filter(project=self.project, pk__lte=position["prompt"])

    def rows(
        self, position: Position, on_row: Callable[[], object] = lambda: None
    ) -> Iterator[Row]:
        licences = licences_at(self.project, position) if "licences" in self.query else {}
        for prompt in pages(self._all(position)):
            on_row()
            bucket = prompt_bucket(prompt, self.query, licences)
            self.counts[bucket] += 1
            if bucket == prompt.split:
                self.sources[prompt.source_id] += 1
                yield {
                    "id": str(prompt.pk),
                    "split": prompt.split,
                    "group": group_name(prompt),
                    "prompt": prompt.messages,
                    "task": prompt.task,
                    "language": prompt.language,
                }

    def is_complete(self, position: Position) -> bool:
        return sum(self.counts.values()) == self._all(position).count()
