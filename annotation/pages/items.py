"""An item as its annotator saw it: the conversation and the answers in their order, blind."""

from dataclasses import dataclass

from django.utils.safestring import SafeString

from annotation import markdown
from annotation.models import Assignment
from annotation.pages.answers import letters
from annotation.pages.label import Turn, texts_of, turns_of


@dataclass(frozen=True)
class Item:
    """Letters and texts; nothing about who wrote them."""

    comparison: int
    turns: list[Turn]
    answers: list[tuple[str, SafeString]]

    @property
    def is_pair(self) -> bool:
        return len(self.answers) == 2


def item_of(given: Assignment) -> Item:
    """What a lease showed."""
    page, texts = markdown.Page(), texts_of(given)
    answers = page.render_alike(texts)
    return Item(
        comparison=given.comparison_id,
        turns=turns_of(given.comparison.prompt, page),
        answers=list(zip(letters(len(texts)), answers, strict=True)),
    )
