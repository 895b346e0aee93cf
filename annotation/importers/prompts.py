"""Prompts (README): `prompt`, and where known id, split, task, language."""

from collections.abc import Mapping
from typing import Any

from annotation.importers.rows import PromptRow, messages_of, prompt_of, require


def parse(row: Mapping[str, Any]) -> PromptRow:
    """The prompt of one row. Raises Refused with the reason."""
    require(row, "prompt")
    return prompt_of(row, messages_of(row["prompt"], "prompt"))
