"""A row on its way in: checked JSON, the shape of every format, and how it is refused."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from annotation.importers.lines import RawRow
from annotation.storable import TOO_DEEP, fault_of

ROLES = ("system", "user", "assistant")
SPLITS = ("train", "dev", "test")
MAX_ID_LENGTH = 200
"""Characters; the column's width."""

MAX_WHOLE = 1_000_000
"""Of a rating or a line: far more than any scale has."""
PROMPT_FIELDS = ("id", "split", "group", "task", "language", "metadata", "prompt")
"""What prompt_of reads, and the prompt."""


class Refused(ValueError):
    """The row can't be taken; the message is the reason, with the value seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRow:
    """A conversation awaiting an answer, and what its file says of it."""

    messages: list[dict[str, str]]
    external_id: str = ""
    split: str | None = None
    group: str | None = None
    """Thread or tree id; None = the first user turn decides."""
    task: str = ""
    language: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    def as_fields(self) -> dict[str, Any]:
        """As the ledger's functions name them."""
        return {
            "messages": self.messages,
            "external_id": self.external_id,
            "split": self.split,
            "split_group": self.group,
            "task": self.task,
            "language": self.language,
            "metadata": self.metadata,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionRow:
    """A text and the name of who or what wrote it, as far as the file says."""

    text: str
    writer: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingRow:
    """One axis of an answer: groups of completion places, best first."""

    axis: str
    outcome: str
    groups: list[list[int]]
    strengths: list[float] = field(default_factory=list)
    acceptable: int | None = None
    """How many groups from the top are good enough; None where the row does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgmentRow:
    """What a vote says of the completion at this place by itself."""

    place: int
    ratings: dict[str, int] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class VoteRow:
    """One annotator's answer. annotator: their id in the file, "" = not named there."""

    annotator: str
    kind: str
    rankings: list[RankingRow]
    external_id: str = ""
    judgments: list[JudgmentRow] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonRow:
    """What every preference format is brought to."""

    prompt: PromptRow
    completions: list[CompletionRow]
    votes: list[VoteRow]
    left_out: list[str] = field(default_factory=list)
    """Fields of the row with something in them that no column holds; counted, not kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemonstrationRow:
    """A conversation and an ideal answer to it."""

    prompt: PromptRow
    completion: CompletionRow
    external_id: str = ""


def parse_json(raw: RawRow) -> dict[str, Any]:
    """The row's JSON object. Raises Refused for bytes that aren't UTF-8, bad JSON, NaN, a key
    that stands twice, what the ledger can't keep (NUL, deep nesting ...), or no object."""
    try:
        text = raw.data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw.data[error.start]
        raise Refused(f"not UTF-8: byte 0x{byte:02x} at {error.start:,} of the row") from error
    try:
        row = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except Refused:
        raise
    except RecursionError as error:
        raise Refused(TOO_DEEP) from error
    except json.JSONDecodeError as error:
        seen = f"the row begins {clip(text.strip())}"
        raise Refused(f"not JSON at character {error.pos + 1:,}: {seen}") from error
    except ValueError as error:  # Python reads no number of more than 4,300 digits
        raise Refused("not JSON: a number in it is too long") from error
    if not isinstance(row, dict):
        raise Refused(f"not a JSON object: {clip(row)}")
    if fault := fault_of(row):
        raise Refused(fault)
    return row


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Refused(f"the key {clip(twice)} stands twice in one object")
    return row


def _no_constant(name: str) -> NoReturn:
    raise Refused(f"not JSON: {name} is no JSON number")


def clip(value: object, width: int = 80) -> str:
    """A value as a message shows it: ASCII-safe for odd characters, cut to a line."""
    if isinstance(value, str):
        value = value[: width + 1]
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= width else text[: width - 1] + "…"


def require(row: Mapping[str, Any], *keys: str) -> None:
    """Raise Refused unless the row has the keys."""
    if missing := [key for key in keys if key not in row]:
        has = ", ".join(list(row)[:8]) or "nothing"
        raise Refused(f"no field {' and no field '.join(missing)}; the row has {clip(has)}")


def text_of(value: object, name: str) -> str:
    """A text with something in it, as it is: space at its ends may be meant. Else Refused."""
    if not isinstance(value, str):
        raise Refused(f"{name} must be a text: {clip(value)}")
    if not value.strip():
        raise Refused(f"{name} is empty")
    return value


def name_of(row: Mapping[str, Any], key: str, limit: int = MAX_ID_LENGTH) -> str:
    """An optional short text or number of the row, "" if absent or null."""
    value = row.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Refused(f"{key} must be a text or a whole number: {clip(value)}")
    name = str(value).strip()
    if len(name) > limit:
        raise Refused(f"{key} is longer than {limit} characters: {clip(name)}")
    return name


def whole_of(value: object, name: str) -> int:
    """A whole number that a column can hold. Else Refused."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_WHOLE:
        raise Refused(f"{name} must be a whole number: {clip(value)}")
    return value


def left_out_of(row: Mapping[str, Any], known: Collection[str], within: str = "") -> list[str]:
    """Fields with something in them that an importer does not read, those of every prompt aside."""
    return [
        within + clip(key, 42).strip('"')
        for key, value in row.items()
        if key not in known and key not in PROMPT_FIELDS and value not in (None, "", [], {})
    ]


def messages_of(value: object, name: str) -> list[dict[str, str]]:
    """Messages with role and text; a bare text is one user turn; text parts are joined."""
    if isinstance(value, str):
        return [{"role": "user", "content": text_of(value, name)}]
    if not isinstance(value, list) or not value:
        raise Refused(f"{name} must be a text or a list of messages: {clip(value)}")
    messages = []
    for turn in value:
        if not isinstance(turn, dict):
            raise Refused(f"a message of {name} must be an object: {clip(turn)}")
        require(turn, "role", "content")
        if turn["role"] not in ROLES:
            raise Refused(f"role must be one of {', '.join(ROLES)}: {clip(turn['role'])}")
        content = _joined_parts(turn["content"], name)
        messages.append({"role": turn["role"], "content": content})
    return messages


def _joined_parts(content: object, name: str) -> str:
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text":
                raise Refused(f"a message of {name} may hold text parts only: {clip(part)}")
        content = "".join(text_of(part.get("text"), "a text part") for part in content)
    return text_of(content, f"a message of {name}")


def prompt_of(row: Mapping[str, Any], messages: list[dict[str, str]]) -> PromptRow:
    """The prompt with the optional fields that every format may carry: id, split, group, task,
    language, metadata. Raises Refused unless the last turn is the user's."""
    if messages[-1]["role"] != "user":
        raise Refused(f"the prompt's last turn must be the user's, not {messages[-1]['role']}'s")
    split = row.get("split")
    if split not in (None, *SPLITS):
        raise Refused(f"split must be one of {', '.join(SPLITS)}: {clip(split)}")
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise Refused(f"metadata must be an object: {clip(metadata)}")
    return PromptRow(
        messages=messages,
        external_id=name_of(row, "id"),
        split=split,
        group=name_of(row, "group") or None,
        task=name_of(row, "task", 40),
        language=name_of(row, "language", 12),
        metadata=metadata,
    )


def require_distinct(completions: list[CompletionRow]) -> None:
    """Raise Refused for fewer than two completions or two with one text."""
    if len(completions) < 2:
        raise Refused(f"a comparison needs two completions or more: it has {len(completions)}")
    first: dict[str, int] = {}
    for place, completion in enumerate(completions, start=1):
        if earlier := first.get(completion.text):
            raise Refused(
                f"completions {earlier} and {place} are identical: {clip(completion.text)}"
            )
        first[completion.text] = place


def best_to_worst(num_completions: int) -> RankingRow:
    """The ranking of completions that stand in the order of their rank, each above the next."""
    return RankingRow(
        axis="overall", outcome="ranked", groups=[[place] for place in range(num_completions)]
    )


def digest(*parts: object) -> str:
    """A short name for content that came without one: SHA-256 over canonical JSON, 32 digits."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
