"""Several axes: a head for each learns its own votes, and one score is their weighted sum."""

import dataclasses
import json
import math
import random
from pathlib import Path
from statistics import fmean, pstdev

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from policy.axes import Axis, measured, standardised, weighted_sum
from policy.comparisons import parse_row, read_comparisons
from policy.config import BadInput
from policy.scoring import load_scorer
from policy.value import value_model_from
from rewardmodel.__main__ import main
from rewardmodel.config import RewardConfig
from rewardmodel.evaluate import measure
from rewardmodel.objective import Objective
from rewardmodel.survey import Survey
from rewardmodel.targets import TargetBatch, TargetRule
from rewardmodel.train import train

SMALL = RewardConfig(
    layers=1,
    heads=2,
    width=32,
    context=64,
    vocab_size=300,
    comparisons_per_step=16,
    epochs=4,
    lr_peak=1e-2,
    axes={"polite": 2.0, "green": -1.0},
)
WARM = dataclasses.replace(
    SMALL,
    **{name: getattr(RewardConfig(), name) for name in ("layers", "heads", "width", "context")},
    vocab_size=RewardConfig().vocab_size,
)
"""For a model that is there already."""
WORDS = ["river", "stone", "table", "seven", "candle", "paper", "winter", "cloud"]


def vote(axis, ranking, **fields):
    ranking = [[f"x{i}" for i in group] for group in ranking]
    return {"axis": axis, "ranking": ranking, "strength": None, "weight": None} | {
        "annotator": "a",
        "kind": "person",
        **fields,
    }


def row(number, votes, texts, split="train", **fields):
    return {
        "id": f"{split}{number}",
        "split": split,
        "prompt": [{"role": "user", "content": f"Question {number}?"}],
        "completions": [
            {"id": f"x{i}", "text": text, "model": None} for i, text in enumerate(texts)
        ],
        "votes": votes,
    } | fields


def gold_rows(count, *, seed, split):
    """Two answers; each axis prefers the one with its word, which is drawn apart from the other's;
    every third row has no vote on `green`."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        polite, green = draw.randrange(2), draw.randrange(2)
        texts = []
        for i in range(2):
            words = [draw.choice(WORDS) for _ in range(3)]
            words += ["please"] * (i == polite) + ["green"] * (i == green)
            draw.shuffle(words)
            texts.append(" ".join(words) + "." * i)
        votes = [vote("polite", [[polite], [1 - polite]])]
        if number % 3:
            votes.append(vote("green", [[green], [1 - green]]))
        rows.append(row(number, votes, texts, split))
    return rows


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Path]:
    """(model, data)"""
    folder = tmp_path_factory.mktemp("axes")
    rows = gold_rows(192, seed=0, split="train") + gold_rows(60, seed=1, split="dev")
    data = folder / "gold.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in rows), "utf-8")
    train(SMALL, data=data, out=folder / "out", init=None)
    return folder / "out", data


TWO = (
    Axis(name="a", weight=2.0, mean=1.0, deviation=4.0),
    Axis(name="b", weight=-1.0, mean=-1.0, deviation=1.0),
)


def test_the_weighted_sum_of_standardised_axes_by_hand():
    logits = torch.tensor([[5.0, -1.0], [1.0, 1.0], [-7.0, 0.0]])
    assert standardised(logits, TWO).tolist() == [[1, 0], [0, 2], [-2, 1]]
    # 2 x first - second, a unit of which is worth (2 x 4 + 1 x 1) / 3 = 3 nats.
    assert weighted_sum(logits, TWO).tolist() == [6, -6, -15]


def test_axes_are_measured_on_the_anchors_and_a_head_without_opinion_keeps_its_unit():
    logits = torch.tensor([[1.0, 7.0], [3.0, 7.0], [5.0, 7.0], [7.0, 7.0]])
    assert measured(logits, {"a": 1.0, "b": 0.5}) == (
        Axis(name="a", weight=1.0, mean=4.0, deviation=math.sqrt(5)),
        Axis(name="b", weight=0.5, mean=7.0, deviation=1.0),
    )


COMPARISONS = [
    parse_row(each, line=1)
    for each in [
        row(0, [vote("a", [[0], [1]]), vote("b", [[1], [0]]), vote("c", [[1], [0]])], "pq"),
        row(1, [vote("b", [[2], [0, 1]])], "pqr"),
        row(2, [vote("a", [[1], [2], [0]]), vote("a", [[1, 2], [0]])], "pqr"),
        row(3, [vote("a", [[0], [1]]), vote("b", [[0, 1]])], "pq"),
    ]
]


def cost(comparisons, scores, config, axes=()):
    rule = dataclasses.replace(TargetRule.of(config, survey := Survey.of(comparisons)), axes=axes)
    counts = [len(each.texts) * rule.num_heads for each in comparisons]
    batch = TargetBatch.of(
        [rule.targets(each) for each in comparisons],
        [sum(counts[:place]) for place in range(len(counts))],
        [1.0] * len(counts),
    )
    return Objective(config, survey, rule).double()(scores, batch, num_comparisons=1)


NUS = (0.3, -1.1)
"""Log of Davidson's nu of each axis."""


