"""Text learned beside the reward: its gradient by definition, and a run that learns it alone."""

import json

import pytest
import torch

from policy.backbone import load_causal_lm
from policy.config import BadInput
from policy.ppo import train
from policy.ppo_config import PPOConfig
from policy.ptx import Pretraining


def text_in(tmp_path, *documents: str):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(documents) + "\n")
    return path


def loss_and_gradient(model, tokenizer, path, **settings):
    config = PPOConfig(ptx_data=str(path), ptx_windows=3, seed=4, **settings)
    model.zero_grad()
    loss = Pretraining(path, tokenizer, config, model).gradient(model, step=2, update=1)
    return loss, [parameter.grad.clone() for parameter in model.parameters()]


def test_the_loss_is_the_mean_over_foretold_tokens(tiny_policy, tmp_path):
    """One document is one window: a start token, seven letters, an end token."""
    model, tokenizer = load_causal_lm(tiny_policy())
    path = text_in(tmp_path, "a b c d e f g")
    found, gradient = loss_and_gradient(model, tokenizer, path, ptx_tokens=8, ptx_coef=0.5)
    letters = tokenizer.convert_tokens_to_ids(list("abcdefg"))
    ids = [tokenizer.bos_token_id, *letters, tokenizer.eos_token_id]
    model.zero_grad()
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    logits = logits.index_fill(1, torch.tensor([tokenizer.pad_token_id]), -1e9)
    nats = [-logits[place].log_softmax(0)[token] for place, token in enumerate(ids[1:])]
    expected = torch.stack(nats).mean()
    (0.5 * expected).backward()
    assert found == pytest.approx(expected.item(), abs=1e-5)
    for one, parameter in zip(gradient, model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, atol=1e-6, rtol=1e-4)


def test_windows_one_by_one_are_windows_together(tiny_policy, tmp_path):
    model, tokenizer = load_causal_lm(tiny_policy())
    path = text_in(tmp_path, *["a b c d e f g", "h i j"] * 6)
    (one, first), (other, second) = (
        loss_and_gradient(model, tokenizer, path, ptx_tokens=7, micro_batch_tokens=tokens)
        for tokens in (9999, 7)
    )
    assert one == pytest.approx(other, abs=1e-6)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_text_is_learned_where_the_reward_teaches_nothing(tiny_policy, tmp_path):
    path, prompts = text_in(tmp_path, *["a b c d e f g"] * 9), tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "p", "prompt": "a b"}\n')
    config = PPOConfig(
        steps=4, rollouts_per_step=4, max_response_tokens=4, baseline_samples=0, warmup_steps=0,
        lr_peak=5e-3, missing_end="off", kl_coef=0.0, ptx_data=str(path), ptx_tokens=9,
        approx_kl_limit=9.0, kl_stop_nats=None,
    )  # fmt: skip
    train(
        config,
        init=tiny_policy(),
        score_fn=lambda prompts, completions: [0.0] * len(completions),
        prompts=prompts,
        out=tmp_path / "out",
    )
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    losses = [row["ptx_loss"] for row in rows if row["phase"] == "ppo"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    assert "ptx_data" in json.loads((tmp_path / "out/run.json").read_text())["inputs"]


def test_text_shorter_than_a_window_is_refused(tiny_policy, tmp_path):
    model, tokenizer = load_causal_lm(tiny_policy())
    path = text_in(tmp_path, "a b c")
    with pytest.raises(BadInput, match="holds 5 tokens, ptx_tokens wants windows of 33"):
        Pretraining(path, tokenizer, PPOConfig(), model)
