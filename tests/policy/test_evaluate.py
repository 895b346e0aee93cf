"""`policy evaluate`: figures against hand-made ones, the splits it keeps to, and its page."""

import json
from html.parser import HTMLParser

import pytest
import torch

from policy.__main__ import main
from policy.answer_figures import (
    Answered,
    comparison_of,
    figures_of,
    kl_of,
    outcome,
    scored_of,
)
from policy.backbone import forward_logits, load_causal_lm, save_model, score_model_from
from policy.config import BadInput
from policy.data import PromptRow
from policy.evaluate import EvaluateConfig, prompts_of
from policy.evaluate_page import page
from policy.rollout import PromptTokens, repetition
from policy.sample import Answer
from policy.sampling import Sampled
from policy.scoring import load_scorer


def answer(prompt, tokens, *, n=0, text="", finish="end", dropped=0):
    messages = [{"role": "user", "content": prompt}]
    read = PromptTokens(prompt, messages, [4, 7, 2, 5], dropped)
    return Answer(read, n, 0, Sampled(tokens, [-1.0] * len(tokens), finish), text)


def test_repetition_is_the_share_of_grams_that_stood_before():
    assert repetition([1, 2, 3, 4, 5]) == 0.0
    assert repetition([1, 1, 1, 1, 1, 1]) == pytest.approx(2 / 3)  # three 4-grams, one distinct
    assert repetition([7, 8, 9, 9, 7, 8, 9, 9]) == pytest.approx(1 / 5)
    assert repetition([1, 2, 3]) == 0.0  # no 4-gram at all


def test_figures_of_a_hand_made_table():
    answers = [
        answer("p", [7, 7, 2], n=0, text="a a"),
        answer("p", [7, 8], n=1, text="a b", finish="length"),
        answer("q", [2], n=0, text="", dropped=1),
        answer("q", [7, 8, 2], n=1, text="a b", dropped=1),
    ]
    found = figures_of(Answered(answers, scores={"rm": [1.0, 2.0, 3.0, 6.0]}))
    (score,) = found["score"]
    assert score["mean"] == 3.0
    assert score["groups"] == 2
    assert score["interval"] == pytest.approx([1.5, 4.5])  # draws of two prompts: pp, pq or qq
    assert found["response_tokens"]["mean"] == 2.25
    assert found["response_characters"]["mean"] == 2.25
    assert found["without_end"]["mean"] == 0.25
    assert found["distinct_1"] == pytest.approx(3 / 9)
    assert found["distinct_2"] == pytest.approx(4 / 5)  # aa a| ab ab b|
    assert (found["num_empty"], found["num_prompts_cut"], found["kl_nats"]) == (1, 1, None)


def test_a_tie_is_half_and_a_rounding_is_a_tie():
    assert [outcome(1.0, 0.0), outcome(0.0, 1.0), outcome(2.0, 2.0)] == [1.0, 0.0, 0.5]
    assert outcome(100.0, 100.0005) == 0.5
    assert outcome(0.0, 0.0005) == 0.0
    answers = [answer(prompt, [2]) for prompt in "pqrs"]
    own = Answered(answers, scores={"a": [1.0, 2.0, 3.0, 4.0], "b": [0.0] * 4})
    other = Answered(answers, scores={"a": [0.0, 2.0, 5.0, 1.0], "b": [0.0] * 4})
    first, second = comparison_of(own, other)
    assert (first["num_wins"], first["num_ties"], first["num_losses"]) == (2, 1, 1)
    assert first["win_rate"]["mean"] == pytest.approx(2.5 / 4)
    assert first["gain"]["mean"] == pytest.approx((1 + 0 - 2 + 3) / 4)
    assert (second["win_rate"]["mean"], second["win_rate"]["interval"]) == (0.5, [0.5, 0.5])


def test_kl_is_its_definition_written_slowly(tiny_policy):
    policy, _ = load_causal_lm(tiny_policy())
    reference, _ = load_causal_lm(tiny_policy(seed=1, name="reference"))
    answers = [answer("p", [7, 9, 2]), answer("q", [8])]
    found = kl_of(policy, reference, answers, temperature=0.7)
    for at, one in enumerate(answers):
        ids = torch.tensor([[*one.prompt.ids, *one.sampled.tokens]])
        k1 = k3 = 0.0
        with torch.no_grad():
            p, q = (
                (forward_logits(model, ids, ids >= 0)[0] / 0.7).log_softmax(-1)
                for model in (policy, reference)
            )
        for place, token in enumerate(one.sampled.tokens):
            ratio = (q - p)[len(one.prompt.ids) + place - 1, token].item()
            k1 -= ratio
            k3 += torch.tensor(ratio).exp().item() - 1 - ratio
        assert found["k1"][at] == pytest.approx(k1, abs=1e-5)
        assert found["k3"][at] == pytest.approx(k3, abs=1e-5)


@pytest.fixture
def reward_model(letters, tiny_policy, tmp_path):
    """A function that saves a reward model with opinions and returns its folder."""

    def make(name, seed):
        model, tokenizer = score_model_from(tiny_policy(seed=seed, name=f"{name}-trunk"), seed=seed)
        with torch.no_grad():
            model.score.weight.mul_(30)
        save_model(model, tokenizer, tmp_path / name)
        return tmp_path / name

    return make


