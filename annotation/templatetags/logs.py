"""{{ job.log_tail|without_colours }}: what a program said, without what only terminals read."""

import re

from django import template

from annotation.faults import in_words

register = template.Library()
ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|[ -/]*[0-~])"
)
"""ECMA-48, sections 5.4 to 5.6; the end of a log may begin within one, which is then left."""


@register.filter
def without_colours(text: str) -> str:
    """The text without the escape sequences of terminals."""
    return ESCAPES.sub("", text)


@register.filter
def as_fault(error: str) -> str:
    """{{ job.error|as_fault }}: why a job failed, in the reader's language, without colours."""
    return in_words(without_colours(error))
