"""Two processes in one PPO run: the rollouts, figures and weights of one, however it goes."""

import json
import math
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from policy.__main__ import main
from policy.backbone import save_model, score_model_from
from policy.ppo import train
from policy.ppo_config import PPOConfig
from policy.processes import Follower, Processes, joined, neighbours
from policy.run import main_guard

WANTED = 8  # the letter c
SMALL = {
    "steps": 3,
    "rollouts_per_step": 8,
    "max_response_tokens": 6,
    "temperature": 1.0,
    "lr_peak": 3e-3,
    "warmup_steps": 0,
    "checkpoint_every": 2,
    "minibatches": 3,
    "kl_target_nats": 0.3,
    "kl_horizon": 40,
}
SEPARATE = {"baseline_samples": 2, "value_lr_peak": 3e-3}
GROUPS = {"answers_per_prompt": 2, "steps": 2}
"""Four prompts in three minibatches: in two of them the second process has no part."""
TIMES = "_seconds"


@pytest.fixture
def inputs(tmp_path, tiny_policy) -> dict[str, Path]:
    """Seven prompts and a corpus; a policy; two reward models, of which the second is watched."""
    rows = [{"id": f"p{n}", "prompt": " ".join("abcdefghij"[n : n + 1 + n % 3])} for n in range(7)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "text.txt").write_text("a b c d e f g\n\nh i j a b\n\n" * 9)
    for number in range(2):
        trunk = tiny_policy(seed=2 + number, name=f"trunk-{number}")
        model, tokenizer = score_model_from(trunk, seed=number)
        with torch.no_grad():
            model.score.weight.mul_(10)
        save_model(model, tokenizer, tmp_path / f"reward-{number}")
    names = ("prompts.jsonl", "text.txt", "reward-0", "reward-1")
    return {"init": tiny_policy()} | {name: tmp_path / name for name in names}


def words_for(inputs: dict[str, Path], out: Path, settings: dict) -> list[str]:
    words = ["ppo", "--device", "cpu", "--init", str(inputs["init"]), "--out", str(out)]
    words += ["--prompts", str(inputs["prompts.jsonl"])]
    words += ["--reward-model", str(inputs["reward-0"]), "--reward-model", str(inputs["reward-1"])]
    settings = {"reward_weights": [1.0, 0.0]} | SMALL | settings
    return [*words, *(f"--set={name}={json.dumps(value)}" for name, value in settings.items())]


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(row: dict) -> dict:
    return {name: value for name, value in row.items() if not name.endswith(TIMES)}


def nearly(value):
    """Numbers to rounding, all else as it is."""
    if isinstance(value, dict):
        return {name: nearly(each) for name, each in value.items()}
    if isinstance(value, list):
        return [nearly(each) for each in value]
    return pytest.approx(value, abs=2e-5) if isinstance(value, float) else value


def assert_one_run(one: Path, two: Path) -> None:
    """The same files, tokens and choices; numbers to rounding."""
    assert [without_times(row) for row in rows_of(two / "metrics.jsonl")] == [
        nearly(without_times(row)) for row in rows_of(one / "metrics.jsonl")
    ]
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*.jsonl"))
    assert names == sorted(str(path.relative_to(two)) for path in two.rglob("*.jsonl"))
    for name in set(names) - {"metrics.jsonl"}:
        assert rows_of(two / name) == nearly(rows_of(one / name)), name
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*.safetensors"))
    assert names == sorted(str(path.relative_to(two)) for path in two.rglob("*.safetensors"))
    for name in names:
        first, second = load_file(one / name), load_file(two / name)
        for key in first:
            torch.testing.assert_close(second[key], first[key], rtol=0, atol=2e-5, msg=name)


def keeping_what_it_holds(work, out: Path) -> int:
    """The second process writes what it ends with."""

    def finish(self, write, fingerprints=None):
        (out / "second.json").write_text(json.dumps(fingerprints))

    Follower.finish = finish
    return work()


