"""Identity leaks and near-identical answers, against tables made by hand in both languages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.leaks import fault_of, identity_leak, near_identical, overlap

LEAKING = [
    "As an AI language model developed by OpenAI, I cannot give medical advice.",
    "As an AI model made by Contoso, I have no opinions.",
    "I am GPT-4, so let me help.",
    "I'm ChatGPT! How can I help?",
    "Hello, I'm Claude, an AI assistant.",
    "My name is Claude. I was made to be helpful.",
    "I am a large language model, trained by Google.",
    "I'm an AI assistant created by the team at Anthropic.",
    "I was trained by OpenAI on many texts.",
    "OpenAI created me to answer questions.",
    "As ChatGPT, I don't have feelings.",
    "As Claude, I try to be honest.",
    "I am based on GPT-3.5 and may err.",
    "I'm powered by Llama 2.",
    "You are talking to Gemini.",
    "I am a Meta AI model.",
    "My creators at Anthropic gave me rules.",
    "I am **ChatGPT**, a _large_ language model.",
    "I\u200b am GPT\u200b-4.",
    "Sure, returns take 30 days. I’m Open Assistant, by the way.",
    "我是由百度开发的人工智能助手。",
    "我是由OpenAI训练的语言模型。",
    "我是ChatGPT，很高兴为您服务。",
    "您好，我是通义千问。",
    "我叫文心一言，可以回答问题。",
    "作为百度研发的语言模型，我不能提供医疗建议。",
    "作为一个由阿里云开发的大模型，我没有情感。",
    "作为ChatGPT，我没有个人观点。",
    "我是阿里巴巴的智能助手。",
    "我由深度求索公司独立开发。",
    "我是由星河科技公司打造的聊天机器人。",
    "我的开发者是谷歌。",
    "你可以叫我豆包。",
    "我是ＧＰＴ－４。",
    "我是智谱AI训练的大语言模型。",
]
CLEAN = [
    "I am an AI assistant and cannot open parcels.",
    "As an AI language model, I cannot browse.",
    "I'm a virtual assistant of this shop.",
    "ChatGPT was developed by OpenAI in 2022.",
    "GPT-4 is a language model made by OpenAI.",
    "I am not ChatGPT.",
    "I am using GPT-4 for my homework.",
    "I'm a Gemini, born in June.",
    "I am Claude Monet, the painter of water lilies.",
    "I was trained by Coach Miller for ten years.",
    "This chair was made by Google employees in their spare time.",
    "I am a llama keeper from Peru.",
    "As Claude Debussy said, music is the space between the notes.",
    "My name is Bardo.",
    "I am an engineer and I was hired by Microsoft.",
    "Our kettle is made by hand. I am sure that you will like it.",
    "I am a model built by hand, said the toy ship.",
    "我是一个人工智能助手，无法查看您的订单。",
    "作为一个人工智能语言模型，我没有个人观点。",
    "我是客服小李，请问有什么可以帮您？",
    "百度是一家由李彦宏创立的公司。",
    "ChatGPT是由OpenAI开发的。",
    "我不是ChatGPT。",
    "我是百度的用户。",
    "我是由父母抚养长大的。",
    "我在华为公司工作。",
    "我们的产品由专业团队设计。",
    "这款水壶是由一家德国公司设计的。",
    "我是由一家公司开发的助手。",
    "作为腾讯的客户，您可以退款。",
]


@pytest.mark.parametrize("text", LEAKING)
def test_a_leak_is_found(text):
    assert identity_leak(text)


@pytest.mark.parametrize("text", CLEAN)
def test_what_names_no_maker_of_itself_is_none(text):
    assert identity_leak(text) is None


def test_a_leak_at_the_end_of_a_long_text_is_found():
    assert identity_leak("Well. " * 20_000 + "I am ChatGPT.")


LONG = (
    "Thank you for writing. You can return the jacket within 30 days: open your orders, choose the "
    "jacket, press return, and print the label that we send you by e-mail. Bring the parcel to any "
    "post office; the money is back on your card about five working days later. If the jacket is "
    "damaged, send us a photograph first, and we will answer on the same day. We are here for you."
)
SAME = [
    ("Yes.", "yes"),
    ("You can return it.", "You can  return it!"),
    ("可以退货。", "可以退货！"),
    ("ＯＫ，可以", "ok可以"),
    (LONG, LONG.replace("jacket is\ndamaged", "jacket is damaged")),
    (LONG, LONG.replace("photograph", "photo")),
]
DIFFERENT = [
    ("Yes.", "No."),
    ("You can return it.", "You can keep it."),
    (LONG, LONG.replace("30", "14")),
    (LONG, LONG.replace("we will answer", "we will not answer")),
    (LONG, f"{LONG} {LONG}"),
    (LONG, LONG.replace("If the jacket is damaged, send us a photograph first", "Please wait")),
    ("可以退货。", "不可以退货。"),
    ("三天内退款", "五天内退款"),
    ("", "Something."),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_near_identical(one, other):
    assert near_identical(one, other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different(one, other):
    assert not near_identical(one, other)


def test_overlap_by_hand():
    """abcd: abc bcd; abcx: abc bcx; one of three. Twice the same text: half."""
    assert overlap("abcd", "abcx") == pytest.approx(1 / 3)
    assert overlap("aaaa", "aaaaaa") == pytest.approx(2 / 4)
    assert overlap("", "") == 1


def test_only_what_is_looked_for_is_a_fault():
    leak, others = "I am ChatGPT.", ["i am chatgpt"]
    assert fault_of(leak, others, leaks=True, likeness=True) == "leak"
    assert fault_of(leak, others, leaks=False, likeness=True) == "alike"
    assert fault_of(leak, others, leaks=False, likeness=False) == ""
    assert fault_of("Hello.", others, leaks=True, likeness=True) == ""


@given(st.text(max_size=60), st.text(max_size=60))
def test_it_is_symmetric_and_every_text_is_like_itself(one, other):
    assert near_identical(one, other) == near_identical(other, one)
    assert near_identical(one, one)
    assert 0 <= overlap(one, other) <= 1
    identity_leak(one + other)
