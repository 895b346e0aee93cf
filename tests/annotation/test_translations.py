"""Every word that a page can show exists in Simplified Chinese, and the file is in order."""

import io
import re
import string
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po
from django.apps import apps
from django.core.management import CommandError
from django.utils.functional import Promise
from django.utils.translation import gettext, ngettext, override
from django.utils.translation.template import templatize

import annotation
from annotation.management.commands.compile_translations import compile_file

HOME = Path(annotation.__file__).parent
PO = HOME / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
KEYWORDS = {
    "_": None,
    "gettext": None,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext": (1, 2),
    "ngettext_lazy": (1, 2),
    "pgettext": ((1, "c"), 2),
}
PERCENT = re.compile(r"%\((\w+)\)s")


def messages_in(source: str, name: str) -> list[str | tuple[str, ...]]:
    """The msgids of Python source; of a template, of what templatize makes of it."""
    if name.endswith(".html"):
        # what is no message is blanked out, and its indentation means nothing to Python
        source = re.sub(r"^[ \t]+", "", templatize(source, origin=name), flags=re.MULTILINE)
    found = extract("python", io.BytesIO(source.encode()), keywords=KEYWORDS)
    return [messages for _, messages, _, _ in found]


def used() -> dict[str | tuple[str, ...], set[str]]:
    """Every msgid in use, with the files that use it."""
    where = defaultdict(set)
    for path in sorted([*HOME.rglob("*.py"), *HOME.rglob("*.html"), *HOME.rglob("*.txt")]):
        if "migrations" in path.parts:
            continue
        for messages in messages_in(path.read_text(encoding="utf-8"), path.name):
            key = tuple(filter(None, messages)) if isinstance(messages, tuple) else messages
            where[key if isinstance(key, str) or len(key) > 1 else key[0]].add(path.name)
    return where


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    with PO.open("rb") as file:
        return read_po(file, abort_invalid=True)


@pytest.fixture(scope="module")
def compiled() -> None:
    compile_file(PO)


def test_extraction_sees_templates_and_python():
    template = (
        '{% load i18n %}<p>{% translate "One" %}</p>\n'
        "  {% blocktranslate count n=n %}{{ n }} row{% plural %}{{ n }} rows{% endblocktranslate %}"
    )
    assert messages_in(template, "x.html") == ["One", ("%(n)s row", "%(n)s rows")]
    assert messages_in('x = _("Two")\ny = ngettext("a", "b", 2)', "x.py") == ["Two", ("a", "b")]


def test_every_message_is_translated(catalog):
    missing = []
    for key, files in used().items():
        message = catalog.get(key[0] if isinstance(key, tuple) else key)
        if message is None or message.fuzzy or not all(_strings(message.string)):
            missing.append(f"{key!r} ({', '.join(sorted(files))})")
    assert missing == []


def test_nothing_is_translated_that_nobody_uses(catalog):
    ids = {key[0] if isinstance(key, tuple) else key for key in used()}
    unused = [message.id for message in catalog if message.id and _first(message.id) not in ids]
    assert unused == []
    assert not catalog.obsolete


def test_plurals_are_plurals_on_both_sides(catalog):
    for key in used():
        message = catalog.get(key[0] if isinstance(key, tuple) else key)
        if message is not None:
            assert isinstance(key, tuple) == isinstance(message.id, tuple), key


def test_translations_keep_their_placeholders(catalog):
    for message in catalog:
        if not message.id:
            continue
        wanted = set(PERCENT.findall(_first(message.id)))
        braces = _braces(_first(message.id))
        for translated in _strings(message.string):
            assert set(PERCENT.findall(translated)) == wanted, message.id
            if wanted:  # a lone % would end the page that says it
                assert translated % defaultdict(int), message.id
            assert _braces(translated) == braces, message.id


def test_choices_of_the_models_are_in_the_catalog(catalog):
    for model in apps.get_app_config("annotation").get_models():
        for field in model._meta.get_fields():
            for _, label in getattr(field, "choices", None) or ():
                if isinstance(label, Promise):
                    with override("en"):
                        assert catalog.get(str(label)) is not None, label


def test_chinese_is_shown_once_compiled(compiled):
    with override("zh-hans"):
        assert gettext("Tie") == "平局"
        assert ngettext("%(count)s row", "%(count)s rows", 3) % {"count": 3} == "3 行"


def test_a_broken_file_is_refused_with_its_name(tmp_path):
    broken = tmp_path / "django.po"
    broken.write_text("this is no message\n")
    with pytest.raises(CommandError, match=r"django\.po is no PO file"):
        compile_file(broken)
    assert not broken.with_suffix(".mo").exists()


def test_several_compile_one_file_at_once(tmp_path):
    source = tmp_path / "django.po"
    source.write_bytes(PO.read_bytes())
    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(compile_file, [source] * 16))
    assert len(set(counts)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["django.mo", "django.po"]


def _strings(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,)


def _first(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else value[0]


def _braces(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text.replace("%", "")) if name}
