"""Fonts for text of the data in pictures: what this machine has, looked up when it is needed.

Matplotlib brings a font for Latin, Greek and Cyrillic. For other signs the first installed family
of the list is drawn with; nothing is bundled, so a machine may have none.
"""

from collections.abc import Sequence
from functools import cache

from matplotlib import font_manager

OWN = "DejaVu Sans"
"""Matplotlib's, always there."""
WIDE = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS"),
)
"""Families with Chinese signs: of Linux distributions, macOS and Windows."""


def families_for(text: str, wide: Sequence[str] = WIDE) -> list[str] | None:
    """Families that together have every sign of a line of text, in the order to look in; None
    where this machine has none that do."""
    signs = {ord(sign) for sign in text}
    missing = signs - _signs_of(OWN)
    if not missing:
        return [OWN]
    return next(([OWN, name] for name in wide if missing <= _signs_of(name)), None)


@cache
def _signs_of(family: str) -> frozenset[int]:
    """Code points that a family can draw; none where it is not installed."""
    try:
        path = font_manager.findfont(
            font_manager.FontProperties(family=[family]), fallback_to_default=False
        )
    except ValueError:
        return frozenset()
    return frozenset(font_manager.get_font(path).get_charmap())
