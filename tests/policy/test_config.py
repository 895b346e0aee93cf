"""Settings: files, words, and what is refused."""

import json

import pytest

from policy.config import (
    BadInput,
    PretrainConfig,
    SampleConfig,
    SFTConfig,
    config_from,
    load_config,
    to_json,
)


def test_a_word_wins_over_the_file(tmp_path):
    path = tmp_path / "sft.json"
    path.write_text(json.dumps({"epochs": 7, "lr_peak": 1}), encoding="utf-8")
    config = load_config(SFTConfig, path, ["epochs=9"])
    assert (config.epochs, config.lr_peak) == (9, 1.0)
    assert isinstance(config.lr_peak, float)


def test_without_anything_the_defaults_stand():
    assert load_config(PretrainConfig, None, []) == PretrainConfig()


def test_words_are_json_or_else_text():
    config = load_config(SampleConfig, None, ["split=test", "max_prompt_tokens=12"])
    assert (config.split, config.max_prompt_tokens) == ("test", 12)
    assert load_config(SampleConfig, None, ["split=null"]).split is None


def test_json_and_back_is_the_same():
    config = PretrainConfig(tokenizer="x", steps=3)
    assert config_from(PretrainConfig, json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["epoch=3"], "no setting 'epoch'; it has .*epochs"),
        (["epochs"], "name=value, got 'epochs'"),
        (["epochs=three"], "epochs must be int: 'three'"),
        (["epochs=2.5"], "epochs must be int: 2.5"),
        (["epochs=true"], "epochs must be int: True"),
        (["epochs=0"], "epochs must be above 0: 0"),
        (["lr_peak=NaN"], "lr_peak must be finite: nan"),
        (["seed=100000000000000000000000"], "seed must fit into 64 bits: 1000"),
        ([f"lr_peak=1{400 * '0'}"], "lr_peak must fit into 64 bits: 1000"),
        (["seed=" + 100_000 * "["], "seed must be int: "),
        (["warmup_fraction=1"], "warmup_fraction must be in"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_value(words, said):
    with pytest.raises(BadInput, match=said):
        load_config(SFTConfig, None, words)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON"),
        (b"[1]", "one JSON object"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_a_bad_config_file_is_named(tmp_path, content, said):
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=said):
        load_config(SFTConfig, path, [])


def test_a_missing_config_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"cannot read the config file .*nothing.json"):
        load_config(SFTConfig, tmp_path / "nothing.json", [])
