"""{{ job.reason|in_words }}: why a job was asked for, in the reader's language.

Workers and services write reasons into the ledger in English, once for all readers; the sentences
that they compose are known here, and whatever a person wrote is shown as it is.
"""

import re

from django import template
from django.utils.translation import gettext_lazy

register = template.Library()
KNOWN = [
    (r"(?P<count>\d+) new preferences", gettext_lazy("%(count)s new preferences")),
    (
        r"(?P<count>\d+) minutes since the last reward job",
        gettext_lazy("%(count)s minutes since the last reward job"),
    ),
    (r"(?P<name>[^,]+) was promoted", gettext_lazy("%(name)s was promoted")),
    (r"rolled back to (?P<name>[^,]+)", gettext_lazy("rolled back to %(name)s")),
    (r"the judge of reward job (?P<job>\d+)", gettext_lazy("the judge of reward job %(job)s")),
    (
        r"where judges start, beside (?P<name>[^,]+)",
        gettext_lazy("where judges start, beside %(name)s"),
    ),
    (
        r"(?P<count>\d+) of (?P<target>\d+) comparisons are open",
        gettext_lazy("%(count)s of %(target)s comparisons are open"),
    ),
    ("first start of the demo", gettext_lazy("first start of the demo")),
]


@register.filter
def in_words(reason: str) -> str:
    """A reason or each of its parts, translated; where one is not known, the whole as it is."""
    if (whole := _translated(reason)) is not None:
        return whole
    parts = [_translated(part) for part in reason.split(", ")]
    known = [part for part in parts if part is not None]
    return ", ".join(known) if len(known) == len(parts) else reason


def _translated(part: str) -> str | None:
    for pattern, words in KNOWN:
        if found := re.fullmatch(pattern, part):
            return str(words) % found.groupdict()
    return None
