"""The columns of every format: name, type and meaning, in one place.

The card, the export page, the features that `load_dataset` reads and the schema of Parquet files
come from here. A type is string, int64, float64, bool or json; [type] a list, {name: type} an
object. What is json here stands as JSON text in a Parquet file: its keys differ from row to row.
"""

from typing import Any

Type = Any
Columns = tuple[tuple[str, Type, str], ...]

MESSAGES = [{"role": "string", "content": "string"}]
RANKING = [["string"]]

TRL: Columns = (
    ("prompt", MESSAGES, "the conversation awaiting an answer"),
    ("chosen", MESSAGES, "the answer that the vote puts above"),
    ("rejected", MESSAGES, "the one below"),
    ("margin", "float64", "how much better, 0 the weakest to 1 the strongest level, summed over "
     "the gaps between the two (Llama 2's small margin); 0 where the vote says no strength"),
    ("split", "string", "train, dev or test, the same wherever it is imported"),
    ("comparison", "string", "the comparison's number in the ledger"),
    ("group", "string", "related prompts share it: resample and split by it"),
    ("language", "string", "of the prompt; empty if unknown"),
    ("axis", "string", "the question that was asked"),
    ("annotator", "string", "a pseudonym of this export alone"),
    ("kind", "string", "person, outside, model or simulated"),
    ("weight", "float64", "rows of one comparison sum to 1"),
)  # fmt: skip
UNPAIRED: Columns = (
    ("prompt", MESSAGES, "the conversation awaiting an answer"),
    ("completion", MESSAGES, "one answer to it"),
    ("label", "bool", "good enough, or not"),
    ("from", "string", "line: above or below the line that was drawn; both_bad; order: the first "
     "or the last of a ranking without a line"),
    ("split", "string", "train, dev or test"),
    ("comparison", "string", "the comparison's number in the ledger"),
    ("group", "string", "related prompts share it"),
    ("language", "string", "of the prompt"),
    ("axis", "string", "the question that was asked"),
    ("annotator", "string", "a pseudonym of this export alone"),
    ("kind", "string", "person, outside, model or simulated"),
    ("weight", "float64", "rows of one comparison sum to 1"),
)  # fmt: skip
SFT: Columns = (
    ("messages", MESSAGES, "the conversation with the ideal answer as its last turn"),
    ("split", "string", "train or dev; answers to test prompts are never given out"),
    ("completion", "string", "the answer's number in the ledger"),
    ("group", "string", "related prompts share it"),
    ("language", "string", "of the prompt"),
)  # fmt: skip
VOTE = {
    "axis": "string",
    "outcome": "string",
    "ranking": RANKING,
    "strength": ["float64"],
    "strength_levels": "int64",
    "acceptable": "int64",
    "weight": "float64",
    "annotator": "string",
    "kind": "string",
    "decision": "bool",
}
COMPARISONS: Columns = (
    ("id", "string", "the comparison's number in the ledger"),
    ("split", "string", "train, dev or test"),
    ("group", "string", "related prompts share it"),
    ("language", "string", "of the prompt"),
    ("task", "string", "dialogue, summary ...; empty if unknown"),
    ("purpose", "string", "production, live or evaluation"),
    ("prompt", MESSAGES, "the conversation awaiting an answer"),
    ("completions", [{"id": "string", "text": "string", "model": "string"}],
     "the answers, with who wrote each as far as is known"),
    ("votes", [VOTE], "one per annotator and axis: `ranking` holds groups of completion ids, best "
     "first, `strength` a level per gap, `acceptable` how many groups are good enough"),
    ("judgments", [{"annotator": "string", "kind": "string", "completion": "string",
                    "ratings": "json", "scales": "json", "flags": ["string"]}],
     "what a vote says of one completion by itself"),
    ("decision", "json", "a reviewer's, beside the votes"),
)  # fmt: skip
RAW: Columns = (
    ("id", "string", "the vote's number in the ledger"),
    ("bucket", "string", "where the funnel put it"),
    ("annotator", "string", "a pseudonym of this export alone"),
    ("kind", "string", "person, outside, model or simulated"),
    ("rankings", "json", "one per axis"),
    ("judgments", "json", "ratings and flags of single completions"),
    ("ideal", "string", "the completion that the annotator wrote as it should be"),
    ("presented_order", ["string"], "completions as they were shown"),
    ("scheme", "int64", "its number in manifest.json"),
    ("guideline", "int64", "its number in manifest.json"),
    ("revision", "int64", "1 for the first answer, and so on"),
    ("cause", "string", "why it was revised"),
    ("void_reason", "string", "why it is void; empty if it is not"),
    ("voided_at", "string", "when it was made void"),
    ("note", "string", "the reason in the annotator's words"),
    ("seconds", "float64", "from the claim to the answer"),
    ("active_seconds", "float64", "of these at work, by the page's measure"),
    ("created_at", "string", "when it was given"),
    ("imported_from", "int64", "a source's number in manifest.json, for votes given elsewhere"),
    ("external_id", "string", "its id there"),
    ("check", "json", "of an answer to a gold item: its verdict"),
    ("comparison", "json", "the question, with every decision on it"),
    ("prompt", "json", "the conversation and all that is known of it"),
    ("completions", "json", "the answers, with every act that wrote one"),
)  # fmt: skip

COLUMNS: dict[str, Columns] = {
    "trl": TRL,
    "unpaired": UNPAIRED,
    "sft": SFT,
    "comparisons": COMPARISONS,
    "raw": RAW,
}
DROPS: dict[str, str] = {
    "trl": "Ties, both bad, cannot tell, single judgments, reviewers' decisions beside votes, who "
    "wrote a completion, and what was not ranked.",
    "unpaired": "The order of completions on one side of the line, those between the first and the "
    "last of a ranking without a line, ties, cannot tell, ratings and flags.",
    "sft": "Votes: these are the ideal answers alone.",
    "comparisons": "Votes that are void, revised since, of gold or filtered out; times, notes, "
    "schemes, guidelines and sampling settings.",
    "raw": "Prompts and comparisons without a vote, leases, gold items, questions and whatever "
    "else is not a vote or what a vote is about; who a person is.",
}


def yaml_features(columns: Columns) -> list[str]:
    """Lines of a card's front matter, `dataset_info: features:`, as Hugging Face datasets reads
    it: without them it guesses types from the first rows, and fails where later ones hold more."""
    lines = ["dataset_info:", "  features:"]
    for name, kind, _meaning in columns:
        lines += _yaml(name, kind, "  ")
    return lines


def _yaml(name: str, kind: Type, indent: str) -> list[str]:
    return [f"{indent}- name: {name}", *_yaml_type(kind, f"{indent}  ")]


def _yaml_type(kind: Type, indent: str) -> list[str]:
    if isinstance(kind, str):
        return [f"{indent}dtype: {kind}"]
    if isinstance(kind, dict):
        inner = [line for key, each in kind.items() for line in _yaml(key, each, indent)]
        return [f"{indent}struct:", *inner]
    (of,) = kind
    if isinstance(of, str):
        return [f"{indent}list: {of}"]
    if isinstance(of, dict):
        inner = [line for key, each in of.items() for line in _yaml(key, each, indent)]
        return [f"{indent}list:", *inner]
    return [f"{indent}list:", *_yaml_type(of, f"{indent}  ")]
