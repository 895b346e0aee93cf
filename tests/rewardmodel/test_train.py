"""rewardmodel.train: it learns, resumes bit for bit, and leaves a directory that others load."""

import dataclasses
import json
import random
import statistics
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
)

import rewardmodel.train
from policy.backbone import save_model, score_model_from
from policy.comparisons import parse_row, read_comparisons
from policy.config import BadInput, Stopped
from policy.data import content_hash
from policy.optim import adamw
from policy.scoring import load_scorer, max_tokens_of
from rewardmodel.anchors import read_anchors, sample_anchors
from rewardmodel.batches import Examples
from rewardmodel.calibration import reliability
from rewardmodel.config import RewardConfig
from rewardmodel.evaluate import Evaluation
from rewardmodel.forward import Forward
from rewardmodel.objective import Objective
from rewardmodel.step import train_step
from rewardmodel.survey import Survey
from rewardmodel.targets import PLAIN
from rewardmodel.train import train
from tests.rewardmodel.measuring import evaluate_pairs

SMALL = RewardConfig(
    layers=1,
    heads=2,
    width=32,
    context=64,
    vocab_size=300,
    comparisons_per_step=8,
    eval_every=2,
    checkpoint_every=2,
    lr_peak=3e-3,
)


NO_SHAPE = {
    name: getattr(RewardConfig(), name)
    for name in ("layers", "heads", "width", "context", "vocab_size")
}
"""Of a model that is there already."""


def with_changes(**changes) -> RewardConfig:
    return dataclasses.replace(SMALL, **changes)


WARM = with_changes(**NO_SHAPE)


def metrics(directory: Path, phase: str) -> list[dict]:
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for line in lines if (row := json.loads(line))["phase"] == phase]


PAIRS = [
    {"id": f"p{i}", "prompt": f"Say {i}.", "chosen": chosen, "rejected": rejected}
    for i, (chosen, rejected) in enumerate(
        [
            ("red", "blue"),
            ("two", "ten"),
            ("up", "down"),
            ("tea", "milk"),
            ("cat", "dog"),
            ("yes", "no"),
            ("left", "right"),
            ("sun", "moon"),
        ]
    )
]

WORDS = ["river", "stone", "table", "green", "seven", "candle", "paper", "winter"]


