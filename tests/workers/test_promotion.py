"""workers.promotion: the gates' rules against tables, their measuring against slow definitions."""

import json
import math

import pytest
import torch
from django.db import OperationalError

from annotation.errors import BadInput, Conflict
from annotation.mails import text_of
from annotation.models import (
    DatasetSnapshot,
    JobKind,
    Mail,
    ModelVersion,
    Promotion,
    Role,
    TrainingJob,
)
from annotation.services import jobs, queue, snapshots, versions
from annotation.services.gates import look_again
from annotation.services.ledger import add_prompt
from annotation.services.rankings import AxisRanking
from policy.backbone import load_causal_lm, save_model, score_model_from
from policy.comparisons import PairTable
from policy.score_scale import ScoreScale
from policy.scoring import empty_turn_tokens, load_scorer
from policy.text import encode_completion
from rewardmodel.evaluate import Evaluation, Judged, PairRow
from rewardmodel.invariance import Invariance
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_member,
    make_project,
)
from tests.workers.tiny import tiny_policy, tiny_reward
from workers import policy_gate, promotion
from workers.generation import MODELS, Sampling, write_completions
from workers.looks import Difference
from workers.policy_gate import judge_policy, kl_of_each, policy_verdict
from workers.promotion import judge_version
from workers.reward_figures import Seen, examined
from workers.reward_gate import dev_comparisons, first_reward, reward_against


def rows(*groups, log_loss=0.5):
    """(group, correct) pairs as PairRow."""
    return [PairRow(group, log_loss, correct, 1.0) for group, correct in groups]


# --- the rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "correct", "verdict"),
    [
        (40, 0.51, "first"),
        (40, 0.5, "failed"),
        (40, 0.2, "failed"),
        (19, 0.2, "unjudged"),
        (0, 0.0, "unjudged"),
    ],
)
def test_a_first_reward_model_beats_a_coin_unless_dev_is_too_small(groups, correct, verdict):
    found = first_reward(rows(*[(str(n), correct) for n in range(groups)]))
    assert found.verdict == verdict
    assert found.passed is (verdict != "failed")


def test_a_first_reward_model_whose_interval_holds_a_coin_fails():
    assert not first_reward(mixed(0.55)).passed  # 0.55 +- 0.1 on a hundred groups
    assert first_reward(mixed(0.65)).passed


def mixed(share, count=100):
    """`count` groups, of which a share is right."""
    return rows(*[(str(n), float(n < share * count)) for n in range(count)])


@pytest.mark.parametrize(
    ("new", "passed"),
    [(0.9, True), (0.8, True), (0.79, True), (0.6, False)],  # the old one has 0.8
)
def test_a_reward_model_may_be_worse_within_the_interval_and_not_beyond(new, passed):
    verdict = reward_against(mixed(new), mixed(0.8), "reward-1")
    assert verdict.passed is passed
    assert "against reward-1" in verdict.why.lower()


def test_a_worse_log_loss_alone_fails_it_too():
    new = [row._replace(log_loss=0.9) for row in mixed(0.8)]
    assert not reward_against(new, mixed(0.8), "r").passed


def test_without_dev_answers_it_passes_and_says_so():
    verdict = reward_against([], [], "r")
    assert (verdict.passed, verdict.verdict) == (True, "unjudged")
    assert "unjudged" in verdict.why


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


# --- measuring with real models -----------------------------------------------------------------


@pytest.fixture
def make_version(artifacts, project):
    def make(name, *, kind="policy", stage="registered", seed=0, **edges):
        folder = artifacts / "models" / name
        if kind == "policy":
            tiny_policy(folder, seed=seed)
        else:
            tiny_reward(folder, versions.directory_of(edges.pop("trunk")), seed=seed)
        job = None
        if stage != "registered":
            job = jobs.request_training(
                project=project,
                kind=stage,
                config={"max_response_tokens": 8} if stage == "ppo" else {},
            )
            jobs.claim_job(job_id=job.pk, worker="w")
            jobs.finish_job(job_id=job.pk, attempt=1)
        return versions.register_version(kind=kind, stage=stage, directory=folder, job=job, **edges)

    return make


