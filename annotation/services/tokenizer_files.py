"""A model directory's tokenizer, read before a job is queued: its files alone, with no torch.

`tokenizers` is what transformers itself reads tokenizer.json with. A directory that has its
tokenizer in another form is read by whoever runs the job.
"""

import json
from functools import lru_cache
from pathlib import Path

from django.utils.translation import gettext as _
from tokenizers import Tokenizer

from annotation.errors import BadInput

FAST, SETTINGS = "tokenizer.json", "tokenizer_config.json"
OTHERS = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
"""Forms that only the laboratories read."""
TRIED = "Hello, 你好 1"
LARGEST_BYTES = 64_000_000
"""Far above any that is published; what is larger is no tokenizer, and would hold up a request."""


def num_tokens_of(directory: Path) -> int | None:
    """How many tokens it knows; None where it is in a form that can't be read here.

    directory: of a model, or of an ensemble, whose members share one. Raises BadInput with a
    sentence where there is none, or none that can be read.
    """
    if (directory / "ensemble.json").is_file():
        members = json.loads((directory / "ensemble.json").read_text(encoding="utf-8"))["members"]
        return num_tokens_of(directory / members[0]["directory"])
    _require_json(directory / SETTINGS)
    path = directory / FAST
    if path.is_file():
        seen = path.stat()
        return _read(path, seen.st_mtime_ns, seen.st_size)
    if any((directory / name).is_file() for name in OTHERS):
        return None
    raise BadInput(_("Its directory holds no tokenizer: neither tokenizer.json nor another form."))


@lru_cache(maxsize=64)
def _read(path: Path, mtime_ns: int, size: int) -> int:
    """Of the file as it was at this time. Published directories do not change."""
    if size > LARGEST_BYTES:
        raise BadInput(_("Its tokenizer.json has %(size)s bytes.") % {"size": size})
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokens = tokenizer.encode(TRIED).ids
    except Exception as error:  # the library raises nothing narrower
        raise _unreadable(FAST, error) from error
    if not tokens:
        raise BadInput(_("Its tokenizer makes no tokens of a text."))
    return tokenizer.get_vocab_size()


def _require_json(path: Path) -> None:
    """The settings beside the tokenizer, where there are any."""
    if not path.is_file():
        return
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _unreadable(SETTINGS, error) from error


def _unreadable(name: str, error: Exception) -> BadInput:
    told = {"name": name, "error": str(error)[:160]}
    return BadInput(_("Its %(name)s can't be read as a tokenizer's: %(error)s.") % told)
