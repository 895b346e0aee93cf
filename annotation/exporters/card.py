"""README.md of an exported dataset: what is in it, where it comes from, what it can't tell."""

from collections.abc import Mapping
from typing import Any

from annotation.exporters.columns import COLUMNS, DROPS, yaml_features

FORMATS = {
    "trl": "One row per strict pair of a vote, as TRL's RewardTrainer and DPOTrainer take it.",
    "unpaired": "One row per completion that a vote says yes or no to, as TRL's KTOTrainer takes "
    "it.",
    "sft": "One row per ideal answer, as TRL's SFTTrainer takes it.",
    "comparisons": "One row per comparison with all its votes.",
    "raw": "One row per vote, valid or not, with everything known of it. `import_raw` makes an "
    "equal ledger of the folder again.",
}
LIMITS = (
    "A vote says which answer an annotator preferred under the guideline it names, not which is "
    "true or safe.",
    "Completions that stand in no group of a ranking were not ranked; that does not mean last. "
    "Both bad and cannot tell order nothing and have an empty ranking.",
    "Rows of one `group` belong to one conversation or first question; resample and split by it.",
    "The test split is for a last measurement: who chooses by it has used it up.",
    "Pseudonyms hold within this export alone. Texts and notes are as people wrote them and were "
    "not searched for personal data.",
    "Agreement is raw: chance is not taken off, and ties are no part of it.",
)


def render(manifest: Mapping[str, Any]) -> str:
    """The card of a folder, from its manifest alone."""
    files = manifest["files"]
    return "\n".join(
        [
            *_front_matter(manifest["format"], files, manifest["sources"]),
            f"# {_line(manifest['project']['name'])}: preferences ({manifest['format']})",
            "",
            _line(manifest["project"]["description"]) or "Preferences collected with Concord.",
            "",
            FORMATS[manifest["format"]],
            "",
            f"Not in it: {DROPS[manifest['format']]}",
            "",
            "## Columns",
            *_table(("column", "what it says"), [tuple(one) for one in manifest["columns"]]),
            "## Files",
            *_table(
                ("file", "split", "rows", "sha256"),
                [(f["name"], f["split"], f"{f['rows']:,}", f["sha256"]) for f in files],
            ),
            "## How to load",
            *_how_to_load(files),
            "## Where everything went",
            f"{manifest['votes']:,} in all, each in one bucket:",
            "",
            *_table(
                ("bucket", "ideal answers" if manifest["format"] == "sft" else "votes"),
                [(name, f"{number:,}") for name, number in manifest["funnel"].items()],
            ),
            *_left_out(manifest["left_out"]),
            *_notes(manifest["notes"]),
            "## Agreement",
            _agreement(manifest["agreement"]),
            "",
            "## Sources and licences",
            *_table(
                ("source", "licence", "terms"),
                [
                    (s["name"], s["licence"] or "not stated", s["terms"])
                    for s in manifest["sources"]
                ],
            ),
            "The rows are under the licences of their sources; the strictest of them holds for the "
            "whole.",
            "",
            "## Who wrote the completions",
            *_table(
                ("writer", "completions"),
                [(name or "not known", f"{n:,}") for name, n in manifest["writers"].items()],
            ),
            "## Known limits",
            *[f"- {limit}" for limit in LIMITS],
            "",
            "## How it was made",
            f"Snapshot `{manifest['snapshot']['sha256']}` at position "
            f"`{manifest['position']}` of the ledger, query `{manifest['query']}`, made "
            f"{manifest['made_at']} by Concord {manifest['versions']['concord']}. Guidelines and "
            "schemes are in `manifest.json`.",
            "",
        ]
    )


def _front_matter(format: str, files: list[Any], sources: list[Any]) -> list[str]:
    """What the Hugging Face hub and `load_dataset` read: the file of each split, and the types."""
    licences = {source["licence"] for source in sources}
    lines = ["---", f"license: {_spdx(licences)}", "configs:", "- config_name: default"]
    if files:
        lines.append("  data_files:")
    for file in files:
        lines += [f"  - split: {file['split']}", f"    path: {file['name']}"]
    return [*lines, *yaml_features(COLUMNS[format]), "---", ""]


def _spdx(licences: set[str]) -> str:
    """The hub's name of the licence where there is but one that it knows, else `other`."""
    known = {"MIT": "mit", "Apache-2.0": "apache-2.0", "CC BY 4.0": "cc-by-4.0"}
    return known.get(licences.pop(), "other") if len(licences) == 1 else "other"


def _how_to_load(files: list[Any]) -> list[str]:
    return [
        "```python",
        "from datasets import load_dataset",
        "",
        f'{files[0]["split"]} = load_dataset("FOLDER", split="{files[0]["split"]}")',
        "```",
        "",
    ]


def _left_out(left_out: Mapping[str, int]) -> list[str]:
    counted = {name: number for name, number in left_out.items() if number}
    if not counted:
        return []
    told = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in counted.items())
    return [f"Left out of the rows, for this format has no place for them: {told}.", ""]


def _notes(notes: Mapping[str, Any]) -> list[str]:
    """How weights came about, and what became of reviewers' decisions."""
    told = []
    if decisions := notes.get("decisions"):
        told += [
            f"Reviewers' decisions stand in the place of the votes of {decisions['used']:,} "
            f"comparisons; {decisions['unused']:,} more had none that orders anything.",
            "",
        ]
    if weights := notes.get("weights"):
        told += [
            f"A vote's `weight` is that of its annotator, estimated by {weights['method']} "
            f"({weights['source']}): {weights['weight']}; on {weights['estimated_on']}. Whoever "
            f"shares fewer than {weights['least_pairs']} pairs with others has the median weight.",
            "",
            *_table(
                ("axis", "pairs", "annotators", "with too few pairs", "their weight"),
                [
                    (
                        axis,
                        f"{one['pairs']:,}",
                        f"{one['annotators']:,}",
                        f"{one['with_too_few_pairs']:,}",
                        f"{one['their_weight']:g}",
                    )
                    for axis, one in weights["axes"].items()
                ],
            ),
        ]
    return told


def _agreement(agreement: Mapping[str, Any]) -> str:
    if agreement["share"] is None:
        return "No two annotators ordered the same pair, so there is no figure."
    return (
        f"Two annotators who both order a pair order it alike in {agreement['share']:.1%} of "
        f"{agreement['cases']:,} cases ({agreement['comparisons']:,} comparisons)."
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return ["None.", ""]
    lines = [head, tuple("---" for _ in head), *rows]
    return [*(f"| {' | '.join(_line(cell) for cell in line)} |" for line in lines), ""]


def _line(text: str) -> str:
    """Text as one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")
