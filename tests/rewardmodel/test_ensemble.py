"""rewardmodel.ensemble: members are trained one by one, survive a stop, and are measured as one."""

import json
import shutil
from statistics import fmean, pstdev

import pytest
import torch
from safetensors.torch import load_file, save_file

from policy.comparisons import read_comparisons
from policy.config import BadInput
from policy.scoring import load_scorer
from rewardmodel.__main__ import main
from rewardmodel.anchors import sample_anchors
from rewardmodel.config import RewardConfig
from rewardmodel.ensemble import member_config, train_ensemble
from rewardmodel.train import train
from tests.rewardmodel.measuring import evaluate_pairs

SMALL = RewardConfig(
    layers=1,
    heads=2,
    width=16,
    context=64,
    vocab_size=300,
    comparisons_per_step=4,
    checkpoint_every=1,
    lr_peak=3e-3,
    epochs=2,
    members=2,
)
WORDS = ["red", "blue", "two", "ten", "up", "down", "tea", "milk", "cat", "dog", "yes", "no"]
ROWS = [
    {"id": f"p{i}", "prompt": f"Say {i}.", "chosen": WORDS[i], "rejected": WORDS[-1 - i]}
    | {"split": "dev" if i >= 8 else "train"}
    for i in range(12)
]


def rows_of(directory, phase):
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for line in lines if (row := json.loads(line))["phase"] == phase]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(directory, data) of an ensemble of two from nothing."""
    folder = tmp_path_factory.mktemp("ensemble")
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    train_ensemble(SMALL, data=data, out=folder / "out", inits=[None], train_one=train)
    return folder / "out", data


def test_members_have_seeds_of_their_own_whatever_the_ensembles_seed():
    seeds = [
        member_config(RewardConfig(seed=seed, members=3), number).seed
        for seed in range(4)
        for number in range(3)
    ]
    assert len(set(seeds)) == 12


def test_each_member_is_what_its_own_training_gives(trained, tmp_path):
    out, data = trained
    weights = []
    for number in range(2):
        alone = tmp_path / f"alone-{number}"
        train(member_config(SMALL, number), data=data, out=alone, init=None)
        weights.append(load_file(out / f"member-{number}" / "model.safetensors"))
        expected = load_file(alone / "model.safetensors")
        assert all(torch.equal(weights[-1][name], expected[name]) for name in expected)
    assert not torch.equal(weights[0]["score.weight"], weights[1]["score.weight"])


@pytest.mark.parametrize("rule", ["mean", "worst", "uncertainty"])
def test_scores_have_mean_0_and_deviation_1_on_the_anchors_by_every_rule(trained, tmp_path, rule):
    out, data = trained
    joined = tmp_path / "joined"
    words = ["ensemble", "--data", str(data), "--out", str(joined), "--rule", rule]
    assert main([*words, "--member", str(out / "member-0"), "--member", str(out / "member-1")]) == 0
    scorer = load_scorer(joined)
    anchors = sample_anchors(data).items
    scores = scorer.score([each.prompt for each in anchors], [each.text for each in anchors])
    assert (fmean(scores), pstdev(scores)) == pytest.approx((0.0, 1.0), abs=1e-4)
    dev = [each for each in read_comparisons(data) if each.in_split("dev")]
    rows = evaluate_pairs(scorer, dev)
    assert scorer.scale.dev["accuracy"] == pytest.approx(fmean(row.correct for row in rows))
    assert scorer.scale.num_anchors == len(anchors)


def test_what_the_members_log_stands_in_the_ensembles_files(trained):
    out, _ = trained
    for number in range(2):
        folder = out / f"member-{number}"
        for phase in ("data", "train", "dev", "kept"):
            own = rows_of(folder, phase)
            assert own
            assert rows_of(out, f"member-{number} {phase}") == [
                row | {"phase": f"member-{number} {phase}"} for row in own
            ]
    progress = json.loads((out / "progress.json").read_text())
    assert (progress["step"], progress["total"]) == (8, 8)
    assert json.loads((out / "run.json").read_text())["finished"] is True


@pytest.mark.parametrize("same_folder", [True, False])
@pytest.mark.parametrize("stop_at", [3, 7])  # in the first member, in the second
def test_a_run_that_was_stopped_goes_on_where_it_was(trained, tmp_path, stop_at, same_folder):
    out, data = trained
    steps = []

    def stopping(*args, on_step, **kwargs):
        def count(step, stats):
            on_step(step, stats)
            steps.append(step)
            if len(steps) == stop_at:
                raise KeyboardInterrupt

        train(*args, on_step=count, **kwargs)

    first = tmp_path / "first"
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(SMALL, data=data, out=first, inits=[None], train_one=stopping)
    second = first if same_folder else tmp_path / "second"
    resume = {} if same_folder else {"resume_from": [first]}
    train_ensemble(SMALL, data=data, out=second, inits=[None], train_one=stopping, **resume)
    assert len(steps) == 8 + 1  # the step that had no checkpoint yet is done again
    assert (second / "ensemble.json").read_text() == (out / "ensemble.json").read_text()
    assert (second / "metrics.jsonl").read_text() == (out / "metrics.jsonl").read_text()


def test_members_begin_at_a_pretrained_model_each(tiny_lm, trained, tmp_path):
    _, data = trained
    other = tmp_path / "other"
    shutil.copytree(tiny_lm, other)
    weights = {name: -tensor for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    words = ["train", "--data", str(data), "--out", str(tmp_path / "new"), "--device", "cpu"]
    words += ["--init", str(tiny_lm), "--init", str(other)]
    settings = ("members=2", "lr_peak=1e-12", "rule=worst")
    words += [word for setting in settings for word in ("--set", setting)]
    assert main(words) == 0
    name = "model.embed_tokens.weight"
    one, two = (
        load_file(tmp_path / "new" / f"member-{number}" / "model.safetensors")[name]
        for number in range(2)
    )
    torch.testing.assert_close(one, -two)
    assert load_scorer(tmp_path / "new").ensemble.rule == "worst"


def test_members_that_cannot_become_one_are_refused_before_they_are_trained(
    tiny_lm, trained, tmp_path
):
    out, data = trained
    cases = [
        ([str(tiny_lm)] * 3, "--init once for all members or once for each: 3 for 2 members"),
        ([str(tiny_lm), str(out / "member-0")], "has another tokenizer or chat template than"),
        ([None, str(tiny_lm)], "all from random weights: --init none beside"),
    ]
    for inits, said in cases:
        with pytest.raises(BadInput, match=said):
            train_ensemble(SMALL, data=data, out=tmp_path / "x", inits=inits, train_one=train)
    assert not (tmp_path / "x").exists()


def test_one_model_has_one_init(write_rows, tmp_path, capsys):
    words = ["train", "--data", str(write_rows(ROWS)), "--out", str(tmp_path / "x")]
    assert main([*words, "--init", "none", "--init", "none"]) == 2
    assert "one model has one --init, not 2" in capsys.readouterr().err


def test_the_command_joins_models_that_were_trained_before(trained, tmp_path, capsys):
    out, data = trained
    joined = tmp_path / "joined"
    words = ["ensemble", "--data", str(data), "--out", str(joined), "--rule", "worst"]
    words += ["--member", str(out / "member-0"), "--member", str(out / "member-1")]
    assert main(words) == 0
    assert capsys.readouterr().err == "2 members, combined by worst\n"
    found, old = (json.loads((each / "ensemble.json").read_text()) for each in (joined, out))
    assert (found["rule"], found["members"]) == ("worst", old["members"])
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err
    assert list(tmp_path.glob(".*")) == []


def test_scores_of_a_file_come_with_spread_and_members(trained, tmp_path):
    out, _ = trained
    words = ["score", "--model", str(out), "--out", str(tmp_path / "s.jsonl")]
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps({"id": "a", "prompt": "Say 1.", "text": "blue"}) + "\n")
    assert main([*words, "--data", str(rows)]) == 0
    (line,) = (json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines())
    assert line["score"] == pytest.approx(fmean(line["members"]))
    assert line["spread"] == pytest.approx(pstdev(line["members"]))


def test_evaluate_tells_how_far_the_members_part(trained, capsys):
    out, data = trained
    assert main(["evaluate", "--model", str(out), "--data", str(data), "--split", "all"]) == 0
    figures = json.loads(capsys.readouterr().out)
    comparisons = list(read_comparisons(data))
    by_member = [
        load_scorer(out / f"member-{number}").score(
            [each.prompt for each in comparisons for _ in each.texts],
            [text for each in comparisons for text in each.texts],
        )
        for number in range(2)
    ]
    right = [
        [scores[2 * i] > scores[2 * i + 1] for i in range(len(comparisons))] for scores in by_member
    ]
    parted = [one != other for one, other in zip(*right, strict=True)]
    ensemble = figures["ensemble"]
    assert [each["accuracy"] for each in ensemble["members"]] == [fmean(each) for each in right]
    assert ensemble["pairs_not_unanimous"] == pytest.approx(fmean(parted))
    assert ensemble["spread"] > 0
    rows = evaluate_pairs(out, comparisons)
    assert figures["accuracy"] == pytest.approx(fmean(row.correct for row in rows))
