"""DPO: what is learned of which rows, against slow definitions, and that a kill changes nothing."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from policy.__main__ import main
from policy.backbone import forward_logits, load_causal_lm
from policy.comparisons import parse_row
from policy.config import BadInput
from policy.dpo import KEPT, DPOConfig, train
from policy.optim import adamw
from policy.pairs import Encoded, Example, PairConfig, logprob_sums, measure, train_step
from policy.reader import Reader
from policy.text import render_prompt

TINY = DPOConfig(epochs=3, comparisons_per_step=4, lr_peak=3e-3, checkpoint_every=2)


def comparison(prompt, texts, *rankings, split="train", number=0, weight=1.0):
    """Rankings as groups of letters: [["a"], ["b", "c"]]."""
    return {
        "id": str(number),
        "split": split,
        "prompt": prompt,
        "completions": [
            {"id": name, "text": text, "model": None}
            for name, text in zip("abc", texts, strict=False)
        ],
        "votes": [
            {
                "axis": "helpful",
                "ranking": ranking,
                "strength": None,
                "weight": 1.0,
                "annotator": str(at),
                "kind": "human",
            }
            for at, ranking in enumerate(rankings)
        ],
        "weight": weight,
    }


def parsed(*rows):
    return [parse_row(row, line=1) for row in rows]


ROWS = [
    comparison(
        f"{a} {b}", ["c c", "d d d"], [["a"], ["b"]], split="dev" if b == "j" else "train", number=i
    )
    for i, (a, b) in enumerate((a, b) for a in "abc" for b in "efghij")
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "comparisons.jsonl"
    trl = {"prompt": "a", "chosen": "c", "rejected": "d d"}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, trl]))
    return path


def rows_of(folder, phase):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["phase"] == phase]


def test_what_cannot_be_learned_from_is_left_out_and_counted(letters):
    rows = parsed(
        comparison("a", ["b", "c"], [["a"], ["b"]]),
        comparison("a", ["b", "d"], [["a", "b"]]),  # a tie
        comparison("a", ["b", "c " * 30], [["a"], ["b"]]),  # too long
        comparison("a b c d e f g", ["b", "c " * 4], [["b"], ["a"]]),  # 10 + 5: cut to 7
        comparison("a", ["b", " b"], [["a"], ["b"]]),  # the same to this tokenizer
        comparison("a", ["b", "c"], [["a"], ["b"]], weight=0.0),
    )
    found = Encoded.of(letters, rows, 12)
    assert (len(found.examples), found.pairs, found.ties) == (2, 2, 1)
    assert (found.no_strict_pair, found.too_long, found.same_tokens) == (2, 1, 1)
    assert found.prompts_cut == 1
    first, cut = found.examples
    assert first.prompt == render_prompt(letters, [{"role": "user", "content": "a"}]).ids
    end = letters.eos_token_id
    assert first.responses == [[7, end], [8, end]]
    assert [len(cut.prompt), *map(len, cut.responses)] == [7, 2, 5]


def test_a_step_is_its_definition_written_slowly(letters, tiny_policy):
    """Three answers, two voters: loss, figures and gradient, one forward for each answer alone."""
    model, _ = load_causal_lm(tiny_policy())
    reference, _ = load_causal_lm(tiny_policy(seed=1, name="reference"))
    rows = parsed(
        comparison("a b", ["c", "d e", "f"], [["a"], ["b"], ["c"]], [["b"], ["a", "c"]]),
        comparison("g", ["h i j", "a"], [["b"], ["a"]], weight=0.5),
    )
    config = DPOConfig(beta=0.3, label_smoothing=0.1, temperature=0.8, micro_batch_tokens=30)
    examples = Encoded.of(letters, rows, 32).examples
    known = logprob_sums(Reader(reference), examples, config)

    def nats(scored, prompt, response):
        ids = torch.tensor([[*prompt, *response]])
        logprobs = (forward_logits(scored, ids, ids >= 0)[0] / 0.8).log_softmax(-1)
        start = len(prompt)
        return sum(logprobs[start + at - 1, token] for at, token in enumerate(response))

    # vote 1 decides ab, ac, bc; vote 2 ba, bc (a and c tie): weights 1/6 each and 1/4 each
    pairs = [
        (0, 0, 1, 1 / 6, 1 / 4), (0, 0, 2, 1 / 6, 0.0), (0, 1, 2, 1 / 6 + 1 / 4, 0.0),
        (1, 0, 1, 0.0, 0.5),
    ]  # fmt: skip
    loss, correct = torch.zeros(()), 0.0
    for at, i, j, for_i, for_j in pairs:
        one = examples[at]
        h = [
            nats(model, one.prompt, one.responses[k])
            - nats(reference, one.prompt, one.responses[k]).detach()
            for k in (i, j)
        ]
        d = 0.3 * (h[0] - h[1])
        right, wrong = 0.9 * for_i + 0.1 * for_j, 0.1 * for_i + 0.9 * for_j
        loss = loss - right * torch.sigmoid(d).log() - wrong * torch.sigmoid(-d).log()
        correct += for_i if d > 0 else for_j
    (loss / 1.5).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    figures = measure(Reader(model), examples, known, config)
    assert figures["loss"] == pytest.approx(loss.item() / 1.5, rel=1e-5)
    assert figures["accuracy"] == pytest.approx(correct / 1.5, rel=1e-5)
    model.zero_grad()
    seen = {}

    class Keeping(torch.optim.SGD):
        def step(self, closure=None):
            seen.update({name: p.grad.clone() for name, p in model.named_parameters()})

    loose = replace(config, max_grad_norm=1e9)
    stepped = train_step(Reader(model), Keeping(model.parameters(), lr=0.0), examples, known, loose)
    assert stepped["loss"] == pytest.approx(figures["loss"], rel=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient, rtol=1e-4, atol=1e-6)


def test_it_ends_where_the_reward_can_be_read_off(letters, tiny_policy):
    """arXiv:2305.18290, equation 5: of answers that are preferred by Bradley-Terry with rewards r,
    beta x log(pi / ref) parts in the end as r does."""
    rewards = [0.0, 0.5, 1.5, -1.0]
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    shares = [1 / (1 + math.exp(rewards[j] - rewards[i])) for i, j in pairs]
    end = letters.eos_token_id
    answers = [[7, end], [8, 9, end], [10, end], [11, 12, end]]
    example = Example([4, 7, 2, 5], answers, pairs, shares, [1 / 6] * 6)
    config = PairConfig(beta=0.5)
    model, _ = load_causal_lm(tiny_policy())
    reference, _ = load_causal_lm(tiny_policy())
    known = logprob_sums(Reader(reference), [example], config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        train_step(Reader(model), optimizer, [example], known, config)
    (own,) = logprob_sums(Reader(model), [example], config)
    implicit = config.beta * (own - known[0])
    found = (implicit - implicit[0]).tolist()
    assert found == pytest.approx(rewards, abs=0.05)


def test_it_learns_to_prefer_and_says_so(tiny_policy, data, tmp_path):
    out = tmp_path / "out"
    train(TINY, data, tiny_policy(), out)
    (counts,) = rows_of(out, "data")
    assert (counts["comparisons_trained"], counts["comparisons_dev"]) == (16, 3)
    steps, dev = rows_of(out, "train"), rows_of(out, "dev")
    assert steps[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)  # the policy is the reference
    assert steps[0]["accuracy"] == 0.5  # which has no opinion, whatever the rounding
    assert steps[0]["reward_margin"] == pytest.approx(0.0, abs=1e-5)
    assert [row["step"] for row in dev] == [4, 8, 12]
    assert dev[-1]["accuracy"] == 1.0
    assert dev[-1]["loss"] < 0.5
    assert dev[-1]["chosen_nats"] > dev[-1]["rejected_nats"]


def test_a_run_that_was_stopped_ends_bit_for_bit_the_same(tiny_policy, data, tmp_path):
    init = tiny_policy()
    config = replace(TINY, patience=2)
    train(config, data, init, tmp_path / "whole")

    def interrupt(step, numbers):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, data, init, tmp_path / "cut", on_step=interrupt)
    kept = (tmp_path / "cut" / KEPT).stat().st_mtime_ns
    steps = []
    train(config, data, init, tmp_path / "cut", on_step=lambda step, _: steps.append(step))
    assert steps[0] == 5
    assert (tmp_path / "cut" / KEPT).stat().st_mtime_ns == kept
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut"))
    assert first == second


def test_patience_publishes_the_best_epoch(tiny_policy, tmp_path):
    """Dev prefers the opposite of what is trained: every epoch is worse than the first."""
    rows = [
        comparison("a", ["c", "d"], [["a"], ["b"]], number=0),
        comparison("b", ["c", "d"], [["b"], ["a"]], number=1, split="dev"),
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = replace(TINY, epochs=9, patience=2, warmup_fraction=0.0)
    init = tiny_policy()
    train(config, data, init, tmp_path / "out")
    assert [row["step"] for row in rows_of(tmp_path / "out", "dev")] == [1, 2, 3]

    def interrupt(step, numbers):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, data, init, tmp_path / "cut", on_step=interrupt)
    train(config, data, init, tmp_path / "cut")  # it knows how long dev got no better
    assert rows_of(tmp_path / "cut", "dev") == rows_of(tmp_path / "out", "dev")
    published = load_file(tmp_path / "out" / "model.safetensors")
    untrained = load_file(init / "model.safetensors")
    assert any(not torch.equal(published[name], untrained[name]) for name in published)
    model, tokenizer = load_causal_lm(tmp_path / "out")
    examples = Encoded.of(tokenizer, parsed(rows[1]), 32).examples
    root, _ = load_causal_lm(init)
    found = measure(Reader(model), examples, logprob_sums(Reader(root), examples, config), config)
    assert found["loss"] == pytest.approx(rows_of(tmp_path / "out", "dev")[0]["loss"], rel=1e-5)


def test_bad_input_is_refused_before_anything_is_written(tiny_policy, data, tmp_path, capsys):
    only_ties = tmp_path / "ties.jsonl"
    only_ties.write_text(json.dumps(comparison("a", ["b", "c"], [["a", "b"]])) + "\n")
    with pytest.raises(BadInput, match="1 without a strict pair"):
        train(TINY, only_ties, tiny_policy(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadInput, match="loss must be one of dpo, ipo: 'kto'"):
        DPOConfig(loss="kto")
    command = ["dpo", "--data", str(data), "--init", str(tmp_path / "init")]
    command += ["--out", str(tmp_path / "out"), "--set", "loss=ipo", "--set", "epochs=1"]
    assert main([*command, "--set", "beta=0"]) == 2
    assert "beta must be above 0: 0" in capsys.readouterr().err
    assert main(command) == 0
    assert rows_of(tmp_path / "out", "train")[0]["loss"] == pytest.approx(25.0)


def test_a_prompt_is_read_once_for_all_its_answers(tiny_policy):
    model, _ = load_causal_lm(tiny_policy())
    read = []
    model.register_forward_pre_hook(
        lambda _, args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    reader, config = Reader(model), PairConfig()
    example = Example([4, 7, 2, 5], [[6, 2], [8, 9, 2], [10, 2]], [(0, 1)], [1.0], [1.0])
    read.clear()
    known = logprob_sums(reader, [example], config)
    train_step(reader, adamw(model, lr=0.0, weight_decay=0.0), [example], known, config)
    assert read == [4 + 2 + 3 + 2] * 2
