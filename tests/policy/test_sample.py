"""`policy sample`: rows that say how to draw them again, in a file that appears whole."""

import json

import pytest

from policy.__main__ import main
from policy.backbone import load_causal_lm
from policy.config import BadInput, SampleConfig
from policy.sample import sample_file
from policy.sampling import sample
from policy.text import render_prompt

CONFIG = SampleConfig(n=3, max_new_tokens=8, temperature=1.0, rows_per_batch=4)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    texts = {"long": "a b c d e f g", "short": "h", "middle": "i j a"}
    with path.open("w", encoding="utf-8") as file:
        for name, text in texts.items():
            turns = [{"role": "user", "content": text}]
            split = "test" if name == "short" else "train"
            file.write(json.dumps({"id": name, "split": split, "prompt": turns}) + "\n")
    return path


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_stand_in_the_files_order_with_n_of_each(tiny_policy, prompts, tmp_path):
    out = tmp_path / "out.jsonl"
    assert sample_file(CONFIG, tiny_policy(), prompts, out) == 9
    rows = rows_of(out)
    assert [(row["prompt_id"], row["n"]) for row in rows] == [
        (name, n) for name in ("long", "short", "middle") for n in range(3)
    ]
    assert set(rows[0]) == {
        *("prompt_id", "n", "text", "tokens", "finish", "seed", "temperature", "logprob_sum"),
        "dropped_turns",
    }
    assert len({row["seed"] for row in rows}) == 9
    assert "<|" not in "".join(row["text"] for row in rows if row["finish"] == "end")[-8:]


def test_a_row_can_be_drawn_again_from_what_it_says(tiny_policy, prompts, tmp_path):
    path, out = tiny_policy(), tmp_path / "out.jsonl"
    sample_file(CONFIG, path, prompts, out)
    row = rows_of(out)[1]
    model, tokenizer = load_causal_lm(path)
    ids = render_prompt(tokenizer, [{"role": "user", "content": "a b c d e f g"}]).ids
    (again,) = sample(
        model,
        tokenizer,
        [ids],
        temperature=row["temperature"],
        max_new_tokens=8,
        seeds=[row["seed"]],
    )
    assert (again.tokens, again.finish) == (row["tokens"], row["finish"])
    assert sum(again.logprobs) == pytest.approx(row["logprob_sum"], abs=1e-4)


def test_the_same_command_writes_the_same_tokens(tiny_policy, prompts, tmp_path):
    command = ["sample", "--model", str(tiny_policy()), "--prompts", str(prompts), "--n", "2"]
    command += ["--set", "max_new_tokens=5", "--set", "split=train"]
    for name in ("a", "b"):
        assert main([*command, "--out", str(tmp_path / name)]) == 0
    first, second = rows_of(tmp_path / "a"), rows_of(tmp_path / "b")
    assert [row["tokens"] for row in first] == [row["tokens"] for row in second]
    assert [row["prompt_id"] for row in first] == ["long", "long", "middle", "middle"]


def test_a_prompt_that_is_too_long_loses_its_beginning_and_says_so(tiny_policy, prompts, tmp_path):
    config = SampleConfig(n=1, max_new_tokens=8, max_prompt_tokens=7)
    sample_file(config, tiny_policy(), prompts, tmp_path / "out.jsonl")
    assert [row["dropped_turns"] for row in rows_of(tmp_path / "out.jsonl")] == [1, 0, 0]


def test_bad_input_leaves_the_old_file(tiny_policy, prompts, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("before\n")
    path = tiny_policy()
    with pytest.raises(BadInput, match="max_new_tokens 32 leaves no room"):
        sample_file(SampleConfig(max_new_tokens=32), path, prompts, out)
    with pytest.raises(BadInput, match="no prompt with split 'dev'"):
        sample_file(SampleConfig(split="dev"), path, prompts, out)
    with pytest.raises(BadInput, match=r"there is no folder .*nowhere"):
        sample_file(CONFIG, path, prompts, tmp_path / "nowhere" / "out.jsonl")
    assert out.read_text() == "before\n"
    assert {path.name for path in tmp_path.iterdir()} == {"init", "out.jsonl", "prompts.jsonl"}
