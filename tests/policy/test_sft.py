"""Fine-tuning: exactly which tokens are learned, that they are, and that a kill changes nothing."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from policy.__main__ import main
from policy.backbone import forward_logits, load_causal_lm
from policy.config import BadInput, SFTConfig
from policy.data import Demonstration
from policy.packing import NO_TOKEN
from policy.reading import Reading
from policy.sampling import sample
from policy.sft import encode, lines_of, mean_nats, packed_lines, train
from policy.text import ASSISTANT, END, USER, encode_completion, render_prompt

ROOT = Path(__file__).resolve().parents[2]
TINY = SFTConfig(epochs=4, rows_per_step=4, lr_peak=1e-2, checkpoint_every=5)


def demonstration(prompt, completion, split=None, number=0):
    return Demonstration(str(number), split, [{"role": "user", "content": prompt}], completion)


def write(path, rows):
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            line = {"id": row.id, "prompt": row.messages, "completion": row.completion}
            file.write(json.dumps(line | ({"split": row.split} if row.split else {})) + "\n")
    return path


ROWS = [
    demonstration(f"{a} {b}", f"{b} {a} {b}", number=f"{a}{b}") for a in "abcd" for b in "efghij"
]


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "demonstrations.jsonl", ROWS)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_weights(one, other):
    first, second = (load_file(path / "model.safetensors") for path in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def learned(lines, row, tokenizer):
    """(what stands there, what is learned there) of one line, as tokens."""
    return [
        tokenizer.convert_ids_to_tokens([seen, target])
        for seen, target in zip(lines.ids[row].tolist(), lines.targets[row].tolist(), strict=True)
        if target != NO_TOKEN
    ]


def test_the_learned_tokens_are_the_response_and_its_end(letters):
    rows = [demonstration("a b c", "d e"), demonstration("a", "f")]
    lines = lines_of(encode(letters, rows, 32).examples, letters.pad_token_id)
    seen = [letters.convert_ids_to_tokens(row) for row in lines.ids.tolist()]
    assert seen == [
        [USER, "a", "b", "c", END, ASSISTANT, "d", "e", END],
        [USER, "a", END, ASSISTANT, "f", END, *["<|pad|>"] * 3],
    ]
    assert learned(lines, 0, letters) == [[ASSISTANT, "d"], ["d", "e"], ["e", END]]
    assert learned(lines, 1, letters) == [[ASSISTANT, "f"], ["f", END]]
    assert lines.mask.sum(-1).tolist() == [9, 6]


def test_packed_the_same_tokens_are_learned_and_positions_begin_anew(letters):
    rows = [demonstration("a", "f"), demonstration("a b c", "d e"), demonstration("b", "g")]
    lines = packed_lines(encode(letters, rows, 32).examples, letters.pad_token_id, 15)
    seen = [letters.convert_ids_to_tokens(row) for row in lines.ids.tolist()]
    assert seen == [
        [USER, "a", "b", "c", END, ASSISTANT, "d", "e", END, USER, "a", END, ASSISTANT, "f", END],
        [USER, "b", END, ASSISTANT, "g", END, *["<|pad|>"] * 9],
    ]
    assert learned(lines, 0, letters) == [
        [ASSISTANT, "d"], ["d", "e"], ["e", END], [ASSISTANT, "f"], ["f", END],
    ]  # fmt: skip
    assert learned(lines, 1, letters) == [[ASSISTANT, "g"], ["g", END]]
    assert lines.positions[0].tolist() == [*range(9), *range(6)]
    assert lines.sees[0, 10].tolist() == [False] * 9 + [True, True] + [False] * 4


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_in_a_packed_line_no_example_sees_another(letters, tiny_policy, kind):
    """Change one, and what the other costs stays what it is by itself."""
    reading = Reading(load_causal_lm(tiny_policy(kind))[0], TINY)
    assert reading.apart
    fixed = demonstration("c d", "e f")
    costs = []
    for other in (None, demonstration("a b", "g h"), demonstration("j i", "b a")):
        rows = [fixed] if other is None else [other, fixed]
        lines = packed_lines(encode(letters, rows, 32).examples, letters.pad_token_id, 32)
        costs.append(reading.nats(lines)[-3:].tolist())
    for cost in costs[1:]:
        assert cost == pytest.approx(costs[0], abs=1e-5)


def test_what_does_not_read_blocks_apart_is_not_packed(tiny_policy, monkeypatch):
    """A model that takes positions from the line is found out."""
    model, _ = load_causal_lm(tiny_policy())
    forward = model.base_model.forward

    def from_the_line(*given, position_ids=None, **named):
        return forward(*given, **named)

    monkeypatch.setattr(model.base_model, "forward", from_the_line)
    assert not Reading(model, TINY).apart


def test_packed_or_in_pieces_it_learns_the_same(tiny_policy, data, tmp_path):
    init = tiny_policy()
    ways = {
        "plain": TINY,
        "packed": replace(TINY, packed=True, max_tokens=24),
        "pieces": replace(TINY, tokens_per_forward=20),
    }
    losses = {}
    for name, config in ways.items():
        train(config, data, init, tmp_path / name)
        rows = rows_of(tmp_path / name)
        losses[name] = [row["loss"] for row in rows if row["phase"] == "train"]
    assert losses["packed"] == pytest.approx(losses["plain"], abs=1e-4)
    assert losses["pieces"] == pytest.approx(losses["plain"], abs=1e-4)
    assert rows_of(tmp_path / "packed")[1]["packed"] == 1


def test_the_loss_is_its_definition_written_slowly(letters, tiny_policy, monkeypatch):
    """Whether the head is asked at once or for two tokens at a time."""
    model, _ = load_causal_lm(tiny_policy())
    rows = [demonstration("a b c", "d e"), demonstration("a", "f")]
    examples = encode(letters, rows, 32).examples
    expected = []
    for example in examples:
        ids = torch.tensor([example.ids])
        logprobs = forward_logits(model, ids, ids >= 0).log_softmax(-1)[0]
        for place in range(example.response_start, len(example.ids)):
            expected.append(-logprobs[place - 1, example.ids[place]].item())
    reading = Reading(model, TINY)
    assert reading.head_alone
    lines = lines_of(examples, letters.pad_token_id)
    found = reading.nats(lines)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    mean = mean_nats(reading, examples, letters.pad_token_id)
    assert mean == pytest.approx(sum(expected) / 5, abs=1e-5)
    found.sum().backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    monkeypatch.setattr("policy.reading.MOST_LOGITS", 2 * len(letters))
    found = reading.nats(lines)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    found.sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-4, atol=1e-6)


def test_in_bf16_the_loss_is_near_and_in_fp32(letters, tiny_policy):
    model, _ = load_causal_lm(tiny_policy("llama"))
    examples = encode(letters, ROWS, 32).examples
    lines = lines_of(examples, letters.pad_token_id)
    exact = Reading(model, TINY).nats(lines)
    found = Reading(model, replace(TINY, precision="bf16")).nats(lines)
    assert found.dtype is torch.float32
    assert (found - exact).abs().max() < 0.05
    assert not torch.equal(found, exact)


def test_adapters_learn_and_are_published_inside(tiny_policy, data, tmp_path):
    init = tiny_policy("llama")
    config = replace(TINY, lora_rank=2, epochs=8)
    train(config, data, init, tmp_path / "out")
    losses = [row["loss"] for row in rows_of(tmp_path / "out") if row["phase"] == "train"]
    assert losses[-1] < losses[0]
    before, after = (load_file(path / "model.safetensors") for path in (init, tmp_path / "out"))
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    layers = {name for name in after if ".layers." in name and "norm" not in name}
    assert moved == layers  # neither norms, nor embeddings, nor the head

    def stop(step, numbers):
        if step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, data, init, tmp_path / "cut", on_step=stop)
    train(config, data, init, tmp_path / "cut")
    assert_same_weights(tmp_path / "out", tmp_path / "cut")


def test_the_prompt_gives_way_and_the_completion_stays_whole(letters):
    rows = [
        demonstration("a b c d e f", "g h"),  # 9 + 3
        demonstration("a", "g " * 8),  # 4 + 9, 3 + 9 when cut
        demonstration("a", "g " * 10),  # 3 + 11 at the least
    ]
    encoded = encode(letters, rows, 12)
    assert (len(encoded.examples), encoded.prompts_cut, encoded.too_long) == (2, 1, 1)
    assert encoded.examples[1].ids[-9:] == encode_completion(letters, "g " * 8)
    assert all(len(example.ids) <= 12 for example in encoded.examples)


def test_it_learns_what_it_is_shown_and_says_so(letters, tiny_policy, data, tmp_path):
    out = tmp_path / "out"
    train(replace(TINY, epochs=40), data, tiny_policy(), out)
    model, tokenizer = load_causal_lm(out)
    prompts = [render_prompt(tokenizer, row.messages).ids for row in ROWS]
    found = sample(
        model, tokenizer, prompts, temperature=0, max_new_tokens=8, seeds=[0] * len(ROWS)
    )
    right = [
        one.tokens == encode_completion(tokenizer, row.completion)
        for one, row in zip(found, ROWS, strict=True)
    ]
    assert sum(right) >= 22
    rows = rows_of(out)
    assert rows[0] == {
        "step": 0, "phase": "data", "rows_trained": 24, "rows_dev": 0, "rows_too_long": 0,
        "prompts_cut": 0,
    }  # fmt: skip
    assert [row["step"] for row in rows if row["phase"] == "train"] == list(range(1, 241))


def test_dev_is_measured_after_each_epoch_and_test_is_left_alone(tiny_policy, tmp_path):
    split = {"a": "dev", "b": "test", "c": "train"}
    rows = [replace(row, split=split.get(row.id[0])) for row in ROWS]
    without_test = [row for row in rows if row.split != "test"]
    init = tiny_policy()
    for name, kept in {"all": rows, "none": without_test}.items():
        train(TINY, write(tmp_path / f"{name}.jsonl", kept), init, tmp_path / name)
    assert_same_weights(tmp_path / "all", tmp_path / "none")
    assert rows_of(tmp_path / "all") == rows_of(tmp_path / "none")
    dev = [row for row in rows_of(tmp_path / "all") if row["phase"] == "dev"]
    assert [(row["step"], row["epoch"]) for row in dev] == [(3, 1), (6, 2), (9, 3), (12, 4)]
    model, tokenizer = load_causal_lm(tmp_path / "all")
    examples = encode(tokenizer, [row for row in rows if row.split == "dev"], 32).examples
    assert dev[-1]["loss"] == pytest.approx(
        mean_nats(Reading(model, TINY), examples, tokenizer.pad_token_id), rel=1e-6
    )


KILLED = """
import json, os, signal, sys
from policy import checkpoint
from policy.config import SFTConfig, config_from
from policy.sft import train