def gold_rows(count: int, *, seed: int, split: str) -> list[dict]:
    """Three answers a prompt; the gold utility is the number of `please`, votes are its order."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        texts = []
        for politeness in draw.sample(range(4), 3):
            words = [draw.choice(WORDS) for _ in range(3)] + ["please"] * politeness
            draw.shuffle(words)
            texts.append((politeness, " ".join(words)))
        order = sorted(range(3), key=lambda i: -texts[i][0])
        rows.append(
            {
                "id": f"{split}{number}",
                "split": split,
                "prompt": [{"role": "user", "content": draw.choice(WORDS)}],
                "completions": [
                    {"id": f"x{i}", "text": text, "model": None}
                    for i, (_, text) in enumerate(texts)
                ],
                "votes": [
                    {
                        "axis": "helpful",
                        "ranking": [[f"x{i}"] for i in order],
                        "strength": None,
                        "weight": None,
                        "annotator": "gold",
                        "kind": "simulated",
                    }
                ],
            }
        )
    return rows


def test_it_overfits_eight_pairs(write_rows, tmp_path):
    data = write_rows(PAIRS)
    config = with_changes(epochs=60, warmup_fraction=0.0)
    train(config, data=data, out=tmp_path / "out", init=None)
    rows = evaluate_pairs(tmp_path / "out", read_comparisons(data))
    assert [row.correct for row in rows] == [1.0] * 8
    assert sum(row.log_loss for row in rows) / 8 < 0.05
    losses = [row["loss"] for row in metrics(tmp_path / "out", "train")]
    # The head begins without an opinion: scores of spread 1 / sqrt(32), so that the mean loss of
    # eight pairs lies within 0.05 of log 2. A head of spread 1 gives 1.5 and more.
    assert losses[0] == pytest.approx(0.693, abs=0.05)
    assert losses[-1] < 0.05


@pytest.fixture(scope="module")
def gold_run(tmp_path_factory) -> tuple[Path, Path]:
    """(model, data): trained on a gold utility, with dev and test rows that it did not see."""
    folder = tmp_path_factory.mktemp("gold")
    rows = [
        row
        for seed, (split, count) in enumerate([("train", 240), ("dev", 24), ("test", 100)])
        for row in gold_rows(count, seed=seed, split=split)
    ]
    data = folder / "gold.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train(with_changes(epochs=3), data=data, out=folder / "out", init=None)
    return folder / "out", data


def test_it_learns_a_gold_utility_that_it_can_tell_on_unseen_prompts(gold_run):
    model, data = gold_run
    unseen = (each for each in read_comparisons(data) if each.in_split("test"))
    rows = evaluate_pairs(model, unseen)
    assert len(rows) == 100
    assert sum(row.correct for row in rows) / 100 > 0.9


def test_dev_is_watched_and_the_weights_of_its_lowest_log_loss_are_kept(gold_run):
    model, data = gold_run
    watched = metrics(model, "dev")
    assert [row["step"] for row in watched] == list(range(2, 91, 2))
    best = min(watched, key=lambda row: row["log_loss"])
    assert metrics(model, "kept") == [{"step": 90, "phase": "kept", "kept_step": best["step"]}]
    dev = evaluate_pairs(model, (each for each in read_comparisons(data) if each.in_split("dev")))
    assert sum(row.log_loss for row in dev) / len(dev) == pytest.approx(best["log_loss"], abs=1e-5)


def test_scores_of_a_trained_model_have_mean_0_and_deviation_1_on_its_anchors(gold_run):
    model, data = gold_run
    scorer = load_scorer(model)
    dev = [each for each in read_comparisons(data) if each.in_split("dev")]
    scores = scorer.score(
        [each.prompt for each in dev for _ in each.texts], [text for e in dev for text in e.texts]
    )
    assert len(scores) == 72  # dev is the anchors where it holds 64 texts or more
    assert statistics.fmean(scores) == pytest.approx(0.0, abs=1e-4)
    assert statistics.pstdev(scores) == pytest.approx(1.0, abs=1e-4)
    scale = scorer.scale
    assert (scale.folded, scale.num_anchors) == ("config", 72)  # the GPT of our own has an RMSNorm
    assert scale.anchors_sha256 == sample_anchors(data).sha256
    rows = evaluate_pairs(model, dev)
    assert scale.dev["accuracy"] == pytest.approx(sum(row.correct for row in rows) / 24)
    assert scale.dev["accuracy_interval"][0] > 0.5
    assert scale.dev["calibrated_log_loss"] <= scale.dev["log_loss"]
    assert metrics(model, "scores")[0]["temperature"] == scale.temperature
    assert scale.why_weak() is None
    points = Evaluation.of(scorer, dev).log_odds()
    assert scale.dev["ece"] == pytest.approx(reliability(points).ece)
    assert scale.dev["calibrated_ece"] == pytest.approx(
        reliability(points, temperature=scale.temperature).ece
    )
    assert "human_accuracy" not in scale.dev  # one vote to each comparison
    logged = metrics(model, "scores")[0]
    assert logged["dev_ece"] == scale.dev["ece"]
    assert logged["dev_accuracy"] == scale.dev["accuracy"]


def test_anchors_that_are_given_are_those_that_are_used(write_rows, tmp_path):
    texts = [{"prompt": f"Say {i}.", "text": word} for i, word in enumerate(WORDS)]
    anchors = write_rows(texts, "anchors.jsonl")
    data = write_rows(PAIRS)
    for name in ("first", "second"):  # the second starts from a model that is on a scale already
        init = None if name == "first" else str(tmp_path / "first")
        config = WARM if init else SMALL
        train(config, data=data, out=tmp_path / name, init=init, anchors=anchors)
        scorer = load_scorer(tmp_path / name)
        scores = scorer.score([[{"role": "user", "content": t["prompt"]}] for t in texts], WORDS)
        assert statistics.fmean(scores) == pytest.approx(0.0, abs=1e-4)
        assert statistics.pstdev(scores) == pytest.approx(1.0, abs=1e-4)
    run = json.loads((tmp_path / "first" / "run.json").read_text())
    assert run["inputs"]["anchors"] == content_hash(anchors)
    assert scorer.scale.anchors_sha256 == read_anchors(anchors).sha256
    train(with_changes(num_anchors=0), data=data, out=tmp_path / "raw", init=None)
    raw = load_scorer(tmp_path / "raw").scale
    assert (raw.folded, raw.deviation, raw.num_anchors) == ("nothing", 1.0, 0)


def test_without_dev_rows_the_last_weights_are_kept(write_rows, tmp_path):
    train(SMALL, data=write_rows(PAIRS), out=tmp_path / "out", init=None)
    assert metrics(tmp_path / "out", "kept") == [{"step": 1, "phase": "kept", "kept_step": 1}]
    assert metrics(tmp_path / "out", "dev") == []


@pytest.mark.parametrize(
    ("keep", "dev_disagrees", "kept_step", "optimizer"),
    [
        ("last", False, 10, "adamw"),
        ("last", False, 10, "muon"),
        ("best", False, 10, "adamw"),
        ("best", True, 2, "adamw"),
    ],
)
def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(
    write_rows, tmp_path, keep, dev_disagrees, kept_step, optimizer
):
    dev = gold_rows(8, seed=6, split="dev")
    if dev_disagrees:  # the best step then lies before the stop
        for row in dev:
            row["votes"][0]["ranking"].reverse()
    data = write_rows(gold_rows(40, seed=5, split="train") + dev)
    config = with_changes(epochs=2, keep=keep, optimizer=optimizer)

    def stop_at(stop_step: int):
        def on_step(step, stats):
            if step == stop_step:
                raise KeyboardInterrupt  # as abrupt as a kill: no checkpoint of this step

        return on_step

    train(config, data=data, out=tmp_path / "whole", init=None)
    with pytest.raises(KeyboardInterrupt):
        train(config, data=data, out=tmp_path / "first", init=None, on_step=stop_at(5))
    with pytest.raises(KeyboardInterrupt):
        train(
            config,
            data=data,
            out=tmp_path / "second",
            init=None,
            resume_from=[tmp_path / "first"],
            on_step=stop_at(7),
        )
    train(
        config,
        data=data,
        out=tmp_path / "third",
        init=None,
        resume_from=[tmp_path / "first", tmp_path / "second"],
    )

    (kept,) = metrics(tmp_path / "whole", "kept")
    assert kept["kept_step"] == kept_step
    assert (tmp_path / "third" / "metrics.jsonl").read_text() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_text()
    weights, expected = (
        load_file(tmp_path / name / "model.safetensors") for name in ("third", "whole")
    )
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    third, whole = (
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("third", "whole")
    )
    assert third["fingerprints"] == whole["fingerprints"]
    assert set(whole["fingerprints"]) == {
        *("kept_weights", "last_weights", "optimizer", "objective", "generators")
    }
    assert third["resumed_at_step"] == 6
    assert third["resumes"] == [{"at_step": step, "changed": []} for step in (4, 6)]


def test_a_damaged_checkpoint_and_what_is_drawn_outside_the_loop_change_nothing(
    write_rows, tmp_path, monkeypatch, caplog
):
    """Each step draws from the process's own generators, as dropout would."""
    data = write_rows(PAIRS)
    config = with_changes(epochs=8)
    drawn: dict[str, list] = {}

    def run(name: str, stop: int | None = None) -> None:
        def on_step(step, stats):
            numbers = (random.random(), numpy.random.random(), torch.rand(1).item())
            drawn.setdefault(name, []).append((step, numbers))
            if step == stop:
                raise KeyboardInterrupt

        train(config, data=data, out=tmp_path / name, init=None, on_step=on_step)

    run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("cut", stop=7)
    weights = tmp_path / "cut" / "checkpoints" / "step-000006" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    random.seed(99)
    torch.manual_seed(99)
    drawn["cut"] = drawn["cut"][:4]
    run("cut")
    assert drawn["cut"] == drawn["whole"]
    assert "step-000006 is damaged and passed over: model.safetensors" in caplog.text
    cut, whole = (
        json.loads((tmp_path / name / "run.json").read_text())["fingerprints"]
        for name in ("cut", "whole")
    )
    assert cut == whole


