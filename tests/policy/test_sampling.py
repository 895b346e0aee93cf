"""The sampler against the library and against the distribution it says it draws from."""

import pytest
import torch

from policy.backbone import forward_logits, load_causal_lm
from policy.config import BadInput
from policy.sampling import sample

PROMPTS = [[4, 7, 8, 9, 2, 5], [4, 10, 5], [4, 7, 8, 9, 2, 5], [4, 11, 12, 13, 14, 15, 6, 7, 5]]


@pytest.fixture(params=["gpt2", "llama"])
def policy(request, tiny_policy):
    """A model with opinions: its weights are drawn wider than at the start of training."""
    model, tokenizer = load_causal_lm(tiny_policy(request.param))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.3, generator=generator)
    return model, tokenizer


def recomputed(model, prompt, tokens, temperature):
    """Log-probs of the tokens by one full forward without a cache."""
    ids = torch.tensor([[*prompt, *tokens]])
    with torch.no_grad():
        logits = forward_logits(model, ids, torch.ones_like(ids, dtype=torch.bool))
    logprobs = (logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
    return logprobs.gather(-1, torch.tensor(tokens)[:, None]).squeeze(-1).tolist()


def test_greedy_is_the_librarys_generate_token_by_token(policy):
    model, tokenizer = policy
    found = sample(
        model, tokenizer, PROMPTS, temperature=0, max_new_tokens=16, seeds=[0] * len(PROMPTS)
    )
    for prompt, one in zip(PROMPTS, found, strict=True):
        library = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=16,
            suppress_tokens=[tokenizer.pad_token_id],
        )
        assert one.tokens == library[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_logprobs_are_those_of_a_full_forward_at_that_temperature(policy, temperature):
    """T15 and T18: cache, left padding, retired rows and temperature change nothing."""
    model, tokenizer = policy
    prompts = PROMPTS * 8
    found = sample(
        model,
        tokenizer,
        prompts,
        temperature=temperature,
        max_new_tokens=20,
        seeds=list(range(len(prompts))),
    )
    assert len({len(one.tokens) for one in found}) > 3, "rows end at different steps"
    for prompt, one in zip(prompts, found, strict=True):
        assert one.logprobs == pytest.approx(
            recomputed(model, prompt, one.tokens, temperature), abs=2e-5
        )


def test_a_row_ends_with_the_end_token_or_at_its_length(policy):
    model, tokenizer = policy
    found = sample(
        model, tokenizer, PROMPTS * 16, temperature=1.0, max_new_tokens=12, seeds=list(range(64))
    )
    assert {one.finish for one in found} == {"end", "length"}
    for one in found:
        ends = one.tokens.count(tokenizer.eos_token_id)
        assert len(one.tokens) == len(one.logprobs) <= 12
        if one.finish == "end":
            assert (ends, one.tokens[-1]) == (1, tokenizer.eos_token_id)
        else:
            assert (ends, len(one.tokens)) == (0, 12)


def test_a_row_can_be_sampled_again_alone(policy):
    model, tokenizer = policy
    settings = {"temperature": 1.0, "max_new_tokens": 12}
    seeds = [101, 102, 103, 104]
    together = sample(model, tokenizer, PROMPTS, seeds=seeds, **settings)
    for prompt, seed, one in zip(PROMPTS, seeds, together, strict=True):
        (alone,) = sample(model, tokenizer, [prompt], seeds=[seed], **settings)
        assert alone.tokens == one.tokens
    assert together[0].tokens != together[2].tokens  # one prompt, two seeds
    in_parts = sample(model, tokenizer, PROMPTS, seeds=seeds, rows_per_batch=3, **settings)
    assert [one.tokens for one in in_parts] == [one.tokens for one in together]


def test_frequencies_are_the_softmax(policy):
    """T18: chi-square of 4,000 first tokens; 0.999 quantile for 15 degrees of freedom is 37.7."""
    model, tokenizer = policy
    rows, temperature = 4000, 0.8
    found = sample(
        model,
        tokenizer,
        [PROMPTS[0]] * rows,
        temperature=temperature,
        max_new_tokens=1,
        seeds=list(range(rows)),
        rows_per_batch=rows,
    )
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        logits = forward_logits(model, ids, torch.ones_like(ids, dtype=torch.bool))[0, -1]
    expected = (logits / temperature).softmax(-1) * rows
    counts = torch.tensor([one.tokens[0] for one in found]).bincount(minlength=len(expected))
    assert counts[tokenizer.pad_token_id] == 0
    likely = expected > 5
    assert likely.sum() >= 5
    rest = torch.tensor([expected[~likely].sum(), counts[~likely].sum()])
    chi2 = ((counts - expected) ** 2 / expected)[likely].sum()
    chi2 += (rest[1] - rest[0]) ** 2 / rest[0].clamp(min=1e-9)
    assert chi2 < 37.7


def test_the_pad_token_is_never_written(policy):
    model, tokenizer = policy
    with torch.no_grad():  # make it the likeliest everywhere
        row = model.get_output_embeddings().weight
        row[tokenizer.pad_token_id] = row.sum(0) * 10
    found = sample(
        model, tokenizer, PROMPTS, temperature=1.0, max_new_tokens=12, seeds=[1, 2, 3, 4]
    )
    assert all(tokenizer.pad_token_id not in one.tokens for one in found)


def test_what_does_not_fit_is_refused_with_the_numbers(policy):
    model, tokenizer = policy
    with pytest.raises(BadInput, match=r"of 6 tokens and 30 new ones .* context of 32"):
        sample(model, tokenizer, PROMPTS, temperature=1.0, max_new_tokens=30, seeds=[0] * 4)
    with pytest.raises(BadInput, match="a prompt of 0 tokens"):
        sample(model, tokenizer, [[]], temperature=1.0, max_new_tokens=3, seeds=[0])
    with pytest.raises(BadInput, match="4 prompts, 1 seeds"):
        sample(model, tokenizer, PROMPTS, temperature=1.0, max_new_tokens=3, seeds=[0])
