"""Encoders as reward models: their own pooling and head, trained, resumed and scored."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from policy.comparisons import read_comparisons
from policy.scoring import load_scorer
from rewardmodel.config import RewardConfig
from rewardmodel.train import train
from tests.rewardmodel.measuring import evaluate_pairs

WORDS = ["red", "blue", "two", "ten", "up", "down", "tea", "milk"]
ROWS = [
    {"id": f"p{i}", "prompt": f"Say {i}.", "chosen": WORDS[i], "rejected": WORDS[-1 - i]}
    for i in range(4)
]
SMALL = RewardConfig(
    comparisons_per_step=2, checkpoint_every=1, lr_peak=3e-3, epochs=30, warmup_fraction=0.0
)


def test_an_encoder_learns_the_pairs_and_scores_as_its_own_class_does(
    tiny_bert, write_rows, tmp_path
):
    data = write_rows(ROWS)
    train(SMALL, data=data, out=tmp_path / "out", init=str(tiny_bert))
    rows = evaluate_pairs(tmp_path / "out", read_comparisons(data))
    assert [row.correct for row in rows] == [1.0] * 4
    before, after = (
        load_file(each / "model.safetensors") for each in (tiny_bert, tmp_path / "out")
    )
    pooler = next(name for name in after if name.endswith("pooler.dense.weight"))
    assert not torch.equal(after[pooler], before[pooler.removeprefix("bert.")])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    scorer = load_scorer(tmp_path / "out")
    texts = [scorer.encode([{"role": "user", "content": "Say 1."}], text).ids for text in WORDS]
    with torch.no_grad():
        expected = [model(torch.tensor([row])).logits[0, 0].item() for row in texts]
    assert scorer.score_ids(texts) == pytest.approx(expected, abs=1e-5)


def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(
    tiny_bert, write_rows, tmp_path
):
    data, config = write_rows(ROWS), dataclasses.replace(SMALL, epochs=2)

    def stop(step, stats):
        if step == 3:
            raise KeyboardInterrupt

    train(config, data=data, out=tmp_path / "whole", init=str(tiny_bert))
    with pytest.raises(KeyboardInterrupt):
        train(config, data=data, out=tmp_path / "cut", init=str(tiny_bert), on_step=stop)
    train(config, data=data, out=tmp_path / "cut", init=str(tiny_bert))
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["resumed_at_step"] == 2
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)
