"""Answers that people wrote to prompts: demonstrations, and better answers given at the desk."""

from django.db.models import Exists, OuterRef, Q, QuerySet

from annotation.models import AnnotatorKind, Forgotten, Generation, Origin, Preference, Project


def human_answers(project: Project, split: str) -> QuerySet[Generation]:
    """Of the prompts of a split; those of simulated labelers and models are nobody's.

    One that stands no more is none either: by the rule of snapshots of demonstrations
    (plans/demonstrations.py), read as the ledger is now.
    """
    by_people = Q(annotator=None) | Q(
        annotator__kind__in=(AnnotatorKind.PERSON, AnnotatorKind.OUTSIDE)
    )
    return Generation.objects.filter(
        _stands(project),
        by_people,
        origin=Origin.DEMONSTRATION,
        completion__prompt__project=project,
        completion__prompt__split=split,
    )


def _stands(project: Project) -> Q:
    """Somebody wrote the text outside an answer, or a valid answer of somebody whose data is not
    deleted gave it, or no answer that could be void did and nobody whose data is deleted wrote
    it."""
    forgotten = Forgotten.objects.filter(project=project).values("annotator")
    written = Generation.objects.filter(
        origin=Origin.DEMONSTRATION, completion=OuterRef("completion")
    )
    votes = Preference.objects.filter(project=project, ideal=OuterRef("completion")).exclude(
        annotator__in=forgotten
    )
    return (
        Q(Exists(written.filter(annotator=None)))
        | Q(Exists(votes.valid()))
        | ~(Q(Exists(votes)) | Q(Exists(written.filter(annotator__in=forgotten))))
    )
