"""policy.compute: faster ways to the same numbers."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from policy.compute import autocast_dtype, compiled, fuse_gelu, require_precision
from policy.config import BadInput


def test_the_fused_gelu_is_the_same_function():
    model = GPT2ForSequenceClassification(
        GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, num_labels=1)
    )
    written_out = model.transformer.h[0].mlp.act
    fuse_gelu(model)
    fused = model.transformer.h[0].mlp.act
    assert isinstance(fused, nn.GELU)
    x = torch.linspace(-8, 8, 1001, requires_grad=True)
    torch.testing.assert_close(fused(x), written_out(x), rtol=1e-5, atol=1e-6)
    (mine,) = torch.autograd.grad(fused(x).sum(), x)
    (theirs,) = torch.autograd.grad(written_out(x).sum(), x)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "has_bf16", "expected"),
    [
        ("fp32", True, None),
        ("bf16", False, torch.bfloat16),
        ("auto", False, None),
        ("auto", True, torch.bfloat16),
    ],
)
def test_auto_is_bf16_where_the_device_has_it(monkeypatch, precision, has_bf16, expected):
    monkeypatch.setattr("policy.compute.multiplies_bf16", lambda device: has_bf16)
    assert autocast_dtype(precision, "cpu") is expected


def test_another_precision_is_refused_with_a_sentence():
    with pytest.raises(BadInput, match="precision must be one of fp32, bf16, auto: 'fp8'"):
        require_precision("fp8")


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr("policy.compute.shutil.which", lambda name: None)
    assert compiled(nn.Linear(2, 2)) is None
