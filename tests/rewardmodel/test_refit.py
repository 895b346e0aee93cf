"""rewardmodel.features and refit: a frozen model's head is taken to the minimum of the loss."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2LMHeadModel

from policy.backbone import load_tokenizer, save_model, score_model_from
from policy.comparisons import read_comparisons
from policy.config import BadInput
from policy.score_scale import ScoreScale, forget
from policy.scoring import load_scorer
from rewardmodel import features as features_module
from rewardmodel import refit as refit_module
from rewardmodel.__main__ import main
from rewardmodel.anchors import Anchor, read_anchors, sample_anchors
from rewardmodel.features import Backbone, Features, KnownScorer
from rewardmodel.losses import ranking_loss
from rewardmodel.newton import Fitted, fit_head
from rewardmodel.normalise import normalise
from rewardmodel.refit import LOSSES, Table
from tests.rewardmodel.measuring import evaluate_pairs

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
    assert head.mean().item() == pytest.approx(0.0, abs=1e-6)  # the shift that no answer decides
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


def some_answers(*, with_ties):
    """Features, and soft answers on them that no head meets."""
    draw = torch.Generator().manual_seed(3)
    features = torch.randn(60, 7, dtype=torch.float64, generator=draw) * torch.arange(1, 8)
    features[:, 6] = 2.0  # says nothing
    pairs = torch.randint(60, (80, 2), generator=draw)
    targets, weights, share = torch.rand(3, 80, dtype=torch.float64, generator=draw)
    ties = share * 2 * torch.minimum(targets, 1 - targets) if with_ties else None
    return features, pairs, targets, weights, ties


@pytest.mark.parametrize("with_ties", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.01, 1.0])
def test_the_minimum_is_the_one_that_another_method_finds(with_ties, ridge):
    features, pairs, targets, weights, ties = some_answers(with_ties=with_ties)
    unknowns = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    deviation = features.std(0, correction=0)

    def whole(head, log_nu):
        nats = ranking_loss(
            features @ head, pairs, targets, weights,
            num_comparisons=5, ties=ties, log_nu=log_nu if with_ties else None,
        )  # fmt: skip
        return nats + ridge / 2 * (head * deviation).square().sum()

    optimizer = torch.optim.LBFGS(
        [unknowns], max_iter=1000, tolerance_grad=1e-12, tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        value = whole(unknowns[:7], unknowns[7])
        value.backward()
        return value

    optimizer.step(closure)
    wanted = whole(unknowns[:7], unknowns[7]).item()
    given = {"num_comparisons": 5, "ridge": ridge, "ties": ties}
    far = Fitted(torch.full((7,), 9.0, dtype=torch.float64), log_nu=-8.0 if with_ties else None)
    for start in (None, far):  # from there a whole step of Newton's leads astray
        found = fit_head(features, pairs, targets, weights, start=start, **given)
        value = whole(found.head, torch.tensor(found.log_nu or 0.0, dtype=torch.float64))
        assert value.item() == pytest.approx(wanted, rel=1e-8)
        assert found.num_steps < 30
    again = fit_head(features, pairs, targets, weights, start=found, **given)
    assert again.num_steps <= 1
    few = fit_head(features, pairs, targets, weights, max_steps=2, **given)
    assert few.num_steps == 2


def test_answers_that_are_met_exactly_without_a_ridge_end_where_nothing_is_left_to_gain():
    head = one_hot_fit({(0, 1): 1.0}, 3)
    assert head[0] - head[1] > 15
    assert head[2].item() == pytest.approx(0.0, abs=1e-6)  # of it nobody said anything


def test_features_that_are_no_numbers_are_refused():
    features, pairs, targets, weights, _ = some_answers(with_ties=False)
    features[4, 2] = math.nan
    with pytest.raises(BadInput, match="not finite"):
        fit_head(features, pairs, targets, weights, num_comparisons=5, ridge=0.1)


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


@pytest.fixture
def with_layer_norm(frozen, tmp_path):
    """A GPT-2, which can hold the scores' shift in its last bias, with the other's tokenizer."""
    tokenizer = load_tokenizer(frozen)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        trunk = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id, initializer_range=0.2,
            )
        )  # fmt: skip
    save_model(trunk, tokenizer, tmp_path / "gpt2")
    save_model(*score_model_from(tmp_path / "gpt2", seed=0), tmp_path / "with_layer_norm")
    return tmp_path / "with_layer_norm"


@pytest.mark.parametrize(
    ("kind", "folded"), [("frozen", "config"), ("with_layer_norm", "layer_norm"), ("bert", "bias")]
)
@pytest.mark.parametrize("anchored", ["by the data", "by a file", "by a file without features"])
def test_scores_from_features_lead_to_the_model_that_a_pass_through_all_of_it_does(
    kind, folded, anchored, request, write_rows, tmp_path
):
    name = "tiny_bert" if kind == "bert" else kind
    model = request.getfixturevalue(name)
    data, out = write_rows(ROWS), tmp_path / "f.safetensors"
    words = ["--model", str(model), "--data", str(data)]
    asked = []
    anchors = sample_anchors(data)
    if anchored != "by the data":
        texts = [{"prompt": "How?", "text": word} for word in ("so", "thus", "who knows", "no")]
        asked = ["--anchors", str(write_rows(texts, "anchors.jsonl"))]
        anchors = read_anchors(tmp_path / "anchors.jsonl")
    cached = asked if anchored == "by a file" else []
    assert main(["features", *words, *cached, "--out", str(out)]) == 0
    has = {each.sha256 for each in anchors.items} & Features.read(out).places.keys()
    assert bool(has) == (anchored != "by a file without features")
    words += ["--features", str(out), "--set", "ridge=0.01", "--out", str(tmp_path / "new")]
    assert main(["refit", *words, *asked]) == 0

    rows = list(read_comparisons(data))
    backbone = Backbone(model, "cpu")
    forget(backbone.model)
    train = Table.of((row for row in rows if row.in_split("train")), Features.read(out), LOSSES[0])
    head = train.fit(ridge=0.01, max_steps=50).head
    with torch.no_grad():
        backbone.head.weight.copy_(head[None])
    dev = (row for row in rows if row.in_split("dev"))
    scale = normalise(backbone.model, backbone.tokenizer, anchors=anchors, dev=dev)
    found = load_scorer(tmp_path / "new")
    assert found.scale.folded == scale.folded == folded
    assert found.scale.num_anchors == len(anchors.items)
    assert found.scale.anchors_sha256 == scale.anchors_sha256
    for mine, theirs in [
        (found.scale.mean, scale.mean),
        (found.scale.deviation, scale.deviation),
        (found.scale.temperature, scale.temperature),
        (found.scale.shift, scale.shift),
        (found.scale.dev["log_loss"], scale.dev["log_loss"]),
        (found.scale.dev["accuracy"], scale.dev["accuracy"]),
    ]:
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    weights = backbone.model.state_dict()
    for name, tensor in found.model.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-4, atol=1e-5)


def test_a_weight_counts_as_so_many_rows_and_none_as_no_row(tiny_lm, write_rows, tmp_path):
    data = write_rows([{**row, "split": "train"} for row in ROWS[:4]])
    out = tmp_path / "features.safetensors"
    words = ["--model", str(tiny_lm), "--data", str(data), "--out", str(out)]
    assert main(["features", *words]) == 0
    first, second, third, fourth = read_comparisons(data)
    cached = Features.read(out)

    def head(comparisons):
        table = Table.of(comparisons, cached, LOSSES[0], weighted=True)
        return table.fit(ridge=0.1, max_steps=50).head

    heavy = [replace(first, weight=4.0), replace(second, weight=2.0)]
    without = replace(fourth, weight=0.0)
    repeated = head([first, first, second])
    torch.testing.assert_close(head([*heavy, without]), repeated, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(head([first, second]), repeated, rtol=1e-3)
    plain = Table.of([*heavy, third], cached, LOSSES[0])
    assert plain.weights.tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_a_trained_model_whose_scores_are_shifted_is_refitted(tiny_lm, write_rows, tmp_path):
    data = write_rows(ROWS)
    trained, out = tmp_path / "trained", tmp_path / "features.safetensors"
    words = ["--data", str(data), "--set", "num_anchors=4"]
    settings = ["--set", "epochs=1", "--set", "comparisons_per_step=4"]
    assert main(["train", *words, *settings, "--init", str(tiny_lm), "--out", str(trained)]) == 0
    assert abs(load_scorer(trained).scale.shift) > 1e-3  # RMSNorm: no bias could take it
    asked = ["--model", str(trained), "--data", str(data)]
    assert main(["features", *asked, "--out", str(out)]) == 0
    asked += ["--features", str(out), "--set", "num_anchors=4"]
    assert main(["refit", *asked, "--out", str(tmp_path / "new")]) == 0
    scorer = load_scorer(tmp_path / "new")
    items = sample_anchors(data, 4).items
    scores = torch.tensor(scorer.score([a.prompt for a in items], [a.text for a in items]))
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert scores.std(correction=0).item() == pytest.approx(1.0, abs=1e-3)


PROMPT = [{"role": "user", "content": "What?"}]


def test_known_scores_and_those_of_the_model_are_on_one_scale(frozen):
    plain = load_scorer(frozen)
    texts = WORDS[:4]
    trained = plain.score([PROMPT] * 4, texts)
    known = {Anchor(tuple(PROMPT), text).sha256: trained[at] for at, text in enumerate(texts[:2])}
    scorer = KnownScorer(plain.model, plain.tokenizer, max_tokens=plain.max_tokens, known=known)
    for each in (plain, scorer):
        each.scale = ScoreScale(mean=3.0, deviation=2.0, shift=-1.5, folded="config")
    with torch.no_grad():
        plain.model.score.weight.div_(2.0)
    wanted = [(score - 3) / 2 for score in trained]
    assert plain.score([PROMPT] * 4, texts) == pytest.approx(wanted, abs=1e-5)
    assert scorer.score([PROMPT] * 4, texts) == pytest.approx(wanted, abs=1e-5)
    rows = [scorer.encode(PROMPT, text).ids for text in texts]
    assert [each.score for each in scorer.scored_ids(rows)] == pytest.approx(wanted, abs=1e-5)


def test_features_that_are_not_the_models_own_are_refused(frozen, write_rows, tmp_path, capsys):
    data, out = write_rows(ROWS), tmp_path / "f.safetensors"
    words = ["--model", str(frozen), "--data", str(data)]
    assert main(["features", *words, "--out", str(out)]) == 0
    with safe_open(out, "pt") as file:
        told = file.metadata()
    held = load_file(out)
    save_file(held | {"features": held["features"].flip(0).contiguous()}, out, told)
    words += ["--features", str(out), "--out", str(tmp_path / "new")]
    assert main(["refit", *words]) == 2
    assert "apart from those of the model" in capsys.readouterr().err


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
