"""The texts of pretraining: files of documents, read as a stream, and their tokens.

Data files: `.txt` holds documents separated by blank lines; `.jsonl` holds one document per row, as
`text`, or as `messages` (a conversation that ends with the assistant's answer), which is rendered
by policy/text.py, so that a corpus can teach the chat format. A file's texts are never in memory
all at once, and its tokens lie in a file of their own (4 bytes each), which goes with the process.
"""

import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from policy.config import BadInput, require
from policy.data import Message, checked_messages, numbered_rows
from policy.text import encode_document, render_conversation


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of the corpus: a text, or a conversation."""

    text: str | None
    messages: list[Message] | None

    @property
    def texts(self) -> list[str]:
        """What the tokenizer learns from, and what bits-per-byte counts the bytes of."""
        if self.messages is not None:
            return [message["content"] for message in self.messages]
        return [self.text or ""]

    @property
    def num_bytes(self) -> int:
        return sum(len(text.encode()) for text in self.texts)

    def encode(self, tokenizer: Any) -> list[int]:
        """Token ids with the end token last."""
        if self.messages is not None:
            return render_conversation(tokenizer, self.messages)
        return encode_document(tokenizer, self.text or "")


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """A data file: the documents that are trained on, and the tail that is not."""

    path: Path
    num_train: int
    num_heldout: int

    @property
    def train(self) -> Iterator[Document]:
        return islice(read_documents(self.path), self.num_train)

    @property
    def heldout(self) -> Iterator[Document]:
        return islice(read_documents(self.path), self.num_train, None)


def read_corpus(paths: Sequence[Path | str], heldout_fraction: float) -> list[CorpusFile]:
    """All files, read once; the last heldout_fraction of each one's documents is held out, rounded
    down.

    Raises BadInput naming the file (and line) for what cannot be read, and if nothing is there.
    """
    files = []
    for path in map(Path, paths):
        count = sum(1 for _ in read_documents(path))
        require(count > 0, f"{path} holds no document")
        held = int(count * heldout_fraction)
        files.append(CorpusFile(path, count - held, held))
    return files


def read_documents(path: Path | str) -> Iterator[Document]:
    """The documents of one .txt or .jsonl file, in order."""
    suffix = Path(path).suffix
    require(suffix in (".txt", ".jsonl"), f"{path} must end in .txt or .jsonl")
    return _of_text(Path(path)) if suffix == ".txt" else _of_rows(Path(path))


def _of_text(path: Path) -> Iterator[Document]:
    lines: list[str] = []
    for line in _lines(path):
        if line.strip(" \t\r"):
            lines.append(line)
        elif lines:
            yield from _piece(lines)
            lines = []
    yield from _piece(lines)


def _piece(lines: Sequence[str]) -> Iterator[Document]:
    text = "\n".join(lines)
    if text.strip():
        yield Document(text, None)


def _lines(path: Path) -> Iterator[str]:
    """Lines without their end, whichever of the three kinds it is."""
    place = 0
    try:
        with path.open("rb") as file:
            for raw in file:
                text = raw.decode("utf-8-sig" if place == 0 else "utf-8")
                place += len(raw)
                text = text.removesuffix("\n").removesuffix("\r")
                yield from text.split("\r")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        where = place + error.start
        raise BadInput(f"{path} is not UTF-8: {error.reason} at byte {where}") from error


def _of_rows(path: Path) -> Iterator[Document]:
    for number, row in numbered_rows(path):
        where = f"{path} line {number}"
        if "messages" in row:
            messages = checked_messages(row["messages"], where)
            require(
                len(messages) > 1 and messages[-1]["role"] == "assistant",
                f"{where}: the messages of a document must end with the assistant's answer",
            )
            yield Document(None, messages)
            continue
        written = row.get("text")
        require(
            isinstance(written, str) and bool(written.strip()),
            f"{where} needs a text that is not empty, or messages; text is {written!r}",
        )
        yield Document(written, None)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Documents one behind the other; each ends with its own end token."""

    ids: Tensor  # (N,) int32, in a file
    starts: Tensor  # (documents,) long, where each begins

    @classmethod
    def of(cls, documents: Iterable[Sequence[int]]) -> "Tokens":
        """Write them into a file without a name."""
        starts = array("q")
        count = 0
        with tempfile.TemporaryFile(prefix="concord-tokens-") as file:
            for document in documents:
                starts.append(count)
                array("i", document).tofile(file)
                count += len(document)
            file.flush()
            # An empty file cannot be mapped.
            kept = numpy.memmap(file, dtype=numpy.int32, mode="r+") if count else numpy.zeros(0)
        return cls(
            torch.from_numpy(kept.astype(numpy.int32, copy=False)),
            torch.from_numpy(numpy.array(starts, dtype=numpy.int64)),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, places: Tensor) -> Tensor:
        """Ids at these places, long, and as many."""
        return self.ids[places].long()

    def documents_at(self, places: Tensor) -> Tensor:
        """Which document the id of each place is of."""
        return torch.searchsorted(self.starts, places, right=True) - 1

    @property
    def lengths(self) -> Tensor:
        """Ids of each document."""
        ends = torch.cat([self.starts[1:], torch.tensor([len(self)])])
        return ends - self.starts
