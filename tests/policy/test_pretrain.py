"""Pretraining: what a document is, that it learns, that a killed run ends bit for bit the same."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from policy.__main__ import main
from policy.backbone import forward_logits, load_causal_lm
from policy.config import BadInput, PretrainConfig, Stopped
from policy.corpus import Tokens, read_corpus, read_documents
from policy.heldout import Tail, figures_of
from policy.pretrain import Read, train
from policy.reading import Reading
from policy.sampling import sample
from policy.text import decode_completion, render_prompt

ROOT = Path(__file__).resolve().parents[2]
TINY = PretrainConfig(
    vocab_size=300,
    width=16,
    layers=1,
    heads=2,
    context=16,
    steps=24,
    windows_per_step=4,
    warmup_steps=2,
    eval_every=10,
    sample_every=12,
    checkpoint_every=5,
    heldout_fraction=0.2,
)
TEXT = "The parcel will come tomorrow.\n\n您好，请问有什么可以帮您？\n\n" * 20


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def assert_same_weights(one, other):
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_blank_lines_part_the_documents_of_a_text_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("\ufeff\none\nstill one\n\n \t\r\n\ntwo\n".encode())
    assert [document.text for document in read_documents(path)] == ["one\nstill one", "two"]


def test_rows_are_texts_or_conversations(tmp_path):
    path = tmp_path / "x.jsonl"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    path.write_text(json.dumps({"text": "a"}) + "\n" + json.dumps({"messages": turns}) + "\n")
    first, second = read_documents(path)
    assert (first.texts, second.texts, second.messages) == (["a"], ["hi", "hello"], turns)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl", b'{"text": " "}', "line 1 needs a text that is not empty"),
        ("x.jsonl", b'{"messages": [{"role": "user", "content": "a"}]}', "line 1: .* must end"),
        ("x.jsonl", b"{", "line 1 is not JSON"),
        ("x.txt", b"a\xffb", "is not UTF-8: invalid start byte at byte 1"),
        ("x.txt", b"\n \n", "holds no document"),
        ("x.csv", b"a", "must end in .txt or .jsonl"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput, match=said):
        read_corpus([path], 0.1)


def test_each_files_tail_is_held_out(tmp_path):
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in paths:
        path.write_text("\n\n".join(f"{path.stem}{n}" for n in range(10)))
    first, second = read_corpus(paths, 0.2)
    assert [document.text for document in first.heldout] == ["a8", "a9"]
    assert [document.text for document in second.heldout] == ["b8", "b9"]
    assert [document.text for document in first.train] == [f"a{n}" for n in range(8)]
    assert (second.num_train, second.num_heldout) == (8, 2)


def test_a_model_is_published_with_its_history(corpus, tmp_path):
    out = tmp_path / "out"
    train(TINY, [corpus], out)
    model, tokenizer = load_causal_lm(out)
    assert model.config.hidden_size == 16
    assert tokenizer.decode(tokenizer("您好，parcel")["input_ids"]) == "您好，parcel"
    rows = rows_of(out)
    assert [row["step"] for row in rows if row["phase"] == "train"] == list(range(1, 25))
    assert [row["step"] for row in rows if row["phase"] == "heldout"] == [10, 20, 24]
    losses = [row["loss"] for row in rows if row["phase"] == "train"]
    assert losses[0] == pytest.approx(math.log(len(tokenizer) - 1), abs=0.1)  # pad is left out
    assert losses[-1] < losses[0] - 0.3
    looks = sorted(path.name for path in (out / "samples").iterdir())
    assert looks == ["step-000012.txt", "step-000024.txt"]
    assert not (out / "checkpoints").exists()


@pytest.mark.parametrize("packed", [True, False])
def test_it_learns_a_conversation_by_heart(tmp_path, packed):
    """The chat format comes from the corpus: a prompt is answered, and the answer ends."""
    path = tmp_path / "chat.jsonl"
    asked = {"where": "It comes tomorrow.", "您好": "请问有什么可以帮您？"}
    with path.open("w", encoding="utf-8") as file:
        for question, answer in asked.items():
            turns = [("user", question), ("assistant", answer)]
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"messages": messages}) + "\n")
            file.write(json.dumps({"messages": messages[:1] + messages[1:]}) + "\n")
    config = replace(
        TINY, width=32, heldout_fraction=0.0, steps=150, lr_peak=1e-2, sample_every=0, context=32
    )
    config = replace(config, windows_per_step=2 if packed else 8, packed=packed)
    train(config, [path] * 4, tmp_path / "out")
    model, tokenizer = load_causal_lm(tmp_path / "out")
    for question, answer in asked.items():
        prompt = render_prompt(tokenizer, [{"role": "user", "content": question}])
        (one,) = sample(model, tokenizer, [prompt.ids], temperature=0, max_new_tokens=20, seeds=[0])
        assert (decode_completion(tokenizer, one.tokens), one.finish) == (answer, "end")


@pytest.mark.parametrize("way", ["packed", "documents_apart", "rows"])
def test_bits_per_byte_is_its_definition_written_slowly(corpus, tmp_path, way):
    """A token sees what stands before it in its window, of its own document alone where documents
    are apart or rows of their own."""
    config = replace(TINY, steps=6, packed=way != "rows", documents_apart=way == "documents_apart")
    train(config, [corpus], tmp_path / "out")
    model, tokenizer = load_causal_lm(tmp_path / "out")
    documents = [each.encode(tokenizer) for each in read_corpus([corpus], 0.2)[0].heldout]
    tokens = [(token, number) for number, ids in enumerate(documents) for token in ids]
    starts = [sum(map(len, documents[:number])) for number in range(len(documents))]
    nats = 0.0
    for place in range(1, len(tokens)):
        token, document = tokens[place]
        if way == "rows":
            begin = starts[document]
            start = begin + (place - 1 - begin) // 16 * 16
            if place == begin:
                continue
        else:
            start = (place - 1) // 16 * 16
            if way == "documents_apart":
                start = max(start, starts[document])
                if start == place:
                    continue
        before = torch.tensor([[token for token, _ in tokens[start:place]]])
        logits = forward_logits(model, before, torch.ones_like(before, dtype=torch.bool))
        nats -= logits[0, -1].log_softmax(-1)[token].item()
    tail = Tail("corpus", Tokens.of(documents), num_bytes=100)
    found = figures_of(Reading(model, config), [tail], config, Read(config, tokenizer))
    assert found == {"bits_per_byte": pytest.approx(nats / math.log(2) / 100, rel=1e-5)}


def test_each_file_has_held_out_figures_of_its_own_which_add_up(corpus, tmp_path):
    other = tmp_path / "other.jsonl"
    rows = [json.dumps({"text": f"Number {n} is {n * n}."}) + "\n" for n in range(30)]
    other.write_text("".join(rows))
    for name, files in {"both": [corpus, other], "same": [corpus, corpus]}.items():
        train(replace(TINY, steps=2), files, tmp_path / name)
    row = rows_of(tmp_path / "both")[-1]
    sizes = [sum(d.num_bytes for d in f.heldout) for f in read_corpus([corpus, other], 0.2)]
    parts = [row["bits_per_byte_corpus"], row["bits_per_byte_other"]]
    whole = sum(part * size for part, size in zip(parts, sizes, strict=True)) / sum(sizes)
    assert row["bits_per_byte"] == pytest.approx(whole, rel=1e-9)
    row = rows_of(tmp_path / "same")[-1]
    assert row["bits_per_byte_0"] == row["bits_per_byte_1"]


def test_the_same_command_gives_the_same_weights_and_a_seed_others(corpus, tmp_path):
    config = replace(TINY, steps=6)
    for name, each in {"a": config, "b": config, "c": replace(config, seed=1)}.items():
        train(each, [corpus], tmp_path / name)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (
        tmp_path / "b" / "tokenizer.json"
    ).read_bytes()
    first, other = weights_of(tmp_path / "a"), weights_of(tmp_path / "c")
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_a_named_size_fills_what_is_not_given():
    config = PretrainConfig(size="mini", layers=2)
    assert (config.width, config.layers, config.heads, config.context) == (384, 2, 6, 512)
    tiny = PretrainConfig()
    assert (tiny.width, tiny.layers, tiny.heads, tiny.context) == (160, 4, 5, 256)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": "huge"}, "size must be one of tiny, mini, small, base, or null: 'huge'"),
        ({"objective": "mlm"}, "objective must be one of causal, masked: 'mlm'"),
        ({"schedule": "step"}, "schedule must be one of cosine, wsd: 'step'"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16, auto: 'fp16'"),
        ({"layers": -1}, "layers must be above 0: -1"),
        ({"width": 6, "heads": 2}, "a head's width must be even, for its positions: 6 / 2"),
        ({"data_weights": [1, "two"]}, "each of data_weights must be a number from 0 up: 'two'"),
        ({"data_weights": [0, 0]}, r"one of data_weights must be above 0: \[0, 0\]"),
        ({"documents_apart": True, "packed": False}, "documents_apart is for packed windows"),
        ({"tokens_per_forward": 0}, "tokens_per_forward must be null or above 0: 0"),
        ({"decay_fraction": 1.0}, r"decay_fraction must be in \(0, 1\): 1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(BadInput, match=said):
        PretrainConfig(**settings)


def test_weights_and_files_must_be_as_many(corpus, tmp_path):
    with pytest.raises(BadInput, match="data_weights has 2 numbers for 1 data files"):
        train(replace(TINY, data_weights=[1.0, 1.0]), [corpus], tmp_path / "out")
    assert not (tmp_path / "out").exists()


KILLED = """
import json, os, signal, sys
from policy.config import PretrainConfig, config_from
from policy.pretrain import train

