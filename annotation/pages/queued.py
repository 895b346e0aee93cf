"""Why a queued job waits, in a sentence."""

from collections.abc import Collection

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.models import JobStatus, TrainingJob
from annotation.services.queued import Wait, why_queued


def waits_of(jobs: Collection[TrainingJob]) -> dict[int, str]:
    """By id, for those of a project's jobs that are queued."""
    by_id = {job.pk: job for job in jobs}
    return {pk: in_words(wait, by_id[pk]) for pk, wait in why_queued(jobs).items()}


def in_words(wait: Wait, job: TrainingJob) -> str:
    """What the job waits for, and what may be wrong."""
    if wait.needs is not None:
        return _sentence_of_need(wait.needs)
    if wait.running or wait.before:
        return " ".join(filter(None, (_at_work(wait, job), _before(wait))))
    if wait.silent_seconds:
        return _(
            "Nothing is before it, and no worker has taken it for %(seconds)s seconds. Does a "
            "worker listen to the queue “%(queue)s”?"
        ) % {"seconds": wait.silent_seconds, "queue": wait.queue}
    return _("It starts as soon as a worker takes it.")


def _sentence_of_need(needed: TrainingJob) -> str:
    named = {"kind": needed.get_kind_display(), "number": needed.pk}
    if needed.status == JobStatus.RUNNING:
        return _("It waits until job %(number)s (%(kind)s) has ended, which runs.") % named
    return _("It waits until job %(number)s (%(kind)s) has ended, which is queued too.") % named


def _at_work(wait: Wait, job: TrainingJob) -> str:
    """Jobs of other projects are not named."""
    if not wait.running:
        return ""
    own = [each for each in wait.running if each.project_id == job.project_id]
    if not own:
        return _("Its workers are busy with another project.")
    names = ", ".join(f"{each.get_kind_display()} #{each.pk}" for each in own)
    return _("Its workers are busy with %(jobs)s.") % {"jobs": names}


def _before(wait: Wait) -> str:
    if not wait.before:
        return ""
    words = ngettext(
        "%(count)s queued job is before it.", "%(count)s queued jobs are before it.", wait.before
    )
    return words % {"count": wait.before}
