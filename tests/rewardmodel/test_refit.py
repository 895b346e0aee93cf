"""rewardmodel.features and refit: a frozen model's head is taken to the minimum of the loss."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from policy.backbone import save_model, score_model_from
from policy.comparisons import read_comparisons
from policy.scoring import load_scorer
from rewardmodel import features as features_module
from rewardmodel import refit as refit_module
from rewardmodel.__main__ import main
from rewardmodel.anchors import Anchor
from rewardmodel.evaluate import evaluate_pairs
from rewardmodel.features import Features
from rewardmodel.refit import fit_head

WORDS = ["red", "blue", "two", "ten", "up", "down", "tea", "milk", "cat", "dog", "yes", "no"]
ROWS = [
    {
        "id": f"p{i}",
        "prompt": f"Say {i % 3}.",
        "chosen": WORDS[i],
        "rejected": WORDS[(7 * i + 5) % 12],
    }
    | {"split": "dev" if i >= 9 else "train"}
    for i in range(12)
]


def one_hot_fit(wins: dict[tuple[int, int], float], num_items: int) -> torch.Tensor:
    """Strengths of items with these wins of the first over the second, through fit_head."""
    pairs = sorted({tuple(sorted(pair)) for pair in wins})
    total = sum(wins.values())
    counts = [wins.get((i, j), 0) + wins.get((j, i), 0) for i, j in pairs]
    targets = [wins.get((i, j), 0) / count for (i, j), count in zip(pairs, counts, strict=True)]
    return fit_head(
        torch.eye(num_items, dtype=torch.float64),
        torch.tensor(pairs),
        torch.tensor(targets, dtype=torch.float64),
        torch.tensor(counts, dtype=torch.float64) / total,
        num_comparisons=1,
        ridge=0.0,
    ).head


def test_two_items_stand_apart_by_the_log_odds_of_their_wins():
    head = one_hot_fit({(0, 1): 3.0, (1, 0): 1.0}, 2)
    assert (head[0] - head[1]).item() == pytest.approx(math.log(3), abs=1e-6)


def test_with_ties_two_items_and_nu_are_those_that_davidson_gives_the_counts():
    # Three outcomes of one pair are met exactly: e^(d/2) : nu : e^(-d/2) = 9 : 6 : 1.
    found = fit_head(
        torch.eye(2, dtype=torch.float64),
        torch.tensor([[0, 1]]),
        torch.tensor([(9 + 6 / 2) / 16], dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        ties=torch.tensor([6 / 16], dtype=torch.float64),
        num_comparisons=1,
        ridge=0.0,
    )
    assert (found.head[0] - found.head[1]).item() == pytest.approx(math.log(9), abs=1e-6)
    assert math.exp(found.log_nu) == pytest.approx(6 / 3, abs=1e-6)


def test_on_one_hot_features_it_is_the_bradley_terry_estimate():
    # The estimate by its old definition: each strength is wins over the sum of games / (p_i + p_j),
    # again and again (Zermelo 1929).
    draw = torch.Generator().manual_seed(0)
    wins = {
        (i, j): float(torch.randint(1, 9, (1,), generator=draw))
        for i in range(6)
        for j in range(6)
        if i != j and (i + j) % 5
    }
    strength = [1.0] * 6
    for _ in range(5000):
        strength = [
            sum(count for (i, _), count in wins.items() if i == item)
            / sum(
                count / (strength[i] + strength[j])
                for (i, j), count in wins.items()
                if item in (i, j)
            )
            for item in range(6)
        ]
    expected = torch.tensor(strength, dtype=torch.float64).log()
    head = one_hot_fit(wins, 6)
    torch.testing.assert_close(head - head.mean(), expected - expected.mean(), atol=1e-6, rtol=0)


def test_a_ridge_stops_where_its_pull_equals_the_datas():
    # One pair of one-hot features, always won: deviation 1/2, difference of the standardised
    # features (2, -2). By symmetry w = (a, -a) with d = 4 a: 4 sigmoid(-4 a) = 2 x ridge a.
    head = fit_head(
        torch.eye(2, dtype=torch.float64),
        torch.tensor([[0, 1]]),
        torch.ones(1, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        num_comparisons=1,
        ridge=0.5,
    ).head
    a = head[0].item() / 2  # back to deviation 1
    assert 4 / (1 + math.exp(4 * a)) == pytest.approx(2 * 0.5 * a, abs=1e-6)


@pytest.fixture
def frozen(tiny_lm, tmp_path):
    """A reward model whose features differ clearly."""
    model, tokenizer = score_model_from(tiny_lm, seed=0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, 0.2, generator=generator)
    save_model(model, tokenizer, tmp_path / "frozen")
    return tmp_path / "frozen"


def test_features_are_the_last_hidden_state_of_every_completion_once(
    frozen, write_rows, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(features_module, "ROWS_AT_ONCE", 5)  # several windows
    too_long = {"id": "long", "prompt": "Hi", "chosen": "ab" * 100, "rejected": "no"}
    data = write_rows([*ROWS, ROWS[0] | {"id": "again"}, too_long])
    out = tmp_path / "f.safetensors"
    words = ["--model", str(frozen), "--data", str(data), "--out", str(out)]
    assert main(["features", *words]) == 0
    cached = Features.read(out)
    anchors = [Anchor(c.prompt, text) for c in read_comparisons(data) for text in c.texts]
    different = {anchor.sha256: anchor for anchor in anchors if len(anchor.text) < 100}
    said = f"features of {len(different)} completions, 1 too long for the model\n"
    assert capsys.readouterr().err == said
    assert cached.places.keys() == different.keys()
    scorer = load_scorer(frozen)
    for key, anchor in different.items():
        ids = scorer.encode(anchor.prompt, anchor.text).ids
        with torch.no_grad():
            hidden = scorer.model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        torch.testing.assert_close(
            cached.rows([cached.places[key]])[0], hidden, atol=1e-5, rtol=1e-5
        )
    assert load_file(out)["features"].shape == (len(different), 32)
    assert list(tmp_path.glob("*.part")) == []


def test_refit_publishes_the_old_trunk_with_the_head_that_fits(frozen, write_rows, tmp_path):
    data, out = write_rows(ROWS), tmp_path / "f.safetensors"
    words = ["--model", str(frozen), "--data", str(data)]
    assert main(["features", *words, "--out", str(out)]) == 0
    words += ["--features", str(out), "--out", str(tmp_path / "new"), "--set", "ridge=0.0001"]
    assert main(["refit", *words]) == 0
    old, new = (load_file(folder / "model.safetensors") for folder in (frozen, tmp_path / "new"))
    assert [name for name in old if not torch.equal(old[name], new[name])] == ["score.weight"]
    train = [row for row in read_comparisons(data) if row.in_split("train")]
    before, after = [evaluate_pairs(folder, train) for folder in (frozen, tmp_path / "new")]
    assert sum(row.correct for row in after) == 9 > sum(row.correct for row in before)
    (told,) = (
        json.loads(line) for line in (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()
    )
    assert told["train_log_loss"] == pytest.approx(sum(row.log_loss for row in after) / 9, abs=1e-4)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "new")


def test_the_ridge_is_the_one_that_dev_asks_for(frozen, write_rows, tmp_path, monkeypatch):
    monkeypatch.setattr(refit_module, "RIDGES", (1e-1, 1e-4))
    data, out = write_rows(ROWS), tmp_path / "f.safetensors"
    words = ["--model", str(frozen), "--data", str(data)]
    assert main(["features", *words, "--out", str(out)]) == 0
    words += ["--features", str(out)]
    losses = {}
    for ridge in (None, 1e-1, 1e-4):
        folder = tmp_path / f"ridge-{ridge}"
        setting = [] if ridge is None else ["--set", f"ridge={ridge}"]
        assert main(["refit", *words, "--out", str(folder), *setting]) == 0
        row = json.loads((folder / "metrics.jsonl").read_text())
        losses[ridge] = row["dev_log_loss"]
        if ridge is None:
            chosen = row["ridge"]
    chosen_loss = losses.pop(None)
    assert chosen == min(losses, key=losses.get)
    assert chosen_loss == pytest.approx(losses[chosen])


def test_an_encoders_head_is_refitted_too(tiny_bert, write_rows, tmp_path):
    rows = [
        {"id": "a", "prompt": "a b", "chosen": "c d", "rejected": "e"},
        {"id": "b", "prompt": "b", "chosen": "c", "rejected": "f g"},
    ]
    data, out = write_rows(rows), tmp_path / "f.safetensors"
    words = ["--model", str(tiny_bert), "--data", str(data)]
    assert main(["features", *words, "--out", str(out)]) == 0
    words += ["--features", str(out), "--out", str(tmp_path / "new")]
    assert main(["refit", *words]) == 0
    found = evaluate_pairs(tmp_path / "new", read_comparisons(data))
    assert [row.correct for row in found] == [1.0, 1.0]


def test_what_does_not_belong_together_is_refused(frozen, tiny_lm, write_rows, tmp_path, capsys):
    data, out = write_rows(ROWS), tmp_path / "f.safetensors"
    assert main(["features", "--model", str(frozen), "--data", str(data), "--out", str(out)]) == 0
    other = write_rows([{"prompt": "x", "chosen": "y", "rejected": "z"}], "other.jsonl")
    for model, features, rows, said in [
        (tiny_lm, out, data, "holds the features of another model than"),
        (frozen, out, other, "holds no comparison to fit: 1 have no strict pair or no features"),
        (frozen, data, data, "is no file of features"),
        (frozen, tmp_path / "absent", data, "there is no file"),
    ]:
        words = ["--model", str(model), "--features", str(features), "--data", str(rows)]
        assert main(["refit", *words, "--out", str(tmp_path / "x")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_head_that_learned_ties_says_so_and_is_measured_by_them(
    frozen, write_rows, tmp_path, capsys
):
    def row(number, split):
        names = ["a", "b"]
        groups = [["a"], ["b"]] if number % 3 else [names]
        vote = {"axis": "x", "strength": None, "weight": None, "annotator": "w", "kind": "person"}
        return {
            "id": f"{split}{number}",
            "split": split,
            "prompt": f"Say {number % 3}.",
            "completions": [
                {"id": name, "text": WORDS[(number + 5 * at) % 12], "model": None}
                for at, name in enumerate(names)
            ],
            "votes": [vote | {"ranking": groups}],
        }

    data = write_rows([row(n, split) for split in ("train", "dev") for n in range(9)])
    words = ["--model", str(frozen), "--data", str(data), "--device", "cpu"]
    cached, out = tmp_path / "f.safetensors", tmp_path / "new"
    assert main(["features", *words, "--out", str(cached)]) == 0
    words += ["--features", str(cached), "--set", "ridge=0.1"]
    assert main(["refit", *words, "--out", str(out), "--set", "loss=davidson"]) == 0
    (logged,) = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    assert (logged["comparisons"], logged["left_out"]) == (9, 0)
    capsys.readouterr()
    assert main(["evaluate", "--model", str(out), "--data", str(data), "--device", "cpu"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["n"], figures["three_outcomes"]["n"]) == (6, 9)
    assert figures["log_loss"] == pytest.approx(logged["dev_log_loss"], abs=1e-5)
    assert main(["refit", *words, "--out", str(tmp_path / "x"), "--set", "loss=pointwise"]) == 2
    assert "loss must be one of bradley_terry, davidson: 'pointwise'" in capsys.readouterr().err
