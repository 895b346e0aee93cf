"""Word-level differences: a hand-made table, and that nothing of either text is lost."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation import worddiff
from annotation.worddiff import ADDED, REMOVED, Piece, changes, folded


def marked(old: str, new: str) -> str:
    """One line: [-removed-] and {+added+}."""
    marks = {"same": "{}", "added": "{{+{}+}}", "removed": "[-{}-]"}
    return "".join(marks[piece.kind].format(piece.text) for piece in changes(old, new))


def test_words_signs_and_lines():
    table = {
        ("Be kind.", "Be kind."): "Be kind.",
        ("Be kind.", "Be very kind."): "Be{+ very+} kind.",
        ("Be very kind.", "Be kind."): "Be[- very-] kind.",
        ("Prefer short answers", "Prefer clear answers"): "Prefer [-short-]{+clear+} answers",
        ("有礼貌最重要", "有帮助最重要"): "有[-礼貌-]{+帮助+}最重要",
        ("用 Python 写", "用 Java 写"): "用 [-Python-]{+Java+} 写",
        ("One.\nTwo.\n", "One.\nThree.\nTwo.\n"): "One.\n{+Three.\n+}Two.\n",
        ("", "New."): "{+New.+}",
        ("Old.", ""): "[-Old.-]",
        ("", ""): "",
    }
    assert {pair: marked(*pair) for pair in table} == table


WORDS = st.lists(st.sampled_from(["kind", "very", " ", "\n", "好", "坏", "。", "é", "\r\n"])).map(
    "".join
)


@given(WORDS, WORDS)
def test_both_texts_can_be_read_off(old, new):
    pieces = changes(old, new)
    assert "".join(piece.text for piece in pieces if piece.kind != "added") == old
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == new
    assert all(piece.text for piece in pieces)
    assert all(one.kind != two.kind for one, two in pairwise(pieces))
    assert "".join(piece.text for piece in folded(pieces)) == "".join(p.text for p in pieces)


def test_what_stayed_is_folded_away_but_for_a_line_about_each_change():
    same = "".join(f"Line {n}.\n" for n in range(9))
    assert folded(changes("Old.\n" + same, "New.\n" + same)) == [
        Piece("removed", "Old"),
        Piece("added", "New"),
        Piece("same", ".\n"),
        Piece("skipped", same),
    ]


def test_a_change_too_large_to_align_is_shown_whole(monkeypatch):
    monkeypatch.setattr(worddiff, "MAX_WORD_PAIRS", 3)
    assert marked("a b!", "a c!") == "[-a b!-]{+a c!+}"


@pytest.mark.parametrize("end", [" ", "\n"])
def test_a_text_that_says_the_same_to_the_end_is_shown_whole(end):
    """To align these word by word takes minutes."""
    old, new = f"ha{end}" * 900, f"ha{end}ho{end}" * 450
    assert changes(old, new) == (Piece(REMOVED, old), Piece(ADDED, new))
