"""A gate's numbers as a table: this version beside the one in force, and what each can do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from annotation.pages.charts import number

DECIDES, REFUSES, WARNS, TELLS = "decides", "refuses", "warns", "tells"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. role: decides, refuses, warns, or tells and nothing more."""

    name: str
    new: str
    old: str = ""
    difference: str = ""
    role: str = TELLS


def rows_of(numbers: Mapping[str, Any]) -> list[Row]:
    """Of a reward model's gate or a policy's; of older gates what they hold."""
    return [*_of_reward(numbers), *_of_policy(numbers)]


def shown(value: float | None, interval: Sequence[float] | None = None) -> str:
    """0.71 [0.65, 0.77]; nothing where there is no number."""
    if value is None:
        return ""
    if not interval or None in interval:
        return number(value)
    return f"{number(value)} [{number(interval[0])}, {number(interval[1])}]"


def _mean(found: Mapping[str, Any] | None) -> str:
    return shown(found["mean"], found["interval"]) if found else ""


def _of_reward(numbers: Mapping[str, Any]) -> Iterator[Row]:
    paired = "log_loss_difference" in numbers  # else its accuracy is held against a coin
    figures = (
        ("log_loss", _("Log loss"), DECIDES if paired else TELLS),
        ("accuracy", _("Accuracy on pairs"), REFUSES if paired else DECIDES),
    )
    for key, name, role in figures:
        if numbers.get(key) is not None:
            yield Row(
                name,
                shown(numbers[key], numbers.get(f"{key}_interval")),
                shown(numbers.get(f"old_{key}")),
                _mean(numbers.get(f"{key}_difference")),
                role,
            )
    yield from _calibration(numbers.get("calibration", {}))
    yield from _length(numbers.get("length_bias", {}))
    if "batch_difference" in numbers:
        allowed = number(numbers["batch_difference_allowed"])
        yield Row(
            _("A score alone and in a batch, largest difference"),
            shown(numbers["batch_difference"]),
            difference=_("at most %(allowed)s") % {"allowed": allowed},
            role=REFUSES,
        )


def _both(found: Mapping[str, Any], key: str, interval: str = "") -> tuple[str, str]:
    """A figure of the new model and of the old one."""
    new, old = (found.get(name) or {} for name in ("new", "old"))
    return shown(new.get(key), new.get(interval)), shown(old.get(key), old.get(interval))


def _calibration(found: Mapping[str, Any]) -> Iterator[Row]:
    if found.get("new"):
        name = _("Reliability slope (1 = calibrated, less = too sure)")
        yield Row(name, *_both(found, "slope", "interval"), role=WARNS)
        yield Row(_("Calibration error"), *_both(found, "ece"))


def _length(found: Mapping[str, Any]) -> Iterator[Row]:
    if new := found.get("new"):
        votes = _("by the votes %(share)s, difference %(excess)s") % {
            "share": shown(new["longer_preferred"]),
            "excess": _mean(new["excess"]),
        }
        name = _("The longer answer wins, as the model expects")
        yield Row(name, *_both(found, "longer_expected"), votes, WARNS)
        people = _("of the votes %(value)s") % {"value": shown(new["correlation_of_votes"])}
        name = _("Score margin with length margin, correlation")
        yield Row(name, *_both(found, "correlation"), people)


def _of_policy(numbers: Mapping[str, Any]) -> Iterator[Row]:
    if "score_gain" not in numbers:
        return
    yield Row(
        _("Score"),
        shown(numbers.get("score")),
        shown(numbers.get("old_score")),
        _mean(numbers["score_gain"]),
        DECIDES,
    )
    yield Row(
        _("KL to the root, nats per answer"),
        shown(numbers["kl_nats"], numbers.get("kl_interval")),
        difference=_("budget %(nats)s") % {"nats": number(numbers["kl_budget_nats"])},
        role=REFUSES,
    )
    yield Row(
        _("Tokens per answer"),
        shown(numbers.get("new_mean_tokens")),
        shown(numbers.get("old_mean_tokens")),
        _mean(numbers.get("length_gain")),
        WARNS,
    )
    yield Row(
        _("Answers without an end, share"),
        shown(numbers.get("new_share_without_end")),
        shown(numbers.get("old_share_without_end")),
    )
    judge = numbers.get("judge", {})
    if "judge" in judge:
        proxy = _mean(judge["proxy"]["gain"])
        yield Row(_("Gain over the root by the reward model"), proxy)
        more = _mean(judge.get("proxy_over_judge"))
        apart = _("the reward model sees %(more)s more") % {"more": more} if more else ""
        gain = _mean(judge["judge"]["gain"])
        yield Row(_("Gain over the root by the judge"), gain, difference=apart, role=REFUSES)
