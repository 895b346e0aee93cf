"""Markdown of untrusted authors to HTML that cannot act.

Two walls, each enough alone: markdown-it-py without raw HTML, then nh3's allow-list without a
single attribute that loads, links or runs. Links stay readable but cannot be followed: an
annotator should see where a model points, not go there.
"""

from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from typing import Any

import nh3
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

MAX_CHARACTERS = 40_000
"""Longer texts are shown as they are: no parser is asked to chew a megabyte of brackets."""

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
    "commonmark", {"html": False, "breaks": True, "linkify": False}, renderer_cls=InertRenderer
).enable(["table", "strikethrough"])
# An address that markdown-it would refuse (javascript:, data:) is shown too: it is only text here.
_parser.validateLink = lambda url: True  # type: ignore[method-assign]


@lru_cache(maxsize=4096)
def render(text: str) -> SafeString:
    """HTML of one text, safe to place in a page; the same text is rendered once."""
    if len(text) > MAX_CHARACTERS:
        return mark_safe(f"<pre>{escape(text)}</pre>")
    html = nh3.clean(
        _parser.render(text),
        tags=TAGS,
        clean_content_tags={"script", "style"},
        attributes={},
        tag_attribute_values={"span": {"class": {"inert-link", "address"}}},
        url_schemes=set(),
        link_rel=None,
    )
    return mark_safe(html)


def plain(content: str | list[dict[str, Any]]) -> str:
    """The text of a message's content: a string, or typed parts of which some are text."""
    if isinstance(content, str):
        return content
    return "\n\n".join(
        str(part.get("text", "")) if part.get("type") == "text" else f"[{part.get('type')}]"
        for part in content
    )
