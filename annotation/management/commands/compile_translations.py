"""python manage.py compile_translations: every django.po to the django.mo beside it.

Babel does it, so that no machine needs GNU gettext. The .mo files are not committed.
"""

import uuid
from pathlib import Path
from typing import Any

from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Compile the translations (.po to .mo) without GNU gettext."

    def handle(self, *args: Any, **options: Any) -> None:
        for folder in settings.LOCALE_PATHS:
            for source in sorted(Path(folder).glob("*/LC_MESSAGES/django.po")):
                count = compile_file(source)
                if options["verbosity"]:
                    self.stdout.write(f"{source}: {count} messages")


def compile_file(source: Path) -> int:
    """Write the .mo beside a .po by a rename; how many messages it holds. Raises CommandError."""
    try:
        with source.open("rb") as file:
            catalog = read_po(file, abort_invalid=True)
    except (PoFileError, UnicodeDecodeError) as problem:
        raise CommandError(f"{source} is no PO file: {problem}", returncode=2) from problem
    # A name of its own: two processes may compile the same file at once, as the two suites do.
    part = source.with_suffix(f".mo.part-{uuid.uuid4().hex}")
    with part.open("wb") as file:
        write_mo(file, catalog)
    part.rename(source.with_suffix(".mo"))
    return len(catalog)
