"""Reading the files that lie between the stages (README): UTF-8 JSONL, one row
each; unknown keys are kept, missing ones refused with the file and the line."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from policy.config import BadInput, require

ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A conversation awaiting an answer. `row` keeps everything that the file said."""

    id: str
    split: str | None
    messages: list[Message]
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation and the answer to learn."""

    id: str
    split: str | None
    messages: list[Message]
    completion: str


def read_jsonl(path: Path | str, required: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file in order. Blank lines are passed over.

    Raises BadInput naming file and line for bad UTF-8, bad JSON, half a surrogate pair, a row that
    is not an object, or one without a required key.
    """
    for _, row in numbered_rows(path, required):
        yield row


def numbered_rows(
    path: Path | str, required: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """read_jsonl with the line number, counted from 1, for messages about what a row holds."""
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise BadInput(f"{path} line {number} is not UTF-8: {error.reason}") from error
            except ValueError as error:
                raise BadInput(f"{path} line {number} is not JSON: {error}") from error
            except RecursionError as error:
                raise BadInput(f"{path} line {number} is nested too deeply") from error
            if b"\\u" in line:
                _require_unicode(row, f"{path} line {number}")
            require(isinstance(row, dict), f"{path} line {number} is not a JSON object")
            for key in required:
                require(key in row, f"{path} line {number} has no {key!r}")
            yield number, row


def _require_unicode(row: Any, where: str) -> None:
    """JSON can escape half of a surrogate pair, which no tokenizer takes and no file holds."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise BadInput(f"{where} holds half a surrogate pair: {half!r}") from error


def _opened(path: Path | str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error


def read_prompts(path: Path | str, *, split: str | None = None) -> list[PromptRow]:
    """Rows of a prompts file; of one split if named. Ids must be unique.

    `split` of None takes all rows; otherwise those whose split is the one asked for.
    """
    rows: dict[str, PromptRow] = {}
    for number, row in numbered_rows(path, ("id", "prompt")):
        where = f"{path} line {number}"
        prompt_id = str(row["id"])
        require(prompt_id not in rows, f"{where} repeats the id {prompt_id!r}")
        messages = checked_messages(row["prompt"], where)
        require_awaits_answer(messages, where)
        asked = "".join(turn["content"] for turn in messages if turn["role"] == "user")
        require(bool(asked.strip()), f"{where}: no turn of the user holds any text")
        rows[prompt_id] = PromptRow(prompt_id, checked_split(row, where), messages, row)
    require(bool(rows), f"{path} holds no prompt")
    chosen = [row for row in rows.values() if split is None or row.split == split]
    require(bool(chosen), f"{path} holds no prompt with split {split!r}")
    return chosen


def read_demonstrations(path: Path | str) -> list[Demonstration]:
    """Rows of a demonstrations file, all splits; see `trained_on` for which are trained."""
    rows: list[Demonstration] = []
    for number, row in numbered_rows(path, ("prompt", "completion")):
        where = f"{path} line {number}"
        messages = checked_messages(row["prompt"], where)
        require_awaits_answer(messages, where)
        completion = row["completion"]
        require(
            isinstance(completion, str) and bool(completion.strip()),
            f"{where}: completion must be a text that is not empty, got {completion!r}",
        )
        rows.append(
            Demonstration(
                str(row.get("id", number)), checked_split(row, where), messages, completion
            )
        )
    require(bool(rows), f"{path} holds no demonstration")
    return rows


def trained_on(split: str | None) -> bool:
    """True for rows of the train split and for rows without one."""
    return split is None or split == "train"


def checked_split(row: Mapping[str, Any], where: str) -> str | None:
    """The row's split: train, dev, test or none at all."""
    split = row.get("split")
    require(
        split in (None, "train", "dev", "test"),
        f"{where}: split must be train, dev or test, got {split!r}",
    )
    return split


def checked_messages(value: Any, where: str) -> list[Message]:
    """A list of {role, content} as given; a bare string is one user turn.

    Raises BadInput for another shape or role.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    require(
        isinstance(value, list) and bool(value),
        f"{where}: a conversation must be a list of messages that is not empty, got {value!r}",
    )
    messages: list[Message] = []
    for turn in value:
        fits = isinstance(turn, dict) and isinstance(turn.get("content"), str)
        require(fits, f"{where}: a message must be {{role, content}} with text, got {turn!r}")
        require(
            turn.get("role") in ROLES,
            f"{where}: role must be one of {', '.join(ROLES)}, got {turn.get('role')!r}",
        )
        messages.append({"role": turn["role"], "content": turn["content"]})
    return messages


def require_awaits_answer(messages: Sequence[Message], where: str) -> None:
    """Raise BadInput unless the last turn is the user's."""
    require(
        messages[-1]["role"] == "user",
        f"{where}: the last turn of a prompt must be the user's, got {messages[-1]['role']!r}",
    )


def content_hash(path: Path | str) -> str:
    """sha256 of a file, or of a folder's file names and their contents (hidden files left out).

    A name that is neither, such as a hub's `org/name`, stands for itself.
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        names = [p for p in inside if p.name not in RUN_FILES]
        return _sha256(f"{p.name} {content_hash(p)}\n".encode() for p in names)
    if not path.is_file():
        return f"name:{path}"
    with path.open("rb") as file:
        return _sha256(iter(lambda: file.read(1 << 20), b""))


RUN_FILES = ("run.json", "metrics.jsonl", "progress.json")
"""What a run writes beside a model: not part of the model, so not of its hash."""


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
