"""What a gate says of a version: kept in English, shown in the reader's language.

A gate makes its sentence from one of these; `in_words` finds which it was, whatever it was filled
with, so that verdicts of before are shown in other languages too.
"""

import re
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext


def _(sentence: str) -> str:
    """Marks a sentence for translation, which happens where it is shown."""
    return sentence


FIRST_POLICY = _("The project's first policy.")
SFT_BY_ADMIN = _("%(name)s is in force; an SFT version takes its place only by an admin.")
FIRST_REWARD_TOO_FEW = _(
    "The first reward model; %(groups)s groups on dev are too few to judge it."
)
FIRST_REWARD = _("The first reward model: accuracy %(accuracy)s on %(groups)s groups of dev.")
JUDGE_TOO_FEW = _("A judge; %(groups)s groups on dev are too few to try it on.")
JUDGE = _("A judge: accuracy %(accuracy)s on %(groups)s groups of dev.")
UNJUDGED = _("No dev answers to compare with %(name)s on; it passes unjudged.")
REWARD_AGAINST = _(
    "Against %(name)s on %(groups)s groups of dev: accuracy %(accuracy)s, log loss %(log_loss)s."
)
REWARD_BETTER = _(
    "Better. Against %(name)s on %(groups)s groups of dev, look %(look)s: log loss %(log_loss)s, "
    "accuracy %(accuracy)s."
)
REWARD_NOT_WORSE = _(
    "Not worse by %(margin)s nats. Against %(name)s on %(groups)s groups of dev, look %(look)s: "
    "log loss %(log_loss)s, accuracy %(accuracy)s."
)
REWARD_WORSE = _(
    "Worse. Against %(name)s on %(groups)s groups of dev, look %(look)s: log loss %(log_loss)s, "
    "accuracy %(accuracy)s."
)
REWARD_UNDECIDED = _(
    "Undecided: about %(more)s more answered dev groups would tell. Against %(name)s on %(groups)s "
    "groups of dev, look %(look)s: log loss %(log_loss)s, accuracy %(accuracy)s."
)
REWARD_NEVER_DECIDED = _(
    "Undecided, and it looks no better: more answers may never tell. Against %(name)s on "
    "%(groups)s groups of dev, look %(look)s: log loss %(log_loss)s, accuracy %(accuracy)s."
)
BATCHES_DIFFER = _(
    "Its scores depend on what is scored beside them: the same answer differs by %(difference)s, "
    "and %(allowed)s is allowed."
)
NO_NUMBERS = _("Some of its scores are no numbers (NaN or infinite).")
TOO_SURE = _(
    "Too sure of itself: its log odds times %(slope)s [%(low)s, %(high)s] would be right on dev."
)
TOO_MODEST = _(
    "Less sure than it could be: its log odds times %(slope)s [%(low)s, %(high)s] would be right "
    "on dev."
)
FAR_TOO_SURE = _(
    "Far too sure of itself: its log odds times %(slope)s, or less, would be right on dev."
)
FAR_TOO_MODEST = _(
    "Far less sure than it could be: its log odds times %(slope)s, or more, would be right on dev."
)
AGAINST_THE_VOTES = _("It prefers what people reject: on dev its scores go against the votes.")
FOLLOWS_LENGTH = _(
    "It follows length more than people do: it expects the longer answer to win %(expected)s of "
    "the pairs, and by the votes it won %(preferred)s (difference %(excess)s)."
)
NO_PROMPT = _("The project has no prompt to try it on.")
POLICY_AGAINST = _(
    "Score against %(name)s on %(groups)s groups of %(where)s: %(gain)s; KL to the root "
    "%(kl_nats)s of %(budget_nats)s nats."
)
POLICY_BETTER = _(
    "Better. Score against %(name)s on %(groups)s groups of %(where)s, look %(look)s: %(gain)s; KL "
    "to the root %(kl_nats)s of %(budget_nats)s nats."
)
POLICY_NOT_WORSE = _(
    "Not worse by %(margin)s. Score against %(name)s on %(groups)s groups of %(where)s, look "
    "%(look)s: %(gain)s; KL to the root %(kl_nats)s of %(budget_nats)s nats."
)
POLICY_WORSE = _(
    "Worse. Score against %(name)s on %(groups)s groups of %(where)s, look %(look)s: %(gain)s; KL "
    "to the root %(kl_nats)s of %(budget_nats)s nats."
)
POLICY_UNDECIDED = _(
    "Undecided: about %(more)s more groups of prompts would tell. Score against %(name)s on "
    "%(groups)s groups of %(where)s, look %(look)s: %(gain)s; KL to the root %(kl_nats)s of "
    "%(budget_nats)s nats."
)
POLICY_NEVER_DECIDED = _(
    "Undecided, and more prompts may never tell. Score against %(name)s on %(groups)s groups of "
    "%(where)s, look %(look)s: %(gain)s; KL to the root %(kl_nats)s of %(budget_nats)s nats."
)
POLICY_BEYOND_BUDGET = _(
    "Beyond its KL budget. Score against %(name)s on %(groups)s groups of %(where)s, look "
    "%(look)s: %(gain)s; KL to the root %(kl_nats)s of %(budget_nats)s nats."
)
JUDGE_FINDS_WORSE = _("%(why)s Refused: the judge finds it worse than the root, %(gain)s.")
JUDGE_SEES_NO_GAIN = _(
    "The judge sees no certain gain over the root (%(judge)s) where the reward model sees one "
    "(%(proxy)s): read some answers before you trust it."
)
MUCH_LONGER = _("Its answers are much longer: %(new)s tokens, and %(old)s before (%(gain)s).")
GATE_FAILED = _("The gate itself failed: %(error)s")
PROMOTING_FAILED = _("%(why)s Promoting it failed: %(error)s")
SENTENCES = (
    FIRST_POLICY,
    SFT_BY_ADMIN,
    FIRST_REWARD_TOO_FEW,
    FIRST_REWARD,
    JUDGE_TOO_FEW,
    JUDGE,
    UNJUDGED,
    REWARD_AGAINST,
    REWARD_BETTER,
    REWARD_NOT_WORSE,
    REWARD_WORSE,
    REWARD_UNDECIDED,
    REWARD_NEVER_DECIDED,
    BATCHES_DIFFER,
    NO_NUMBERS,
    TOO_SURE,
    TOO_MODEST,
    FAR_TOO_SURE,
    FAR_TOO_MODEST,
    AGAINST_THE_VOTES,
    FOLLOWS_LENGTH,
    NO_PROMPT,
    POLICY_AGAINST,
    POLICY_BETTER,
    POLICY_NOT_WORSE,
    POLICY_WORSE,
    POLICY_UNDECIDED,
    POLICY_NEVER_DECIDED,
    POLICY_BEYOND_BUDGET,
    JUDGE_FINDS_WORSE,
    JUDGE_SEES_NO_GAIN,
    MUCH_LONGER,
    GATE_FAILED,
    PROMOTING_FAILED,
)
FEWEST_GROUPS = 20
"""With fewer on dev no accuracy says anything. policy/score_scale.py has the same, and can't be
imported here."""
WITHOUT_MEASURE = (FIRST_POLICY, FIRST_REWARD_TOO_FEW, JUDGE_TOO_FEW, UNJUDGED)
"""What stands for a pass that no number speaks for."""


