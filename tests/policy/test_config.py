"""Settings: files, words, and what is refused."""

import dataclasses
import json

import pytest

from policy.config import (
    SIZES,
    BadInput,
    PretrainConfig,
    SampleConfig,
    SFTConfig,
    config_from,
    load_config,
    to_json,
)
from policy.online_dpo import OnlineDPOConfig
from policy.ppo_config import PPOConfig
from rewardmodel.config import RewardConfig


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


RLOO = ["advantage=rloo", "answers_per_prompt=4"]
GRPO = ["advantage=grpo", "answers_per_prompt=4"]


@pytest.mark.parametrize(
    ("cls", "words", "said"),
    [
        (PPOConfig, [*RLOO, "gamma=0.9"], "gamma 0.9 does nothing with advantage rloo"),
        (PPOConfig, [*GRPO, "lam=0"], "lam 0.0 does nothing with advantage grpo; leave it out"),
        (PPOConfig, [*RLOO, "value=head"], 'value "head" does nothing with advantage rloo'),
        (PPOConfig, [*RLOO, "value_lr_peak=1"], "value_lr_peak 1.0 .* advantage rloo"),
        (PPOConfig, [*RLOO, "value_clip=1"], "value_clip 1.0 .* advantage rloo"),
        (PPOConfig, [*RLOO, "value_coef=1"], "value_coef 1.0 .* advantage rloo"),
        (PPOConfig, [*GRPO, "baseline_samples=2"], "baseline_samples 2 .* advantage grpo"),
        (PPOConfig, [*RLOO, "baseline_cache=x"], 'baseline_cache "x" .* advantage rloo'),
        (PPOConfig, ["value_coef=1"], "value_coef 1.0 does nothing with value separate"),
        (PPOConfig, ["baseline_samples=0", "baseline_cache=x"], "with baseline_samples 0"),
        (PPOConfig, ["missing_end=off", "missing_end_score=2"], "score 2.0 .* missing_end off"),
        (PPOConfig, ["length_cost=1"], "length_cost 1.0 does nothing without a length_limit"),
        (PPOConfig, ["length_limit=9", "length_cost=0"], "length_limit 9 .* length_cost 0"),
        (PPOConfig, ["ptx_coef=2"], "ptx_coef 2.0 does nothing without ptx_data; .* of 1.0"),
        (PPOConfig, ["ptx_windows=2"], "ptx_windows 2 does nothing without ptx_data"),
        (PPOConfig, ["ptx_tokens=2"], "ptx_tokens 2 does nothing without ptx_data"),
        (PPOConfig, ["kl_target_nats=null", "kl_horizon=9"], "kl_horizon 9 .* kl_target_nats null"),
        (PPOConfig, ["kl_coef=0", "kl_target_nats=3"], "kl_target_nats 3.0 .* kl_coef 0"),
        (PPOConfig, ["kl_coef=0", "kl_estimator=k3"], 'kl_estimator "k3" .* kl_coef 0'),
        (PPOConfig, ["steps=4", "value_warmup_steps=4"], "value_warmup_steps 4 .* the 4 steps"),
        (OnlineDPOConfig, ["kl_stop_nats=null", "kl_smoothing=0.7"], "0.7 .* kl_stop_nats null"),
        (PretrainConfig, ["tokenizer=x", "vocab_size=999"], "vocab_size 999 .* a tokenizer"),
        (PretrainConfig, ["mask_fraction=0.3"], "mask_fraction 0.3 .* objective causal"),
        (PretrainConfig, ["objective=masked", "sample_every=9"], "sample_every 9 .* masked"),
        (PretrainConfig, ["decay_fraction=0.3"], "decay_fraction 0.3 .* schedule cosine"),
        (RewardConfig, ["strength_margin=2"], "strength_margin 2.0 .* strength ignore"),
        (RewardConfig, ["members=2", "uncertainty_weight=1"], "weight 1.0 .* rule mean"),
        (
            RewardConfig,
            ["loss=pointwise", "pointwise_weight=1", "label_smoothing=0.1"],
            "label_smoothing 0.1 does nothing with loss pointwise",
        ),
    ],
)
def test_a_setting_that_does_nothing_is_refused_with_the_one_that_makes_it_so(cls, words, said):
    with pytest.raises(BadInput, match=said):
        load_config(cls, None, words)


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (PPOConfig, [*RLOO, "baseline_samples=0", "whiten_advantages=false", "value_coef=0"]),
        (PPOConfig, [*RLOO, "gamma=1", "lam=0.95", "baseline_samples=4"]),  # as they are
        (PPOConfig, ["value=head", "value_coef=0.5", "value_lr_peak=1e-3"]),
        (PPOConfig, ["length_limit=9", "length_cost=0.1", "ptx_data=x", "ptx_coef=2"]),
        (PPOConfig, ["kl_coef=0"]),
        (PPOConfig, ["kl_coef=0", "kl_target_nats=null"]),
        (PretrainConfig, ["objective=masked", "mask_fraction=0.3", "sample_every=0"]),
        (PretrainConfig, ["schedule=wsd", "decay_fraction=0.3"]),
        (RewardConfig, ["strength=margin", "strength_margin=3"]),
        (RewardConfig, ["members=2", "rule=uncertainty", "uncertainty_weight=1"]),
    ],
)
def test_a_setting_that_does_something_or_says_that_it_is_off_is_taken(cls, words):
    load_config(cls, None, words)


def shape_of(config):
    return {name: getattr(config, name) for name in SIZES["tiny"]}


@pytest.mark.parametrize("size", SIZES)
def test_a_size_means_the_same_in_a_file_as_in_a_word(tmp_path, size):
    path = tmp_path / "pretrain.json"
    path.write_text(json.dumps({"size": size}), encoding="utf-8")
    from_file = load_config(PretrainConfig, path, [])
    assert from_file == load_config(PretrainConfig, None, [f"size={size}"])
    assert (shape_of(from_file), from_file.size) == (SIZES[size], size)


def test_what_is_given_beside_a_size_wins_and_the_shape_has_no_name_then():
    config = load_config(PretrainConfig, None, ["size=mini", "width=96", "context=128"])
    assert shape_of(config) == {"width": 96, "layers": 6, "heads": 6, "context": 128}
    assert config.size is None
    assert config_from(PretrainConfig, to_json(config)) == config
    assert dataclasses.replace(config, seed=4).size is None


def test_a_size_beside_another_whole_shape_is_refused(tmp_path):
    path = tmp_path / "pretrain.json"
    path.write_text(json.dumps(to_json(PretrainConfig(layers=2))), encoding="utf-8")
    assert load_config(PretrainConfig, path, ["steps=9"]).layers == 2
    with pytest.raises(
        BadInput,
        match="size mini does nothing with width 160, layers 2, heads 5, context 256 given",
    ):
        load_config(PretrainConfig, path, ["size=mini"])
    with pytest.raises(BadInput, match="size null wants all four: layers, context not given"):
        load_config(PretrainConfig, None, ["size=null", "width=96", "heads=2"])
    with pytest.raises(BadInput, match="one of tiny, mini, small, base, or null: 'huge'"):
        load_config(PretrainConfig, None, ["size=huge"])