CONVERSATIONS = [[{"role": "user", "content": text}] for text in ("One?", "And two?", "3?")]


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
def test_the_first_sft_version_becomes_the_policy_and_its_samples_are_asked_for(
    project, make_version
):
    version = make_version("sft-1", stage="sft")
    assert list(versions.versions_without_verdict()) == [version]
    assert judge_version(version.pk).verdict == "first"
    assert versions.in_force(project, "policy") == version
    assert TrainingJob.objects.filter(kind=JobKind.SAMPLE, status="queued").count() == 1
    assert judge_version(version.pk) is None  # delivered twice
    assert Promotion.objects.count() == 1
    later = make_version("sft-2", stage="sft")
    assert not judge_version(later.pk).passed
    assert versions.in_force(project, "policy") == version


def test_a_refusal_is_told_to_the_admins_and_a_pass_is_not(project, make_version, settings):
    settings.MAILS = {"DEFAULT_FROM_EMAIL": "concord@concord.example"}
    admin = make_member(project, Role.ADMIN)
    admin.email = "ann@x.example"
    admin.save()
    judge_version(make_version("sft-1", stage="sft").pk)
    later = judge_version(make_version("sft-2", stage="sft").pk)  # waits, and nothing refused it
    assert (later.passed, later.verdict) == (False, "unjudged")
    refused = make_version("ppo-1", stage="ppo")
    assert not judge_version(refused.pk).passed
    [mail] = Mail.objects.all()
    assert (mail.kind, mail.event, mail.user) == ("gate_refused", f"gate:{refused.pk}", admin)
    subject, text = text_of(mail)
    assert subject == f"{project.name}: the gate refused ppo-1"
    assert "was made without a reward model or a reference." in text
    assert f"/p/{project.slug}/versions/{refused.pk}/" in text


@pytest.fixture
def ppo_version(project, make_version):
    root = make_version("sft-1", stage="sft", seed=1)
    versions.promote(project=project, slot="policy", version=root, verdict="first")
    reward = make_version("r", kind="reward", trunk=root)
    for n in range(3):
        add_prompt(
            project=project,
            source=project.sources.get(),
            messages=[{"role": "user", "content": f"Question {n}?"}],
            split="dev",
        )
    return make_version("ppo-1", stage="ppo", seed=2, reference=root, reward=reward)


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


def save_again(version, model, tokenizer):
    """Change the files of a version, and the hash by which loaded models are kept."""
    directory = versions.directory_of(version)
    save_model(model, tokenizer, directory)
    version.sha256 = versions.sha256_of_directory(directory)
    version.save()


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


LETTERS = 8
"""As many as the policies below may write."""


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


@pytest.mark.django_db
@pytest.mark.parametrize("auto_promote", [True, False])
def test_a_pass_promotes_only_where_the_project_says_so(
    project, ppo_version, monkeypatch, auto_promote
):
    project.auto_promote = auto_promote
    project.save()
    passed = promotion.Verdict(passed=True, verdict="passed", why="", numbers={"x": 1})
    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, lambda version, project: passed)
    judge_version(ppo_version.pk)
    in_force = Promotion.objects.in_force(project, "policy")
    assert (in_force.version == ppo_version) is auto_promote
    assert (in_force.verdict, in_force.numbers.get("numbers")) == (
        ("passed", {"x": 1}) if auto_promote else ("first", None)
    )


@pytest.fixture
def dev_answers(project):
    """Six, to a prompt each."""
    annotator = make_annotator(project)
    make_comparisons(project, 6)
    project.prompts.update(split="dev")
    for _ in range(6):
        lease = queue.claim_comparison(annotator=annotator)
        queue.submit_preference(assignment=lease, rankings=as_shown(lease), key=str(lease.pk))


@pytest.mark.django_db
def test_reward_models_are_judged_on_dev_answers_the_second_against_the_first(
    project, make_version, dev_answers
):
    trunk = make_version("p")
    first = make_version("r1", kind="reward", stage="reward", trunk=trunk, seed=1)
    verdict = judge_version(first.pk)
    assert (verdict.verdict, verdict.numbers["groups"]) == ("unjudged", 6)
    assert versions.in_force(project, "reward") is None  # an admin decides
    versions.promote(project=project, slot="reward", version=first, verdict="by_admin")
    second = make_version("r2", kind="reward", stage="reward", trunk=trunk, seed=2)
    numbers = judge_version(second.pk).numbers
    assert numbers["batch_difference"] < 1e-5
    assert numbers["length_bias"]["new"] is None  # the texts are of one length
    assert numbers["calibration"]["old"] != numbers["calibration"]["new"]
    assert numbers["against"] == "r1"
    assert numbers["accuracy_difference"]["groups"] == 6
    assert numbers["accuracy_difference"]["mean"] == pytest.approx(
        numbers["accuracy"] - verdict.numbers["accuracy"]
    )
    assert numbers["log_loss_difference"]["mean"] == pytest.approx(
        numbers["log_loss"] - verdict.numbers["log_loss"]
    )


