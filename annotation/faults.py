"""Why a job failed, in the reader's language: kept in English, as worker or trainer said it.

Workers and laboratories know no reader. The sentences that they make most are known here, whatever
they are filled with; one that is none of these is shown as it is.
"""

import re

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

KINDS = {
    "comparisons": _("comparisons"),
    "demonstrations": _("demonstrations"),
    "prompts": _("prompts"),
}
NEEDS = {
    "a policy in force to write with": _("a policy in force to write with"),
    "a policy in force to improve": _("a policy in force to improve"),
    "a pretrained model to start from": _("a pretrained model to start from"),
    "a reward model in force": _("a reward model in force"),
}
WORDS: dict[str, dict[str, str | Promise]] = {"what": {**NEEDS}, "kind": {**KINDS}}
"""Names of parts whose values are words too, and these words."""
Known = list[tuple[str, str | Promise]]
KNOWN: Known = [
    (r"Training diverged: (?P<said>.*)", _("Training diverged: %(said)s")),
    (
        r"The trainer ended with exit code (?P<code>-?\d+): (?P<said>.*)",
        _("The trainer ended with exit code %(code)s: %(said)s"),
    ),
    (
        r"The worker vanished (?P<count>\d+) times while this job ran; it is not tried again\.",
        _("The worker vanished %(count)s times while this job ran; it is not tried again."),
    ),
    (r"The worker failed: (?P<said>.*)", _("The worker failed: %(said)s")),
    (
        r"This job needs (?P<what>.+), and the project has none\.",
        _("This job needs %(what)s, and the project has none."),
    ),
    (
        r"The project has no (?P<kind>\w+) to train on \((?P<splits>.*)\)\.",
        _("The project has no %(kind)s to train on (%(splits)s)."),
    ),
    (
        r"A (?P<job>\w+) job reads one file, inputs\.data names (?P<count>\d+)\.",
        _("A %(job)s job reads one file, inputs.data names %(count)s."),
    ),
    (
        r"(?P<config>\w+) has no setting '(?P<name>[^']*)'; it has (?P<known>.*)",
        _("%(config)s has no setting '%(name)s'; it has %(known)s"),
    ),
    (
        r"(?P<name>\w+) must be one of (?P<known>.*): (?P<value>.*)",
        _("%(name)s must be one of %(known)s: %(value)s"),
    ),
    (
        r"(?P<name>\w+) must be above (?P<limit>\S+): (?P<value>.*)",
        _("%(name)s must be above %(limit)s: %(value)s"),
    ),
    (
        r"(?P<name>\w+) must be >= (?P<limit>\S+): (?P<value>.*)",
        _("%(name)s must be >= %(limit)s: %(value)s"),
    ),
]


def in_words(error: str, known: Known = KNOWN) -> str:
    """The sentence in the language in force; in English it is what was said.

    known: patterns of sentences and what they say; a part named `said` is one of them again.
    """
    for pattern, sentence in known:
        if found := re.fullmatch(pattern, error.strip(), re.DOTALL):
            values = found.groupdict()
            for name, words in WORDS.items():
                if name in values:
                    values[name] = str(words.get(values[name], values[name]))
            if "said" in values:
                values["said"] = in_words(values["said"], known)
            return str(sentence) % values
    return error
