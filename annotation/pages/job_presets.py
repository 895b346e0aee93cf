"""Ways to set a job up that are asked for often: a name, the settings that differ, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from annotation.models import JobKind

Words = str | Promise


@dataclass(frozen=True, slots=True)
class Preset:
    """config: what is laid over the project's defaults."""

    key: str
    name: Words
    why: Words
    config: Mapping[str, Any]


REWARD = (
    Preset(
        "ties",
        _("Learn from ties too"),
        _("Where people often say that two answers are equally good."),
        {"loss": "davidson"},
    ),
    Preset(
        "length",
        _("Not by length"),
        _("Where longer answers win: what votes owe to length is not learned as quality."),
        {"length_head": True},
    ),
    Preset(
        "ensemble",
        _("Four models together"),
        _("Four times the time; they say where they disagree, and are harder to game."),
        {"members": 4, "rule": "uncertainty"},
    ),
    Preset(
        "strength",
        _("Heed how sure the votes are"),
        _("Where the desk asks by how much an answer is better."),
        {"strength": "soft"},
    ),
)
PRESETS: Mapping[str, tuple[Preset, ...]] = {
    JobKind.PRETRAIN: (
        Preset(
            "encoder",
            _("An encoder"),
            _("For reward models to start from; it writes nothing."),
            {"objective": "masked"},
        ),
        Preset("mini", _("Twelve million parameters"), _("Wants a GPU."), {"size": "mini"}),
    ),
    JobKind.SFT: (
        Preset(
            "adapters",
            _("Adapters"),
            _("For a large model: all its weights stand still but for adapters of rank 16."),
            {"lora_rank": 16, "lr_peak": 2e-4},
        ),
    ),
    JobKind.REWARD: REWARD,
    JobKind.JUDGE: REWARD,
    JobKind.PPO: (
        Preset(
            "rloo",
            _("Without a value model: RLOO"),
            _("Four answers to a prompt are held against each other; less memory."),
            {"advantage": "rloo", "answers_per_prompt": 4, "baseline_samples": 0},
        ),
        Preset(
            "grpo",
            _("Without a value model: GRPO"),
            _("Four answers to a prompt, the KL penalty in the loss."),
            {"advantage": "grpo", "answers_per_prompt": 4, "baseline_samples": 0},
        ),
        Preset(
            "careful",
            _("Closer to the reference"),
            _("Half the KL: where a policy games its reward model."),
            {"kl_target_nats": 3.0, "kl_stop_nats": 6.0},
        ),
    ),
    JobKind.SAMPLE: (
        Preset(
            "varied",
            _("More varied answers"),
            _("Where the answers to a prompt are too much alike to compare."),
            {"temperature": 1.0},
        ),
    ),
}
USUAL: Mapping[str, tuple[str, ...]] = {
    JobKind.PRETRAIN: ("size", "steps", "objective", "lr_peak", "precision", "seed"),
    JobKind.SFT: ("epochs", "rows_per_step", "lr_peak", "max_tokens", "lora_rank", "seed"),
    JobKind.REWARD: ("epochs", "loss", "lr_peak", "comparisons_per_step", "members", "seed"),
    JobKind.JUDGE: ("epochs", "loss", "lr_peak", "comparisons_per_step", "members", "seed"),
    JobKind.PPO: (
        *("steps", "rollouts_per_step", "advantage", "lr_peak", "kl_target_nats"),
        *("max_response_tokens", "temperature", "seed"),
    ),
    JobKind.SAMPLE: ("temperature", "max_new_tokens", "seed"),
}
"""Settings that stand first in a form, by kind."""
