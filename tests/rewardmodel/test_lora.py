"""policy.lora: only adapters and head learn, and the published model has them inside."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from policy.backbone import score_model_from
from policy.lora import add_adapters, merge_adapters
from policy.scoring import Scorer, load_scorer
from rewardmodel.config import RewardConfig
from rewardmodel.train import train

WORDS = ["red", "blue", "two", "ten", "up", "down", "tea", "milk", "cat", "dog", "yes", "no"]
ROWS = [
    {"id": f"p{i}", "prompt": f"Say {i}.", "chosen": WORDS[i], "rejected": WORDS[-1 - i]}
    for i in range(12)
]
SMALL = RewardConfig(
    comparisons_per_step=4, checkpoint_every=1, lr_peak=1e-2, epochs=2, lora_rank=2, num_anchors=0
)
TEXTS = ["red", "a longer text", "no"]
PROMPTS = [[{"role": "user", "content": "Say it."}]] * 3


def scores_of(model, tokenizer):
    return Scorer(model, tokenizer, max_tokens=64).score(PROMPTS, TEXTS)


@pytest.fixture(params=["llama", "bert"])
def trunk(request, tiny_lm, tiny_bert):
    return {"llama": tiny_lm, "bert": tiny_bert}[request.param]


def test_adapters_change_no_score_until_they_learn_and_none_when_they_are_merged(trunk):
    model, tokenizer = score_model_from(trunk, seed=0)
    plain = scores_of(model, tokenizer)
    names = {name for name, _ in model.named_parameters()}
    add_adapters(model, rank=2, seed=0)
    assert scores_of(model, tokenizer) == pytest.approx(plain, abs=1e-6)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.3, generator=generator)
    adapted = scores_of(model, tokenizer)
    assert max(abs(a - b) for a, b in zip(adapted, plain, strict=True)) > 1e-3
    merge_adapters(model)
    assert scores_of(model, tokenizer) == pytest.approx(adapted, abs=1e-5)
    assert {name for name, _ in model.named_parameters()} == names


def test_only_adapters_and_head_want_a_gradient(trunk):
    model, _ = score_model_from(trunk, seed=0)
    add_adapters(model, rank=2, seed=0)
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    head = {name for name in wanted if not name.startswith(model.base_model_prefix + ".")}
    assert head
    assert wanted - head
    assert all("lora_" in name for name in wanted - head)


def test_training_leaves_the_trunk_and_moves_the_head(trunk, write_rows, tmp_path):
    seen = {}

    def look(model):
        seen.update({name: p.detach().clone() for name, p in model.named_parameters()})

    before, _ = score_model_from(trunk, seed=SMALL.seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "rewardmodel.train.merge_adapters", lambda model: look(model) or merge_adapters(model)
        )
        train(SMALL, data=write_rows(ROWS), out=tmp_path / "out", init=str(trunk))
    adapters = {name for name in seen if "lora_" in name}
    assert all(seen[name].abs().max() > 0 for name in adapters if "lora_B" in name)
    base = {name.replace(".base_layer", ""): p for name, p in seen.items() if name not in adapters}
    moved = [name for name, p in before.named_parameters() if not torch.equal(p, base[name])]
    assert moved
    assert all(not name.startswith(before.base_model_prefix + ".") for name in moved)
    published = load_file(tmp_path / "out" / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in published)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    scorer = load_scorer(tmp_path / "out")
    row = scorer.encode(PROMPTS[0], "red").ids
    with torch.no_grad():
        expected = model(torch.tensor([row])).logits[0, 0].item()
    assert scorer.score_ids([row]) == pytest.approx([expected], abs=1e-5)


def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(trunk, write_rows, tmp_path):
    data = write_rows(ROWS)

    def stop(step, stats):
        if step == 4:
            raise KeyboardInterrupt

    train(SMALL, data=data, out=tmp_path / "whole", init=str(trunk))
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, data=data, out=tmp_path / "cut", init=str(trunk), on_step=stop)
    train(SMALL, data=data, out=tmp_path / "cut", init=str(trunk))
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["resumed_at_step"] == 3
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)
