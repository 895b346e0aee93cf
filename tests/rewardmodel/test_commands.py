"""python -m rewardmodel: what goes in and comes out of the three commands, and their refusals."""

import json
from pathlib import Path

import pytest
import torch

from policy.backbone import save_model, score_model_from
from policy.comparisons import read_comparisons
from policy.scoring import load_scorer
from rewardmodel import score
from rewardmodel.__main__ import main
from rewardmodel.config import RewardConfig
from tests.rewardmodel.measuring import evaluate_pairs


def comparison(number: int, rankings: list, split="test", **fields) -> dict:
    return {
        "id": f"c{number}",
        "split": split,
        "prompt": [{"role": "user", "content": f"Question {number % 3}"}],
        "completions": [
            {"id": f"c{number}x{i}", "text": f"Answer {number} {'abcd'[i]}", "model": None}
            for i in range(3)
        ],
        "votes": [
            {
                "axis": "helpful",
                "ranking": [[f"c{number}x{i}" for i in group] for group in ranking],
                "strength": None,
                "weight": None,
                "annotator": "a1",
                "kind": kind,
            }
            for ranking, kind in rankings
        ],
    } | fields


@pytest.fixture
def reward_model(tiny_lm, tmp_path) -> Path:
    """A reward model with random weights, large enough for scores to differ."""
    model, tokenizer = score_model_from(tiny_lm, seed=0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, 0.2, generator=generator)
    save_model(model, tokenizer, tmp_path / "reward")
    return tmp_path / "reward"


ROWS = [
    comparison(0, [([[0], [1], [2]], "human"), ([[1], [0]], "simulated")]),
    comparison(1, [([[2], [0, 1]], "human")]),
    comparison(2, [([[0, 1, 2]], "human")]),
    comparison(3, [([[1], [2]], "human")], split="train"),
    comparison(4, [([[2], [1]], "human")], group="elsewhere"),
    {"split": "test", "prompt": "Hi", "chosen": "ab" * 200, "rejected": "no"},
]


def test_evaluate_says_on_stdout_what_was_measured_and_counted(
    reward_model, write_rows, tmp_path, capsys
):
    data = write_rows(ROWS)
    words = ["evaluate", "--model", str(reward_model), "--data", str(data), "--split", "test"]
    words += ["--out", str(tmp_path / "f.json"), "--per-group", str(tmp_path / "g.jsonl")]
    assert main(words) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads((tmp_path / "f.json").read_text())
    tests = [each for each in read_comparisons(data) if each.in_split("test")]
    rows = evaluate_pairs(reward_model, tests)
    assert [row.group for row in rows] == [tests[0].group, tests[1].group, "elsewhere"]
    counted = {
        "split": "test",
        "n": 3,
        "num_groups": 3,
        "num_answers": 4,
        "num_pairs": 3 + 1 + 2 + 1,
        "num_ties": 1 + 3,
        "num_score_ties": 0,
        "left_out": {"no_strict_pair": 1, "too_long": 1},
        "num_prompts_shortened": 0,
        "votes_by_kind": {"human": 3, "simulated": 1},
    }
    assert {name: figures[name] for name in counted} == counted
    assert figures["accuracy"] == pytest.approx(sum(row.correct for row in rows) / 3)
    assert figures["log_loss"] == pytest.approx(sum(row.log_loss for row in rows) / 3)
    low, high = figures["accuracy_interval"]
    assert low <= figures["accuracy"] <= high
    written = [json.loads(line) for line in (tmp_path / "g.jsonl").read_text().splitlines()]
    assert written == [row._asdict() for row in rows]


