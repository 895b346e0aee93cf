"""A real model that Concord did not make: Llama architecture, no chat template, pad = unknown."""

import json

import pytest
import torch

from policy.backbone import context_of, load_causal_lm
from policy.config import SampleConfig, SFTConfig
from policy.sample import sample_file
from policy.sampling import sample
from policy.sft import train

pytestmark = pytest.mark.shared_data
ASK = [{"role": "user", "content": "Tell me a story about a dog."}]


@pytest.fixture
def outsider(shared_data):
    return shared_data / "tiny-lm" / "hf"


def test_greedy_from_its_start_token_is_the_story_its_authors_know(outsider):
    model, tokenizer = load_causal_lm(outsider)
    assert context_of(model) == 512
    (one,) = sample(model, tokenizer, [[1]], temperature=0, max_new_tokens=40, seeds=[0])
    library = model.generate(
        torch.tensor([[1]]), do_sample=False, max_new_tokens=40, eos_token_id=2
    )
    assert one.tokens == library[0, 1:].tolist()
    assert tokenizer.decode(one.tokens).startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside"
    )


def test_it_is_fine_tuned_and_sampled(outsider, tmp_path):
    data, prompts = tmp_path / "d.jsonl", tmp_path / "p.jsonl"
    rows = [
        {"id": str(n), "prompt": ASK, "completion": f"The dog is {word}. <s> He ran."}
        for n, word in enumerate(["big", "red", "happy", "sad"])
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts.write_text(json.dumps({"id": "1", "prompt": ASK}) + "\n")
    losses = []
    train(
        SFTConfig(epochs=6, rows_per_step=4, lr_peak=2e-3),
        data,
        outsider,
        tmp_path / "out",
        on_step=lambda _, numbers: losses.append(numbers["loss"]),
    )
    assert losses[-1] < 0.7 * losses[0]
    out = tmp_path / "s.jsonl"
    sample_file(SampleConfig(n=2, max_new_tokens=24), tmp_path / "out", prompts, out)
    texts = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    assert len(texts) == 2
    assert all(text.strip() for text in texts)