sync, synced = checkpoint.sync, []

def killed_while_saving(path):
    synced.append(path)
    if path.name == "state.pt" and "step-000010" not in str(path) and sys.argv[5] in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
    sync(path)

checkpoint.sync = killed_while_saving
train(config_from(SFTConfig, json.loads(sys.argv[1])), *sys.argv[2:5])
"""


def test_killed_while_it_saves_it_ends_bit_for_bit_the_same(tiny_policy, data, tmp_path):
    init, whole, killed = tiny_policy(), tmp_path / "whole", tmp_path / "killed"
    train(TINY, data, init, whole)
    config = json.dumps({"epochs": 4, "rows_per_step": 4, "lr_peak": 1e-2, "checkpoint_every": 5})
    child = subprocess.run(
        [
            *(sys.executable, "-c", KILLED, config),
            *(str(data), str(init), str(killed), ".staged-000015"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        cwd=ROOT,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    left = sorted(path.name for path in (killed / "checkpoints").iterdir())
    assert left == [".staged-000015", "newest", "step-000005", "step-000010"]
    steps = []
    train(TINY, data, init, killed, on_step=lambda step, _: steps.append(step))
    assert steps[0] == 11
    assert_same_weights(whole, killed)
    assert rows_of(killed) == rows_of(whole)


def test_nothing_to_train_on_is_refused(tiny_policy, tmp_path):
    only_test = write(tmp_path / "t.jsonl", [replace(ROWS[0], split="test")])
    with pytest.raises(BadInput, match="has no row to train on: 1 rows, 0 of the train split"):
        train(TINY, only_test, tiny_policy(), tmp_path / "out")
    too_long = write(tmp_path / "l.jsonl", [demonstration("a", "b " * 40)])
    with pytest.raises(BadInput, match="1 of the train split too long for 32 tokens"):
        train(TINY, too_long, tiny_policy(name="again"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line(tiny_policy, data, tmp_path, capsys):
    config = tmp_path / "sft.json"
    config.write_text('{"epochs": 1}')
    command = ["sft", "--data", str(data), "--init", str(tiny_policy("llama"))]
    command += ["--out", str(tmp_path / "out"), "--config", str(config)]
    assert main(command) == 0
    load_causal_lm(tmp_path / "out")
    assert main([*command[:4], str(tmp_path / "none"), *command[5:]]) == 2
    assert "there is no model folder" in capsys.readouterr().err