@pytest.mark.parametrize("loss", ["bradley_terry", "davidson", "plackett_luce"])
def test_each_head_pays_for_its_own_axis_and_a_comparison_counts_once(loss):
    config = RewardConfig(loss=loss, centring=0.1)
    heads = torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted, start = 0.0, 0
    for comparison in COMPARISONS:
        own = heads[start : start + len(comparison.texts)]
        start += len(comparison.texts)
        parts = []
        for number, axis in enumerate("ab"):
            alone = comparison.on(axis)
            if alone.table.pairs or (loss == "davidson" and alone.votes):
                rule = TargetRule(loss=loss)
                batch = TargetBatch.of([rule.targets(alone)], [0], [1.0])
                objective = Objective(config, Survey(), rule).double()
                if loss == "davidson":
                    objective.log_nu.data.fill_(NUS[number])
                parts.append(objective(own[:, number], batch, num_comparisons=1).item())
        wanted += fmean(parts)
    rule = TargetRule(loss=loss, axes=("a", "b"))
    batch = TargetBatch.of([rule.targets(each) for each in COMPARISONS], [0, 4, 10, 16], [1.0] * 4)
    objective = Objective(config, Survey(), rule).double()
    if loss == "davidson":
        objective.log_nu.data.copy_(torch.tensor(NUS))
        assert objective.as_json()["log_nu"] == pytest.approx(dict(zip("ab", NUS, strict=True)))
    found = objective(heads.flatten(), batch, num_comparisons=1)
    assert found.item() == pytest.approx(wanted, rel=1e-6)


def test_each_axis_starts_from_its_own_share_of_ties():
    # Of four votes on a one ties one of three pairs; of three on b one does so, and one its only.
    config = RewardConfig(loss="davidson")
    survey = Survey.of(COMPARISONS, axes=("a", "b"))
    learned = Objective(config, survey, TargetRule(loss="davidson", axes=("a", "b"))).as_json()
    share = (0 + 1 / 3 + 1) / 3
    assert learned["log_nu"]["b"] == pytest.approx(math.log(2 * share / (1 - share)))
    share = (0 + 0 + 1 / 3 + 0) / 4
    assert learned["log_nu"]["a"] == pytest.approx(math.log(2 * share / (1 - share)))


def test_with_one_axis_it_is_plain_bradley_terry():
    heads = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alone = [each.on("a") for each in COMPARISONS]
    config = RewardConfig()
    assert cost(COMPARISONS, heads, config, axes=("a",)) == cost(alone, heads, config)


def test_the_table_of_the_axes_weighs_as_the_loss_does():
    heads = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table = TargetRule(axes=("a", "b")).table(COMPARISONS[0])
    found = measure(table, heads.flatten().tolist())
    parts = [
        measure(COMPARISONS[0].on(axis).table, heads[:, number].tolist())
        for number, axis in enumerate("ab")
    ]
    assert found.log_loss == pytest.approx(fmean(part.log_loss for part in parts))
    assert found.correct == pytest.approx(fmean(part.correct for part in parts))


def test_a_rating_of_an_axis_name_and_a_line_drawn_on_it_are_learned_by_its_head():
    votes = [vote("a", [[0], [1]], acceptable=1), vote("c", [[0], [1]], acceptable=0)]
    said = [
        {"annotator": "a", "completion": "x1", "ratings": {"b": 2, "c": 3, "d": 1}}
        | {"scales": {"b": [1, 3], "c": [1, 3], "d": [1, 3]}}
    ]
    comparison = parse_row(row(0, votes, "pq", judgments=said), line=1, axis={"a": 1, "b": 1})
    scales = {"acceptable": (0, 1), "b": (1, 3), "c": (1, 3), "d": (1, 3)}
    found = TargetRule(axes=("a", "b"), scales=scales).targets(comparison)
    # The first answer is good enough on a, the second is not; the second has level 1 of 0, 1, 2
    # on b. Scores are counted x0 on a, x0 on b, x1 on a, x1 on b.
    assert [tuple(one) for one in found.judged] == [
        (0, 0, 1, 0.25),
        (2, 0, 0, 0.25),
        (3, 1, 1, 0.5),
    ]
    assert [tuple(one)[:2] for one in found.pairs] == [(0, 2)]


