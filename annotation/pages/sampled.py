"""What a sample job made, in a sentence or two, and why nothing where it is nothing."""

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.models import JobKind, JobStatus, TrainingJob


def made_by_sampling(job: TrainingJob) -> str:
    """Empty for any other job, and until it is done."""
    if job.kind != JobKind.SAMPLE or job.status != JobStatus.DONE:
        return ""
    planned = len(job.inputs.get("planned", ()))
    if not planned:
        return _(
            "Nothing was written: enough comparisons were open already, or the project has no "
            "prompt to write for."
        )
    made = ngettext(
        "Asked about %(prompts)s prompts, the policy made %(count)s new comparison.",
        "Asked about %(prompts)s prompts, the policy made %(count)s new comparisons.",
        job.result.get("comparisons", 0),
    ) % {"prompts": planned, "count": job.result.get("comparisons", 0)}
    return " ".join([made, *(words for words in _left_out(job) if words)])


def _left_out(job: TrainingJob) -> list[str]:
    """Where the other prompts went."""
    few, without = (job.result.get(key, 0) for key in ("too_few_distinct", "without_text"))
    caught = sum(job.result.get(key, 0) for key in ("leaks_caught", "alike_caught"))
    return [
        _("Prompts for which it had too few different answers: %(count)s.") % {"count": few}
        if few
        else "",
        _("Prompts that hold more than text, which it can't read: %(count)s.") % {"count": without}
        if without
        else "",
        _("Texts caught as leaks or as too much alike: %(count)s.") % {"count": caught}
        if caught
        else "",
    ]
