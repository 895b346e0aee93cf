"""What the tests of whole PPO runs share: a few steps, a score, and the metrics of a run."""

import json
import os
import signal
from pathlib import Path

import torch
from safetensors.torch import load_file

WANTED = 8  # the letter c
SMALL = {
    "steps": 4,
    "rollouts_per_step": 8,
    "max_response_tokens": 8,
    "temperature": 1.0,
    "lr_peak": 3e-3,
    "value_lr_peak": 3e-3,
    "checkpoint_every": 2,
    "warmup_steps": 0,
    "kl_target_nats": None,
    "baseline_samples": 2,
}


def share_of_wanted(prompts, completions):
    """A score function: four times the share of the letter c."""
    return [4.0 * ids.count(WANTED) / len(ids) for ids in completions]


def metrics_of(directory: Path, phase: str = "ppo") -> list[dict]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["phase"] == phase]


def without_times(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    models = ["model.safetensors"]
    models += ["value/model.safetensors"] if (one / "value").is_dir() else []
    for name in models:
        first, second = load_file(one / name), load_file(other / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name
    for phase in ("ppo", "final"):
        assert without_times(metrics_of(one, phase)) == without_times(metrics_of(other, phase))
    for folder in ("rollouts", "texts", "baselines"):
        if not (one / folder).is_dir():
            continue
        files = {path.name: path.read_text() for path in (one / folder).iterdir()}
        assert files == {path.name: path.read_text() for path in (other / folder).iterdir()}
    ended, expected = (json.loads((each / "run.json").read_text()) for each in (other, one))
    assert ended["fingerprints"] == expected["fingerprints"]
    assert {"policy_weights", "optimizers", "kl_coef"} <= ended["fingerprints"].keys()


def terminate_at(step: int):
    def on_step(done, metrics):
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_step
