"""Files that appear whole or not at all, and a bar over the rows of one."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from tqdm import tqdm

Row = TypeVar("Row")


@contextmanager
def appearing(path: Path) -> Iterator[TextIO]:
    """A text file to write, renamed to `path` at the end of the block; after an error there is
    nothing, and what stood at `path` before is untouched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(path.name + ".part")
    try:
        with staged.open("w", encoding="utf-8") as file:
            yield file
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def with_bar(rows: Iterable[Row], path: Path, what: str) -> Iterator[Row]:
    """The rows of the JSONL file at `path`, with a progress bar where stderr is a terminal."""
    shown = sys.stderr.isatty()
    yield from tqdm(rows, total=num_lines(path) if shown else None, desc=what, disable=not shown)


def num_lines(path: Path) -> int:
    with path.open("rb") as lines:
        return sum(1 for _ in lines)
