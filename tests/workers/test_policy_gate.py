"""workers.policy_gate: its rules against tables, what it measures against slow definitions."""

import math

import pytest
import torch

from annotation.models import ModelVersion
from annotation.services import versions
from policy.backbone import load_causal_lm, score_model_from
from policy.scoring import empty_turn_tokens, load_scorer
from policy.text import encode_completion
from tests.workers.tiny import save_again
from workers import policy_gate
from workers.generation import MODELS, Sampling, write_completions
from workers.looks import Difference
from workers.policy_gate import judge_policy, kl_of_each, policy_verdict
from workers.promotion import judge_version


def policy_numbers(**more):
    return {
        "against": "sft-1",
        "score_gain": {"mean": 0.1, "interval": [0.0, 0.2], "groups": 40},
        "kl_nats": 1.0,
        "kl_budget_nats": 10.0,
        "length_gain": {"mean": 0.0, "interval": [-1.0, 1.0], "groups": 40},
        "new_mean_tokens": 20.0,
        "old_mean_tokens": 20.0,
        **more,
    }


def policy_rule(gain, *, deviation=0.2, groups=64, look=1, **more):
    found = Difference(mean=gain, deviation=deviation, groups=groups)
    return policy_verdict(found, policy_numbers(**more), where="dev prompts", look=look)


@pytest.mark.parametrize(
    ("gain", "deviation", "verdict"),
    [
        (0.1, 0.2, "passed"),  # 0.1 +- 0.055
        (0.1, 1.0, "undecided"),
        (0.0, 0.1, "passed"),  # -0.028 to 0.028, the margin is 0.05
        (-0.04, 0.2, "undecided"),
        (-0.2, 0.2, "failed"),
    ],
)
def test_a_policy_is_better_not_worse_worse_or_undecided_by_its_score(gain, deviation, verdict):
    found = policy_rule(gain, deviation=deviation)
    assert (found.verdict, found.passed) == (verdict, verdict == "passed")


def test_an_undecided_policy_is_told_how_many_more_prompts_would_decide():
    found = policy_rule(0.1, deviation=1.0)
    more = found.numbers["look"]["more_groups"]
    assert found.why.startswith(f"Undecided: about {more} more groups of prompts would tell.")
    assert policy_rule(0.1, deviation=1.0, groups=64 + more, look=2).verdict == "passed"
    assert "may never tell" in policy_rule(-0.05, deviation=1.0).why


def test_later_looks_at_policies_claim_less():
    assert [policy_rule(0.02, deviation=0.2, look=k).verdict for k in (1, 9)] == [
        "passed",
        "undecided",
    ]


@pytest.mark.parametrize(
    ("kl_nats", "verdict"), [(10.0, "passed"), (10.1, "failed"), (math.nan, "failed")]
)
def test_a_better_policy_beyond_its_kl_budget_is_refused(kl_nats, verdict):
    found = policy_rule(0.5, kl_nats=kl_nats)
    assert found.verdict == verdict
    assert found.why.startswith("Beyond its KL budget." if verdict == "failed" else "Better.")


def said_by(*, proxy, judge, at_look):
    def gain(ends):
        return {"mean": sum(ends) / 2, "interval": ends, "groups": 40}

    return {
        "proxy": {"gain": gain(proxy)},
        "judge": {"gain": gain(judge), "gain_at_look": gain(at_look)},
    }


@pytest.mark.parametrize(
    ("judge", "at_look", "verdict", "warned"),
    [
        ([0.1, 0.3], [0.0, 0.4], "passed", False),
        ([-0.1, 0.3], [-0.2, 0.4], "passed", True),
        ([-0.3, -0.1], [-0.35, -0.05], "failed", True),
        ([-0.3, -0.1], [-0.45, 0.05], "passed", True),  # the look may not claim it
        ([-0.3, -0.1], [-math.inf, math.inf], "passed", True),
    ],
)
def test_a_judge_refuses_what_it_finds_worse_and_warns_of_a_gain_that_it_does_not_see(
    judge, at_look, verdict, warned
):
    found = policy_rule(0.5, judge=said_by(proxy=[0.2, 0.4], judge=judge, at_look=at_look))
    assert found.verdict == verdict
    assert ("the judge finds it worse" in found.why) is (verdict == "failed")
    assert any("sees no certain gain" in one for one in found.warnings) is warned


@pytest.mark.parametrize(("ends", "warned"), [([4.5, 6.0], True), ([3.5, 6.0], False)])
def test_answers_that_grew_by_more_than_a_fifth_warn(ends, warned):
    gain = {"mean": 5.0, "interval": ends, "groups": 40}
    found = policy_rule(0.5, length_gain=gain)  # a fifth of 20 tokens is 4
    assert (len(found.warnings) == 1, found.passed) == (warned, True)


@pytest.mark.parametrize(("more", "wanted"), [(None, 64 + 64), (100, 164), (3, 67), (10_000, 512)])
def test_one_more_look_at_a_policy_takes_as_many_prompts_as_were_said_to_tell(more, wanted):
    numbers = {"score_gain": {"groups": 64}, "look": {"more_groups": more}}
    version = ModelVersion(metrics={"gates_before": [{"numbers": numbers}]})
    assert policy_gate.prompts_wanted(version) == wanted
    assert policy_gate.prompts_wanted(ModelVersion(metrics={})) == 64


CONVERSATIONS = [[{"role": "user", "content": text}] for text in ("One?", "And two?", "3?")]


LETTERS = 8
"""As many as the policies below may write."""


