"""Languages of the interface and of what is written for its readers."""

from collections.abc import Iterable

from django.conf import settings
from django.utils.translation import get_language, get_language_info


def reader_language() -> str:
    """The language of the interface just now."""
    return get_language() or settings.LANGUAGE_CODE


OF_ANY_SCRIPT = {"zh": "中文"}
"""Django names Chinese by its scripts alone."""


def language_name(code: str) -> str:
    """A language in its own words; the code where Django knows it not."""
    try:
        return str(get_language_info(code)["name_local"])
    except KeyError:
        return OF_ANY_SCRIPT.get(code, code)


def written_languages(*texts: Iterable[str]) -> list[str]:
    """What a form asks for: the interface's languages and those that the texts have."""
    return sorted({*dict(settings.LANGUAGES)}.union(*texts))
