"""The masked objective: what is hidden, that it is learned, and what a reward model makes of it."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from policy.backbone import load_causal_lm, load_tokenizer
from policy.config import BadInput, PretrainConfig
from policy.masked import Masking, give_mask_token
from policy.packing import NO_TOKEN
from policy.pretrain import train
from policy.scoring import load_scorer
from rewardmodel.config import RewardConfig
from rewardmodel.train import train as train_reward

TINY = PretrainConfig(
    objective="masked", vocab_size=300, width=32, layers=1, heads=2, context=32, steps=240,
    windows_per_step=8, warmup_steps=2, eval_every=80, heldout_fraction=0.1, lr_peak=5e-3,
    packed=False, optimizer="muon",
)  # fmt: skip


def test_of_the_tokens_asked_for_most_are_masked_some_others_and_some_shown(letters):
    letters = copy.deepcopy(letters)  # others use it too
    give_mask_token(letters)
    masking = Masking(letters, 0.15)
    first_letter = letters.convert_tokens_to_ids("a")
    tokens = torch.full((200, 500), first_letter)
    tokens[:, 0] = letters.bos_token_id
    tokens[0, 400:] = NO_TOKEN
    lines = masking.lines(tokens, torch.Generator().manual_seed(0))
    asked = lines.targets != NO_TOKEN
    assert not asked[:, 0].any()
    assert not asked[0, 400:].any()
    assert lines.mask.tolist() == (tokens != NO_TOKEN).tolist()
    assert bool((lines.targets[asked] == first_letter).all())
    assert bool((lines.ids[~asked & lines.mask] == tokens[~asked & lines.mask]).all())
    share = asked.sum().item() / (200 * 499 - 100)
    assert share == pytest.approx(0.15, abs=0.005)
    shown = lines.ids[asked]
    masked = (shown == letters.mask_token_id).float().mean().item()
    same = (shown == first_letter).float().mean().item()
    assert masked == pytest.approx(0.8, abs=0.015)
    assert same == pytest.approx(0.1 + 0.1 / 10, abs=0.015)  # one other in ten is the same letter
    others = shown[(shown != letters.mask_token_id)].unique().tolist()
    assert sorted(letters.convert_ids_to_tokens(others)) == list("abcdefghij")
    again = masking.lines(tokens, torch.Generator().manual_seed(0))
    assert torch.equal(again.ids, lines.ids)


def test_an_encoder_learns_and_a_reward_model_starts_from_it(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("The parcel will come tomorrow.\n\nThe kettle is broken again.\n\n" * 40)
    train(TINY, [path], tmp_path / "encoder")
    rows = [
        json.loads(line)
        for line in (tmp_path / "encoder" / "metrics.jsonl").read_text().splitlines()
    ]
    found = [row["masked_nats"] for row in rows if row["phase"] == "heldout"]
    assert len(found) == 3
    assert found[-1] < found[0] < 5.7  # ln 300
    assert found[-1] < 1.2
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "encoder").eval()
    tokenizer = load_tokenizer(tmp_path / "encoder")
    ids = tokenizer("The parcel will come tomorrow.")["input_ids"]
    hidden = torch.tensor([ids] * len(ids)).fill_diagonal_(tokenizer.mask_token_id)
    with torch.no_grad():
        foretold = model(hidden).logits.argmax(-1).diagonal()
    restored = (foretold == torch.tensor(ids)).float().mean().item()
    assert restored >= 0.5  # of 300 tokens, one hidden at a time

    with pytest.raises(BadInput, match="ModernBertForMaskedLM, not a causal language model"):
        load_causal_lm(tmp_path / "encoder")

    pairs = [
        {"id": f"p{n}", "prompt": "Say.", "chosen": f"come {n}", "rejected": f"broken {n}"}
        for n in range(4)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    config = RewardConfig(
        comparisons_per_step=2, epochs=10, warmup_fraction=0.0, lr_peak=3e-3, num_anchors=0
    )
    train_reward(config, data=data, out=tmp_path / "reward", init=str(tmp_path / "encoder"))
    scorer = load_scorer(tmp_path / "reward")
    prompt = [{"role": "user", "content": "Say."}]
    texts = ["come 9", "broken 9"]
    good, bad = scorer.score([prompt] * 2, texts)
    assert good > bad
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    assert plain.config.classifier_pooling == "mean"
    with torch.no_grad():
        expected = [
            plain(torch.tensor([scorer.encode(prompt, text).ids])).logits[0, 0].item()
            for text in texts
        ]
    assert [good, bad] == pytest.approx(expected, abs=1e-5)


def test_a_seed_hides_other_tokens(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("The parcel will come tomorrow.\n\n" * 40)
    losses = []
    for seed in (0, 0, 1):
        seen = []
        config = replace(TINY, steps=2, seed=seed)
        out = tmp_path / f"out{len(losses)}"
        train(config, [path], out, on_step=lambda _, numbers, seen=seen: seen.append(numbers))
        losses.append([numbers["loss"] for numbers in seen])
    assert losses[0] == losses[1] != losses[2]
