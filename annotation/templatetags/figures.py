"""{{ one.undefined|why_no_figure }}: what a statistic lacks, in the reader's language.

annotation/intervals.py and its callers say it in English; their sentences are known here.
"""

import re

from django import template
from django.utils.translation import gettext_lazy

register = template.Library()
SAME = gettext_lazy("No figure: every answer is the same.")
NOBODY_SHARES = gettext_lazy("No figure: no question has the answers of two people.")
KNOWN = [
    ("there is no answer", gettext_lazy("No figure: there is no answer yet.")),
    ("there is no case", gettext_lazy("No figure: there is nothing to count yet.")),
    ("there is no pair", gettext_lazy("No figure: there is nothing to count yet.")),
    ("every answer is the same", SAME),
    ("fewer than two annotators share a unit", NOBODY_SHARES),
    (
        r"no two annotators share (?P<count>\d+) units",
        gettext_lazy("No figure: no two people have answered %(count)s of the same questions."),
    ),
    (
        r"units have from (?P<low>\d+) to (?P<high>\d+) answers: see Krippendorff's alpha",
        gettext_lazy(
            "No figure: it needs equally many answers to every question, and they have from "
            "%(low)s to %(high)s. Read Krippendorff's alpha instead."
        ),
    ),
    (
        "no two annotators both ordered something that they both ranked",
        gettext_lazy("No figure: no two people have ordered the same list of three or more."),
    ),
    (
        "no two annotators put the same two in a strict order",
        gettext_lazy("No figure: no two people have put the same two of a list in an order."),
    ),
    (
        r"there are fewer than (?P<count>\d+) answers(?: to count)?",
        gettext_lazy("No figure: it takes %(count)s answers."),
    ),
    (
        "no strict pair has two different lengths",
        gettext_lazy("No figure: no answer chose between texts of different length."),
    ),
    (
        "no session has more than one answer",
        gettext_lazy("No figure: nobody has answered twice on one day."),
    ),
]


@register.filter
def why_no_figure(undefined: str) -> str:
    """A Statistic's sentence as the page says it; one that is not known, as it is."""
    reason = undefined.removeprefix("undefined because ")
    for pattern, words in KNOWN:
        if found := re.fullmatch(pattern, reason):
            return str(words) % found.groupdict()
    return undefined
