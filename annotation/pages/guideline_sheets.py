"""The guideline for reading: a sheet per language, the reader's own open, and what is new in it."""

from dataclasses import dataclass

from django.db.models import Subquery
from django.utils.safestring import SafeString

from annotation import markdown, worddiff
from annotation.languages import language_name, reader_language
from annotation.models import Annotator, Guideline
from annotation.worddiff import Piece


@dataclass(frozen=True)
class Sheet:
    """A guideline in one language, rendered."""

    language: str
    name: str
    """What its readers call the language."""
    html: SafeString
    faq: list[tuple[str, SafeString]]
    is_open: bool


@dataclass(frozen=True)
class News:
    """What an annotator has not read yet: all of it (since = None), or what has changed since."""

    since: int | None
    pieces: list[Piece]


@dataclass(frozen=True)
class Panel:
    """The guideline beside the task."""

    guideline: Guideline
    sheets: list[Sheet]
    news: News | None
    newest: int | None
    """The version in force, where it is not the one that the lease was given under."""


def sheets_of(guideline: Guideline) -> list[Sheet]:
    """The reader's language first."""
    own = guideline.nearest(reader_language())
    page = markdown.Page()
    return [
        Sheet(
            language=language,
            name=language_name(language),
            html=page.render(guideline.text_in(language)),
            faq=[
                (words["question"], page.render(words["answer"]))
                for words in guideline.faq_in(language)
            ],
            is_open=language == own,
        )
        for language in [own, *(one for one in guideline.languages if one != own)]
    ]


def panel_of(guideline: Guideline, annotator: Annotator) -> Panel:
    """The version that a lease was given under, and what of it is new to its annotator."""
    in_project = Guideline.objects.filter(project=annotator.project_id).order_by("-version")
    own = in_project.filter(readings__annotator=annotator).values("version")[:1]
    newest, read = in_project.values_list("version", Subquery(own))[0]
    return Panel(
        guideline=guideline,
        sheets=sheets_of(guideline),
        news=_news(guideline, read),
        newest=newest if newest != guideline.version else None,
    )


def _news(guideline: Guideline, read: int | None) -> News | None:
    if read is None:
        return News(since=None, pieces=[])
    if read >= guideline.version:
        return None
    language = reader_language()
    known = Guideline.objects.get(project=guideline.project_id, version=read)
    before, now = known.whole(language), guideline.whole(language)
    if before == now:  # it changed in a language that this annotator does not read
        return None
    return News(since=read, pieces=worddiff.folded(worddiff.changes(before, now)))