def test_evaluate_measures_a_list_without_its_completion_that_is_too_long(
    reward_model, write_rows, tmp_path, capsys
):
    def listed(number, texts, ranking):
        made = comparison(number, [(ranking, "human")])
        for place, text in texts.items():
            made["completions"][place]["text"] = text
        return made

    long = {1: "ab" * 200}
    rows = [
        listed(0, long, [[2], [0], [1]]),
        listed(1, long, [[0, 2], [1]]),  # the rest is tied
        listed(2, {}, [[1], [0], [2]]),
    ]
    words = ["evaluate", "--model", str(reward_model), "--split", "all"]
    data = write_rows(rows)
    assert main([*words, "--data", str(data), "--report", str(tmp_path / "card")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["num_pairs"], found["num_lists_shortened"]) == (2, 4, 1)
    assert found["left_out"] == {"no_strict_pair": 0, "too_long": 1}
    card = (tmp_path / "card" / "README.md").read_text("utf-8")
    assert "Lists without a completion that is too long for the model: 1." in card
    rows[0]["completions"].pop(1)
    rows[0]["votes"][0]["ranking"].pop()
    assert main([*words, "--data", str(write_rows([rows[0], rows[2]]))]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert (found["accuracy"], found["log_loss"]) == (alone["accuracy"], alone["log_loss"])


def test_evaluate_looks_at_one_axis_when_asked(reward_model, write_rows, capsys):
    data = write_rows([comparison(0, [([[0], [1]], "human")])])
    words = ["evaluate", "--model", str(reward_model), "--data", str(data), "--split", "all"]
    assert main([*words, "--axis", "safe"]) == 2
    assert main([*words, "--axis", "helpful"]) == 0


def test_evaluate_refuses_a_split_with_nothing_to_measure(reward_model, write_rows, capsys):
    data = write_rows([comparison(0, [([[0], [1]], "human")], split="train")])
    assert main(["evaluate", "--model", str(reward_model), "--data", str(data)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "no comparison of split dev has a strict pair" in said.err
    assert "{'train': 1}" in said.err


def test_score_writes_a_line_for_every_completion(
    reward_model, write_rows, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(score, "ROWS_AT_ONCE", 2)  # several windows
    prompt = [{"role": "user", "content": "Hi"}]
    rows = [
        {"id": "a", "prompt": prompt, "completion": "One."},
        {"id": "b", "prompt": "Hi", "text": "Two."},
        {"id": "c", "prompt": "Hi", "text": "xy" * 200},
        {"id": "d", "prompt": prompt, "completion": "Three."},
        {key: value for key, value in ROWS[0].items() if key != "votes"},
    ]
    out = tmp_path / "scores.jsonl"
    words = ["--model", str(reward_model), "--data", str(write_rows(rows)), "--out", str(out)]
    assert main(["score", *words]) == 0
    assert capsys.readouterr().err == (
        "rows.jsonl holds 4 completions, 1 comparisons\n"
        "6 completions scored, 1 too long for the model\n"
    )
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    labels = [("a", None), ("b", None), ("c", None), ("d", None)]
    labels += [(f"c0x{i}", "c0") for i in range(3)]
    assert [(line["id"], line.get("comparison")) for line in written] == labels
    scorer = load_scorer(reward_model)
    expected = scorer.score([prompt] * 3, ["One.", "Two.", "Three."])
    expected += scorer.score([ROWS[0]["prompt"]] * 3, [c["text"] for c in ROWS[0]["completions"]])
    scored = [line["score"] for line in written if line["id"] != "c"]
    assert scored == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert written[2]["score"] is None
    assert "is too long: the model takes 64" in written[2]["problem"]
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_score_takes_a_precision(reward_model, write_rows, tmp_path, capsys):
    data = write_rows([{"id": "a", "prompt": "Hi", "text": "One."}])
    words = ["--model", str(reward_model), "--data", str(data), "--out", str(tmp_path / "out")]
    assert main(["score", *words, "--precision", "bf16"]) == 0
    (line,) = (tmp_path / "out").read_text().splitlines()
    expected = load_scorer(reward_model, precision="bf16").score([ASK], ["One."])
    assert json.loads(line)["score"] == pytest.approx(expected[0])
    capsys.readouterr()
    assert main(["score", *words, "--precision", "fp8"]) == 2
    assert "precision must be one of fp32, bf16, auto: 'fp8'" in capsys.readouterr().err


ASK = [{"role": "user", "content": "Hi"}]
GOOD, BAD = [[{"role": "assistant", "content": text}] for text in ("One.", "Two.")]


def test_score_reads_the_rows_of_trl_and_rewardbench(reward_model, write_rows, tmp_path, capsys):
    rows = [
        {"prompt": "Hi", "chosen": "One.", "rejected": "Two."},
        {"prompt": ASK, "chosen": GOOD, "rejected": BAD, "id": "own"},
        {"chosen": ASK + GOOD, "rejected": ASK + BAD},
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: One.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Two.",
        },
        {"id": 7, "prompt": "Hi", "chosen": "One.", "rejected": "Two.", "subset": "chat"},
        {"prompt": ASK, "completion": GOOD, "label": True},
        {"prompt": "Hi", "completion": "Two.", "label": False, "id": "thumb"},
    ]
    out = tmp_path / "scores.jsonl"
    words = ["--model", str(reward_model), "--data", str(write_rows(rows)), "--out", str(out)]
    assert main(["score", *words]) == 0
    assert capsys.readouterr().err == (
        "rows.jsonl holds 5 pairs of chosen and rejected, 2 labelled completions\n"
        "12 completions scored\n"
    )
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(line["id"], line.get("comparison")) for line in written] == [
        (name, row)
        for row in ("line-1", "own", "line-3", "line-4", "7")
        for name in ("chosen", "rejected")
    ] + [("line-6", None), ("thumb", None)]
    one, two = load_scorer(reward_model).score([ASK] * 2, ["One.", "Two."])
    assert one != two
    assert [line["score"] for line in written] == pytest.approx([one, two] * 6, abs=1e-5)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "name",
    [
        "trl/preference_conversational.jsonl",
        "trl/preference_implicit_prompt.jsonl",
        "rewardbench/sample.jsonl",
    ],
)
def test_score_reads_published_files_whole(shared_data, reward_model, tmp_path, capsys, name):
    data, out = shared_data / "formats" / name, tmp_path / "scores.jsonl"
    words = ["--model", str(reward_model), "--data", str(data), "--out", str(out)]
    assert main(["score", *words]) == 0
    rows = sum(1 for line in data.read_text(encoding="utf-8").splitlines() if line)
    assert f"holds {rows} pairs of chosen and rejected\n" in capsys.readouterr().err
    assert len(out.read_text(encoding="utf-8").splitlines()) == 2 * rows


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "b", "prompt": "Hi", "chosen": "x"}, "line 2: a preference row lacks rejected"),
        ({"id": "b", "prompt": "Hi"}, "line 2: the row lacks completion or text"),
        ({"id": "b", "text": "Two."}, "line 2: the row lacks prompt"),
        ({"id": "b", "prompt": "Hi", "text": ""}, "line 2: completion must be a string with"),
    ],
)
def test_score_refuses_a_bad_row_and_leaves_no_file(
    reward_model, write_rows, tmp_path, capsys, row, said
):
    data = write_rows([{"id": "a", "prompt": "Hi", "text": "One."}, row])
    out = tmp_path / "scores.jsonl"
    assert (
        main(["score", "--model", str(reward_model), "--data", str(data), "--out", str(out)]) == 2
    )
    assert said in capsys.readouterr().err
    assert not out.exists()
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_train_takes_settings_from_a_file_and_from_words(write_rows, tmp_path, capsys):
    settings = {"layers": 1, "heads": 2, "width": 32, "context": 64, "vocab_size": 300}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    data = write_rows([{"prompt": "Hi", "chosen": "yes", "rejected": "no"}])
    words = ["train", "--data", str(data), "--init", "none", "--out", str(tmp_path / "out")]
    words += ["--config", str(config), "--set", "seed=3", "--device", "cpu"]
    assert main(words) == 0
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["config"]["width"] == 32
    assert run["config"]["seed"] == run["seed"] == 3
    assert run["finished"] is True
    assert main(words) == 2
    assert "holds this run already, finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("epoch=2", "RewardConfig has no setting 'epoch'; it has"),
        ("epochs=0", "epochs must be above 0: 0"),
        ("epochs=1.5", "epochs must be int: 1.5"),
        ("lr_peak=-1", "lr_peak must be above 0: -1.0"),
        ("num_anchors=1", "num_anchors must be 0 or >= 2: 1"),
        ("keep=newest", "keep must be best or last: 'newest'"),
        ("width=30", "width must be a multiple of heads: 30 and 4"),
        ("warmup_fraction=1", "warmup_fraction must be in [0, 1): 1.0"),
        ("centring=-0.1", "centring must be >= 0: -0.1"),
        ("max_tokens=4", "max_tokens must be null or >= 8: 4"),
        ("vocab_size=100", "vocab_size must be >= 300: 100"),
        ("rule=worst", 'rule "worst" does nothing with members 1'),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(write_rows, tmp_path, capsys, word, said):
    data = write_rows([{"prompt": "Hi", "chosen": "yes", "rejected": "no"}])
    words = ["train", "--data", str(data), "--init", "none", "--out", str(tmp_path / "out")]
    assert main([*words, "--set", word]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_defaults_are_a_config():
    assert RewardConfig().epochs >= 1