def test_a_resume_that_would_take_other_comparisons_warns(
    write_rows, tmp_path, monkeypatch, caplog
):
    def stop(step, stats):
        if step == 2:
            raise KeyboardInterrupt

    data, config = write_rows(PAIRS), with_changes(epochs=4, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(config, data=data, out=tmp_path / "out", init=None, on_step=stop)
    real = rewardmodel.train.examples_of_step
    monkeypatch.setattr("rewardmodel.train.examples_of_step", lambda *a, **k: real(*a, **k)[::-1])
    train(config, data=data, out=tmp_path / "out", init=None)
    (resumed,) = json.loads((tmp_path / "out" / "run.json").read_text())["resumes"]
    changed = ["the batch that comes next holds other comparisons or tokens"]
    assert resumed == {"at_step": 1, "changed": changed}
    assert changed[0] in caplog.text


def test_asked_to_stop_it_saves_a_checkpoint_and_goes_on_from_there(
    write_rows, tmp_path, monkeypatch
):
    data, config = write_rows(PAIRS), with_changes(epochs=6, checkpoint_every=100)

    def ask(self, step, total, phase):
        self.should_stop = step == 3

    with monkeypatch.context() as patched:
        patched.setattr("policy.run.Run.progress", ask)
        with pytest.raises(Stopped, match="after step 3"):
            train(config, data=data, out=tmp_path / "out", init=None)
    steps = []
    train(
        config,
        data=data,
        out=tmp_path / "out",
        init=None,
        on_step=lambda step, stats: steps.append(step),
    )
    assert steps == [4, 5, 6]
    assert [row["step"] for row in metrics(tmp_path / "out", "train")] == [1, 2, 3, 4, 5, 6]


def test_how_a_step_is_cut_into_pieces_changes_no_gradient(tiny_lm, write_rows, whole_last_block):
    # T14: pieces of ragged lengths add up to the whole, loss and gradient, with the prompt shared
    # and without.
    data = write_rows(gold_rows(6, seed=1, split="train"))
    figures, gradients = [], []
    for tokens, shared in [(1, True), (200, True), (100_000, True), (1, False), (100_000, False)]:
        model, tokenizer = score_model_from(tiny_lm, seed=0)
        examples = Examples()
        for comparison in read_comparisons(data):
            examples.add(comparison, tokenizer, 64)
        optimizer = adamw(model, lr=0.0, weight_decay=0.0)
        config = with_changes(tokens_per_forward=tokens, max_grad_norm=1e9, centring=0.01)
        forward = Forward(model, config, max_tokens=64)
        forward.shared = shared
        objective = Objective(config, Survey(), PLAIN)
        stats = dataclasses.asdict(
            train_step(forward, examples.items, optimizer, config, objective)
        )
        del stats["num_tokens"], stats["pad_share"]  # these do depend on the cut
        figures.append(stats)
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    for other, gradient in zip(figures[1:], gradients[1:], strict=True):
        assert other == pytest.approx(figures[0], rel=1e-6, abs=1e-7)
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-5, atol=1e-8)