@pytest.mark.django_db
def test_a_reward_model_whose_scores_are_no_numbers_is_refused_once_and_for_all(
    project, make_version, dev_answers
):
    trunk = make_version("p")
    first = make_version("r1", kind="reward", stage="reward", trunk=trunk, seed=1)
    versions.promote(project=project, slot="reward", version=first, verdict="by_admin")
    broken = make_version("r2", kind="reward", stage="reward", trunk=trunk, seed=2)
    model, tokenizer = score_model_from(versions.directory_of(broken), seed=0)
    model.score.weight.data.fill_(math.nan)
    save_again(broken, model, tokenizer)
    assert judge_version(broken.pk).why == "Some of its scores are no numbers (NaN or infinite)."
    broken.refresh_from_db()
    gate = broken.metrics["gate"]
    assert (gate["passed"], gate["verdict"]) == (False, "failed")
    numbers = gate["numbers"]
    assert (numbers["batch_difference"], numbers["log_loss"]) == (None, None)
    assert numbers["log_loss_difference"] == {"mean": None, "interval": [None] * 2, "groups": 6}
    assert numbers["old_log_loss"] > 0
    assert broken not in versions.versions_without_verdict()
    assert judge_version(broken.pk) is None


@pytest.mark.django_db
def test_a_verdict_that_cannot_be_stored_is_a_gate_that_failed(project, ppo_version, monkeypatch):
    passed = promotion.Verdict(passed=True, verdict="passed", why="", numbers={"x": object()})
    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, lambda version, project: passed)
    with pytest.raises(TypeError, match="not JSON serializable"):
        judge_version(ppo_version.pk)
    gate = ModelVersion.objects.get(pk=ppo_version.pk).metrics["gate"]
    assert (gate["passed"], gate["numbers"]) == (False, {})
    assert gate["why"].startswith("The gate itself failed: TypeError: ")
    assert judge_version(ppo_version.pk) is None


def seen(*pairs, deviation=1.0, difference=0.0):
    """(score margin of the first, characters of both, share of votes for the first) as a model saw
    them, a group each."""
    judged = [
        Judged(
            place=number,
            kept=(0, 1),
            group=f"g{number}",
            scores=(margin, 0.0),
            chars=chars,
            votes=(),
            table=PairTable(((0, 1),), (share,), (1.0,), num_strict=1, num_answers=1, num_ties=0),
            labels={},
        )
        for number, (margin, chars, share) in enumerate(pairs)
    ]
    evaluation = Evaluation(scale=ScoreScale(deviation=deviation), judged=judged)
    return Seen(evaluation, Invariance(2, difference))


BETTER_ONE = promotion.Verdict(passed=True, verdict="passed", why="Better.", numbers={"x": 1})


@pytest.mark.parametrize("sound", [True, False])
def test_a_reward_model_whose_scores_depend_on_the_batch_is_refused(sound):
    model = seen((1.0, (5, 5), 1.0), difference=9e-4 if sound else 1.1e-3)
    found = examined(BETTER_ONE, model)
    assert (found.passed, found.verdict) == ((True, "passed") if sound else (False, "failed"))
    assert sound or found.why.endswith("differs by 1.1e-03, and 1e-03 is allowed.")
    assert found.numbers["x"] == 1


