"""policy.compute: faster ways to the same numbers."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    Gemma2Config,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from policy.compute import (
    _attention_of_short_lines,
    attend_in_three_products,
    autocast_dtype,
    compiled,
    fuse_gelu,
)
from policy.config import BadInput, require_precision
from policy.scoring import scores_of_forest
from policy.shared_prompt import Forest, Tree


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


def attended(query, key, value, mask, scaling):
    """Softmax of scaled products plus mask, times the values: by the definition, head by head."""
    share = query.shape[1] // key.shape[1]
    heads = []
    for head in range(query.shape[1]):
        q, k, v = query[:, head], key[:, head // share], value[:, head // share]
        logits = torch.einsum("bsd,btd->bst", q, k) * scaling + mask[:, 0]
        heads.append(torch.einsum("bst,btd->bsd", logits.exp() / logits.exp().sum(-1, True), v))
    return torch.stack(heads, 2)


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("scaling", [None, 0.7])
@pytest.mark.parametrize("kind", [torch.bool, torch.bfloat16, torch.float32])
def test_attention_in_three_products_is_attention(groups, scaling, kind):
    torch.manual_seed(0)
    shapes = [(3, heads, 5, 16) for heads in (4, groups, groups)]
    given = [torch.randn(shape).bfloat16().requires_grad_() for shape in shapes]
    exact = [one.detach().double().requires_grad_() for one in given]
    sees = torch.rand(3, 1, 5, 5).tril() > 0.2
    sees |= torch.eye(5).bool()
    mask = torch.zeros(3, 1, 5, 5).masked_fill_(~sees, -1e9)
    as_given = sees if kind is torch.bool else mask.to(kind)
    found, weights = _attention_of_short_lines(None, *given, as_given, scaling=scaling)
    expected = attended(*exact, mask.double(), scaling or 0.25)
    assert weights is None
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.02)
    toward = torch.randn(expected.shape).bfloat16()
    mine = torch.autograd.grad(found, given, toward)
    theirs = torch.autograd.grad(expected, exact, toward.double())
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0.04, atol=0.04)


MODELS = [
    GPT2Config(vocab_size=20, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2),
    LlamaConfig(
        vocab_size=20, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2,
    ),
    Gemma2Config(
        vocab_size=20, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2, sliding_window=5,
    ),
]  # fmt: skip


def test_values_of_another_width_go_the_usual_way():
    """As in latent attention (DeepSeek's)."""
    torch.manual_seed(0)
    query, key = (torch.randn(1, 4, 6, 16).bfloat16() for _ in range(2))
    value = torch.randn(1, 4, 6, 8).bfloat16()
    mask = torch.zeros(1, 1, 6, 6).bfloat16()
    found, _ = _attention_of_short_lines(nn.Identity(), query, key, value, mask, dropout=0.0)
    expected = attended(query.double(), key.double(), value.double(), mask.double(), 0.25)
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.model_type)
def test_scores_in_three_products_are_as_near_to_fp32_as_those_of_the_fused_kernel(
    config, monkeypatch, tmp_path
):
    torch.manual_seed(0)
    config.pad_token_id, config.num_labels = 0, 1
    model = AutoModelForSequenceClassification.from_config(config).eval()
    rows = torch.randint(1, 20, (8, 2, 9)).tolist()
    forest = Forest.of([Tree.of([[1, 2, 3, 4, *row] for row in pair]) for pair in rows], 0)
    with torch.no_grad():
        exact = scores_of_forest(model, forest)
        fused = scores_of_forest(model, forest, autocast=torch.bfloat16)
        attend_in_three_products(model)
        plainly = []
        monkeypatch.setattr(
            "policy.compute.sdpa_attention_forward",
            lambda *given, **named: (
                plainly.append(given) or sdpa_attention_forward(*given, **named)
            ),
        )
        found = scores_of_forest(model, forest, autocast=torch.bfloat16)
        assert not plainly
        again = scores_of_forest(model, forest)
    assert torch.equal(again, exact)
    assert bool(plainly) is (config.model_type != "gemma2")  # fp32 goes the usual way
    spread = exact.std()
    assert (found - exact).abs().max() <= 2 * (fused - exact).abs().max() + 0.01 * spread
    # Gemma 2 caps its logits, which no fused kernel does: it stays as it is
    assert torch.equal(found, fused) is (config.model_type == "gemma2")
    model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path)._attn_implementation != "short_lines"
