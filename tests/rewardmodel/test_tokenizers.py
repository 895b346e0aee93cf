"""Tokenizers as others publish them: no pad, a pad that is the end, no chat template, lost signs.

Expected ids come from the `tokenizers` library, expected scores from `transformers`' own class on
one row at a time without padding, the expected loss from the formula.
"""

import json
import math
import shutil

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from policy.backbone import score_model_from
from policy.scoring import load_scorer
from rewardmodel.__main__ import main
from rewardmodel.config import RewardConfig
from rewardmodel.train import train

PAIRS = [
    {"prompt": "Hi", "chosen": "good", "rejected": "a bad and long one"},
    {"prompt": "Say it again", "chosen": "good things, good", "rejected": "no"},
    {"prompt": "x", "chosen": "yes <|pad|>", "rejected": "<|end|>no"},
]
CONFIG = RewardConfig(comparisons_per_step=3, lr_peak=1e-3, num_anchors=0, tokens_per_forward=1000)


def no_pad(settings):
    settings["pad_token"] = None


def pad_is_end(settings):
    settings["pad_token"] = settings["eos_token"]


def as_it_is(settings):
    pass


def no_start(settings):
    settings["bos_token"] = None


@pytest.fixture
def published(tiny_lm, tmp_path):
    """A function that gives the tiny model's directory another tokenizer config."""

    def publish(change, template):
        out = tmp_path / "published"
        shutil.copytree(tiny_lm, out)
        path = out / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        change(settings)
        if not template:
            settings.pop("chat_template", None)
            (out / "chat_template.jinja").unlink(missing_ok=True)
        path.write_text(json.dumps(settings))
        return out

    return publish


def ids_of(folder, prompt, text, *, template, start):
    """By hand, over the library that the tokenizer is made of."""
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    named = {name: raw.token_to_id(f"<|{name}|>") for name in ("bos", "end", "user", "assistant")}
    raw.encode_special_tokens = True  # the text of one inside a message stays text

    def plain(said):
        return raw.encode(said, add_special_tokens=False).ids

    answer = [*plain(text), named["end"]]
    if template:
        return [named["user"], *plain(prompt), named["end"], named["assistant"], *answer]
    opened = [named["bos"]] if start else []
    return [*opened, *plain(f"User: {prompt}\nAssistant:"), *answer]


def own_scores(model, rows):
    with torch.no_grad():
        return [model(torch.tensor([row])).logits[0, 0].item() for row in rows]


@pytest.mark.parametrize(
    ("change", "template"),
    [
        (no_pad, True),
        (pad_is_end, True),
        (as_it_is, False),
        (no_start, False),
        (pad_is_end, False),
    ],
)
def test_training_and_scoring_read_the_ids_that_they_should(
    published, write_rows, tmp_path, change, template
):
    folder, out = published(change, template), tmp_path / "out"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert bool(tokenizer.chat_template) == template
    assert (tokenizer.pad_token_id in (None, tokenizer.eos_token_id)) == (
        change in (no_pad, pad_is_end)
    )
    start = change is not no_start
    expected = [
        [
            ids_of(folder, row["prompt"], row[name], template=template, start=start)
            for name in ("chosen", "rejected")
        ]
        for row in PAIRS
    ]
    before, _ = score_model_from(folder, seed=CONFIG.seed)
    losses = [
        math.log1p(math.exp(rejected - chosen))
        for chosen, rejected in (own_scores(before.eval(), rows) for rows in expected)
    ]
    seen = []
    train(
        CONFIG,
        data=write_rows(PAIRS),
        out=out,
        init=str(folder),
        on_step=lambda _, stats: seen.append((stats.loss, stats.num_tokens)),
    )
    shared = [_shared(*rows) for rows in expected]
    assert seen[0][1] == sum(len(row) for rows in expected for row in rows) - sum(shared)
    assert seen[0][0] == pytest.approx(sum(losses) / 3, rel=1e-5)

    kept = AutoTokenizer.from_pretrained(out)
    assert kept.pad_token_id not in (None, kept.eos_token_id)
    model = AutoModelForSequenceClassification.from_pretrained(out).eval()
    assert model.config.pad_token_id == kept.pad_token_id
    scorer = load_scorer(out)
    rows = [row for both in expected for row in both]
    prompts = [row["prompt"] for row in PAIRS for _ in range(2)]
    texts = [row[name] for row in PAIRS for name in ("chosen", "rejected")]
    encoded = [
        scorer.encode([{"role": "user", "content": prompt}], text).ids
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    assert encoded == rows
    assert scorer.score_ids(encoded) == pytest.approx(own_scores(model, rows), abs=1e-5)


def _shared(one, other):
    """Tokens that two rows begin with alike, which go through the model once."""
    return next(at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


@pytest.fixture
def without_case(tiny_lm, tmp_path):
    """The tiny model with a tokenizer that reads capital letters as small ones."""
    out = tmp_path / "uncased"
    shutil.copytree(tiny_lm, out)
    path = out / "tokenizer.json"
    inside = json.loads(path.read_text())
    inside["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(inside))
    return out


def test_answers_that_a_model_cannot_tell_apart_are_not_trained_on_and_counted(
    without_case, write_rows, tmp_path, capsys
):
    alike = {"prompt": "Hi", "chosen": "Good", "rejected": "good"}
    rows = [*PAIRS, alike, *({**row, "split": "dev"} for row in (*PAIRS, alike))]
    rows.append({"prompt": "Hi", "completion": "Good", "label": True})
    data = write_rows(rows)
    train(CONFIG, data=data, out=tmp_path / "out", init=str(without_case))
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    (counted,) = (row for row in map(json.loads, lines) if row["phase"] == "data")
    assert (counted["train_num_used"], counted["train_num_same_tokens"]) == (3, 1)
    assert (counted["dev_num_used"], counted["dev_num_same_tokens"]) == (3, 1)
    assert main(["evaluate", "--model", str(tmp_path / "out"), "--data", str(data)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["n"], figures["num_same_tokens"], figures["num_score_ties"]) == (4, 1, 1)
