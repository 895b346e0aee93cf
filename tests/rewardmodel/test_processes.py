"""Two processes that train one model: the weights, figures and files of one; resume and stop."""

import json
import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from policy.processes import Processes
from rewardmodel.__main__ import main

FORK = multiprocessing.get_context("fork")
SETTINGS = {
    "layers": 1,
    "heads": 2,
    "width": 32,
    "context": 64,
    "vocab_size": 300,
    "comparisons_per_step": 5,
    "eval_every": 3,
    "checkpoint_every": 2,
    "epochs": 2,
    "loss": "davidson",
}


@pytest.fixture
def words(write_rows, tmp_path):
    """A function: the command line for a folder. 21 comparisons, so that the last step of an epoch
    holds one, of which the second process has no part."""
    rows = []
    for split, count in (("train", 21), ("dev", 4)):
        for number in range(count):
            texts = [f"yes {number}", f"no {number} and no", f"perhaps {number}"]
            groups = [["0"], ["1", "2"]] if number % 3 else [["2"], ["0"], ["1"]]
            vote = {"axis": "a", "ranking": groups, "strength": None, "weight": None}
            rows.append(
                {
                    "id": f"{split}{number}",
                    "split": split,
                    "prompt": [{"role": "user", "content": f"Say {number} " * (1 + number % 3)}],
                    "completions": [
                        {"id": str(place), "text": text, "model": None}
                        for place, text in enumerate(texts)
                    ],
                    "votes": [{**vote, "annotator": "x", "kind": "simulated"}],
                }
            )
    data = write_rows(rows)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SETTINGS))

    def command(name: str) -> list[str]:
        plain = ["train", "--data", str(data), "--init", "none", "--device", "cpu"]
        return [*plain, "--config", str(config), "--out", str(tmp_path / name)]

    return command


def as_process(words: list[str], rank: int, count: int, port: int, signal_at: int | None) -> None:
    """The public command as torchrun starts it; a signal to itself after that step's row."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCHELASTIC_RUN_ID"] = "test"
    if signal_at is not None:
        any_of, asked = Processes.any, []

        def any_with_signal(self: Processes, flag: bool) -> bool:
            asked.append(flag)
            if len(asked) == signal_at:
                os.kill(os.getpid(), signal.SIGTERM)
                flag = True
            return any_of(self, flag)

        Processes.any = any_with_signal  # type: ignore[method-assign]
    sys.exit(main(words))


def run_two(words: list[str], *, stop_second_at: int | None = None) -> list[int | None]:
    """Exit codes of two processes; the second gets a SIGTERM after that step."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        FORK.Process(
            target=as_process, args=(words, rank, 2, port, stop_second_at if rank else None)
        )
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one_stop_together_and_resume(words, tmp_path):
    assert main(words("one")) == 0
    # A request that reaches the second process alone stops both, with one checkpoint.
    assert run_two(words("two"), stop_second_at=3) == [3, 3]
    saved = sorted(path.name for path in (tmp_path / "two" / "checkpoints").glob("step-*"))
    assert saved == ["step-000002", "step-000003"]
    assert run_two(words("two")) == [0, 0]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-6)
    rows = {name: metrics(tmp_path / name) for name in ("one", "two")}
    assert [(r["step"], r["phase"]) for r in rows["one"]] == [
        (r["step"], r["phase"]) for r in rows["two"]
    ]
    for mine, other in zip(rows["one"], rows["two"], strict=True):
        for figure in mine.keys() - {"pad_share", "phase"}:
            assert other[figure] == pytest.approx(mine[figure], abs=1e-5), figure
    said = json.loads((tmp_path / "two" / "run.json").read_text())
    assert (said["processes"], said["resumes"]) == (2, [{"at_step": 3, "changed": []}])
    learned = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("one", "two")]
    assert learned[1]["concord_loss"]["log_nu"] == pytest.approx(
        learned[0]["concord_loss"]["log_nu"], abs=1e-6
    )

    # What the first may not do, neither does: the folder holds a finished run.
    assert run_two(words("two")) == [2, 2]


def test_an_ensemble_of_two_processes_is_that_of_one_and_goes_on_after_a_stop(words, tmp_path):
    small = ["--set", "members=2", "--set", "epochs=1", "--set", "loss=bradley_terry"]
    assert main([*words("one"), *small]) == 0
    assert run_two([*words("two"), *small], stop_second_at=7) == [3, 3]  # in the second member
    assert (tmp_path / "two" / "member-0" / "model.safetensors").is_file()
    assert not (tmp_path / "two" / "member-1" / "model.safetensors").is_file()
    assert run_two([*words("two"), *small]) == [0, 0]
    for member in ("member-0", "member-1"):
        one, two = (load_file(tmp_path / n / member / "model.safetensors") for n in ("one", "two"))
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-6)
    one, two = (
        json.loads((tmp_path / name / "ensemble.json").read_text()) for name in ("one", "two")
    )
    for mine, other in zip(one["members"], two["members"], strict=True):
        assert mine["mean"] == pytest.approx(other["mean"], abs=1e-5)
    phases = {row["phase"] for row in metrics(tmp_path / "two")}
    assert {"member-0 train", "member-1 train", "scores"} <= phases
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2


def test_shares_hold_everything_once_whatever_is_left_over():
    items = [5, 3, 9, 1, 7]
    parts = [Processes(rank, 3).share(items, lambda item: item) for rank in range(3)]
    assert sorted(item for part in parts for item in part) == sorted(items)
    assert Processes().share(items, lambda item: item) == items
    assert Processes(1, 2).share([4], lambda item: item) == []
