"""Answers that people wrote to prompts: demonstrations, and better answers given at the desk."""

from django.db.models import Q, QuerySet

from annotation.models import AnnotatorKind, Generation, Origin, Project


def human_answers(project: Project, split: str) -> QuerySet[Generation]:
    """Of the prompts of a split; those of simulated labelers and models are nobody's."""
    by_people = Q(annotator=None) | Q(
        annotator__kind__in=(AnnotatorKind.PERSON, AnnotatorKind.OUTSIDE)
    )
    return Generation.objects.filter(
        by_people,
        origin=Origin.DEMONSTRATION,
        completion__prompt__project=project,
        completion__prompt__split=split,
    )
