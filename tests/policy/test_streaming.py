"""Token by token: the tokens of the batch sampler, and pieces of text that join to its text."""

from itertools import zip_longest

import pytest
import torch

from policy.backbone import GPTShape, context_of, load_causal_lm, new_gpt
from policy.config import BadInput
from policy.sampling import sample, stream
from policy.streaming import TextStream
from policy.text import decode_completion, end_token_id
from policy.tokenizer import train_tokenizer

PROMPTS = [[4, 7, 8, 9, 2, 5], [4, 10, 5], [4, 11, 12, 13, 14, 15, 6, 7, 5]]
SETTINGS = {"max_new_tokens": 20}
TEXTS = (
    "The red cat.",
    "退货需要七天。",
    "好🙂的 café",
    "  two  blanks\n\nand lines ",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",
)


@pytest.fixture(params=["gpt2", "llama"])
def policy(request, tiny_policy):
    """A model with opinions, which ends some of its answers."""
    model, tokenizer = load_causal_lm(tiny_policy(request.param))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.3, generator=generator)
    return model, tokenizer


@pytest.fixture(scope="module")
def bytes_tokenizer():
    return train_tokenizer(("The red cat.", "退货需要几天？"), vocab_size=280, context=64)


@pytest.mark.parametrize("temperature", [0, 0.7, 1.3])
def test_the_tokens_are_those_of_the_batch_sampler(policy, temperature):
    model, tokenizer = policy
    prompts, seeds = PROMPTS * 12, list(range(36))
    batch = sample(model, tokenizer, prompts, seeds=seeds, temperature=temperature, **SETTINGS)
    finishes = set()
    for prompt, seed, one in zip(prompts, seeds, batch, strict=True):
        alone = list(
            stream(model, tokenizer, prompt, seed=seed, temperature=temperature, **SETTINGS)
        )
        assert alone == one.tokens
        finishes.add("end" if alone[-1] == end_token_id(tokenizer) else "length")
    assert temperature == 0 or finishes == {"end", "length"}


def test_two_streams_taken_in_turns_do_not_disturb_each_other(policy):
    model, tokenizer = policy
    alone = [
        list(stream(model, tokenizer, prompt, seed=7, temperature=1.0, **SETTINGS))
        for prompt in PROMPTS[:2]
    ]
    streams = [
        stream(model, tokenizer, prompt, seed=7, temperature=1.0, **SETTINGS)
        for prompt in PROMPTS[:2]
    ]
    drawn: list[list[int]] = [[], []]
    for tokens in zip_longest(*streams):
        for row, token in zip(drawn, tokens, strict=True):
            row += [] if token is None else [token]
    assert drawn == alone


def test_what_does_not_fit_is_refused_before_the_first_token(policy):
    model, tokenizer = policy
    full = [4] * context_of(model)
    with pytest.raises(BadInput, match="a prompt of 32 tokens and 20 new ones"):
        stream(model, tokenizer, full, seed=0, temperature=1.0, **SETTINGS)
    with pytest.raises(BadInput, match="a prompt of 0 tokens"):
        stream(model, tokenizer, [], seed=0, temperature=1.0, **SETTINGS)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_join_to_the_text(bytes_tokenizer, text):
    ids = bytes_tokenizer(text, add_special_tokens=False)["input_ids"]
    words = TextStream(bytes_tokenizer)
    pieces = [words.add(token) for token in ids]
    assert all("�" not in piece for piece in pieces)
    assert "".join(pieces) + words.finish() == text == words.text
    if "七" in text:
        assert "" in pieces  # a character of several tokens came as one piece
        assert pieces.count("七") == 1


def test_bytes_that_never_become_a_character_come_at_the_end(bytes_tokenizer):
    ids = bytes_tokenizer("ok七", add_special_tokens=False)["input_ids"][:-1]
    words = TextStream(bytes_tokenizer)
    told = "".join(words.add(token) for token in ids)
    assert told == "ok"
    assert told + words.finish() == decode_completion(bytes_tokenizer, ids)


def test_random_tokens_join_to_their_text_whatever_they_are(bytes_tokenizer):
    """Bytes in any order: half characters, wrong continuations, special tokens."""
    model = new_gpt(bytes_tokenizer, GPTShape(width=16, layers=1, heads=1, context=64), seed=0)
    for seed in range(30):
        words = TextStream(bytes_tokenizer)
        tokens, pieces = [], []
        for token in stream(
            model, bytes_tokenizer, [4, 70, 5], seed=seed, temperature=1.5, max_new_tokens=40
        ):
            tokens.append(token)
            pieces.append(words.add(token))
        assert "".join(pieces) + words.finish() == decode_completion(bytes_tokenizer, tokens)