def test_each_token_goes_through_the_model_once(tiny_lm, write_rows):
    model, tokenizer = score_model_from(tiny_lm, seed=0)
    examples = Examples()
    for comparison in read_comparisons(write_rows(gold_rows(5, seed=1, split="train"))):
        examples.add(comparison, tokenizer, 64)
    forward = Forward(model, SMALL, max_tokens=64)
    seen = []
    model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    optimizer = adamw(model, lr=0.0, weight_decay=0.0)
    objective = Objective(SMALL, Survey(), PLAIN)
    stats = train_step(forward, examples.items, optimizer, SMALL, objective)
    places = sum(ids.numel() for ids in seen)
    pads = sum(int((ids == tokenizer.pad_token_id).sum()) for ids in seen)
    once = {  # an id with all that stands before it
        (number, *row[: at + 1])
        for number, example in enumerate(examples.items)
        for row in example.rows
        for at in range(len(row))
    }
    assert places - pads == len(once) == stats.num_tokens
    assert stats.pad_share == pytest.approx(pads / places)


@pytest.mark.parametrize("alibi", [False, True])
def test_the_log_says_whether_prompts_are_shared(write_rows, tiny_lm, tmp_path, alibi):
    init = tiny_lm
    if alibi:  # its positions are those of the line, so it is asked row by row
        tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
        config = BloomConfig(
            vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2, seq_length=64
        )
        init = tmp_path / "bloom"
        save_model(BloomForCausalLM(config), tokenizer, init)
    config = with_changes(max_tokens=64, **NO_SHAPE)
    train(config, data=write_rows(PAIRS), out=tmp_path / "out", init=str(init))
    (said,) = metrics(tmp_path / "out", "forward")
    assert said["shared_prompt"] == int(not alibi)


