"""Markdown of untrusted authors to HTML that cannot act.

Two walls, each enough alone: markdown-it-py without raw HTML, then nh3's allow-list without a
single attribute that loads, links or runs. Links stay readable but cannot be followed: an
annotator should see where a model points, not go there. Code in a fence that names a language
gets the classes of its tokens (annotation/code_colours.py), and no other class passes.
"""

from collections import OrderedDict
from collections.abc import Callable, MutableMapping, Sequence
from threading import Lock
from typing import Any

import nh3
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from annotation.code_colours import CLASSES, coloured

MAX_CHARACTERS = 40_000
"""Of one page. What goes beyond is shown as it is: a megabyte of brackets would take a minute."""
MAX_CACHED_CHARACTERS = 10_000_000
"""Of texts and their HTML, in each process."""

TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li"),
    *("h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "span"),
}


class InertRenderer(RendererHTML):
    """Links and images as text with their address beside it; headings below the page's own."""

    def link_open(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: dict[str, Any]
    ) -> str:
        return '<span class="inert-link">'

    def link_close(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: dict[str, Any]
    ) -> str:
        """The address follows the words, unless the words are the address."""
        start = _opening(tokens, idx)
        words = "".join(token.content for token in tokens[start:idx])
        href = str(tokens[start].attrGet("href") or "")
        if words == href or tokens[start].markup in ("autolink", "linkify"):
            return "</span>"
        return f'</span><span class="address"> ({escape(href)})</span>'

    def image(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]
    ) -> str:
        address = escape(str(tokens[idx].attrGet("src") or ""))
        words = escape(tokens[idx].content)
        return f'<span class="inert-link">{words}</span><span class="address"> ({address})</span>'

    def heading_open(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: dict[str, Any]
    ) -> str:
        return f"<{_heading(tokens[idx])}>"

    def heading_close(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: dict[str, Any]
    ) -> str:
        return f"</{_heading(tokens[idx])}>\n"


def _opening(tokens: Sequence[Token], close: int) -> int:
    """Where the link that ends at `close` began; links do not nest."""
    return next(at for at in range(close, -1, -1) if tokens[at].type == "link_open")


def _heading(token: Token) -> str:
    """h1 becomes h3, so that a model's heading never outranks the page's."""
    return f"h{min(6, int(token.tag[1]) + 2)}"


_parser = MarkdownIt(
    "commonmark",
    {"html": False, "breaks": True, "linkify": False, "highlight": coloured},
    renderer_cls=InertRenderer,
).enable(["table", "strikethrough"])
# An address that markdown-it would refuse (javascript:, data:) is shown too: it is only text here.
_parser.validateLink = lambda url: True  # type: ignore[method-assign]


class Cache:
    """A function of a text, remembered by last use; `most` characters of texts and HTML in all."""

    def __init__(self, make: Callable[[str], SafeString], most: int) -> None:
        self.make, self.most = make, most
        self.made: OrderedDict[str, SafeString] = OrderedDict()
        self.held = 0
        self.lock = Lock()  # a process serves several pages at once

    def __call__(self, text: str) -> SafeString:
        with self.lock:
            if text in self.made:
                self.made.move_to_end(text)
                return self.made[text]
        html = self.make(text)
        with self.lock:
            if text not in self.made and len(text) + len(html) <= self.most:
                self.made[text] = html
                self.held += len(text) + len(html)
                while self.held > self.most:
                    self.held -= sum(map(len, self.made.popitem(last=False)))
        return html


def _rendered(text: str) -> SafeString:
    html = nh3.clean(
        _parser.render(text),
        tags=TAGS,
        clean_content_tags={"script", "style"},
        attributes={},
        tag_attribute_values={"span": {"class": {"inert-link", "address", *CLASSES}}},
        url_schemes=set(),
        link_rel=None,
    )
    return mark_safe(html)


_cache = Cache(_rendered, MAX_CACHED_CHARACTERS)


def render(text: str) -> SafeString:
    """HTML of one text, safe to place in a page; the same text is rendered once."""
    return _cache(text) if len(text) <= MAX_CHARACTERS else _as_it_is(text)


def _as_it_is(text: str) -> SafeString:
    return mark_safe(f"<pre>{escape(text)}</pre>")


class Page:
    """Renders the texts of one page, MAX_CHARACTERS of Markdown in all."""

    def __init__(self) -> None:
        self.left = MAX_CHARACTERS

    def render(self, text: str) -> SafeString:
        """HTML of one text, or the text as it is where it doesn't fit any more."""
        return self.render_alike([text])[0]

    def render_alike(self, texts: Sequence[str]) -> list[SafeString]:
        """All of the texts as Markdown or none: answers that are compared look alike."""
        num_characters = sum(map(len, texts))
        if num_characters > self.left:
            return [_as_it_is(text) for text in texts]
        self.left -= num_characters
        return [render(text) for text in texts]


def plain(content: str | list[dict[str, Any]]) -> str:
    """The text of a message's content: a string, or typed parts of which some are text."""
    if isinstance(content, str):
        return content
    return "\n\n".join(
        str(part.get("text", "")) if part.get("type") == "text" else f"[{part.get('type')}]"
        for part in content
    )
