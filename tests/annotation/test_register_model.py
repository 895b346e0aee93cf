"""Models from outside: what is taken, what is refused and why."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

import policy.ensemble
from annotation.management.commands import register_model
from annotation.models import AuditEntry, ModelVersion, Promotion
from annotation.services.versions import directory_of
from policy.ensemble import load_ensemble
from tests.annotation.making import make_project

pytestmark = pytest.mark.django_db

POLICY = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
REWARD = {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    return settings.ARTIFACTS_DIR


@pytest.fixture
def project():
    return make_project("here", open_target=0)


def model(folder, config=POLICY, **files):
    """A folder that looks like a Hugging Face model; files: name -> text, None = without it."""
    folder.mkdir(parents=True)
    texts = {
        "config.json": config if isinstance(config, str) else json.dumps(config),
        "model.safetensors": "weights",
        "tokenizer.json": "{}",
    } | {name.replace("__", "."): text for name, text in files.items()}
    for name, text in texts.items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def register(folder, slot="policy", **options):
    said = StringIO()
    call_command("register_model", project="here", dir=folder, slot=slot, stdout=said, **options)
    return said.getvalue()


def test_a_model_becomes_a_version_in_force(project, tmp_path, artifacts):
    said = register(model(tmp_path / "tiny"), name="Tiny", licence="MIT")
    version = ModelVersion.objects.get()
    assert (version.kind, version.stage, version.name) == ("policy", "registered", "Tiny")
    assert f"Version {version.pk}, Tiny, is in force as policy of here." in said
    promotion = Promotion.objects.get()
    assert (promotion.version, promotion.slot, promotion.verdict) == (
        version,
        "policy",
        "registered",
    )
    assert directory_of(version).parent == artifacts / "models"
    assert (directory_of(version) / "model.safetensors").read_text() == "weights"
    assert AuditEntry.objects.filter(action="version.register").count() == 1


def test_the_same_files_are_one_version_however_often_they_come(project, tmp_path, artifacts):
    folder = model(tmp_path / "tiny")
    register(folder)
    assert "was in force already" in register(folder)
    register(model(tmp_path / "next", model__safetensors="other"))
    assert "is in force" in register(folder)
    assert ModelVersion.objects.count() == 2
    assert Promotion.objects.count() == 3
    assert len(list((artifacts / "models").iterdir())) == 2


def test_a_reward_model_takes_its_own_slot(project, tmp_path):
    register(model(tmp_path / "rm", REWARD), slot="reward")
    assert ModelVersion.objects.get().kind == "reward"
    labels = {"architectures": REWARD["architectures"], "id2label": {"0": "LABEL_0"}}
    register(model(tmp_path / "rm2", labels), slot="reward")
    assert ModelVersion.objects.count() == 2


def whole_manifest(members=("member-0", "member-1")):
    """As policy.ensemble writes it."""
    figures = {"mean": 0.5, "deviation": 2.0, "nats": 1.0, "sha256": "00"}
    return {
        "rule": "mean",
        "uncertainty_weight": 0.0,
        "members": [{"directory": name, **figures} for name in members],
        "scale": {"mean": 0.0, "deviation": 1.0},
    }


def ensemble(folder, members=("member-0", "member-1"), manifest=None, config=REWARD):
    """Reward models beside each other and what says so."""
    for number, name in enumerate(("member-0", "member-1")):
        model(folder / name, config, model__safetensors=f"weights {number}")
    manifest = manifest or whole_manifest(members)
    (folder / "ensemble.json").write_text(json.dumps(manifest))
    return folder


def test_an_ensemble_of_reward_models_is_one(project, tmp_path):
    folder = ensemble(tmp_path / "both")
    assert "both, is in force as reward of here" in register(folder, slot="reward")
    version = ModelVersion.objects.get()
    assert version.kind == "reward"
    kept = directory_of(version)
    assert (kept / "ensemble.json").read_text() == (folder / "ensemble.json").read_text()
    assert (kept / "member-1" / "model.safetensors").read_text() == "weights 1"
    assert "was in force already" in register(folder, slot="reward")


@pytest.mark.parametrize(
    ("slot", "changes", "reason"),
    [
        ("policy", {}, "is an ensemble, which can be a reward model, not a policy"),
        ("reward", {"members": ["member-0"]}, "must list two members or more"),
        ("reward", {"manifest": {"members": "all"}}, "must list two members or more: 'all'"),
        ("reward", {"members": ["member-0", ".."]}, r"must name a folder in it: '\.\.'"),
        ("reward", {"members": ["member-0", "."]}, r"must name a folder in it: '\.'"),
        ("reward", {"manifest": {"members": [1, 2]}}, "must name a folder in it: None"),
        ("reward", {"members": ["member-0", "member-7"]}, "There is no directory .*member-7"),
        ("reward", {"config": POLICY}, "must be a ...ForSequenceClassification"),
    ],
)
def test_what_is_no_ensemble_is_refused_with_a_sentence(project, tmp_path, slot, changes, reason):
    folder = ensemble(tmp_path / "bad", **changes)
    with pytest.raises(CommandError, match=reason) as problem:
        register(folder, slot)
    assert problem.value.returncode == 2
    assert not ModelVersion.objects.exists()


@pytest.mark.parametrize(
    ("where", "changes", "reason"),
    [
        ((), {"rule": None}, "must name a rule out of mean, worst, uncertainty: None"),
        ((), {"uncertainty_weight": "1"}, "must hold an uncertainty_weight of 0 or more: '1'"),
        ((), {"uncertainty_weight": -1}, "must hold an uncertainty_weight of 0 or more: -1"),
        ((), {"scale": None}, "scale must hold a mean, a number: None"),
        (("scale",), {"mean": float("nan")}, "scale must hold a mean, a number: nan"),
        (("scale",), {"deviation": 0}, "scale must hold a deviation above 0: 0"),
        (("members", 1), {"mean": None}, "member-1 must hold a mean, a number: None"),
        (("members", 1), {"deviation": True}, "member-1 must hold a deviation above 0: True"),
        (("members", 1), {"nats": "x"}, "member-1 must hold nats, a number: 'x'"),
        (("members", 1), {"sha256": None}, "member-1 must hold a sha256: None"),
        (("members", 1), {"weight": 2}, "member-1 holds what no member has: weight"),
    ],
)
def test_an_ensemble_that_could_not_be_loaded_is_refused(project, tmp_path, where, changes, reason):
    manifest = whole_manifest()
    part = manifest
    for step in where:
        part = part[step]
    part |= changes
    folder = ensemble(tmp_path / "bad", manifest=manifest)
    with pytest.raises(CommandError, match=reason):
        register(folder, "reward")
    assert not ModelVersion.objects.exists()


def test_the_whole_manifest_of_these_tests_can_be_loaded_and_the_rules_are_the_laboratorys(
    tmp_path,
):
    assert load_ensemble(ensemble(tmp_path / "both")).rule == "mean"
    assert register_model.RULES == policy.ensemble.RULES


@pytest.mark.parametrize(
    ("slot", "config", "files", "reason"),
    [
        ("policy", POLICY, {"config__json": None}, "holds no config.json"),
        ("policy", "{", {}, "config.json is not JSON"),
        ("policy", "[" * 100_000, {}, "config.json is not JSON"),
        ("policy", "[]", {}, r"must hold a JSON object: \[\]"),
        ("policy", {}, {}, "must list architectures: None"),
        (
            "policy",
            {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            {},
            "T5ForConditionalGeneration is an encoder-decoder",
        ),
        ("policy", {"architectures": ["BertForMaskedLM"]}, {}, "are BertForMaskedLM"),
        ("policy", REWARD, {}, "must be a causal language model"),
        ("policy", POLICY | {"auto_map": {}}, {}, "needs code of its own"),
        ("policy", POLICY, {"modeling__py": "import os"}, "needs code of its own"),
        ("policy", POLICY, {"pytorch_model__bin": "x"}, "pytorch_model.bin: weights that can run"),
        ("policy", POLICY, {"model__safetensors": None}, "holds no .safetensors"),
        ("policy", POLICY, {"tokenizer__json": None}, "holds no tokenizer"),
        ("reward", POLICY, {}, "ForSequenceClassification, and this is LlamaForCausalLM"),
        ("reward", REWARD | {"num_labels": 3}, {}, "num_labels is 3, not 1"),
        ("reward", {"architectures": REWARD["architectures"]}, {}, "num_labels is 2, not 1"),
    ],
)
def test_what_is_no_model_for_the_slot_is_refused_with_a_sentence(
    project, tmp_path, artifacts, slot, config, files, reason
):
    folder = model(tmp_path / "bad", config, **files)
    with pytest.raises(CommandError, match=reason) as problem:
        register(folder, slot)
    assert problem.value.returncode == 2
    assert not ModelVersion.objects.exists()
    assert not (artifacts / "models").exists()


def test_a_directory_that_is_not_there_is_refused(project, tmp_path):
    with pytest.raises(CommandError, match=r"There is no directory .*nowhere"):
        register(tmp_path / "nowhere")


@pytest.mark.shared_data
def test_the_real_tiny_model_is_taken(project, shared_data):
    register(shared_data / "tiny-lm/hf", licence="MIT")
    version = ModelVersion.objects.get()
    assert version.name == "hf"
    config = json.loads((directory_of(version) / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
