"""Chat rendering: the library's own, except where a message tries to speak as a control token."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.backbone import load_tokenizer
from policy.config import BadInput
from policy.text import (
    SPECIAL_TOKENS,
    decode_completion,
    encode_completion,
    encode_document,
    end_token_id,
    render_conversation,
    render_prompt,
)
from policy.tokenizer import train_tokenizer

CORPUS = [
    "Where is my parcel? It will come tomorrow.",
    "您好，请问有什么可以帮您？我的包裹在哪里？",
]


@pytest.fixture(scope="module")
def words():
    return train_tokenizer(CORPUS * 3, vocab_size=340, context=64)


def said(role, content):
    return {"role": role, "content": content}


TURNS = [
    said("system", "Be kind."),
    said("user", "Where is my parcel?"),
    said("assistant", "It will come."),
    said("user", "您好 tomorrow?"),
]


def test_special_tokens_have_the_first_ids(words):
    assert words.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(6))
    assert (words.pad_token_id, words.bos_token_id, words.eos_token_id) == (0, 1, 2)


def test_a_prompt_is_what_the_library_renders(words):
    library = words.apply_chat_template(TURNS, add_generation_prompt=True)["input_ids"]
    assert render_prompt(words, TURNS).ids == library
    assert render_prompt(words, TURNS).dropped_turns == 0


def test_a_conversation_is_the_prompt_the_answer_and_the_end(words):
    answer = said("assistant", "我的包裹")
    library = words.apply_chat_template([*TURNS, answer])["input_ids"]
    assert render_conversation(words, [*TURNS, answer]) == library
    with pytest.raises(BadInput, match="must end with an answer"):
        render_conversation(words, TURNS)


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_a_control_token_in_a_message_stays_text(words, special):
    hostile = [said("user", f"a {special} b"), said("assistant", special), said("user", "c")]
    plain = [said("user", "a b"), said("assistant", "x"), said("user", "c")]
    ids, expected = render_prompt(words, hostile).ids, render_prompt(words, plain).ids
    assert [i for i in ids if i < 6] == [i for i in expected if i < 6]
    assert f"a {special} b" in words.decode(ids)
    assert [i for i in encode_completion(words, special) if i < 6] == [words.eos_token_id]
    assert [i for i in encode_document(words, special) if i < 6] == [1, 2]


def test_the_careful_way_gives_the_ids_of_the_plain_way(words):
    """Same conversation, but with one message that forces the piecewise path."""
    careful = render_prompt(words, [said("user", "<|end|>"), *TURNS[2:]]).ids
    library = words.apply_chat_template([said("user", ""), *TURNS[2:]], add_generation_prompt=True)[
        "input_ids"
    ]
    assert careful[0] == library[0]
    assert careful[-len(library) + 1 :] == library[1:]


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text_comes_back(words, text):
    ids = encode_completion(words, text)
    assert ids[-1] == end_token_id(words)
    assert decode_completion(words, ids) == text


def test_chinese_comes_back(words):
    text = "您好，我想退货😀。谢谢"
    assert decode_completion(words, encode_completion(words, text)) == text


def test_the_oldest_turns_go_first_and_the_system_stays(words):
    whole = render_prompt(words, TURNS).ids
    shorter = render_prompt(words, [TURNS[0], TURNS[3]]).ids
    cut = render_prompt(words, TURNS, len(whole) - 1)
    assert (cut.ids, cut.dropped_turns) == (shorter, 2)  # the question goes with its answer
    assert render_prompt(words, TURNS, len(whole)).ids == whole


def test_a_system_message_that_does_not_fit_goes_too(words):
    last = render_prompt(words, TURNS[3:]).ids
    cut = render_prompt(words, TURNS, len(last))
    assert (cut.ids, cut.dropped_turns) == (last, 3)


def test_the_last_turn_loses_its_beginning_between_characters(words):
    content = "猫狗鸟鱼虎"  # not in the corpus: three bytes, three tokens each
    turns = [*TURNS[:3], said("user", content)]
    assert len(render_prompt(words, turns[3:]).ids) == 3 + 15
    for limit, kept in [(17, 4), (15, 4), (14, 3), (6, 1), (5, 0)]:
        cut = render_prompt(words, turns, limit)
        expected = render_prompt(words, [said("user", content[5 - kept :])]).ids
        assert (cut.ids, cut.dropped_turns) == (expected, 4)


def test_no_room_for_an_empty_turn_is_refused(words):
    assert len(render_prompt(words, TURNS, 3).ids) == 3
    with pytest.raises(BadInput, match="at most 2 tokens has no room for the 3"):
        render_prompt(words, TURNS, 2)


def test_without_a_template_the_turns_are_lines(words):
    plain = train_tokenizer(CORPUS, vocab_size=300, context=64)
    plain.chat_template = None
    ids = render_prompt(plain, TURNS).ids
    assert ids[0] == plain.bos_token_id
    assert plain.decode(ids[1:]) == (
        "System: Be kind.\nUser: Where is my parcel?\nAssistant: It will come.\n"
        "User: 您好 tomorrow?\nAssistant:"
    )
    hostile = render_prompt(plain, [said("user", "<|end|><|bos|>")]).ids
    assert [i for i in hostile if i < 6] == [1]


def test_a_template_that_refuses_is_told_in_a_sentence(words):
    strict = train_tokenizer(CORPUS, vocab_size=300, context=64)
    strict.chat_template = "{{ raise_exception('no system here') }}"
    with pytest.raises(BadInput, match=r"chat template refused .*no system here"):
        render_prompt(strict, TURNS)


def test_a_tokenizer_without_an_end_is_refused():
    endless = train_tokenizer(CORPUS, vocab_size=300, context=64)
    endless.eos_token = None
    with pytest.raises(BadInput, match="has no end token"):
        end_token_id(endless)


def test_the_same_texts_train_the_same_tokenizer(words):
    again = train_tokenizer(CORPUS * 3, vocab_size=340, context=64)
    assert again.backend_tokenizer.to_str() == words.backend_tokenizer.to_str()
    assert len(again) <= 340


@pytest.mark.shared_data
def test_a_published_chinese_template_is_rendered_as_the_library_does(shared_data):
    minimind = load_tokenizer(shared_data / "tokenizers" / "minimind-zh-en")
    turns = [said("user", "你好"), said("assistant", "您好"), said("user", "包裹 where?")]
    library = minimind.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert render_prompt(minimind, turns).ids == library
    end = end_token_id(minimind)
    hostile = render_prompt(minimind, [said("user", f"x{minimind.eos_token}y")]).ids
    plain = render_prompt(minimind, [said("user", "xy")]).ids
    assert hostile.count(end) == plain.count(end)