def test_each_axis_is_learned_by_its_head(run):
    model, data = run
    dev = [each for each in read_comparisons(data) if each.in_split("dev")]
    loaded = AutoModelForSequenceClassification.from_pretrained(model)
    assert loaded.config.id2label == {0: "polite", 1: "green"}
    scorer = load_scorer(model)
    rows = [scorer.encode(each.prompt, text).ids for each in dev for text in each.texts]
    with torch.inference_mode():
        logits = torch.cat([loaded(input_ids=torch.tensor([ids])).logits for ids in rows])
    torch.testing.assert_close(scorer.heads(rows), logits, rtol=1e-4, atol=1e-4)
    for number, axis in enumerate(("polite", "green")):
        own = [each.on(axis).table for each in dev]
        right = [
            measure(table, logits[2 * at : 2 * at + 2, number].tolist())
            for at, table in enumerate(own)
            if table.pairs
        ]
        figures = scorer.scale.dev["axes"][axis]
        assert fmean(each.correct for each in right) > 0.9
        assert figures["accuracy"] == pytest.approx(fmean(each.correct for each in right))
        assert figures["log_loss"] == pytest.approx(fmean(each.log_loss for each in right), 1e-3)
        assert (figures["n"], figures["weight"]) == (len(right), SMALL.axes[axis])


def test_the_score_is_the_weighted_sum_of_axes_at_deviation_1_on_one_scale(run):
    model, data = run
    scorer = load_scorer(model)
    dev = [each for each in read_comparisons(data) if each.in_split("dev")]
    rows = [scorer.encode(each.prompt, text).ids for each in dev for text in each.texts]
    heads = scorer.heads(rows).double()  # the anchors are these: dev holds 64 texts or more
    columns = [[value.item() for value in column] for column in heads.T]
    z = [[(value - fmean(c)) / pstdev(c) for value in c] for c in columns]
    summed = [2 * first - second for first, second in zip(*z, strict=True)]
    wanted = [(each - fmean(summed)) / pstdev(summed) for each in summed]
    scored = scorer.scored_ids(rows)
    assert [each.score for each in scored] == pytest.approx(wanted, abs=1e-3)
    assert scorer.score_ids(rows) == [each.score for each in scored]
    assert [each.axes[0] for each in scored] == pytest.approx(z[0], abs=1e-3)
    assert [each.axes[1] for each in scored] == pytest.approx(z[1], abs=1e-3)
    nats = (2 * pstdev(columns[0]) + pstdev(columns[1])) / 3
    assert scorer.scale.deviation == pytest.approx(nats * pstdev(summed), rel=1e-3)


def test_score_and_evaluate_tell_the_axes_apart(run, tmp_path, capsys):
    model, data = run
    out = tmp_path / "scores.jsonl"
    assert main(["score", "--model", str(model), "--data", str(data), "--out", str(out)]) == 0
    first = json.loads(out.read_text("utf-8").splitlines()[0])
    assert set(first) == {"id", "comparison", "score", "axes"}
    assert set(first["axes"]) == {"polite", "green"}
    capsys.readouterr()
    told = ["--data", str(data), "--report", str(tmp_path / "card")]
    assert main(["evaluate", "--model", str(model), *told]) == 0
    found = json.loads(capsys.readouterr().out)["axes"]
    assert (found["polite"]["n"], found["green"]["n"]) == (60, 40)
    assert found["polite"]["accuracy"] > 0.9
    card = (tmp_path / "card" / "README.md").read_text("utf-8")
    assert "2 x polite, -1 x green" in card
    assert "| accuracy of axis green, 40 comparisons |" in card


