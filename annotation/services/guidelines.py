"""The guideline after it is written: who has read which version, and the entries below it."""

from collections.abc import Mapping

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext, gettext_lazy

from annotation.errors import BadInput, Conflict
from annotation.models import (
    Annotator,
    AnnotatorKind,
    FaqEntry,
    FaqWords,
    Guideline,
    GuidelineReading,
    Membership,
    Project,
    Role,
    User,
)
from annotation.services.projects import (
    LANGUAGE,
    NO_LANGUAGE,
    current_guideline,
    lock_project,
    new_guideline,
)
from annotation.storable import require_storable

MAX_QUESTION, MAX_ANSWER, MAX_ENTRIES = 500, 4_000, 100


def acknowledge(*, annotator: Annotator, guideline: Guideline) -> GuidelineReading:
    """Note that an annotator read a version; twice is once. Raises BadInput for a stranger's."""
    if guideline.project_id != annotator.project_id:
        raise BadInput(gettext("This guideline belongs to another project."))
    reading, _ = GuidelineReading.objects.get_or_create(annotator=annotator, guideline=guideline)
    return reading


def last_read(annotator: Annotator) -> Guideline | None:
    """The newest version that an annotator said they had read."""
    return (
        Guideline.objects.filter(readings__annotator=annotator, project=annotator.project_id)
        .order_by("-version")
        .first()
    )


def unread_by(guideline: Guideline) -> QuerySet[Annotator]:
    """The labelers at work in its project who never said that they had read a version."""
    at_work = Membership.objects.filter(
        project=guideline.project_id, role=Role.LABELER, user__is_active=True
    )
    return (
        Annotator.objects.filter(
            project=guideline.project_id,
            kind=AnnotatorKind.PERSON,
            user__in=at_work.values("user"),
        )
        .exclude(readings__guideline=guideline)
        .order_by("pseudonym")
    )


@transaction.atomic
def add_entry(
    *, project: Project, texts: Mapping[str, FaqWords], by: User | None
) -> tuple[Guideline, int]:
    """A new version with one entry more, and the entry's id. texts: language -> its words."""
    texts = _checked(texts)
    newest = _locked_newest(project)
    if len(newest.faq) >= MAX_ENTRIES:
        raise BadInput(
            gettext("A guideline has at most %(most)s questions; withdraw one first.")
            % {"most": MAX_ENTRIES}
        )
    identity = 1 + max(
        (entry["id"] for faq in project.guidelines.values_list("faq", flat=True) for entry in faq),
        default=0,
    )
    entry = FaqEntry(id=identity, texts=dict(texts))
    made = new_guideline(project=project, texts=newest.texts, by=by, faq=[*newest.faq, entry])
    return made, identity


@transaction.atomic
def change_entry(
    *, project: Project, entry: int, texts: Mapping[str, FaqWords], by: User | None
) -> Guideline:
    """A new version in which an entry has other words; without any, it is withdrawn.

    Raises Conflict where the newest version has no such entry.
    """
    texts = _checked(texts) if texts else {}
    newest = _locked_newest(project)
    if entry not in [one["id"] for one in newest.faq]:
        raise Conflict(
            gettext("Guideline %(version)s has no entry %(entry)s; it was withdrawn.")
            % {"version": newest.version, "entry": entry}
        )
    changed = [FaqEntry(id=entry, texts=dict(texts))] if texts else []
    faq = [new for one in newest.faq for new in (changed if one["id"] == entry else [one])]
    return new_guideline(project=project, texts=newest.texts, by=by, faq=faq)


def _locked_newest(project: Project) -> Guideline:
    lock_project(project)
    newest = current_guideline(project)
    if newest is None:
        raise Conflict(gettext("The project has no guideline yet; write one first."))
    return newest


def _checked(texts: Mapping[str, FaqWords]) -> dict[str, FaqWords]:
    """Trimmed; a language with neither question nor answer is left out."""
    kept = {}
    for language, words in texts.items():
        question, answer = words["question"].strip(), words["answer"].strip()
        if not question and not answer:
            continue
        if not LANGUAGE.fullmatch(language):
            raise BadInput(NO_LANGUAGE % {"seen": language[:40]})
        for what, text, most in (
            (gettext_lazy("question"), question, MAX_QUESTION),
            (gettext_lazy("answer"), answer, MAX_ANSWER),
        ):
            if not 1 <= len(text) <= most:
                raise BadInput(
                    gettext(
                        "The %(what)s in %(language)s needs 1 to %(most)s characters, not %(seen)s."
                    )
                    % {"what": what, "language": language, "most": most, "seen": len(text)}
                )
        kept[language] = FaqWords(
            question=" ".join(question.split()), answer=answer.replace("\r\n", "\n")
        )
    if not kept:
        raise BadInput(gettext("An entry needs a question and an answer in one language at least."))
    require_storable(kept)
    return kept
