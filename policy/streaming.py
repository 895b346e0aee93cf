"""A completion's text while its tokens are drawn.

A token may hold a part of a character (Chinese, emoji), and what follows may join what stands
before, so text is given out only once no further token can change it. What was given out is always
the beginning of `decode_completion` of all tokens; `finish` gives the rest.
"""

from typing import Any

from policy.text import decode_completion

UNFINISHED = "�"
"""What a decoder shows for bytes that make no character, or none yet."""


class TextStream:
    """Tokens in, pieces of text out."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.tokens: list[int] = []
        self.told = ""
        """The pieces so far, in one."""

    def add(self, token: int) -> str:
        """The piece that this token completes; often empty."""
        self.tokens.append(token)
        return self._tell(decode_completion(self.tokenizer, self.tokens).rstrip(UNFINISHED))

    def finish(self) -> str:
        """What was held back: bytes at the end that never became a character."""
        return self._tell(self.text)

    @property
    def text(self) -> str:
        """The whole text of the tokens so far."""
        return decode_completion(self.tokenizer, self.tokens)

    def _tell(self, text: str) -> str:
        if not text.startswith(self.told):  # the decoder changed its mind; the end tells
            return ""
        piece = text[len(self.told) :]
        self.told = text
        return piece