def test_an_ensemble_shows_its_axes_combined_by_its_rule(run, tmp_path, capsys):
    model, data = run
    other = dataclasses.replace(WARM, epochs=1, seed=5, axes={"polite": 1.0, "green": -2.0})
    train(other, data=data, out=tmp_path / "other", init=str(model))
    members = [load_scorer(folder) for folder in (model, tmp_path / "other")]
    dev = [each for each in read_comparisons(data) if each.in_split("dev")][:3]
    rows = [members[0].encode(each.prompt, text).ids for each in dev for text in each.texts]
    polite, green = (
        [[each.axes[number] for each in member.scored_ids(rows)] for member in members]
        for number in range(2)
    )
    words = ["--member", str(model), "--member", str(tmp_path / "other"), "--data", str(data)]
    for rule, wanted in {  # green counts against an answer: its worst is the highest
        "mean": (map(fmean, zip(*polite, strict=True)), map(fmean, zip(*green, strict=True))),
        "worst": (map(min, *polite), map(max, *green)),
        "uncertainty": (
            (fmean(z) - 0.5 * pstdev(z) ** 2 for z in zip(*polite, strict=True)),
            (fmean(z) + 0.5 * pstdev(z) ** 2 for z in zip(*green, strict=True)),
        ),
    }.items():
        out = tmp_path / rule
        asked = ["--rule", rule, "--uncertainty-weight", "0.5", "--out", str(out)]
        assert main(["ensemble", *words, *asked]) == 0
        scorer = load_scorer(out)
        assert [(axis.name, axis.weight) for axis in scorer.scale.axes] == [
            ("polite", 1.5), ("green", -1.5),
        ]  # fmt: skip
        found = [each.axes for each in scorer.scored_ids(rows)]
        for number, values in enumerate(wanted):
            assert [each[number] for each in found] == pytest.approx(list(values), abs=1e-5)
    scores = tmp_path / "scores.jsonl"
    told = ["--model", str(tmp_path / "mean"), "--data", str(data)]
    assert main(["score", *told, "--out", str(scores)]) == 0
    first = json.loads(scores.read_text("utf-8").splitlines()[0])
    assert set(first) == {"id", "comparison", "score", "spread", "members", "axes"}
    capsys.readouterr()
    assert main(["evaluate", *told, "--report", str(tmp_path / "card")]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["axes"]["polite"]["accuracy"] > 0.9
    card = (tmp_path / "card" / "README.md").read_text("utf-8")
    assert "| accuracy of axis green, 40 comparisons |" in card
    assert "It is an ensemble" in card


def test_a_value_model_from_it_has_one_head_that_starts_at_zero(run):
    model, _ = run
    scorer = load_scorer(model)
    value = value_model_from(model, tokenizer=scorer.tokenizer, max_tokens=64)
    assert value.score.weight.shape == (1, 32)
    assert not value.score.weight.any()
    assert value.config.num_labels == 1
    trunk = value.base_model.state_dict()
    for name, tensor in scorer.model.base_model.state_dict().items():
        assert torch.equal(trunk[name], tensor)


def test_training_goes_on_from_the_same_axes_alone(run, tmp_path):
    model, data = run
    config = dataclasses.replace(WARM, epochs=1, num_anchors=0)
    train(config, data=data, out=tmp_path / "on", init=str(model))
    raw = load_scorer(tmp_path / "on").scale
    assert raw.axes == (Axis(name="polite", weight=2.0), Axis(name="green", weight=-1.0))
    turned = dataclasses.replace(config, axes={"green": 1.0, "polite": 1.0})
    with pytest.raises(BadInput, match="scores polite, green, not green, polite"):
        train(turned, data=data, out=tmp_path / "turned", init=str(model))
    with pytest.raises(BadInput, match="has 2 heads, and one is wanted"):
        train(
            dataclasses.replace(config, axes=None), data=data, out=tmp_path / "x", init=str(model)
        )


def test_an_axis_that_no_train_row_speaks_of_is_refused(run, tmp_path):
    _, data = run
    config = dataclasses.replace(SMALL, axes={"polite": 1.0, "safe": 1.0})
    with pytest.raises(BadInput, match="says anything of axis 'safe'"):
        train(config, data=data, out=tmp_path / "out", init=None)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"axes": {"a": 1.0}}, "two or more"),
        ({"axes": {"a": 1.0, "b": "much"}}, "axis 'b' must have a weight: 'much'"),
        ({"axes": {"a": 1.0, "b": math.inf}}, "axis 'b' must have a weight: inf"),
        ({"axes": {"a": 0, "b": 0.0}}, "weights of all axes are 0"),
        ({"axes": {"a": 1.0, "b": 1.0}, "axis": "a"}, "go apart"),
    ],
)
def test_weights_that_mean_nothing_are_refused(settings, why):
    with pytest.raises(BadInput, match=why):
        RewardConfig(**settings)


def test_axes_are_set_from_the_command_line(run, tmp_path):
    _, data = run
    for axes, code in (('{"polite": 1, "green": 1}', 0), ("[1]", 2)):
        command = ["train", "--data", str(data), "--init", "none", "--out", str(tmp_path / "o")]
        small = ["layers=1", "heads=2", "width=32", "context=64", "vocab_size=300"]
        words = [word for each in [*small, f"axes={axes}"] for word in ("--set", each)]
        assert main([*command, *words, "--device", "cpu"]) == code
