"""Chat rendering, completions and their ids: only here, so that every stage sees the same tokens.

A tokenizer with a chat template is rendered with it. One without gets lines, behind its start token
if it has one:

    System: ...
    User: ...
    Assistant: ...
    User: ...
    Assistant:

and the completion's ids follow at once. Text of a special token inside a message stays text: it
never becomes the control token. Ids are kept from here on; nothing tokenises decoded text again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from policy.config import BadInput, require
from policy.data import Message

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, BOS, END, SYSTEM, USER, ASSISTANT)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Of the tokenizer that pretrain makes: <|user|>...<|end|><|assistant|>...<|end|>"""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """Token ids of a prompt, ready for a completion to follow."""

    ids: list[int]
    dropped_turns: int
    """Turns that were left out or cut so that it fits; 0 = it is whole."""


def render_prompt(
    tokenizer: Any, messages: Sequence[Message], max_tokens: int | None = None
) -> RenderedPrompt:
    """The conversation with the assistant's turn opened, in at most max_tokens.

    Too long: the oldest turns go first, a leading system message is kept if it fits, and at last
    the beginning of the one turn that is left is cut. Raises BadInput if no empty turn fits.
    """
    turns = list(messages)
    ids = _prompt_ids(tokenizer, turns)
    dropped = 0
    while max_tokens is not None and len(ids) > max_tokens:
        first = 1 if turns[0]["role"] == "system" else 0
        if len(turns) > first + 1:
            # A template may insist that the user speaks first: an answer goes with its question.
            del turns[first]
            dropped += 1
            while len(turns) > first + 1 and turns[first]["role"] == "assistant":
                del turns[first]
                dropped += 1
        elif first:
            del turns[0]
            dropped += 1
        else:
            return RenderedPrompt(_cut_to(tokenizer, turns[0], max_tokens), dropped + 1)
        ids = _prompt_ids(tokenizer, turns)
    return RenderedPrompt(ids, dropped)


def encode_completion(tokenizer: Any, text: str) -> list[int]:
    """Ids of the text and then the end token, whole always."""
    return [*_content_ids(tokenizer, text), end_token_id(tokenizer)]


def decode_completion(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of sampled ids, without special tokens. For reading, not for tokenising again."""
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


def render_conversation(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """A whole conversation that ends with the assistant's answer, as one document."""
    require(
        len(messages) > 1 and messages[-1]["role"] == "assistant",
        f"a conversation to learn must end with an answer, got roles "
        f"{[message['role'] for message in messages]}",
    )
    prompt = render_prompt(tokenizer, messages[:-1])
    return [*prompt.ids, *encode_completion(tokenizer, messages[-1]["content"])]


def encode_document(tokenizer: Any, text: str) -> list[int]:
    """A plain document: the start token if there is one, the text, the end token."""
    return [*_start(tokenizer), *encode_completion(tokenizer, text)]


def end_token_id(tokenizer: Any) -> int:
    """The id that ends a completion. Raises BadInput for a tokenizer without one."""
    if tokenizer.eos_token_id is None:
        raise BadInput(f"the tokenizer {tokenizer.name_or_path!r} has no end token")
    return int(tokenizer.eos_token_id)


def _prompt_ids(tokenizer: Any, turns: Sequence[Message]) -> list[int]:
    if tokenizer.chat_template:
        return _template_ids(tokenizer, turns)
    lines = [f"{turn['role'].capitalize()}: {turn['content']}\n" for turn in turns]
    return [*_start(tokenizer), *_content_ids(tokenizer, "".join(lines) + "Assistant:")]


def _template_ids(tokenizer: Any, turns: Sequence[Message]) -> list[int]:
    """As the library renders it, unless a message holds the text of a special token."""
    specials = tokenizer.all_special_tokens
    if not any(special in turn["content"] for turn in turns for special in specials):
        return _rendered_ids(tokenizer, _rendered(tokenizer, turns))
    # The template is rendered around marks (private-use characters, one per turn), and the
    # contents are put in as ids, encoded where special tokens are not recognised.
    marks = [f"\ue0f0{number}\ue0f1" for number in range(len(turns))]
    marked = [{**turn, "content": mark} for turn, mark in zip(turns, marks, strict=True)]
    rest = _rendered(tokenizer, marked)
    ids: list[int] = []
    for turn, mark in zip(turns, marks, strict=True):
        before, found, rest = rest.partition(mark)
        if not found:
            raise BadInput("the chat template does not hold every message once, in order")
        ids += _rendered_ids(tokenizer, before)
        ids += _content_ids(tokenizer, turn["content"])
    return ids + _rendered_ids(tokenizer, rest)


def _rendered(tokenizer: Any, turns: Sequence[Any]) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True)
        )
    except Exception as error:  # jinja2's errors and whatever a template raises
        raise BadInput(f"the chat template refused the conversation: {error}") from error


def _rendered_ids(tokenizer: Any, text: str) -> list[int]:
    return (
        list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []
    )


def _content_ids(tokenizer: Any, text: str) -> list[int]:
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
    return list(encoded["input_ids"])


def _start(tokenizer: Any) -> list[int]:
    return [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]


def _cut_to(tokenizer: Any, turn: Message, max_tokens: int) -> list[int]:
    """Ids of the one turn with as much of its end as fits, cut between characters."""
    text = turn["content"]
    low, high = 0, len(text)  # characters kept, by halving
    best = _prompt_ids(tokenizer, [{**turn, "content": ""}])
    require(
        len(best) <= max_tokens,
        f"a prompt of at most {max_tokens} tokens has no room for the {len(best)} tokens of an "
        f"empty turn",
    )
    while low < high:
        middle = (low + high + 1) // 2
        ids = _prompt_ids(tokenizer, [{**turn, "content": text[len(text) - middle :]}])
        if len(ids) <= max_tokens:
            low, best = middle, ids
        else:
            high = middle - 1
    return best