def test_a_cut_answer_is_scored_as_if_it_had_ended(letters, reward_model):
    scorer = load_scorer(reward_model("rm", 3))
    cut, whole = answer("a", [7, 8], finish="length"), answer("a", [7, 8, letters.eos_token_id])
    answers = [cut, whole, answer("a", [8, 2])]
    one, other, text = (each.score for each in scored_of(scorer, letters, answers))
    assert one == pytest.approx(other, abs=1e-6)
    assert one != pytest.approx(text, abs=1e-3)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"id": f"p{i}", "split": split, "prompt": "a b c d e f"[: 2 * i + 1], "language": "zh"}
        for i, split in enumerate(("dev", "train", "dev", "test", "dev", None))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_writes_figures_answers_and_a_page(
    tiny_policy, reward_model, prompts, tmp_path, capsys
):
    command = ["evaluate", "--model", str(tiny_policy()), "--prompts", str(prompts)]
    command += ["--against", str(tiny_policy(seed=1, name="other")), "--out", str(tmp_path / "out")]
    command += ["--reference", str(tmp_path / "init"), "--set", "max_new_tokens=6", "--set", "n=2"]
    for name, seed in {"first": 3, "second": 4}.items():
        command += ["--reward-model", str(reward_model(name, seed))]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert said["comparison"] == figures["comparison"]
    assert (figures["split"], figures["num_prompts"]) == ("dev", 3)
    assert figures["model"]["kl_nats"]["k1"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert figures["against"]["kl_nats"]["k3"]["mean"] > 0.01
    rows = [
        json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()
    ]
    assert [(row["policy"], row["prompt_id"], row["n"]) for row in rows] == [
        (role, name, n)
        for role in ("model", "against")
        for name in ("p0", "p2", "p4")
        for n in (0, 1)
    ]
    first = str(tmp_path / "first")
    mean = sum(row["scores"][first] for row in rows[:6]) / 6
    assert figures["model"]["score"][0]["mean"] == pytest.approx(mean)
    assert [row["seed"] for row in rows[:6]] == [row["seed"] for row in rows[6:]]
    assert "<script" not in (tmp_path / "out" / "samples.html").read_text().lower()
    # the same policy on both sides ties everywhere; greedy answers tell nothing of KL
    command[command.index("--against") + 1] = str(tmp_path / "init")
    assert main([*command, "--set", "temperature=0", "--split", "test"]) == 0
    again = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (again["comparison"][0]["num_ties"], again["num_prompts"]) == (2, 1)
    assert again["model"]["kl_nats"] is None


def test_test_prompts_are_answered_only_when_asked_for_by_name(prompts):
    assert [row.id for row in prompts_of(prompts, EvaluateConfig().split)] == ["p0", "p2", "p4"]
    assert [row.id for row in prompts_of(prompts, "none")] == ["p5"]
    with pytest.raises(BadInput, match="split must be one of dev, train, test, none: 'all'"):
        EvaluateConfig(split="all")
    prompts.write_text('{"id": "p", "split": "train", "prompt": "a"}\n')
    with pytest.raises(BadInput, match="no prompt of the split 'dev'; it holds 1 train"):
        prompts_of(prompts, "dev")


class Tags(HTMLParser):
    """What a browser would see as elements, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.names, self.data = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.data.append(data)


def test_the_page_escapes_what_models_and_people_wrote():
    evil = "</div><script>alert(1)</script><img src=x onerror=alert(2)> 你好"
    row = PromptRow("p", "dev", [{"role": "user", "content": evil}], {"language": '"><script>'})
    answered = Answered([answer("p", [7], text=evil)], scores={"r/<script>": [1.0]})
    figures = {
        "inputs": {"model": {"path": "<script>"}},
        "reward_models": [{"path": "r/<script>", "weak": "<script>"}],
        "config": {"temperature": 0.7, "n": 1, "seed": 0},
        "split": "dev",
        "num_prompts": 1,
        "model": figures_of(answered),
    }
    seen = Tags(page(figures, {"model": answered}, [row], shown=3, seed=0))
    assert not seen.names & {"script", "img"}
    assert seen.data.count(evil) == 6  # prompt and answer, by lot, as the lowest and the highest


def test_the_page_says_which_reward_model_read_answers_cut_and_how_many():
    row = PromptRow("p", "dev", [{"role": "user", "content": "a"}], {})
    scores = {"r/one": [1.0], "r/two": [2.0]}
    found = {
        "model": Answered([answer("p", [7])], scores=scores, num_read_cut={"r/one": 0, "r/two": 1}),
        "against": Answered([answer("p", [8])], scores=scores),
    }
    figures = {
        "inputs": {"model": {"path": "m"}, "against": {"path": "n"}},
        "reward_models": [{"path": path, "weak": None} for path in scores],
        "config": {"temperature": 0.7, "n": 1, "seed": 0},
        "split": "dev",
        "num_prompts": 1,
        **{role: figures_of(answered) for role, answered in found.items()},
    }
    data = Tags(page(figures, found, [row], shown=1, seed=0)).data
    at = data.index("Scored cut · 截断后评分, two")
    assert data[at + 1 : at + 3] == ["1", "0"]
    assert not [text for text in data if text.startswith("Scored cut") and "two" not in text]


@pytest.mark.parametrize("option", ["--reward-model", "--against", "--reference"])
def test_what_cannot_serve_is_refused_before_a_word_is_sampled(
    tiny_policy, reward_model, prompts, tmp_path, monkeypatch, capsys, option
):
    monkeypatch.setattr("policy.evaluate.answers", None)  # calling it is a TypeError
    command = ["evaluate", "--model", str(tiny_policy()), "--prompts", str(prompts)]
    command += ["--reward-model", str(reward_model("first", 3)), "--out", str(tmp_path / "out")]
    assert main([*command, option, str(tmp_path / "nowhere"), "--set", "max_new_tokens=4"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main([*command, "--set", "max_new_tokens=31"]) == 2
    assert "max_new_tokens 31 is too long for the reward model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
