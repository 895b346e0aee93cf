"""python manage.py register_model --project NAME --dir DIR --slot policy|reward [--name NAME]

Makes a Hugging Face directory a version and puts it in force, an ensemble of such ones in the slot
reward. What can be checked without torch is checked here: the web process has none.
"""

import json
import math
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, TypeGuard

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from annotation.errors import BadInput, ConcordError
from annotation.importers.command import project_named
from annotation.models import ModelVersion, Project, Slot
from annotation.services.audit import record
from annotation.services.versions import (
    in_force,
    promote,
    register_version,
    sha256_of_directory,
)

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".msgpack")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
MAX_CONFIG_BYTES = 10_000_000
ENSEMBLE = "ensemble.json"
"""What makes a directory an ensemble (policy/ensemble.py)."""
RULES = ("mean", "worst", "uncertainty")
"""Ways to combine its members, as policy/ensemble.py has them."""
OF_A_MEMBER = {"directory", "mean", "deviation", "nats", "sha256"}


class Command(BaseCommand):
    help = "Register a Hugging Face model directory and put it in force in a slot of a project."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True, help="short name of the project")
        parser.add_argument(
            "--dir", required=True, type=Path, help="config, safetensors, tokenizer; or an ensemble"
        )
        parser.add_argument("--slot", required=True, choices=(Slot.POLICY.value, Slot.REWARD.value))
        parser.add_argument("--name", default="", help="what to call it; else the folder's name")
        parser.add_argument("--licence", default="", help="licence of the weights, e.g. MIT")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            project = project_named(options["project"])
            version, new = register(
                project=project,
                directory=options["dir"],
                slot=options["slot"],
                name=options["name"],
                licence=options["licence"],
            )
        except ConcordError as problem:
            raise CommandError(problem.detail, returncode=2) from problem
        told = "is in force" if new else "was in force already"
        self.stdout.write(
            f"Version {version.pk}, {version.name}, {told} as {options['slot']} of {project.slug}."
        )


def register(
    *, project: Project, directory: Path, slot: str, name: str = "", licence: str = ""
) -> tuple[ModelVersion, bool]:
    """The version in force, and whether that is news; the same files give one version.

    Raises BadInput for a directory that is no model for this slot.
    """
    require_model_for(slot, directory)
    if len(name) > 120 or len(licence) > 80:
        raise BadInput("A name has at most 120 characters, a licence at most 80.")
    sha256 = sha256_of_directory(directory)
    known = ModelVersion.objects.filter(kind=slot, sha256=sha256).order_by("pk").first()
    if known and in_force(project, slot) == known:
        return known, False
    with transaction.atomic():
        version = known or register_version(
            kind=slot,
            stage="registered",
            directory=directory,
            name=name or directory.resolve().name[:120],
            licence=licence,
        )
        if not known:
            record(action="version.register", target=version, project=project, sha256=sha256)
        promote(project=project, slot=slot, version=version, verdict="registered")
    return version, True


def require_model_for(slot: str, directory: Path) -> None:
    """Raise BadInput unless the directory holds a model that this slot can use."""
    if (directory / ENSEMBLE).is_file():
        _require_ensemble_for(slot, directory)
        return
    config = _read_object(directory, "config.json", "it is no Hugging Face model")
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not all(isinstance(a, str) for a in architectures):
        raise BadInput(f"{directory}/config.json must list architectures: {architectures!r:.80}.")
    names = ", ".join(architectures) or "none"
    if config.get("is_encoder_decoder"):
        raise BadInput(f"{names} is an encoder-decoder model; Concord takes decoders alone.")
    if "auto_map" in config or any(directory.glob("*.py")):
        raise BadInput(f"{directory} needs code of its own (auto_map), which Concord does not run.")
    if slot == Slot.POLICY and not any(
        a.endswith(("ForCausalLM", "LMHeadModel")) for a in architectures
    ):
        raise BadInput(f"A policy must be a causal language model; its architectures are {names}.")
    if slot == Slot.REWARD:
        if not any(a.endswith("ForSequenceClassification") for a in architectures):
            raise BadInput(
                f"A reward model must be a ...ForSequenceClassification, and this is {names}."
            )
        if (labels := _num_labels(config)) != 1:
            raise BadInput(f"A reward model gives one score: num_labels is {labels}, not 1.")
    _require_files(directory)


