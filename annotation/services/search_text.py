"""What search reads of a comparison; see models.search."""

from collections.abc import Iterable, Sequence

from annotation import markdown
from annotation.models import Comparison, Completion, Prompt, Purpose, SearchText
from annotation.search_words import grams_of


def index_texts(made: Iterable[tuple[Comparison, Prompt, Sequence[Completion]]]) -> None:
    """Make new comparisons known to search; hidden repeats are not looked for."""
    SearchText.objects.bulk_create(
        SearchText(comparison=comparison, grams=grams_of(_texts(prompt, completions)))
        for comparison, prompt, completions in made
        if comparison.purpose != Purpose.REPEAT
    )


def _texts(prompt: Prompt, completions: Sequence[Completion]) -> list[str]:
    asked = [markdown.plain(message["content"]) for message in prompt.messages]
    return [*asked, *(completion.text for completion in completions)]