@pytest.mark.parametrize(
    "settings",
    [
        SEPARATE | {"value_warmup_steps": 1, "ptx_windows": 3, "ptx_tokens": 4},
        SEPARATE | {"value": "head", "steps": 3, "kl_stop_nats": 0.5, "kl_smoothing": 0.0},
        GROUPS | {"advantage": "rloo", "lora_rank": 2},
        GROUPS | {"advantage": "grpo"},
    ],
    ids=["separate", "head", "rloo", "grpo"],
)
def test_two_processes_learn_as_one(inputs, tmp_path, run_two, settings):
    if "ptx_windows" in settings:
        settings = settings | {"ptx_data": str(inputs["text.txt"])}
    words = partial(words_for, inputs, settings=settings)
    assert main(words(tmp_path / "one")) == 0
    work = partial(main, words(tmp_path / "two"))
    assert run_two(partial(keeping_what_it_holds, work, tmp_path / "two")) == [0, 0]
    assert_one_run(tmp_path / "one", tmp_path / "two")
    said = json.loads((tmp_path / "two" / "run.json").read_text())
    assert said["processes"] == 2
    # Both hold the same bits: no decision and no rounding has parted them.
    assert json.loads((tmp_path / "two" / "second.json").read_text()) == said["fingerprints"]


def test_what_reaches_one_process_stops_both_and_one_alone_goes_on(inputs, tmp_path, run_two):
    words = partial(
        words_for, inputs, settings={"baseline_samples": 1, "steps": 3, "minibatches": 1}
    )
    assert main(words(tmp_path / "one")) == 0

    def stopped_after_a_step(wanted: str) -> int:
        any_of, asked = Processes.any, []

        def any_with_signal(self, flag):
            if os.environ["RANK"] == wanted and not asked:
                os.kill(os.getpid(), signal.SIGTERM)
                flag = True
            asked.append(flag)
            return any_of(self, flag)

        Processes.any = any_with_signal
        return main(words(tmp_path / "two"))

    assert run_two(partial(stopped_after_a_step, "1")) == [3, 3]
    assert run_two(partial(stopped_after_a_step, "0")) == [3, 3]
    assert main(words(tmp_path / "two")) == 0
    assert_one_run(tmp_path / "one", tmp_path / "two")
    first, second = json.loads((tmp_path / "two" / "run.json").read_text())["resumes"]
    assert first == {"at_step": 1, "changed": []}
    assert second == {"at_step": 2, "changed": ["processes: 2 before, 1 now"]}
    assert run_two(partial(main, words(tmp_path / "two"))) == [2, 2]  # it holds this run already


def test_a_score_that_is_no_number_in_one_process_is_one_for_both(inputs, tmp_path, run_two):
    """Steps 3 to 5 are skipped, and the last begins where the checkpoint of step 2 stood."""

    def training(out: Path, spoiled: str) -> int:
        calls = []

        def score(prompts, completions):
            calls.append(1)
            scores = [4.0 * ids.count(WANTED) / len(ids) for ids in completions]
            here = os.environ.get("RANK", spoiled) == spoiled
            return [math.nan, *scores[1:]] if len(calls) in (3, 4, 5) and here else scores

        def body() -> int:
            with joined("cpu") as (processes, _):
                train(
                    PPOConfig(**SMALL | {"steps": 6, "baseline_samples": 0}),
                    init=inputs["init"],
                    prompts=inputs["prompts.jsonl"],
                    out=out,
                    score_fn=score,
                    processes=processes,
                )
            return 0

        return main_guard(body)

    assert training(tmp_path / "one", "1") == 0
    assert run_two(partial(training, tmp_path / "two", "1")) == [0, 0]
    assert_one_run(tmp_path / "one", tmp_path / "two")
    rows = rows_of(tmp_path / "two" / "metrics.jsonl")
    assert [row["rolled_back_to"] for row in rows if row["phase"] == "skipped"] == [-1, -1, 2]


def test_neighbours_are_equal_items_that_stand_together():
    assert neighbours("aabca") == [[0, 1], [2], [3], [4]]
    assert neighbours([]) == []
