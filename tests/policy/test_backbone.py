"""Any causal LM under a mask (T16), what is refused, and what is written."""

import json

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from policy.backbone import (
    NEVER,
    GPTShape,
    context_of,
    forward_hidden,
    forward_logits,
    load_causal_lm,
    load_tokenizer,
    new_gpt,
    save_model,
    score_model_from,
)
from policy.config import BadInput

SHAPE = GPTShape(width=32, layers=1, heads=2, context=32)


def padded(ids, left, right):
    """(1, left + T + right) ids and mask; the padding holds arbitrary tokens."""
    row = [7] * left + ids + [8] * right
    mask = [False] * left + [True] * len(ids) + [False] * right
    return torch.tensor([row]), torch.tensor([mask])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_left_padding_is_right_padding_is_none(tiny_policy, kind):
    model, _ = load_causal_lm(tiny_policy(kind))
    ids = [3, 9, 10, 4, 11, 6]
    with torch.no_grad():
        for forward in (forward_logits, forward_hidden):
            plain = forward(model, *padded(ids, 0, 0))[0]
            left = forward(model, *padded(ids, 5, 0))[0, 5:]
            right = forward(model, *padded(ids, 0, 5))[0, :6]
            both = forward(model, *padded(ids, 2, 3))[0, 2:8]
            for other in (left, right, both):
                torch.testing.assert_close(other, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_logits_are_the_models_own_but_for_the_pad_token(tiny_policy, kind):
    path = tiny_policy(kind)
    model, tokenizer = load_causal_lm(path)
    ids, mask = padded([3, 9, 10], 0, 0)
    with torch.no_grad():
        ours = forward_logits(model, ids, mask)
        library = AutoModelForCausalLM.from_pretrained(path)(ids).logits
    pad = tokenizer.pad_token_id
    assert (ours[..., pad] == NEVER).all()
    ours[..., pad] = library[..., pad]
    torch.testing.assert_close(ours, library, atol=1e-5, rtol=0)


def test_the_gradient_passes_the_pad_token_by(tiny_policy):
    model, tokenizer = load_causal_lm(tiny_policy("llama"))
    logprobs = forward_logits(model, *padded([3, 9], 0, 0)).log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum()
    entropy.backward()
    head = model.lm_head.weight.grad
    assert torch.isfinite(head).all()
    assert (head[tokenizer.pad_token_id] == 0).all()
    assert head.abs().sum() > 0


def test_a_tokenizer_whose_pad_is_its_end_gets_a_pad_of_its_own(letters, tmp_path):
    model = new_gpt(letters, SHAPE, seed=0)
    save_model(model, letters, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["pad_token"] = settings["eos_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id

    loaded, tokenizer = load_causal_lm(tmp_path)
    assert tokenizer.pad_token == "<|pad|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert loaded.config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize("tied", [True, False])
def test_a_new_pad_token_leaves_the_old_logits_alone(letters, tmp_path, tied):
    config = GPT2Config(
        vocab_size=16, n_positions=32, n_embd=16, n_layer=1, n_head=2, tie_word_embeddings=tied
    )
    plain = GPT2LMHeadModel(config).eval()
    save_model(plain, letters, tmp_path)
    for name in ("tokenizer_config.json", "tokenizer.json"):
        text = (tmp_path / name).read_text().replace("<|pad|>", "<|was|>")
        (tmp_path / name).write_text(text)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["pad_token"] = None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))

    model, tokenizer = load_causal_lm(tmp_path)
    assert tokenizer.pad_token_id == 16
    assert model.get_input_embeddings().weight.shape[0] == 17
    ids, mask = padded([3, 9, 10], 0, 0)
    with torch.no_grad():
        torch.testing.assert_close(forward_logits(model, ids, mask)[..., :16], plain(ids).logits)
    again, _ = load_causal_lm(tmp_path)  # the new row is the same at every load
    assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_dropout_is_off_even_in_training(letters, tmp_path):
    config = GPT2Config(vocab_size=16, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    assert config.resid_pdrop > 0
    save_model(GPT2LMHeadModel(config), letters, tmp_path)
    model, _ = load_causal_lm(tmp_path)
    assert not model.training
    model.train()
    ids, mask = padded([3, 9, 10], 0, 0)
    assert torch.equal(forward_logits(model, ids, mask), forward_logits(model, ids, mask))


def test_a_saved_model_is_plain_safetensors_and_loads_the_same(letters, tmp_path):
    model = new_gpt(letters, SHAPE, seed=3)
    save_model(model, letters, tmp_path)
    files = {path.suffix for path in tmp_path.iterdir()}
    assert files <= {".json", ".safetensors", ".jinja"}
    loaded, tokenizer = load_causal_lm(tmp_path)
    assert tokenizer.chat_template == letters.chat_template
    assert context_of(loaded) == 32
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_a_new_model_depends_on_its_seed_alone(letters):
    torch.manual_seed(1)
    first = new_gpt(letters, SHAPE, seed=5)
    state = torch.random.get_rng_state()
    second = new_gpt(letters, SHAPE, seed=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    other = new_gpt(letters, SHAPE, seed=6)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_score_model_keeps_the_trunk_and_starts_with_small_scores(tiny_policy, kind):
    path = tiny_policy(kind)
    trunk, _ = load_causal_lm(path)
    model, tokenizer = score_model_from(path, seed=1)
    again, _ = score_model_from(path, seed=1)
    assert model.config.num_labels == 1
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert torch.equal(model.score.weight, again.score.weight)
    ids, mask = padded([3, 9, 10], 0, 2)
    with torch.no_grad():
        hidden = forward_hidden(model, ids, mask)
        torch.testing.assert_close(hidden, forward_hidden(trunk, ids, mask))
        assert model(ids, attention_mask=mask.long()).logits.abs().max() < 1


def test_a_score_model_that_has_a_head_keeps_it(letters, tmp_path):
    model, _ = score_model_from(None, seed=2, tokenizer=letters, shape=SHAPE)
    save_model(model, letters, tmp_path)
    loaded, _ = score_model_from(tmp_path, seed=9)
    assert torch.equal(loaded.score.weight, model.score.weight)
    library = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(library.score.weight, model.score.weight)


def test_an_encoder_decoder_is_refused_with_a_sentence(letters, tmp_path):
    config = T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    save_model(T5ForConditionalGeneration(config), letters, tmp_path)
    with pytest.raises(BadInput, match=r"holds an encoder-decoder \(t5\)"):
        load_causal_lm(tmp_path)
    with pytest.raises(BadInput, match=r"holds an encoder-decoder \(t5\)"):
        score_model_from(tmp_path, seed=0)


def test_a_masked_model_or_a_reward_model_is_no_policy(letters, tmp_path):
    config = BertConfig(
        vocab_size=16,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    save_model(BertForMaskedLM(config), letters, tmp_path / "bert")
    with pytest.raises(BadInput, match="BertForMaskedLM, not a causal language model"):
        load_causal_lm(tmp_path / "bert")
    model, _ = score_model_from(None, seed=2, tokenizer=letters, shape=SHAPE)
    save_model(model, letters, tmp_path / "reward")
    with pytest.raises(BadInput, match="LlamaForSequenceClassification, not a causal"):
        load_causal_lm(tmp_path / "reward")


def test_what_is_not_there_is_named(tmp_path, letters):
    with pytest.raises(BadInput, match=r"there is no model folder '.*/none'"):
        load_causal_lm(tmp_path / "none")
    with pytest.raises(BadInput, match="there is no model folder 'nowhere'"):
        load_causal_lm("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no model that can be read"):
        load_causal_lm(tmp_path / "empty")
    letters.save_pretrained(tmp_path / "bare")
    GPT2Config().save_pretrained(tmp_path / "bare")
    with pytest.raises(BadInput, match="holds a model without a named architecture, not a"):
        load_causal_lm(tmp_path / "bare")


def test_a_pickle_is_not_read(letters, tmp_path):
    model = new_gpt(letters, SHAPE, seed=0)
    save_model(model, letters, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"weights in .* cannot be read"):
        load_causal_lm(tmp_path)


def test_weights_that_are_missing_are_not_made_up(letters, tmp_path):
    model = new_gpt(letters, SHAPE, seed=0)
    save_model(model, letters, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 2}))
    with pytest.raises(BadInput, match=r"lacks weights: .*layers\.1\."):
        load_causal_lm(tmp_path)