def test_it_warm_starts_from_a_causal_lm_and_the_result_loads_elsewhere(
    tiny_lm, write_rows, tmp_path
):
    config = with_changes(max_tokens=40, lr_peak=1e-12, **NO_SHAPE)
    train(config, data=write_rows(PAIRS), out=tmp_path / "out", init=str(tiny_lm))
    trunk = load_file(tiny_lm / "model.safetensors")
    trained = load_file(tmp_path / "out" / "model.safetensors")
    same = [name for name in trained if name in trunk]
    assert len(same) > 10
    assert all(torch.allclose(trained[name], trunk[name], atol=1e-6) for name in same)

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (model.config.num_labels, model.config.pad_token_id) == (1, tokenizer.pad_token_id)
    assert load_scorer(tmp_path / "out").max_tokens == tokenizer.model_max_length == 40


def test_what_was_left_out_is_counted(write_rows, tiny_lm, tmp_path):
    long_turns = [{"role": "user", "content": "a b c " * 6}, {"role": "assistant", "content": "x"}]
    prompt = [*long_turns, {"role": "user", "content": "Hi"}]
    rows = [
        *PAIRS,
        {"prompt": "Hi", "chosen": "ab" * 100, "rejected": "no"},
        {"prompt": prompt, "chosen": "yes", "rejected": "c" * 50},
        gold_rows(1, seed=0, split="train")[0] | {"votes": []},
        gold_rows(1, seed=0, split="dev")[0],
        gold_rows(1, seed=0, split="test")[0],
    ]
    train(WARM, data=write_rows(rows), out=tmp_path / "out", init=str(tiny_lm))
    (counted,) = metrics(tmp_path / "out", "data")
    assert counted == {
        "step": 0,
        "phase": "data",
        "train_num_used": 9,
        "train_num_no_strict_pair": 1,
        "train_num_too_long": 1,
        "train_num_same_tokens": 0,
        "train_num_prompts_shortened": 1,
        "train_num_lists_shortened": 0,
        "train_num_ties": 0,
        "dev_num_used": 1,
        "dev_num_no_strict_pair": 0,
        "dev_num_too_long": 0,
        "dev_num_same_tokens": 0,
        "dev_num_prompts_shortened": 0,
        "dev_num_lists_shortened": 0,
        "dev_num_ties": 0,
    }


