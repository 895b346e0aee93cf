"""Find comparisons by their text and what is known of them; tag them, ask about them again."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import Case, Exists, F, OuterRef, PositiveSmallIntegerField, Q, QuerySet, When
from django.db.models.expressions import RawSQL
from django.utils.translation import gettext

from annotation.errors import BadInput
from annotation.models import (
    Comparison,
    ComparisonCompletion,
    CompletionJudgment,
    CompletionScore,
    Generation,
    Preference,
    Project,
    Purpose,
    Review,
    ReviewState,
    SearchText,
    Slot,
    Tag,
    Tagging,
    User,
)
from annotation.search_words import query_of
from annotation.services.audit import record
from annotation.services.batches import MOST_ANSWERS
from annotation.services.versions import in_force
from annotation.storable import require_storable

MOST_AT_ONCE = 5000
"""Comparisons that one act changes."""
MOST_TAG = 40
ROWS_AT_ONCE = 500
ASKED_ABOUT = (Purpose.PRODUCTION, Purpose.EVALUATION)
"""Purposes that the queue hands out in turn."""
_VECTOR = "annotation_tokens(grams)"
"""As it is indexed (migration 0033_search)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What comparisons must have; what is empty or None asks nothing."""

    text: str = ""
    version: int | None = None
    """Of a policy that wrote one of the completions."""
    annotator: str = ""
    """Pseudonym of somebody whose answer stands."""
    flag: str = ""
    """That somebody set on one of the completions."""
    disputed: bool = False
    """People disagree on it, and nobody has decided."""
    tag: str = ""
    language: str = ""
    split: str = ""
    made_as: str = ""
    """A selector of annotation.asking."""
    score_from: float | None = None
    score_to: float | None = None
    """One of the completions has such a score of the reward model in force."""


def found(project: Project, wanted: Wanted) -> QuerySet[Comparison]:
    """The comparisons that have all of it, newest first; hidden repeats are left out.

    Raises BadInput for a text without anything to look up, or scores where no reward model is in
    force.
    """
    rows = Comparison.objects.filter(project=project, repeat_of=None).order_by("-pk")
    if wanted.text.strip():
        rows = rows.filter(pk__in=_with_text(wanted.text))
    if wanted.version is not None:
        rows = rows.filter(_has_completion(Generation, model_version=wanted.version))
    if wanted.annotator:
        answers = Preference.objects.valid().filter(annotator__pseudonym=wanted.annotator)
        rows = rows.filter(Exists(answers.filter(comparison=OuterRef("pk"))))
    if wanted.flag:
        judgments = CompletionJudgment.objects.filter(
            _flagged(wanted.flag),
            preference__comparison=OuterRef("pk"),
            preference__current=True,
            preference__voided_at=None,
        )
        rows = rows.filter(Exists(judgments))
    if wanted.disputed:
        reviews = Review.objects.filter(project=project, state=ReviewState.OPEN)
        rows = rows.filter(Exists(reviews.filter(comparison=OuterRef("pk"))))
    if wanted.tag:
        tagged = Tagging.objects.filter(tag__project=project, tag__name=wanted.tag)
        rows = rows.filter(Exists(tagged.filter(comparison=OuterRef("pk"))))
    if wanted.language:
        rows = rows.filter(language=wanted.language)
    if wanted.split:
        rows = rows.filter(prompt__split=wanted.split)
    if wanted.made_as:
        # said once more in the words of the partial index, or SQLite would not go along it
        rows = rows.filter(selector=wanted.made_as).exclude(selector="")
    if wanted.score_from is not None or wanted.score_to is not None:
        reward = in_force(project, Slot.REWARD)
        if reward is None:
            raise BadInput(gettext("No reward model is in force, so there are no scores."))
        limits: dict[str, Any] = {"model_version": reward}
        if wanted.score_from is not None:
            limits["score__gte"] = wanted.score_from
        if wanted.score_to is not None:
            limits["score__lte"] = wanted.score_to
        rows = rows.filter(_has_completion(CompletionScore, **limits))
    return rows


def _has_completion(model: type[Generation] | type[CompletionScore], **fields: Any) -> Exists:
    """One of the comparison's completions has such a row."""
    known = model.objects.filter(completion=OuterRef("completion"), **fields)
    entries = ComparisonCompletion.objects.filter(comparison=OuterRef("pk"))
    return Exists(entries.filter(Exists(known)))


def _flagged(flag: str) -> Q:
    """JSON's `contains`, which Django has for PostgreSQL alone."""
    if connection.vendor == "postgresql":
        return Q(flags__contains=[flag])
    table = CompletionJudgment._meta.db_table
    sql = f"SELECT {table}.id FROM {table}, json_each({table}.flags) WHERE json_each.value = %s"
    return Q(pk__in=RawSQL(sql, [flag]))


