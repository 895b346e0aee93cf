"""The schemas that the web process checks jobs by are those of the config classes."""

import json
import math

import pytest

from annotation.errors import BadInput
from annotation.job_schemas import FOLDER, require_config, settings_of
from annotation.models import JobKind
from policy.config import BadInput as BadLaboratoryInput
from policy.config import config_from
from workers.job_schemas import CONFIGS, alarms_text, text_of

HOW = "run `python -m workers.job_schemas`"


@pytest.mark.parametrize("kind", JobKind.values)
def test_the_committed_schema_is_that_of_the_config_class(kind):
    assert (FOLDER / f"{kind}.json").read_text(encoding="utf-8") == text_of(kind), HOW


def test_the_committed_alarms_are_those_of_the_laboratory():
    assert (FOLDER / "alarms.json").read_text(encoding="utf-8") == alarms_text(), HOW


def test_every_setting_and_alarm_says_what_it_means_in_both_languages():
    meanings = {one.meaning for kind in CONFIGS for one in settings_of(kind).values()}
    for said in json.loads(alarms_text()).values():
        meanings |= {said["healthy"], said["help"]}
    chinese = json.loads((FOLDER / "meanings.zh_Hans.json").read_text(encoding="utf-8"))
    assert "" not in meanings
    assert set(chinese) == meanings, "annotation/job_schemas/meanings.zh_Hans.json is behind"
    assert all(any("\u4e00" <= sign <= "\u9fff" for sign in text) for text in chinese.values())


def said_by_the_class(kind: str, name: str, value: object) -> str:
    try:
        config_from(CONFIGS[kind], {name: value})
    except BadLaboratoryInput as error:
        return str(error)
    return ""


def is_limit(kind: str, name: str, value: object) -> bool:
    """Whether the class refuses the value for itself, not for what stands beside it."""
    said = said_by_the_class(kind, name, value)
    return said.startswith(f"{name} must be ") and "a multiple of" not in said


@pytest.mark.parametrize("kind", sorted(set(CONFIGS) - {"judge"}))
def test_limits_are_exactly_those_of_the_class(kind):
    tried = 0
    for name, one in settings_of(kind).items():
        whole = "number" not in one.types
        for limit, inwards in ((one.least, 1), (one.most, -1)):
            if limit is not None:
                assert not is_limit(kind, name, limit), name
                beyond = limit - inwards if whole else math.nextafter(limit, -inwards * math.inf)
                assert is_limit(kind, name, beyond), (name, beyond)
                tried += 1
        for limit, inwards in ((one.above, 1), (one.below, -1)):
            if limit is not None:
                assert is_limit(kind, name, limit), name
                assert not is_limit(kind, name, math.nextafter(limit, inwards * math.inf)), name
                tried += 1
        for choice in one.choices:
            assert not is_limit(kind, name, choice), name
    assert tried > 1


@pytest.mark.parametrize(
    ("kind", "config", "sentence"),
    [
        ("reward", {"epoch": 2}, "A reward job has no setting “epoch”; do you mean epochs?"),
        ("sample", {"top_p": 0.9}, "A sample job has no setting “top_p”."),
        ("sample", {"n": 2}, "A sample job has no setting “n”."),
        ("sft", {"epochs": "3"}, "config.epochs must be a whole number: '3'."),
        ("sft", {"epochs": True}, "config.epochs must be a whole number: True."),
        ("sft", {"epochs": 0}, "config.epochs must be at least 1: 0."),
        ("sft", {"packed": 1}, "config.packed must be true or false: 1."),
        ("ppo", {"clip": 1}, "config.clip must be below 1: 1."),
        ("ppo", {"gamma": 1.01}, "config.gamma must be at most 1: 1.01."),
        ("ppo", {"lr_peak": 0.0}, "config.lr_peak must be above 0: 0.0."),
        ("ppo", {"kl_coef": math.inf}, "config.kl_coef must be finite: inf."),
        ("ppo", {"seed": 2**63}, f"config.seed must be a number of at most 64 bits: {2**63}."),
        ("ppo", {"ptx_data": "/x"}, "config.ptx_data names a path, and a job may not: '/x'."),
        ("ppo", {"value": "both"}, "config.value must be one of separate, head: 'both'."),
        ("ppo", {"loss_per": 3}, "config.loss_per must be one of token, response, constant, null"),
        ("reward", {"axes": [1]}, "config.axes must be an object of numbers or null: [1]."),
    ],
)
def test_what_a_kind_cannot_be_set_to_is_refused_with_the_value_seen(kind, config, sentence):
    with pytest.raises(BadInput) as error:
        require_config(kind, config)
    assert error.value.detail.startswith(sentence)


def test_what_a_class_takes_passes():
    require_config("ppo", {"lr_peak": 1, "loss_per": None, "reward_weights": [1, 0.5], "clip": 0.1})
    require_config("reward", {"axes": {"helpful": 1, "safe": 0.5}, "max_tokens": None})
