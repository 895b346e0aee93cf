"""README.md of a model version: what it is, where it came from, what was measured."""

import json
from typing import Any

from annotation.models import ModelVersion, VersionKind
from annotation.services.ancestry import way_to
from annotation.services.gates import BEFORE
from annotation.services.licences import datasets_behind, known_forbidding
from annotation.tombstones import tombstone_of
from annotation.verdicts import outcome_of

LOADERS = {
    VersionKind.POLICY: "AutoModelForCausalLM",
    VersionKind.REWARD: "AutoModelForSequenceClassification",
}

OUTCOMES = {
    "passed": "Passed",
    "failed": "Refused",
    "undecided": "Undecided, which is no pass",
    "unjudged": "Not judged",
}


def render(version: ModelVersion) -> str:
    """The card; edges are named, and the ids are this installation's."""
    loader = LOADERS[VersionKind(version.kind)]
    lines = [
        "---",
        "library_name: transformers",
        f"license: {json.dumps(version.licence or 'other')}",
        "---",
        "",
        f"# {' '.join(version.name.split())}",
        "",
        f"A {version.get_kind_display().lower()} made with Concord (stage: {version.stage}), "
        f"version {version.pk} of its installation.",
        "",
        "```python",
        f"from transformers import AutoTokenizer, {loader}",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("DIR")',
        f'model = {loader}.from_pretrained("DIR")',
        "```",
        "",
        "## Lineage",
        *(f"- {name}: {what}" for name, what in _lineage(version)),
        "",
        *_licences(version),
        *_gate(version),
        "## Measured",
        "```json",
        json.dumps(version.metrics, ensure_ascii=False, indent=2),
        "```",
        "",
        "## Training settings",
        "```json",
        json.dumps(version.job.config if version.job else {}, ensure_ascii=False, indent=2),
        "```",
        "",
        f"SHA-256 over the directory's files when it was published: `{version.sha256}`",
        "",
    ]
    return "\n".join(lines)


def _gate(version: ModelVersion) -> list[str]:
    """What its gate said, what it warned of, and how often it was looked at."""
    gate = version.metrics.get("gate")
    if not gate:
        return []
    before = version.metrics.get(BEFORE, [])
    told = [f"- {OUTCOMES[outcome_of(gate)]}: {_line(gate.get('why', ''))}"]
    told += [f"- Warning: {_line(one)}" for one in gate.get("warnings", ())]
    told += [f"- A look before: {_line(one.get('why', ''))}" for one in before]
    return ["## Gate", *told, ""]


def _line(sentence: str) -> str:
    return " ".join(sentence.split())


def _licences(version: ModelVersion) -> list[str]:
    """Who answered for data that forbids commercial use, or that nobody did."""
    told = []
    for snapshot in datasets_behind(version):
        overrides = list(snapshot.overrides.select_related("by").order_by("pk"))
        told += [
            f"- Dataset `{snapshot.sha256[:12]}` holds rows under {', '.join(one.licences)}, which "
            f"forbid commercial use. {one.by} answered for it on {one.created_at:%Y-%m-%d}: "
            f"{' '.join(one.reason.split())}"
            for one in overrides
        ]
        answered = {licence for one in overrides for licence in one.licences}
        if left := sorted(set(known_forbidding(snapshot)) - answered):
            told.append(
                f"- Dataset `{snapshot.sha256[:12]}` holds rows under {', '.join(left)}, which "
                "forbid commercial use, and nobody has answered for it."
            )
    return ["## Licences of its data", *told, ""] if told else []


def _lineage(version: ModelVersion) -> list[tuple[str, Any]]:
    edges = [
        ("started from", version.init),
        ("KL measured from", version.reference),
        ("rewarded by", version.reward),
        ("value model from", version.value_init),
    ]
    found: list[tuple[str, Any]] = [
        (name, f"{other.name} (version {other.pk})") for name, other in edges if other
    ]
    if version.snapshot:
        found.append(("trained on snapshot", f"`{version.snapshot.sha256}`"))
        if stone := tombstone_of(version.snapshot):
            found.append(("withdrawn since", stone))
    if version.job:
        found.append(("job", version.job_id))
    for step in way_to(version):
        if version.job is None or not step.version.job:
            continue
        if step.version.job.project_id != version.job.project_id:
            continue  # what another project read is its own
        read = [f"{file.name} `{file.sha256 or 'hash unknown'}`" for file in step.files]
        read += [f"snapshot `{step.snapshot.sha256}`"] if step.snapshot else []
        if read:
            found.append(
                (f"on the way, {' '.join(step.version.name.split())} read", ", ".join(read))
            )
    return found or [("registered from outside", version.path)]