@pytest.mark.django_db
def test_kl_is_that_of_the_slow_definition_and_zero_to_itself(make_version):
    policy, root = (MODELS.policy(make_version(n, seed=s)) for n, s in (("a", 1), ("b", 2)))
    sampling = Sampling(temperature=0.7, max_new_tokens=12)
    written = write_completions(policy, CONVERSATIONS, seeds=[1, 2, 3], sampling=sampling)
    slow = []
    for one in written:
        ids = torch.tensor([one.prompt_ids + one.sampled.tokens])
        both = []
        for model, tokenizer in (policy, root):
            with torch.no_grad():
                logits = model(ids).logits[0].double()
            logits[:, tokenizer.pad_token_id] = -1e9
            logprobs = (logits / 0.7).log_softmax(-1)
            start = len(one.prompt_ids)
            both.append(sum(float(logprobs[t - 1, ids[0, t]]) for t in range(start, ids.shape[1])))
        slow.append(both[0] - both[1])
    assert kl_of_each(root[0], written, 0.7) == pytest.approx(slow, abs=1e-4)
    assert kl_of_each(policy[0], written, 0.7) == pytest.approx([0.0] * 3, abs=1e-4)
    assert abs(sum(slow)) > 1e-2


@pytest.mark.django_db
def test_a_policy_gate_measures_score_kl_and_shape_and_keeps_its_verdict(project, ppo_version):
    verdict = judge_version(ppo_version.pk)
    ppo_version.refresh_from_db()
    gate = ppo_version.metrics["gate"]
    assert gate == verdict.as_json()
    numbers = gate["numbers"]
    assert (numbers["against"], numbers["prompts"]) == ("sft-1", "3 of dev prompts")
    assert numbers["score_gain"]["groups"] == 3
    assert numbers["kl_nats"] > 0
    assert 0 < numbers["new_mean_tokens"] <= 8
    assert 0 <= numbers["new_share_without_end"] <= 1
    assert versions.in_force(project, "policy").name == "sft-1"  # no auto_promote: an admin decides


def says_only(letter, version):
    """Make the version answer with this letter and nothing else, whatever it is asked."""
    model, tokenizer = load_causal_lm(versions.directory_of(version))
    for layer in model.model.layers:  # what is read is what is written
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    rows = model.lm_head.weight.data  # tied: every token points the same way, this one farthest
    rows[:] = 1.0
    rows[encode_completion(tokenizer, letter)[0]] = 3.0
    model.model.norm.weight.data.fill_(100.0)
    save_again(version, model, tokenizer)


def likes(letter, other, version):
    """Make the reward version score an answer of one letter far above one of the other."""
    directory = versions.directory_of(version)
    model, tokenizer = score_model_from(directory, seed=0)
    scorer = load_scorer(directory)
    with torch.no_grad():
        ends = [
            model.base_model(
                torch.tensor([scorer.encode(CONVERSATIONS[0], one * LETTERS).ids])
            ).last_hidden_state[0, -1]
            for one in (letter, other)
        ]
    towards = ends[0] - ends[1]  # (D,) a head that points there tells the two best
    model.score.weight.data[0] = 10 * towards / towards.dot(towards)
    save_again(version, model, tokenizer)


@pytest.mark.django_db
@pytest.mark.parametrize(("new", "old", "passed"), [("a", "b", True), ("b", "a", False)])
def test_a_policy_passes_where_its_answers_score_higher_and_not_where_they_score_lower(
    project, ppo_version, new, old, passed
):
    project.kl_budget_nats = 1e9
    likes("a", "b", ppo_version.reward)
    says_only(new, ppo_version)
    says_only(old, versions.in_force(project, "policy"))
    changed = ModelVersion.objects.get(pk=ppo_version.pk)  # with the new hashes of all its edges
    verdict = judge_policy(changed, project)
    gain = verdict.numbers["score_gain"]
    assert gain["mean"] > 1 if passed else gain["mean"] < -1
    assert verdict.passed is passed


@pytest.mark.django_db
def test_answers_too_long_for_the_reward_model_are_scored_cut_and_counted(project, ppo_version):
    directory = versions.directory_of(ppo_version.reward)
    model, tokenizer = score_model_from(directory, seed=0)
    model.config.max_position_embeddings = empty_turn_tokens(tokenizer) + 5
    save_again(ppo_version.reward, model, tokenizer)
    says_only("a", ppo_version)  # to the end, LETTERS tokens and one for the end
    changed = ModelVersion.objects.get(pk=ppo_version.pk)
    numbers = judge_policy(changed, project).numbers
    assert numbers["new_num_read_cut"] == 3 * policy_gate.SAMPLES_PER_PROMPT


@pytest.mark.django_db
def test_both_policies_are_tried_at_the_temperature_and_length_that_ppo_trained_with(
    project, ppo_version, monkeypatch
):
    ppo_version.job.config = {"temperature": 0.3, "max_response_tokens": 5}
    tempers, kl_temperatures = [], []

    def write(*arguments, sampling, **named):
        tempers.append(sampling)
        return write_completions(*arguments, sampling=sampling, **named)

    def kl(root, written, temperature):
        kl_temperatures.append(temperature)
        return kl_of_each(root, written, temperature)

    monkeypatch.setattr(policy_gate, "write_completions", write)
    monkeypatch.setattr(policy_gate, "kl_of_each", kl)
    judge_policy(ppo_version, project)
    assert tempers == [Sampling(temperature=0.3, max_new_tokens=5)] * 2
    assert kl_temperatures == [0.3]
