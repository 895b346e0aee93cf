"""The tokenizer that pretrain makes."""

import pytest

from policy.tokenizer import train_tokenizer

NEIGHBOURS = ("我的{}坏了。", "您的{}明天到。", "{}在哪里？", "买{}送礼物。")


@pytest.fixture(scope="module")
def tokenizer():
    texts = [sentence.format("键盘") for sentence in NEIGHBOURS] * 20
    return train_tokenizer(texts, vocab_size=600, context=64)


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("sentence", NEIGHBOURS)
def test_a_chinese_name_is_the_same_tokens_beside_any_neighbour(tokenizer, sentence):
    name, whole = ids(tokenizer, "键盘"), ids(tokenizer, sentence.format("键盘"))
    assert len(name) == 2
    places = [at for at in range(len(whole)) if whole[at : at + len(name)] == name]
    assert len(places) == 1


@pytest.mark.parametrize("text", ["我的 keyboard 坏了!", "日本語かな", "𠀀", "a\n\n b\tc", "🙂"])
def test_any_text_comes_back_as_it_was(tokenizer, text):
    assert tokenizer.decode(ids(tokenizer, text)) == text