def _num_labels(config: dict[str, Any]) -> Any:
    """As transformers reads it: id2label where it is there, else num_labels, else two."""
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)


def _require_ensemble_for(slot: str, directory: Path) -> None:
    """Its members are reward models that lie inside it, its manifest is whole: one that could not
    be loaded must not be put in force."""
    if slot != Slot.REWARD:
        raise BadInput(f"{directory} is an ensemble, which can be a reward model, not a {slot}.")
    manifest = _read_object(directory, ENSEMBLE, "it is no ensemble")
    members = manifest.get("members")
    if not isinstance(members, list) or len(members) < 2:
        raise BadInput(f"{directory}/{ENSEMBLE} must list two members or more: {members!r:.80}.")
    for member in members:
        name = member.get("directory") if isinstance(member, dict) else None
        if not isinstance(name, str) or not _lies_inside(directory / name, directory):
            raise BadInput(f"A member of {directory} must name a folder in it: {name!r:.80}.")
        require_model_for(slot, directory / name)
        _require_member(f"{directory}/{ENSEMBLE}: {name}", member)
    _require_combination(f"{directory}/{ENSEMBLE}", manifest)


def _require_member(name: str, member: dict[str, Any]) -> None:
    _require_mean_and_deviation(name, member)
    if not _is_number(member.get("nats")):
        raise BadInput(f"{name} must hold nats, a number: {member.get('nats')!r:.80}.")
    if not isinstance(member.get("sha256"), str):
        raise BadInput(f"{name} must hold a sha256: {member.get('sha256')!r:.80}.")
    if unknown := sorted(set(member) - OF_A_MEMBER):
        raise BadInput(f"{name} holds what no member has: {unknown[0]:.80}.")


def _require_combination(name: str, manifest: dict[str, Any]) -> None:
    rule, weight = manifest.get("rule"), manifest.get("uncertainty_weight")
    if rule not in RULES:
        raise BadInput(f"{name} must name a rule out of {', '.join(RULES)}: {rule!r:.80}.")
    if not _is_number(weight) or weight < 0:
        raise BadInput(f"{name} must hold an uncertainty_weight of 0 or more: {weight!r:.80}.")
    scale = manifest.get("scale")
    _require_mean_and_deviation(f"{name}: scale", scale if isinstance(scale, dict) else {})


def _require_mean_and_deviation(name: str, found: dict[str, Any]) -> None:
    mean, deviation = found.get("mean"), found.get("deviation")
    if not _is_number(mean):
        raise BadInput(f"{name} must hold a mean, a number: {mean!r:.80}.")
    if not _is_number(deviation) or deviation <= 0:
        raise BadInput(f"{name} must hold a deviation above 0: {deviation!r:.80}.")


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and math.isfinite(value)


def _lies_inside(folder: Path, directory: Path) -> bool:
    """Strictly, links followed: an ensemble that holds itself would have no end."""
    return directory.resolve() in folder.resolve().parents


def _read_object(directory: Path, name: str, otherwise: str) -> dict[str, Any]:
    if not directory.is_dir():
        raise BadInput(f"There is no directory {str(directory)!r}.")
    path = directory / name
    if not path.is_file():
        raise BadInput(f"{directory} holds no {name}: {otherwise}.")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise BadInput(f"{path} has {path.stat().st_size:,} bytes, too many for a config.")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} must hold a JSON object: {found!r:.80}.")
    return found


def _require_files(directory: Path) -> None:
    files = [path for path in directory.rglob("*") if path.is_file()]
    if pickled := [path.name for path in files if path.suffix in PICKLED]:
        raise BadInput(
            f"{directory} holds {pickled[0]}: weights that can run code; use safetensors alone."
        )
    if not any(path.suffix == ".safetensors" for path in directory.iterdir()):
        raise BadInput(f"{directory} holds no .safetensors weights.")
    if not any((directory / name).is_file() for name in TOKENIZERS):
        raise BadInput(f"{directory} holds no tokenizer ({', '.join(TOKENIZERS[:2])}, ...).")
