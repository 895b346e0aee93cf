"""What of a stranger's values can be kept: texts, finite numbers, JSON nested to a limit.

PostgreSQL takes neither NUL nor half a surrogate pair in its text and no database an infinite
number; some hundred levels down Python's own JSON reader and writer give up.
"""

from typing import Any

from annotation.errors import BadInput

MAX_NESTING = 50
"""Lists and objects within one another, the outermost counted."""
TOO_DEEP = f"the JSON is nested too deeply, more than {MAX_NESTING} levels"


def fault_of(value: Any) -> str | None:
    """Why a value can't be kept, with what was seen; None if it can. Looks at keys too."""
    waiting = [(value, 1)]
    while waiting:
        seen, level = waiting.pop()
        if isinstance(seen, str):
            if fault := _fault_of_text(seen):
                return fault
        elif isinstance(seen, float) and seen - seen != 0:
            return f"a number is out of range: {seen}"
        elif isinstance(seen, dict | list | tuple):
            if level > MAX_NESTING:
                return TOO_DEEP
            if isinstance(seen, dict):
                waiting += ((key, level + 1) for key in seen)
                seen = seen.values()
            waiting += ((inner, level + 1) for inner in seen)
    return None


def require_storable(*values: Any) -> None:
    """Raise BadInput for what no database can hold: NUL, deep nesting ..."""
    for value in values:
        if fault := fault_of(value):
            raise BadInput(f"{fault[0].upper()}{fault[1:]}.")


def _fault_of_text(text: str) -> str | None:
    if "\x00" in text:
        return f"a text holds a NUL character at place {text.index(chr(0))}: {text[:80]!r}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"half a surrogate pair, U+{ord(text[error.start]):04X}"
        return f"a text is not valid Unicode at place {error.start}: {half}"
    return None