@pytest.mark.parametrize(
    ("margin", "difference"), [(math.nan, 0.0), (math.inf, 0.0), (1.0, math.inf)]
)
def test_a_reward_model_with_one_score_that_is_no_number_is_refused(margin, difference):
    pairs = [(1.0, (5, 5), 1.0), (margin, (5, 5), 1.0)]
    found = examined(BETTER_ONE, seen(*pairs, difference=difference))
    assert (found.passed, found.why[:26]) == (False, "Some of its scores are no ")
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("deviation", "warned"),
    [
        (1.0, ""),
        (5.0, "Too sure of itself"),
        (500.0, "Far too sure of itself: its log odds times 0.01, or less,"),
        (0.2, "Less sure"),
        (1e-3, "Far less sure than it could be: its log odds times 100.00, or more,"),
        (-1.0, "It prefers what people reject"),
    ],
)
def test_certainty_that_is_off_warns_and_passes(deviation, warned):
    # 88 of a hundred right at log odds of 2 is as it should be
    pairs = [(2.0, (5, 5), float(number % 100 < 88)) for number in range(400)]
    found = examined(BETTER_ONE, seen(*pairs, deviation=deviation))
    assert found.passed
    assert [one.startswith(warned) for one in found.warnings] == [True] * bool(warned)


@pytest.mark.parametrize(("share", "warned"), [(0.5, True), (0.88, False)])
def test_following_length_more_than_people_do_warns_and_passes(share, warned):
    pairs = [(2.0, (50, 5), float(number % 100 < 100 * share)) for number in range(400)]
    found = examined(BETTER_ONE, seen(*pairs))
    assert found.passed
    assert any("the longer answer to win 88.1%" in one for one in found.warnings) is warned
    assert found.numbers["length_bias"]["new"]["excess"]["groups"] == 400


@pytest.mark.django_db
def test_an_undecided_version_is_promoted_by_nobody_but_an_admin_and_judged_again(
    project, make_version, monkeypatch
):
    project.auto_promote = True
    project.save()
    undecided = promotion.Verdict(passed=False, verdict="undecided", why="?", numbers={})
    monkeypatch.setitem(promotion.JUDGES, JobKind.REWARD, lambda version, project: undecided)
    version = make_version("r1", kind="reward", stage="reward", trunk=make_version("p"))
    version.snapshot = snapshots.freeze(project=project, kind="comparisons")
    version.save()
    judge_version(version.pk)
    assert versions.in_force(project, "reward") is None
    ada = make_member(project, "admin")
    look_again(version=version, project=project, by=ada)
    assert list(versions.versions_without_verdict()) == [version]
    version.refresh_from_db()
    assert [gate["why"] for gate in version.metrics["gates_before"]] == ["?"]
    frozen = DatasetSnapshot.objects.count()
    dev_comparisons(version, project)  # of now, and not those of its snapshot
    assert DatasetSnapshot.objects.count() == frozen + 1
    with pytest.raises(Conflict, match="r1 is not undecided"):
        look_again(version=version, project=project, by=ada)
    judge_version(version.pk)
    version.refresh_from_db()
    versions.promote(project=project, slot="reward", version=version, verdict="by_admin")
    with pytest.raises(Conflict):
        look_again(version=version, project=project, by=ada)


@pytest.mark.parametrize(("more", "wanted"), [(None, 64 + 64), (100, 164), (3, 67), (10_000, 512)])
def test_one_more_look_at_a_policy_takes_as_many_prompts_as_were_said_to_tell(more, wanted):
    numbers = {"score_gain": {"groups": 64}, "look": {"more_groups": more}}
    version = ModelVersion(metrics={"gates_before": [{"numbers": numbers}]})
    assert policy_gate.prompts_wanted(version) == wanted
    assert policy_gate.prompts_wanted(ModelVersion(metrics={})) == 64


