"""A bundle holds what a model was made of, and its model comes out of it with the same bits."""

import json
import shutil
from pathlib import Path

import pytest

from policy.__main__ import main
from policy.bundle import make_bundle
from policy.config import BadInput
from policy.data import content_hash
from policy.rebuild import arguments_of, rebuild

TEXTS = ["Where is the red cat?", "The red cat is in the house.", "The dog eats a small fish."]
SMALL = ("width=16", "layers=1", "heads=1", "context=32", "vocab_size=300", "steps=2")


def run(*words, **settings):
    more = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    assert main([*map(str, words), *more]) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pretrained model and what was fine-tuned from it, by the public commands."""
    root = tmp_path_factory.mktemp("made")
    for number, texts in enumerate((TEXTS, TEXTS[::-1])):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts * 30)
        (root / f"corpus-{number}.jsonl").write_text(rows, encoding="utf-8")
    demonstration = {
        "id": "1",
        "prompt": [{"role": "user", "content": TEXTS[0]}],
        "completion": TEXTS[1],
    }
    (root / "demonstrations.jsonl").write_text(json.dumps(demonstration) + "\n", encoding="utf-8")
    small = [word for setting in SMALL for word in ("--set", setting)]
    data = [root / "corpus-0.jsonl", root / "corpus-1.jsonl"]
    run("pretrain", "--data", *data, "--out", root / "first", *small)
    run(
        *("sft", "--data", root / "demonstrations.jsonl", "--init", root / "first"),
        *("--out", root / "second", "--set", "epochs=2"),
    )
    return root


@pytest.fixture
def bundle(made, tmp_path):
    make_bundle(made / "second", tmp_path / "bundle", among=[made])
    return tmp_path / "bundle"


def test_a_model_is_made_again_where_nothing_of_it_is(made, bundle, tmp_path, capfd):
    moved = tmp_path / "elsewhere" / "bundle"
    shutil.copytree(bundle, moved)
    said = json.loads((moved / "bundle.json").read_text())
    assert [step["command"] for step in said["steps"]] == ["policy pretrain", "policy sft"]
    assert len(said["given"]) == 3
    assert main(["rebuild", str(moved), "--out", str(tmp_path / "again")]) == 0
    again = tmp_path / "again" / "2-second"
    assert content_hash(again) == content_hash(made / "second")
    weights = [folder / "model.safetensors" for folder in (again, made / "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    out = capfd.readouterr().out
    assert out.count("equal") == 2
    assert f"made again, bit by bit: {again}" in out


def test_what_comes_out_otherwise_is_told_with_what_is_otherwise(bundle, tmp_path):
    said = json.loads((bundle / "bundle.json").read_text())
    said["steps"][0]["config"]["seed"] = 7
    said["steps"][0]["versions"]["torch"] = "1.0"
    (bundle / "bundle.json").write_text(json.dumps(said))
    with pytest.raises(BadInput, match=r"1-first came out differently: .* torch: 1.0 before"):
        rebuild(bundle, tmp_path / "again")


def test_a_damaged_bundle_is_found_before_anything_is_made(bundle, tmp_path):
    (damaged,) = (bundle / "given").glob("*-demonstrations.jsonl")
    damaged.write_text("{}")
    with pytest.raises(BadInput, match=r"demonstrations.jsonl is not what .* names"):
        rebuild(bundle, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with pytest.raises(BadInput, match="is no bundle"):
        rebuild(tmp_path, tmp_path / "again")
    (bundle / "bundle.json").write_text('{"format": "other"}')
    with pytest.raises(BadInput, match="its format is 'other'"):
        rebuild(bundle, tmp_path / "again")


def test_what_is_missing_is_named_and_nothing_half_written_stays(made, tmp_path):
    with pytest.raises(BadInput, match=r"of .*second has the SHA-256 .*nothing in no other folder"):
        make_bundle(made / "second", tmp_path / "bundle", among=[])
    with pytest.raises(BadInput, match="is no model folder"):
        make_bundle(tmp_path, tmp_path / "bundle", among=[])
    lone = shutil.copytree(made / "first", tmp_path / "lone")
    (lone / "run.json").unlink()
    with pytest.raises(BadInput, match="no run made"):
        make_bundle(lone, tmp_path / "bundle", among=[])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lone"]


def test_a_model_that_no_run_here_made_is_given_whole(made, tmp_path):
    lone = shutil.copytree(made / "first", tmp_path / "lone")
    (lone / "run.json").unlink()
    said = make_bundle(
        made / "second",
        tmp_path / "bundle",
        among=[lone, made / "demonstrations.jsonl"],
    )
    assert [step["command"] for step in said["steps"]] == ["policy sft"]
    assert {Path(path).name.split("-", 1)[1] for path in said["given"].values()} == {
        "lone", "demonstrations.jsonl"
    }  # fmt: skip


def test_a_run_that_ended_where_it_began_is_not_its_own_beginning(made, tmp_path):
    """As a policy whose best is its start: best/ has the contents of what the run began from."""
    folder = shutil.copytree(made / "second", tmp_path / "third")
    shutil.copytree(made / "first", folder / "best", ignore=shutil.ignore_patterns("run.json"))
    for asked in (folder, folder / "best"):
        said = make_bundle(asked, tmp_path / f"bundle-{asked.name}", among=[made])
        commands = [step["command"] for step in said["steps"]]
        assert commands[:2] == ["policy pretrain", "policy sft"]
        assert said["steps"][1]["outputs"]["best"] == content_hash(made / "first")
    with pytest.raises(BadInput, match="which only that run itself has"):
        make_bundle(folder, tmp_path / "lost", among=[made / "demonstrations.jsonl"])


def test_a_copy_without_its_run_hides_no_run(made, tmp_path):
    copied = shutil.copytree(made / "first", tmp_path / "zz" / "copy")
    (copied / "run.json").unlink()
    said = make_bundle(made / "second", tmp_path / "bundle", among=[made, tmp_path / "zz"])
    assert [step["command"] for step in said["steps"]] == ["policy pretrain", "policy sft"]


def test_each_input_becomes_the_option_that_it_was():
    """By the tables of the commands' options in the README."""
    places = {name: Path("/at") / name for name in "abcdefg"}
    ppo = {
        "command": "ppo",
        "config": {"ptx_data": "/gone", "baseline_cache": "/gone", "seed": 3},
        "inputs": {
            "init": "a", "reference": "b", "reward_model": "c", "reward_model_2": "d",
            "value_init": "name:org/name", "ptx_data": "e", "prompts": "f",
        },
    }  # fmt: skip
    flags, config = arguments_of(ppo, places)
    assert flags == [
        *("--init", "/at/a", "--reference", "/at/b", "--reward-model", "/at/c"),
        *("--reward-model", "/at/d", "--value-init", "org/name", "--prompts", "/at/f"),
    ]
    assert config == {"ptx_data": "/at/e", "baseline_cache": None, "seed": 3}
    reward = {
        "command": "rewardmodel train",
        "config": {},
        "inputs": {"data": "a", "tokenizer": "b", "anchors": "c"},
    }
    flags, _ = arguments_of(reward, places)
    assert flags == [
        *("--data", "/at/a", "--tokenizer", "/at/b", "--anchors", "/at/c", "--init", "none")
    ]
    ensemble = {**reward, "inputs": {"data": "a", "init.0": "b", "init.1": "c"}}
    assert arguments_of(ensemble, places)[0] == [
        *("--data", "/at/a", "--init", "/at/b", "--init", "/at/c")
    ]
    pretrain = {
        "command": "policy pretrain",
        "config": {"tokenizer": "/gone"},
        "inputs": {"data.0": "a", "data.1": "b", "tokenizer": "c"},
    }
    flags, config = arguments_of(pretrain, places)
    assert (flags, config) == (["--data", "/at/a", "/at/b"], {"tokenizer": "/at/c"})
