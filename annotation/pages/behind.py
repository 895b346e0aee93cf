"""The votes that a figure is made of, as the page of the list takes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import QuerySet
from django.http import QueryDict

from annotation.models import Preference
from annotation.pages.preferences import row_of

ROWS_PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the parts that a list can be narrowed to."""

    name: str
    label: str
    n: int
    is_chosen: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Behind:
    """What is behind one figure."""

    heading: str
    ids: Sequence[int] | QuerySet[Preference]
    """Of the votes; a list has the newest first."""
    num_votes: int
    choices: list[Choice] = field(default_factory=list)

    def page(self, before: int | None) -> tuple[list[int], bool]:
        """Ids of one page, and whether there are older ones; before: the last id of the page
        before."""
        if isinstance(self.ids, QuerySet):
            rows = self.ids if before is None else self.ids.filter(pk__lt=before)
            some = list(rows.order_by("-pk").values_list("pk", flat=True)[: ROWS_PER_PAGE + 1])
        else:
            older = (pk for pk in self.ids if before is None or pk < before)
            some = [pk for pk, _ in zip(older, range(ROWS_PER_PAGE + 1), strict=False)]
        return some[:ROWS_PER_PAGE], len(some) > ROWS_PER_PAGE


def list_of(behind: Behind, asked: QueryDict) -> dict[str, Any]:
    """One page of the votes, for the template; `before` in what is asked is the last id of the page
    before."""
    before = asked.get("before", "")
    is_id = before.isascii() and before.isdigit() and len(before) < 18
    ids, has_older = behind.page(int(before) if is_id else None)
    answers = (
        Preference.objects.filter(pk__in=ids)
        .select_related("annotator", "comparison__prompt", "scheme")
        .prefetch_related("rankings")
        .order_by("-pk")
    )
    query = asked.copy()
    if has_older:
        query["before"] = str(ids[-1])
    return {
        "rows": [row_of(answer) for answer in answers],
        "behind": behind,
        "older": query.urlencode() if has_older else "",
        "everybody": True,
    }
