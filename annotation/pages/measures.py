"""What figures of jobs and versions are called: the laboratories' keys, in the reader's language.

A key that stands nowhere here is shown as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.pages.charts import number

LONGEST_TEXT = 200
PHASES: Mapping[str, str | Promise] = {
    "train": gettext_lazy("Training"),
    "ppo": gettext_lazy("Training"),
    "dev": gettext_lazy("On the dev split"),
    "heldout": gettext_lazy("On held-out text"),
    "final": gettext_lazy("After the last step"),
    "scores": gettext_lazy("Scale of the scores"),
    "data": gettext_lazy("Data"),
    "prompts": gettext_lazy("Prompts"),
    "forward": gettext_lazy("How it computes"),
    "kept": gettext_lazy("Weights that were kept"),
    "alarms": gettext_lazy("Alarms"),
    "machine": gettext_lazy("Machine"),
    "skipped": gettext_lazy("Skipped steps"),
    "early_stop": gettext_lazy("Stopped early"),
    "kl_stop": gettext_lazy("Stopped at the KL limit"),
}
FIRST = ("final", "dev", "heldout", "scores", "ppo", "train")
NAMES: Mapping[str, str | Promise] = {
    "accuracy": gettext_lazy("Accuracy on pairs"),
    "accuracy_difference": gettext_lazy("Accuracy, difference"),
    "accuracy_interval": gettext_lazy("Accuracy, interval"),
    "against": gettext_lazy("Compared with"),
    "alarms": gettext_lazy("Alarms raised"),
    "approxkl": gettext_lazy("KL of one update, nats per token"),
    "baseline": gettext_lazy("Score of the reference's answers"),
    "batch_difference": gettext_lazy("A score alone and in a batch, largest difference"),
    "batch_difference_allowed": gettext_lazy("Difference allowed"),
    "best_step": gettext_lazy("Best step"),
    "bf16": gettext_lazy("Half precision (bf16)"),
    "blank": gettext_lazy("Prompts with a blank answer"),
    "bits_per_byte": gettext_lazy("Bits per byte"),
    "calibrated_ece": gettext_lazy("Calibration error, calibrated"),
    "calibrated_log_loss": gettext_lazy("Log loss, calibrated"),
    "calibration": gettext_lazy("Calibration"),
    "cpu_percent": gettext_lazy("CPU, percent of a core"),
    "clipfrac": gettext_lazy("Clipped tokens, share"),
    "compiled": gettext_lazy("Compiled"),
    "correlation": gettext_lazy("Score margin with length margin, correlation"),
    "correlation_of_votes": gettext_lazy("Votes with length margin, correlation"),
    "deviation": gettext_lazy("Deviation on the anchors"),
    "distinct_2": gettext_lazy("Distinct token pairs, share"),
    "documents": gettext_lazy("Documents"),
    "ece": gettext_lazy("Calibration error"),
    "end_rate": gettext_lazy("Answers that end by themselves"),
    "entropy": gettext_lazy("Entropy, nats per token"),
    "exp_abs_dlogp": gettext_lazy("Sampler against trainer, ratio"),
    "excess": gettext_lazy("Expected less preferred"),
    "explained_variance": gettext_lazy("Explained variance of the values"),
    "gain": gettext_lazy("Gain"),
    "gain_at_look": gettext_lazy("Gain, at the level of the look"),
    "gpu_memory_mb": gettext_lazy("GPU memory in use, MB"),
    "gpu_percent": gettext_lazy("GPU at work, percent of the time"),
    "gpu_reserved_mb": gettext_lazy("GPU memory reserved, MB"),
    "grad_norm": gettext_lazy("Gradient norm"),
    "groups": gettext_lazy("Groups on dev"),
    "head_in_pieces": gettext_lazy("Head computed in pieces"),
    "human_accuracy": gettext_lazy("Accuracy of people against each other"),
    "identical": gettext_lazy("Prompts with the same text twice"),
    "interval": gettext_lazy("interval"),
    "judge": gettext_lazy("Judge"),
    "kept_step": gettext_lazy("From step"),
    "kl_budget_nats": gettext_lazy("KL budget, nats"),
    "kl_interval": gettext_lazy("KL to the reference, interval"),
    "kl_coef": gettext_lazy("KL coefficient"),
    "kl_nats": gettext_lazy("KL to the reference, nats per answer"),
    "kl_nats_k3": gettext_lazy("KL to the reference, by k3"),
    "kl_smoothed": gettext_lazy("KL to the reference, smoothed"),
    "kl_stop_nats": gettext_lazy("KL limit, nats"),
    "length": gettext_lazy("Length"),
    "length_gain": gettext_lazy("Length, gain"),
    "length_bias": gettext_lazy("Length bias"),
    "log_loss": gettext_lazy("Log loss"),
    "log_loss_difference": gettext_lazy("Log loss, difference"),
    "longer_expected": gettext_lazy("The longer answer wins, as the model expects"),
    "longer_preferred": gettext_lazy("The longer answer wins, by the votes"),
    "loss": gettext_lazy("Loss"),
    "level": gettext_lazy("Level of this look"),
    "look": gettext_lazy("Look at dev"),
    "finding": gettext_lazy("Finding"),
    "more_groups": gettext_lazy("More dev groups wanted, about"),
    "lr": gettext_lazy("Learning rate"),
    "margin": gettext_lazy("Score margin, chosen over rejected"),
    "masked_nats": gettext_lazy("Loss at masked tokens, nats"),
    "mean": gettext_lazy("mean"),
    "mean_tokens": gettext_lazy("Tokens per answer"),
    "missing_end": gettext_lazy("Score lost for a missing end"),
    "n": gettext_lazy("Comparisons"),
    "name": gettext_lazy("Name"),
    "new": gettext_lazy("The new one"),
    "num_groups": gettext_lazy("Groups"),
    "num_lists_shortened": gettext_lazy("Lists shortened"),
    "num_no_strict_pair": gettext_lazy("Without a strict pair"),
    "num_pairs": gettext_lazy("Number of pairs"),
    "num_prompts_shortened": gettext_lazy("Prompts shortened"),
    "num_read_cut": gettext_lazy("Answers too long to be scored whole"),
    "num_same_tokens": gettext_lazy("Alike as tokens"),
    "num_ties": gettext_lazy("Ties"),
    "num_tokens": gettext_lazy("Tokens in the step"),
    "num_too_long": gettext_lazy("Too long"),
    "num_used": gettext_lazy("Comparisons used"),
    "objective": gettext_lazy("Objective"),
    "old": gettext_lazy("The one before"),
    "other_groups": gettext_lazy("Learned from other groups"),
    "other_trunk": gettext_lazy("Began with other weights"),
    "packed": gettext_lazy("Packed"),
    "pad_share": gettext_lazy("Padding, share"),
    "policy": gettext_lazy("Policy"),
    "policy_grad_norm": gettext_lazy("Gradient norm of the policy"),
    "policy_loss": gettext_lazy("Loss of the policy"),
    "policy_updates": gettext_lazy("Updates of the policy"),
    "prompts": gettext_lazy("Prompts"),
    "prompts_cut": gettext_lazy("Prompts cut"),
    "proxy": gettext_lazy("Reward model"),
    "proxy_over_judge": gettext_lazy("Reward model's gain over the judge's"),
    "ratio_first": gettext_lazy("Ratio before the first update"),
    "reference": gettext_lazy("Reference"),
    "repetition": gettext_lazy("Repetition"),
    "resident_mb": gettext_lazy("Memory, MB"),
    "response_tokens": gettext_lazy("Tokens per answer"),
    "return": gettext_lazy("Return"),
    "reward": gettext_lazy("Reward: score less KL"),
    "reward_model": gettext_lazy("Reward model"),
    "rows_dev": gettext_lazy("Rows on dev"),
    "rows_too_long": gettext_lazy("Rows too long"),
    "rows_trained": gettext_lazy("Rows to learn from"),
    "score": gettext_lazy("Score"),
    "score_difference": gettext_lazy("Score over the reference's"),
    "score_gain": gettext_lazy("Score, gain"),
    "score_mean": gettext_lazy("Mean score"),
    "script": gettext_lazy("Another script"),
    "share_without_end": gettext_lazy("Answers without an end, share"),
    "shared_prompt": gettext_lazy("Prompt computed once for its answers"),
    "slope": gettext_lazy("Reliability slope (1 = calibrated, less = too sure)"),
    "stopped_early": gettext_lazy("Epoch cut short"),
    "temperature": gettext_lazy("Temperature"),
    "tokens": gettext_lazy("Tokens"),
    "value": gettext_lazy("Value"),
    "value_grad_norm": gettext_lazy("Gradient norm of the values"),
    "value_loss": gettext_lazy("Loss of the values"),
    "wall_seconds": gettext_lazy("Seconds in all"),
    # seconds of a step
    "baseline_seconds": gettext_lazy("Seconds for the reference's answers"),
    "forward_seconds": gettext_lazy("Seconds for probabilities and values"),
    "rollout_seconds": gettext_lazy("Seconds for sampling"),
    "score_seconds": gettext_lazy("Seconds for scoring"),
    "update_seconds": gettext_lazy("Seconds for updates"),
}
BEGINNINGS: Mapping[str, str | Promise] = {
    "train_": gettext_lazy("Train: %(name)s"),
    "dev_": gettext_lazy("Dev: %(name)s"),
    "new_": gettext_lazy("The new one: %(name)s"),
    "old_": gettext_lazy("The one before: %(name)s"),
    "part_": gettext_lazy("Part of the score: %(name)s"),
}
"""Of keys that say of what they are."""
FLAGS = ("bf16", "compiled", "shared_prompt", "packed", "head_in_pieces", "stopped_early")
"""0 or 1 in the metrics of a run."""


def name_of(key: str) -> str:
    """What a key is called, or the key; a path of keys (accuracy.mean) is named part by part."""
    if "." in key:
        return " · ".join(name_of(part) for part in key.split("."))
    if key in NAMES:
        return str(NAMES[key])
    for beginning, words in BEGINNINGS.items():
        rest = key.removeprefix(beginning)
        if rest != key and rest in NAMES:
            return str(words) % {"name": name_of(rest)}
    return key


def phase_of(phase: str) -> str:
    """What a phase is called; those of an ensemble's members begin with whose they are."""
    if phase in PHASES:
        return str(PHASES[phase])
    member, found, rest = phase.partition(" ")
    number = member.removeprefix("member-")
    if found and number.isdigit():
        return _("Member %(number)s: %(name)s") % {"number": int(number), "name": phase_of(rest)}
    return phase


def phase_rank(phase: str) -> tuple[int, str]:
    """By which phases are sorted: what was measured comes before how it was done."""
    return FIRST.index(phase) if phase in FIRST else len(FIRST), phase


@dataclass(frozen=True)
class Figure:
    """One figure as a page shows it."""

    key: str
    name: str
    value: str


def figure_of(key: str, value: Any) -> Figure:
    """A number, flag, text or list under its key; the last part of a path says what it is."""
    return Figure(key, name_of(key), _text_of(key.rpartition(".")[2], value))


def figures(values: Mapping[str, Any], before: str = "") -> Iterator[Figure]:
    """Nested metrics as flat lines, their keys joined: accuracy.dev 0.71."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from figures(value, f"{before}{key}.")
        else:
            yield figure_of(f"{before}{key}", value)


def _text_of(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or (key in FLAGS and value in (0, 1)):
        return _("yes") if value else _("no")
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(_text_of("", one) for one in value)[:LONGEST_TEXT]
    return str(value)[:LONGEST_TEXT]
