"""Asking for an order alone: the labeling form without a lease, for experts' answers and practice.

Of the scheme it keeps the axes and what may be said instead of an order; strength, ratings, flags
and the ideal answer are no matter of gold. The note is there to say why.
"""

from django.http import QueryDict
from django.utils import timezone

from annotation.models import Annotator, Assignment, Comparison, Scheme
from annotation.pages.answers import answer_from
from annotation.pages.label import Work, texts_of, work_of
from annotation.services.answers import Answer
from annotation.services.leases import shown_order
from annotation.services.schemes import Options


def asked_for_order(comparison: Comparison, annotator: Annotator) -> Assignment:
    """What is shown and asked, as a lease that is never stored."""
    scheme, now = comparison.batch.scheme, timezone.now()
    options = Options.of(scheme.options)
    return Assignment(
        pk=0,
        project=annotator.project,
        comparison=comparison,
        annotator=annotator,
        presented_order=shown_order(comparison, annotator),
        leased_at=now,
        expires_at=now,
        scheme=Scheme(
            project=scheme.project,
            version=scheme.version,
            axes=scheme.axes,
            allow_tie=scheme.allow_tie,
            allow_both_bad=scheme.allow_both_bad,
            allow_cannot_tell=scheme.allow_cannot_tell,
            options=Options(
                allow_partial=options.allow_partial, acceptability=options.acceptability
            ).as_json(),
        ),
    )


def form_for(asked: Assignment, posted: QueryDict) -> Work:
    """The form; posted: a refused answer, so that nothing typed is lost."""
    return work_of(asked, posted, is_edit=True)


def order_from(asked: Assignment, posted: QueryDict) -> Answer:
    """What was filled in. Raises BadRanking with a sentence in the reader's language."""
    return answer_from(posted, asked.scheme, asked.presented_order, texts_of(asked))