def outcome_of(gate: Mapping[str, Any]) -> str:
    """passed, failed, undecided, or unjudged: it passed with nothing to judge it by, or is a later
    SFT version, which nothing refused.

    gate: as workers/promotion.py keeps it. Rows of before had no such verdict: their sentence says.
    """
    if gate.get("verdict") == "undecided":  # older rows passed with it
        return "undecided"
    why = gate.get("why", "")
    if not gate.get("passed"):
        return "unjudged" if _pattern(SFT_BY_ADMIN).match(why) else "failed"
    said = any(_pattern(one).match(why) for one in WITHOUT_MEASURE)  # promoting it may have failed
    return "unjudged" if said or gate.get("verdict") == "unjudged" else "passed"


def in_words(why: str) -> str:
    """A gate's sentence in the language in force; one that is none of these, as it is."""
    for sentence in SENTENCES:
        if found := _pattern(sentence).fullmatch(why):
            values = found.groupdict()
            if "why" in values:
                values["why"] = in_words(values["why"])
            return gettext(sentence) % values
    return why


def _pattern(sentence: str) -> re.Pattern[str]:
    """Of all that a sentence can be, filled with whatever."""
    parts = re.split(r"%\((\w+)\)s", sentence)
    literal, names = map(re.escape, parts[::2]), parts[1::2]
    filled = next(literal) + "".join(
        f"(?P<{name}>.+?){text}" for name, text in zip(names, literal, strict=True)
    )
    return re.compile(filled, re.DOTALL)
