"""What a sample job made, in a sentence or two, and why nothing where it is nothing."""

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.asking import ACROSS, Pairing
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
    return " ".join([made, *(words for words in (_beside(job), *_left_out(job)) if words)])


def _beside(job: TrainingJob) -> str:
    """Beside whose texts the new ones stand, where it is not the policy's own alone."""
    numbers = {one: job.result.get(f"asked_{one.value}", 0) for one in Pairing}
    parts = [f"{one.label} {number}" for one, number in numbers.items() if number]
    if not any(numbers[one] for one in ACROSS) and not job.result.get("length_matched"):
        return ""
    if matched := job.result.get("length_matched", 0):
        parts.append(_("matched in length %(count)s") % {"count": matched})
    return _("Beside texts of: %(parts)s.") % {"parts": ", ".join(parts)}


def _left_out(job: TrainingJob) -> list[str]:
    """Where the other prompts went."""
    few, without, gone, unlike, short = (
        job.result.get(key, 0)
        for key in (
            *("too_few_distinct", "without_text", "opponent_gone", "length_missed"),
            "not_planned",
        )
    )
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
        _("Prompts whose other text could not be had: %(count)s.") % {"count": gone}
        if gone
        else "",
        _("Not asked, for the mix had no prompt left for them: %(count)s.") % {"count": short}
        if short
        else "",
        _("Asked as they came, since no texts of one length were found: %(count)s.")
        % {"count": unlike}
        if unlike
        else "",
    ]