def test_a_list_loses_the_completion_that_is_too_long_and_keeps_the_others(tiny_lm):
    def listed(texts, ranking):
        return parse_row(
            {
                "id": "l", "split": "train", "prompt": "Hi",
                "completions": [
                    {"id": str(i), "text": text, "model": None} for i, text in enumerate(texts)
                ],
                "votes": [
                    {"axis": "a", "ranking": ranking, "strength": None, "weight": None}
                    | {"annotator": "a", "kind": "person"}
                ],
            },
            line=1,
        )  # fmt: skip

    model, tokenizer = score_model_from(tiny_lm, seed=0)
    longest = max_tokens_of(model, tokenizer)
    examples = Examples()
    for ranking in ([["0"], ["1"], ["2"]], [["1"], ["0", "2"]]):
        examples.add(listed(["so", "ab" * 100, "no"], ranking), tokenizer, longest)
    funnel = examples.funnel
    assert (funnel.num_used, funnel.num_too_long, funnel.num_lists_shortened) == (1, 1, 1)
    (found,) = examples.items
    alone = Examples()
    alone.add(listed(["so", "no"], [["0"], ["1"]]), tokenizer, longest)
    assert found == alone.items[0]


def test_bad_input_leaves_no_folder(write_rows, tiny_lm, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(BadInput, match="there is no file"):
        train(SMALL, data=tmp_path / "absent.jsonl", out=out, init=None)
    with pytest.raises(BadInput, match="holds no comparison to train on"):
        train(WARM, data=write_rows([PAIRS[0] | {"split": "test"}]), out=out, init=str(tiny_lm))
    with pytest.raises(BadInput, match="goes with --init none"):
        train(
            SMALL,
            data=write_rows(PAIRS),
            out=out,
            init=str(tiny_lm),
            tokenizer_from=str(tiny_lm),
        )
    config = with_changes(max_tokens=65, **NO_SHAPE)
    with pytest.raises(BadInput, match="max_tokens is 65, and the model takes 64"):
        train(config, data=write_rows(PAIRS), out=out, init=str(tiny_lm))
    with pytest.raises(BadInput, match=f"layers 1 does nothing with --init {tiny_lm}"):
        train(SMALL, data=write_rows(PAIRS), out=out, init=str(tiny_lm))
    with pytest.raises(BadInput, match=f"vocab_size 300 does nothing with --tokenizer {tiny_lm}"):
        train(SMALL, data=write_rows(PAIRS), out=out, init=None, tokenizer_from=str(tiny_lm))
    assert not out.exists()


def test_random_weights_take_a_tokenizer_that_is_given(write_rows, tiny_lm, tmp_path):
    out = tmp_path / "out"
    config = with_changes(vocab_size=NO_SHAPE["vocab_size"])
    train(config, data=write_rows(PAIRS), out=out, init=None, tokenizer_from=str(tiny_lm))
    ours, given = (AutoTokenizer.from_pretrained(folder) for folder in (out, tiny_lm))
    assert ours.get_vocab() == given.get_vocab()


@pytest.mark.shared_data
def test_a_few_steps_on_real_preferences_from_a_real_model(shared_data, tmp_path):
    data = shared_data / "formats" / "trl" / "preference_implicit_prompt.jsonl"
    init = str(shared_data / "tiny-lm" / "hf")
    losses = []
    config = RewardConfig(comparisons_per_step=4, max_tokens=256, lr_peak=1e-4)
    train(
        config,
        data=data,
        out=tmp_path / "out",
        init=init,
        on_step=lambda step, stats: losses.append(stats.loss),
    )
    assert len(losses) >= 4
    assert losses[0] == pytest.approx(0.693, abs=0.05)
    scorer = load_scorer(tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    comparison = next(read_comparisons(data))
    rows = [scorer.encode(comparison.prompt, text).ids for text in comparison.texts]
    with torch.no_grad():
        expected = [model(torch.tensor([row])).logits[0, 0].item() for row in rows]
    shift = model.config.concord_scores["shift"]  # an RMSNorm has no bias to take it up
    expected = [score + shift for score in expected]
    assert scorer.score_ids(rows) == pytest.approx(expected, abs=1e-5, rel=1e-5)
