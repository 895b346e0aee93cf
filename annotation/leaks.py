"""What must not be put before a labeler: answers that name their maker, and two that are one.

An identity leak says in the first person which model speaks or who made it ("as a model trained by
OpenAI", "我是由百度开发的"). It unblinds the comparison, and votes then measure fame. "I am an AI
assistant" names nobody and is none; nor is talk of a model in the third person, or a denial.

Near-identical answers cannot be told apart, so their vote is a coin's. Two texts are near-identical
if their letters and digits are the same, or if the multisets of their character triples overlap
(Jaccard) by SAME_FROM or more while they hold the same numbers and negations: "within 14 days" and
"within 30 days", "can" and "cannot" differ in what a labeler is asked to see.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

LEAK, ALIKE = "leak", "alike"
SAME_FROM = 0.95
"""One word of six letters changed in 300 characters is 0.948, in 400 characters 0.961."""
TRIPLE = 3
MOST_CHARACTERS = 20_000
"""Of a text that is searched for a leak; leaks stand in the first or last sentences."""

MAKERS = (
    "OpenAI", "Anthropic", "Google", "DeepMind", "Meta AI", "Meta", "Facebook", "Microsoft", "xAI",
    "Mistral AI", "Mistral", "Cohere", "Inflection AI", "Inflection", "Stability AI", "LAION",
    "Hugging Face", "Databricks", "NVIDIA", "Amazon", "Apple", "IBM", "Alibaba Cloud", "Alibaba",
    "Tencent", "Baidu", "ByteDance", "Huawei", "iFLYTEK", "SenseTime", "Zhipu AI", "Zhipu",
    "Moonshot AI", "MiniMax", "DeepSeek", "Baichuan", "01.AI", "LMSYS", "Stanford", "Tsinghua",
    "阿里云", "阿里巴巴", "达摩院", "百度", "腾讯", "字节跳动", "华为", "科大讯飞", "讯飞", "商汤",
    "智谱", "月之暗面", "深度求索", "百川智能", "零一万物", "清华", "复旦", "谷歌", "微软", "脸书",
)  # fmt: skip
MODELS = (
    r"ChatGPT", r"GPT[- ]?[2-9](?:\.\d)?o?(?:[- ](?:turbo|mini))?", r"InstructGPT", r"Codex",
    r"Claude", r"Gemini", r"Bard", r"PaLM", r"LLaMA", r"Llama[- ]?[1-9]", r"Vicuna", r"Mixtral",
    r"Mistral", r"Grok", r"Copilot", r"Bing Chat", r"Qwen\d?", r"Tongyi Qianwen", r"ERNIE(?: Bot)?",
    r"Kimi", r"Doubao", r"DeepSeek", r"ChatGLM\d?", r"GLM-\d", r"Baichuan", r"InternLM", r"MOSS",
    r"Open ?Assistant", r"文心一言", r"通义千问", r"豆包", r"智谱清言", r"讯飞星火", r"星火认知",
    r"盘古", r"混元", r"百川", r"深度求索",
)  # fmt: skip

_MAKER = "|".join(re.escape(name) for name in MAKERS)
_MODEL = "|".join(MODELS)
_NOT_MORE = r"(?![A-Za-z0-9])(?!\s+[A-Z][a-z])"  # no part of a longer name: Claude Monet
_MADE = r"(?:made|created|developed|trained|built|designed|produced|provided|released)"
_THING = (
    r"(?:AI|artificial intelligence|(?:large )?language model|chat ?bot|virtual assistant|model)"
)
_NAMED = rf"(?:{_MAKER}|(?-i:[A-Z][\w.-]*[A-Za-z]))"
_AFTER_BY = r"(?:the |a )?(?:(?:team|people|engineers|researchers|company) (?:at|of|from|called) )?"
_ZH_MADE = r"(?:开发|研发|训练|创建|创造|打造|推出|设计|构建|提供|发布)"
_ZH_THING = r"(?:AI|人工智能|语言模型|大模型|模型|助手|聊天机器人|机器人)"
_ZH_GROUP = r"(?:公司|集团|实验室|研究院|大学|科技)"
_ZH_NOBODY = r"(?!由|某|一[家个间所群支]|多[家个]|我们|这[家个]|那[家个]|各)"
_ZH_NAMED = (
    rf"(?:[^，。！？；,.!?;\n]{{0,8}}?(?:{_MAKER})[^，。！？；,.!?;\n]{{0,8}}?"
    rf"|[A-Z][\w.-]+[^，。！？；,.!?;\n]{{0,6}}?"
    rf"|{_ZH_NOBODY}[\u4e00-\u9fff]{{2,10}}?{_ZH_GROUP}(?:的?团队)?)"
)

LEAKS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # I am GPT-4; my name is Claude; as ChatGPT, I ...; you are talking to Gemini
        rf"\b(?:I am|I'm|my name is|call me|this is|I go by|you(?:'re| are) (?:talking|speaking|"
        rf"chatting) (?:to|with))(?: called| named)? (?-i:{_MODEL}){_NOT_MORE}",
        rf"\b(?:I am|I'm) (?:(?:based on|powered by|running on|a version of|an instance of) )"
        rf"(?:the )?(?:{_MODEL}|{_MAKER})(?![A-Za-z])",
        rf"\bas (?-i:{_MODEL}){_NOT_MORE}\s*,? ?(?:,|I\b)",
        # as an AI model made by ...; I am a language model trained by ...
        rf"\b(?:as|I am|I'm|I was|being) (?:an? |the )?(?:\w+[ -]){{0,4}}?{_THING}"
        rf"(?:[ -]\w+){{0,3}}?,? (?:(?:that|which) (?:is|was) )?{_MADE} by {_AFTER_BY}{_NAMED}",
        rf"\b(?:as|I am|I'm) (?:an? |the )?(?:{_MAKER})(?:'s)? (?:\w+ )?{_THING}\b",
        # I was trained by OpenAI; my creators at Anthropic
        rf"\bI(?:'ve| have)? (?:was|am|been) {_MADE} by {_AFTER_BY}(?:{_MAKER})(?![A-Za-z])",
        rf"\bmy (?:creators?|developers?|makers?|parent company)(?: is| are|,| at| from)+ "
        rf"(?:the )?(?:team at )?(?:{_MAKER})(?![A-Za-z])",
        rf"\b(?:{_MAKER}) (?:has |have )?(?:{_MADE}|programmed) me\b",
        # 我是ChatGPT；我叫文心一言；作为通义千问，我……
        rf"(?:我是|我叫|我的名字[是叫]|[你您]可以叫我|我就是)(?:一[个款名]|名为|叫做?)?[“\"「]?(?:{_MODEL})",
        rf"作为[“\"「]?(?:{_MODEL})",
        # 我是由……开发的；作为百度研发的语言模型；我由……训练
        rf"我(?:是一?[个款]?)?由{_ZH_NAMED}(?:独立|自主|共同)?{_ZH_MADE}",
        rf"我是{_ZH_NAMED}(?:独立|自主|共同)?{_ZH_MADE}的[^，。！？\n]{{0,12}}{_ZH_THING}",
        rf"作为(?:一[个款名])?由?{_ZH_NAMED}(?:独立|自主|共同)?{_ZH_MADE}的",
        rf"我是(?:{_MAKER})(?:公司)?的?[^，。！？\n不]{{0,6}}{_ZH_THING}",
        rf"我的(?:开发者|创造者|研发团队|开发团队|开发商|母公司)(?:是|来自|为)(?:{_MAKER})",
    )
)
_MARKS = re.compile(r"[*_`~\u200b-\u200f\u2060\ufeff]")
_NEGATION = re.compile(r"\b(?:not|no|never|none|cannot|without)\b|n't\b|[不没無无非未别]")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


def identity_leak(text: str) -> str | None:
    """The words in which a text says which model wrote it or who made that; None where it doesn't.

    Markdown marks and invisible characters do not hide it; only the first and last
    MOST_CHARACTERS are read.
    """
    if len(text) > 2 * MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]}\n{text[-MOST_CHARACTERS:]}"
    plain = _MARKS.sub("", unicodedata.normalize("NFKC", text)).replace("’", "'")
    plain = re.sub(r"[ \t]+", " ", plain)
    for pattern in LEAKS:
        if found := pattern.search(plain):
            return found.group().strip()
    return None


def fault_of(text: str, others: Sequence[str], *, leaks: bool, likeness: bool) -> str:
    """LEAK or ALIKE where a text may not stand beside the others, else nothing. leaks, likeness:
    what is looked for."""
    if leaks and identity_leak(text):
        return LEAK
    if likeness and any(near_identical(text, other) for other in others):
        return ALIKE
    return ""


def near_identical(one: str, other: str) -> bool:
    """Whether a labeler could tell the two apart only by punctuation, or by a word in fifty."""
    here, there = _letters(one), _letters(other)
    if here == there:
        return True
    return _held(one) == _held(other) and overlap(here, there) >= SAME_FROM


def overlap(one: str, other: str) -> float:
    """Jaccard index of the multisets of character triples, in [0, 1]; a text repeated twice is not
    the same as once."""
    here, there = _triples(one), _triples(other)
    either = (here | there).total()
    return (here & there).total() / either if either else 1.0


def _letters(text: str) -> str:
    """Letters and digits alone, folded: 全角 and half width, case, spaces, punctuation are one."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def _triples(text: str) -> Counter[str]:
    return Counter(text[i : i + TRIPLE] for i in range(max(1, len(text) - TRIPLE + 1)))


def _held(text: str) -> tuple[list[str], int]:
    """The numbers of a text in their order, and how many negations it has."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return _NUMBER.findall(folded), len(_NEGATION.findall(folded))