def on_step(step, numbers):
    if step == 13:
        os.kill(os.getpid(), signal.SIGKILL)

config = config_from(PretrainConfig, json.loads(sys.argv[1]))
train(config, [sys.argv[2]], sys.argv[3], on_step=on_step)
"""


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_run_goes_on_and_ends_bit_for_bit_the_same(corpus, tmp_path, optimizer):
    """SIGKILL after step 13, checkpoint at 10; finished by a second attempt, and by its own."""
    config = replace(TINY, optimizer=optimizer)
    whole, killed, second = (tmp_path / name for name in ("whole", "killed", "second"))
    train(config, [corpus], whole)
    child = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(asdict(config)), str(corpus), str(killed)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        cwd=ROOT,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    assert rows_of(killed)[-1]["step"] == 13
    steps = []
    train(
        config, [corpus], second, resume_from=[killed], on_step=lambda step, _: steps.append(step)
    )
    assert steps[0] == 11
    train(config, [corpus], killed)
    for resumed in (second, killed):
        assert_same_weights(whole, resumed)
        assert rows_of(resumed) == rows_of(whole)
        for look in ("step-000012.txt", "step-000024.txt"):
            assert (resumed / "samples" / look).read_bytes() == (
                whole / "samples" / look
            ).read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"packed": True, "schedule": "wsd"},
        {"packed": False},
        {"data_weights": [1.0, 3.0], "windows_per_step": 1, "documents_apart": True},
        {"objective": "masked", "packed": False, "precision": "bf16", "sample_every": 0},
    ],
    ids=["windows", "documents", "mixture", "masked"],
)
def test_stopped_on_request_it_saves_first(corpus, tmp_path, settings):
    config = replace(TINY, **settings)
    files = [corpus] * len(config.data_weights or [1.0])
    whole, out = tmp_path / "whole", tmp_path / "out"
    train(config, files, whole)

    def stop(step, numbers):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="after step 7"):
        train(config, files, out, on_step=stop)
    saved = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert saved == ["newest", "step-000005", "step-000007"]
    train(config, files, out)
    assert_same_weights(whole, out)
    assert rows_of(out) == rows_of(whole)


def test_a_tokenizer_is_reused(corpus, tmp_path):
    train(replace(TINY, steps=1), [corpus], tmp_path / "first")
    size = PretrainConfig().vocab_size
    config = replace(TINY, steps=1, tokenizer=str(tmp_path / "first"), vocab_size=size)
    train(config, [corpus], tmp_path / "second")
    first, second = (tmp_path / name / "tokenizer.json" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_too_little_text_is_refused(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("abc")
    with pytest.raises(BadInput, match=r"the data makes . tokens, one window takes 17"):
        train(TINY, [path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    words = [f"--set={k}={v}" for k, v in [("width", 16), ("layers", 1), ("heads", 2)]]
    words += [f"--set={k}={v}" for k, v in [("context", 16), ("steps", 2), ("vocab_size", 300)]]
    command = ["pretrain", "--data", str(corpus), "--out", str(out), *words]
    assert main(command) == 0
    assert main(command) == 2
    assert "holds this run already" in capsys.readouterr().err
    assert main([*command, "--set", "wdith=3"]) == 2
    assert "no setting 'wdith'" in capsys.readouterr().err