def _with_text(text: str) -> RawSQL:
    """Ids of comparisons that a text is found in, as a subquery."""
    query = query_of(text)
    table = SearchText._meta.db_table
    if connection.vendor != "postgresql":
        match = " AND ".join(
            f'"{" ".join(phrase.tokens)}"{"*" if phrase.goes_on else ""}'
            for phrase in query.phrases
        )
        return RawSQL("SELECT rowid FROM annotation_fts WHERE annotation_fts MATCH %s", [match])
    lexemes = [
        f"'{token}'{':*' if phrase.goes_on and place == len(phrase.tokens) else ''}"
        for phrase in query.phrases
        for place, token in enumerate(phrase.tokens, 1)
    ]
    sql = f"SELECT comparison_id FROM {table} WHERE {_VECTOR} @@ %s::tsquery"
    parameters = [" & ".join(dict.fromkeys(lexemes))]
    for phrase in query.phrases:
        if len(phrase.tokens) > 1:  # the index knows no order
            sql += " AND ' ' || grams || ' ' LIKE %s"
            end = "%" if phrase.goes_on else " %"
            parameters.append(f"% {' '.join(phrase.tokens)}{end}")
    return RawSQL(sql, parameters)


def answers_to(comparisons: Sequence[int]) -> dict[int, list[int]]:
    """Comparison -> ids of the answers to it that stand, oldest first."""
    answers: dict[int, list[int]] = {pk: [] for pk in comparisons}
    standing = Preference.objects.valid().filter(comparison__in=comparisons).order_by("pk")
    for comparison, answer in standing.values_list("comparison", "pk"):
        answers[comparison].append(answer)
    return answers


def tags_of(project: Project) -> list[str]:
    """The names of the project's tags, in order."""
    return list(Tag.objects.filter(project=project).values_list("name", flat=True))


@transaction.atomic
def tag_comparisons(
    *, project: Project, comparisons: Iterable[int], name: str, by: User | None
) -> int:
    """Give a tag to comparisons of the project; how many had not had it. Raises BadInput."""
    name = _tag_name(name)
    ids = _of_project(project, comparisons)
    tag, _ = Tag.objects.get_or_create(project=project, name=name)
    had = Tagging.objects.filter(tag=tag).values("comparison")
    new = list(ids.exclude(pk__in=had).values_list("pk", flat=True))
    Tagging.objects.bulk_create(
        (Tagging(tag=tag, comparison_id=pk, by=by) for pk in new),
        batch_size=ROWS_AT_ONCE,
        ignore_conflicts=True,
    )
    if new:
        record(action="comparison.tag", target=tag, project=project, actor=by, name=name,
               comparisons=new)  # fmt: skip
    return len(new)


@transaction.atomic
def untag_comparisons(
    *, project: Project, comparisons: Iterable[int], name: str, by: User | None
) -> int:
    """Take a tag from comparisons of the project; how many had it. A tag that nothing has any more
    is gone. Raises BadInput."""
    name = _tag_name(name)
    tag = Tag.objects.filter(project=project, name=name).first()
    if tag is None:
        raise BadInput(gettext("There is no tag %(name)s.") % {"name": repr(name)})
    ids = list(_of_project(project, comparisons).values_list("pk", flat=True))
    gone = 0
    for some in _some(ids):
        gone += Tagging.objects.filter(tag=tag, comparison__in=some).delete()[0]
    if gone:
        record(action="comparison.untag", target=tag, project=project, actor=by, name=name,
               comparisons=ids)  # fmt: skip
    if not tag.taggings.exists():
        tag.delete()
    return gone


@transaction.atomic
def ask_again(*, project: Project, comparisons: Iterable[int], by: User | None) -> int:
    """Want one more answer, of somebody who has not seen it, to each of these comparisons; how many
    that is. Retired ones, hidden checks and repeats, imported ones, which nobody here is asked
    about, and what is asked outside the queue stay as they are, and so do those that wait for an
    answer already: asking twice is asking once. Raises BadInput.
    """
    fit = _of_project(project, comparisons).filter(
        retired_at=None,
        repeat_of=None,
        purpose__in=ASKED_ABOUT,
        answers_wanted__gt=0,
        answers_wanted__lt=MOST_ANSWERS,
        open_slots=0,
    )
    # held in one order, or two who ask at once might wait for each other
    ids = list(fit.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True))
    one_more = F("answers_wanted") + 1
    for some in _some(ids):
        Comparison.objects.filter(pk__in=some).update(
            answers_wanted=one_more,
            open_slots=F("open_slots") + 1,
            full_overlap=Case(
                When(full_overlap__lt=one_more, then=one_more),
                default=F("full_overlap"),
                output_field=PositiveSmallIntegerField(),
            ),
        )
    if ids:
        record(action="comparison.ask_again", project=project, actor=by, comparisons=ids)
    return len(ids)


def _tag_name(name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name) > MOST_TAG:
        raise BadInput(
            gettext("A tag has 1 to %(most)s characters: %(seen)s.")
            % {"most": MOST_TAG, "seen": repr(name[:80])}
        )
    require_storable(name)
    return name


def _of_project(project: Project, comparisons: Iterable[int]) -> QuerySet[Comparison]:
    """These of the project; others' ids are none. Raises BadInput for none or too many."""
    ids = list(dict.fromkeys(comparisons))
    if not 1 <= len(ids) <= MOST_AT_ONCE:
        raise BadInput(
            gettext("Choose 1 to %(most)s comparisons, not %(count)s.")
            % {"most": MOST_AT_ONCE, "count": len(ids)}
        )
    return Comparison.objects.filter(project=project, pk__in=ids)


def _some(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + ROWS_AT_ONCE] for start in range(0, len(ids), ROWS_AT_ONCE))
