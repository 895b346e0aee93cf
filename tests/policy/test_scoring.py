"""policy.scoring: a score is read at the last real token and depends on nothing else (T17)."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from policy.backbone import save_model, score_model_from
from policy.config import BadInput
from policy.scoring import (
    TooLong,
    batches_by_length,
    encode,
    load_scorer,
    pad_right,
    scores_at_last_token,
)
from policy.text import encode_completion


def said(*letters):
    return [{"role": "user", "content": " ".join(letters)}]


PROMPTS = [said("a"), said("b", "c", "d"), said("e"), said("f", "g"), said(*"abcdefgh")]
COMPLETIONS = ["b c", "a", "j i h g f e d", "c", "d d d d"]


def spread_out(model, seed=5):
    """Random weights large enough that scores differ clearly, as those of a trained head do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, 0.2, generator=generator)


@pytest.fixture
def reward_model(tiny_policy, tmp_path):
    """A function that saves a reward model with scores that differ, and returns its folder."""

    def make(kind="gpt2", name="reward"):
        model, tokenizer = score_model_from(tiny_policy(kind, name=f"trunk-{name}"), seed=0)
        spread_out(model)
        save_model(model, tokenizer, tmp_path / name)
        return tmp_path / name

    return make


def close(scores, expected):
    """To 1e-5 x max(1, |score|), the promise of the interface."""
    assert len(scores) == len(expected)
    for score, other in zip(scores, expected, strict=True):
        assert abs(score - other) <= 1e-5 * max(1.0, abs(other))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_scores_are_those_of_transformers_own_class_on_a_ragged_batch(reward_model, kind):
    folder = reward_model(kind)
    scores = load_scorer(folder).score(PROMPTS, COMPLETIONS)

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.num_labels == 1
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    texts = [
        tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        + completion
        + tokenizer.eos_token
        for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    tokenizer.padding_side = "right"
    batch = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        expected = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits[:, 0]
    close(scores, expected.tolist())
    assert len({round(score, 3) for score in scores}) == len(scores)  # they do differ


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_in_bf16_scores_are_rounded_and_not_others(reward_model, kind):
    exact = load_scorer(reward_model(kind)).score(PROMPTS, COMPLETIONS)
    rounded = load_scorer(reward_model(kind), precision="bf16").score(PROMPTS, COMPLETIONS)
    assert rounded != exact
    spread = max(exact) - min(exact)
    for one, other in zip(rounded, exact, strict=True):
        assert abs(one - other) < 0.05 * spread


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("batch_tokens", [1, 20, 8192])
def test_a_score_depends_neither_on_batch_nor_order_nor_padding(reward_model, kind, batch_tokens):
    scorer = load_scorer(reward_model(kind))
    alone = [
        scorer.score([prompt], [completion])[0]
        for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    close(scorer.score(PROMPTS, COMPLETIONS, batch_tokens), alone)
    close(scorer.score(PROMPTS[::-1], COMPLETIONS[::-1], batch_tokens), alone[::-1])
    close(scorer.score(PROMPTS * 3, COMPLETIONS * 3, batch_tokens), alone * 3)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_what_stands_in_the_padding_changes_nothing(reward_model, kind):
    scorer = load_scorer(reward_model(kind))
    rows = [[1, 6, 7, 2], [1, 8, 2], [1, 9, 9, 9, 9, 2]]
    ids, mask = pad_right(rows, scorer.model.config.pad_token_id)
    other = torch.where(mask, ids, torch.full_like(ids, 11))
    wider = torch.nn.functional.pad(ids, (0, 5), value=3)
    with torch.no_grad():
        scores = scores_at_last_token(scorer.model, ids, mask)
        changed = scores_at_last_token(scorer.model, other, mask)
        widened = scores_at_last_token(
            scorer.model, wider, torch.nn.functional.pad(mask, (0, 5), value=False)
        )
        left = scores_at_last_token(
            scorer.model,
            torch.stack([row.roll(int((~m).sum())) for row, m in zip(ids, mask, strict=True)]),
            mask.flip(1),
        )
    close(changed.tolist(), scores.tolist())
    close(widened.tolist(), scores.tolist())
    close(left.tolist(), scores.tolist())


def test_a_sampled_pad_token_at_the_end_is_read_as_any_token(reward_model):
    # The model's own class looks for the last id that is not the pad id, and would read before it.
    scorer = load_scorer(reward_model())
    pad = scorer.tokenizer.pad_token_id
    ids, mask = torch.tensor([[1, 6, 7, pad]]), torch.ones(1, 4, dtype=torch.bool)
    with torch.no_grad():
        hidden = scorer.model.transformer(ids).last_hidden_state
        expected = scorer.model.score(hidden[:, 3])[:, 0].tolist()
        close(scores_at_last_token(scorer.model, ids, mask).tolist(), expected)


def test_sampled_ids_are_scored_as_they_are(reward_model):
    scorer = load_scorer(reward_model())
    encoded = [scorer.encode(p, c).ids for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    completion_ids = [encode_completion(scorer.tokenizer, text) for text in COMPLETIONS]
    by_ids = scorer.score_tokens(PROMPTS, completion_ids)
    close(by_ids, scorer.score_ids(encoded))
    without_end = scorer.score_tokens(PROMPTS, [ids[:-1] for ids in completion_ids])
    assert all(abs(one - other) > 1e-3 for one, other in zip(by_ids, without_end, strict=True))


def test_an_answer_of_nothing_is_its_end_token_alone_as_text_and_as_ids(reward_model):
    scorer = load_scorer(reward_model())
    end = scorer.tokenizer.eos_token_id
    assert scorer.encode(PROMPTS[1], "").ids[-1] == end
    close(scorer.score([PROMPTS[1]], [""]), scorer.score_tokens([PROMPTS[1]], [[end]]))


def test_a_prompt_too_long_is_cut_for_sampled_ids_as_it_is_for_texts(reward_model):
    scorer = load_scorer(reward_model())
    turns = [*said(*"abcdefghij"), {"role": "assistant", "content": "b b b b b b b b"}, *said("c")]
    texts = ["d", "d e f g h i j a"]  # the longer one leaves room for the last turn alone
    cut = [scorer.encode(turns, text).dropped_turns for text in texts]
    assert cut == [0, 2]
    completion_ids = [encode_completion(scorer.tokenizer, text) for text in texts]
    close(scorer.score_tokens([turns] * 2, completion_ids), scorer.score([turns] * 2, texts))


def test_a_long_prompt_loses_its_oldest_turns_and_the_completion_stays_whole(letters):
    turns = [
        {"role": role, "content": " ".join(letters_said)}
        for role, letters_said in [("user", "aaaa"), ("assistant", "bbbb"), ("user", "cc")]
    ]
    whole = encode(letters, turns, "d e f", max_tokens=100)
    assert whole.dropped_turns == 0
    short = encode(letters, turns, "d e f", max_tokens=len(whole.ids) - 1)
    assert short.dropped_turns == 2
    assert short.ids == encode(letters, turns[2:], "d e f", max_tokens=100).ids
    assert short.ids[-4:] == letters.convert_tokens_to_ids(["d", "e", "f", "<|end|>"])


def test_a_completion_that_leaves_no_room_is_refused_with_its_length(letters, reward_model):
    with pytest.raises(TooLong, match="completion of 9 tokens is too long: the model takes 10"):
        encode(letters, said("a"), "a b c d e f g h", max_tokens=10)
    scorer = load_scorer(reward_model())
    with pytest.raises(TooLong, match="the model takes 32"):
        scorer.score([said("a")], ["a " * 40])
    with pytest.raises(TooLong, match="completion of 32 tokens"):
        scorer.score_tokens([said("a")], [[6] * 32])


def test_ids_are_exchanged_only_between_tokenizers_that_agree(reward_model, letters):
    scorer = load_scorer(reward_model())
    assert scorer.shares_tokenizer(letters)
    letters.chat_template = None
    try:
        assert not scorer.shares_tokenizer(letters)
    finally:
        letters.chat_template = scorer.tokenizer.chat_template


def test_batches_hold_every_row_once_within_the_limit():
    lengths = [5, 1, 9, 3, 3, 40, 2]
    batches = list(batches_by_length(lengths, 12))
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert all(
        len(batch) * max(lengths[i] for i in batch) <= 12 for batch in batches if len(batch) > 1
    )
    assert batches[-1] == [5]


def test_an_encoder_is_asked_for_its_own_score(letters, tmp_path):
    config = BertConfig(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        num_labels=1,
        pad_token_id=letters.pad_token_id,
    )
    save_model(BertForSequenceClassification(config), letters, tmp_path / "bert")
    scorer = load_scorer(tmp_path / "bert")
    rows = [scorer.encode(p, c).ids for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    with torch.no_grad():
        expected = [scorer.model(torch.tensor([row])).logits[0, 0].item() for row in rows]
    close(scorer.score(PROMPTS, COMPLETIONS), expected)


def test_a_folder_that_holds_no_reward_model_is_refused_with_a_sentence(tiny_policy, tmp_path):
    with pytest.raises(BadInput, match="no model folder"):
        load_scorer(tmp_path / "absent")
    with pytest.raises(BadInput, match="holds a GPT2LMHeadModel, not a reward model"):
        load_scorer(tiny_policy())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_completions_of_one_prompt_are_read_with_it_once(reward_model, kind):
    scorer = load_scorer(reward_model(kind))
    completions = ["a", "b c", "a b", "j i h", "c", "d d"]
    prompts = [said(*"abcdefgh"), said("c")] * 3  # three of each, in turns
    alone = [
        scorer.score([prompt], [completion])[0]
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    seen = []
    scorer.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    close(scorer.score(prompts, completions), alone)
    pad = scorer.model.config.pad_token_id
    rows = [scorer.encode(*pair).ids for pair in zip(prompts, completions, strict=True)]
    read = sum(int((ids != pad).sum()) for ids in seen)
    assert read < 0.7 * sum(map(len, rows))