@pytest.mark.django_db
def test_a_reward_model_is_judged_on_dev_answers_of_its_axis_alone(make_version):
    project = make_project(axes=("helpful", "brief"))
    annotator = make_annotator(project)
    make_comparisons(project, 4)
    for split, prompt in zip(["dev", "dev", "train", "test"], project.prompts.all()):
        prompt.split = split
        prompt.save()
    for _ in range(4):
        lease = queue.claim_comparison(annotator=annotator)
        order = [[pk] for pk in lease.presented_order]
        rankings = [
            AxisRanking(axis="helpful", groups=order),
            AxisRanking(axis="brief", groups=order[::-1]),
        ]
        queue.submit_preference(assignment=lease, rankings=rankings, key=str(lease.pk))
    job = jobs.request_training(project=project, kind="reward", config={"axis": "brief"})
    version = make_version("r", kind="reward", stage="reward", trunk=make_version("p"))
    version.job = job
    version.snapshot = snapshots.freeze(project=project, kind="comparisons")
    found = dev_comparisons(version, project)
    assert len(found) == 2
    by_text = {row.id: row for row in found}
    for comparison in project.comparisons.filter(prompt__split="dev"):
        shown = comparison.assignments.get().presented_order
        stored = list(comparison.entries.values_list("completion_id", flat=True))
        row = by_text[str(comparison.pk)]
        [(first, second)], [target] = row.table.pairs, row.table.targets
        assert stored[first if target == 1.0 else second] == shown[1]  # brief's order
    for axes in [("brief",), ("brief", "helpful")]:
        job.config = {"axes": dict.fromkeys(axes, 1.0)}
        told = dev_comparisons(version, project)
        assert [sorted(vote.axis for vote in row.votes) for row in told] == [list(axes)] * 2


@pytest.mark.django_db
def test_a_gate_that_breaks_is_a_failed_verdict_and_not_tried_again(
    project, ppo_version, monkeypatch
):
    def broken(version, project):
        raise KeyError("surprise")

    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, broken)
    with pytest.raises(KeyError):
        judge_version(ppo_version.pk)
    gate = ModelVersion.objects.get(pk=ppo_version.pk).metrics["gate"]
    assert (gate["passed"], gate["why"]) == (False, "The gate itself failed: KeyError: 'surprise'")
    assert judge_version(ppo_version.pk) is None


@pytest.mark.django_db
def test_a_gate_that_the_ledger_let_down_keeps_no_verdict_and_is_tried_again(
    project, ppo_version, monkeypatch
):
    def locked(version, project):
        raise OperationalError("database is locked")

    with monkeypatch.context() as patch:
        patch.setitem(promotion.JUDGES, JobKind.PPO, locked)
        with pytest.raises(OperationalError):
            judge_version(ppo_version.pk)
    assert ppo_version in versions.versions_without_verdict()
    assert judge_version(ppo_version.pk) is not None


@pytest.mark.django_db
def test_a_verdict_is_kept_though_its_promotion_fails_and_says_so(
    project, ppo_version, monkeypatch
):
    project.auto_promote = True
    project.job_defaults = {"inputs": {"sample": 5}}  # the sample job cannot be asked for
    project.save()
    passed = promotion.Verdict(passed=True, verdict="passed", why="It is better.", numbers={})
    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, lambda version, project: passed)
    with pytest.raises(BadInput, match="inputs must be a JSON object: 5"):
        judge_version(ppo_version.pk)
    gate = ModelVersion.objects.get(pk=ppo_version.pk).metrics["gate"]
    assert (gate["passed"], gate["verdict"]) == (True, "passed")
    assert gate["why"].startswith("It is better. Promoting it failed: BadInput: ")
    assert versions.in_force(project, "policy").name == "sft-1"
    assert judge_version(ppo_version.pk) is None


@pytest.mark.django_db
def test_of_two_workers_with_the_same_version_the_first_verdict_stands(
    project, ppo_version, monkeypatch
):
    mine = promotion.Verdict(passed=True, verdict="passed", why="mine", numbers={})

    def slow(version, project):
        ModelVersion.objects.filter(pk=version.pk).update(metrics={"gate": {"why": "theirs"}})
        return mine

    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, slow)
    project.auto_promote = True
    project.save()
    assert judge_version(ppo_version.pk) is None
    assert ModelVersion.objects.get(pk=ppo_version.pk).metrics == {"gate": {"why": "theirs"}}
    assert versions.in_force(project, "policy").name == "sft-1"


@pytest.mark.django_db
def test_an_admin_who_was_quicker_than_the_gate_is_no_error(project, ppo_version, monkeypatch):
    project.auto_promote = True
    project.save()
    versions.promote(project=project, slot="policy", version=ppo_version, verdict="by_admin")
    passed = promotion.Verdict(passed=True, verdict="passed", why="", numbers={})
    monkeypatch.setitem(promotion.JUDGES, JobKind.PPO, lambda version, project: passed)
    assert judge_version(ppo_version.pk) is passed
    assert Promotion.objects.in_force(project, "policy").verdict == "by_admin"
