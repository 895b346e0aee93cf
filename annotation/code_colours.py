"""Colours of code: the tokens of a fence as spans with classes, which the style sheet colours.

The language is the author's word and untrusted: it is looked up in a list and never written.
"""

import re

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES

PREFIX = "c-"
CLASSES = frozenset(f"{PREFIX}{name}" for name in STANDARD_TYPES.values() if name)
"""All that a token's span may be called."""
LANGUAGES = frozenset(
    [
        *("bash", "c", "c++", "cpp", "c#", "csharp", "cs", "css", "diff", "docker", "dockerfile"),
        *("go", "golang", "graphql", "haskell", "html", "ini", "java", "javascript", "js", "json"),
        *("jsx", "julia", "kotlin", "latex", "tex", "lua", "matlab", "nginx", "perl", "php"),
        *("powershell", "python", "py", "python3", "r", "ruby", "rb", "rust", "rs", "scala"),
        *("scss", "sh", "shell", "sql", "swift", "toml", "ts", "tsx", "typescript", "vue", "xml"),
        *("yaml", "yml", "zig"),
    ]
)
"""What answers are written in. Pygments knows hundreds more, few of them read by many eyes."""
MAX_CHARACTERS = 5_000
"""Of one fence; a longer one stays plain, and one with a line or a gap that nobody would write:
there the time of some lexers grows with the square (TypeScript, 10,000 characters of `a.`: 4 s)."""
ODD = re.compile(r"[^\n]{300}|\s{100}")

_formatter = HtmlFormatter(nowrap=True, classprefix=PREFIX)


def coloured(code: str, language: str, _attributes: str) -> str:
    """HTML of the code, escaped, with a span per token; empty leaves it to the caller."""
    name = language.lower()
    if name not in LANGUAGES or len(code) > MAX_CHARACTERS or ODD.search(code):
        return ""
    lexer = get_lexer_by_name(name, stripnl=False, ensurenl=False)
    return highlight(code, lexer, _formatter)
