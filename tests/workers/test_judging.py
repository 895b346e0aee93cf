"""The judge in the workers: what its job reads, its gate, and what it says of a policy."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from annotation.errors import BadInput
from annotation.models import JobKind, JobStatus, Promotion, Slot, TrainingJob
from annotation.services import jobs, queue, versions
from annotation.services.judges import saw_other_groups
from policy.scoring import load_scorer
from rewardmodel.bootstrap import PairRow
from rewardmodel.evaluate import Evaluation
from rewardmodel.invariance import Invariance
from tests.annotation.making import as_shown, make_annotator, make_comparisons, make_prompts
from tests.workers.tiny import tiny_policy, tiny_reward
from workers import judging, policy_gate
from workers.datasets import freeze_inputs, job_folder
from workers.promotion import judge_version
from workers.reward_figures import Seen

pytestmark = pytest.mark.django_db


@pytest.fixture
def voted(project):
    """Eight train comparisons, each of a group of its own, and three of dev, all answered."""
    annotator = make_annotator(project)
    make_comparisons(project, 11)
    for number, prompt in enumerate(project.prompts.order_by("pk")):
        prompt.split, prompt.split_group = ("dev" if number >= 8 else "train"), f"g{number}"
        prompt.save()
    for _ in range(11):
        lease = queue.claim_comparison(annotator=annotator)
        queue.submit_preference(assignment=lease, rankings=as_shown(lease), key=str(lease.pk))
    return project


def claim(job):
    return jobs.claim_job(job_id=job.pk, worker="w")


def train_prompts(job):
    arguments = freeze_inputs(job)
    lines = Path(arguments[arguments.index("--data") + 1]).read_text().splitlines()
    rows = map(json.loads, lines)
    return {row["prompt"][0]["content"] for row in rows if row["split"] == "train"}


def test_a_reward_job_and_the_judge_that_it_asks_for_read_groups_of_their_own(voted):
    wish = {"init": "none", "judge_share": 0.5}
    job = claim(jobs.request_training(project=voted, kind="reward", inputs=wish))
    of_reward = train_prompts(job)
    judge = TrainingJob.objects.get(kind=JobKind.JUDGE)
    assert train_prompts(job) == of_reward  # a second attempt asks for no second judge
    assert TrainingJob.objects.filter(kind=JobKind.JUDGE).get() == judge
    of_judge = train_prompts(claim(judge))
    assert not of_reward & of_judge
    assert len(of_reward) + len(of_judge) == 8
    assert min(len(of_reward), len(of_judge)) > 0
    job.refresh_from_db()
    assert job.snapshot.query["groups"] == {"side": "reward", "judge_share": 0.5, "seed": 0}


def test_what_a_judge_starts_from_is_chosen_once(voted, make_version):
    first = make_version("p", stage="pretrain")
    wish = {"init": first, "inputs": {"judge_share": 0.5}}
    judge = claim(jobs.request_training(project=voted, kind="judge", **wish))
    train_prompts(judge)
    own = make_version("o", stage="pretrain", seed=1)
    TrainingJob.objects.filter(pk=own.job_id).update(inputs={"judge_of": first.job_id})
    train_prompts(judge)
    judge.refresh_from_db()
    assert judge.init == first
    other = claim(jobs.request_training(project=voted, kind="judge", lane="experiment", **wish))
    train_prompts(other)
    assert other.init == own


def test_a_small_project_keeps_all_its_groups_for_the_reward_model(voted):
    job = claim(jobs.request_training(project=voted, kind="reward", inputs={"init": "none"}))
    assert len(train_prompts(job)) == 8
    job.refresh_from_db()
    assert job.inputs["judge_share"] == 0.0
    assert not TrainingJob.objects.filter(kind=JobKind.JUDGE).exists()


def test_a_judge_without_groups_of_its_own_is_refused(voted):
    judge = claim(jobs.request_training(project=voted, kind="judge", inputs={"init": "none"}))
    with pytest.raises(BadInput, match="A judge learns from groups that the reward model goes"):
        freeze_inputs(judge)


def test_the_judges_pretraining_reads_the_files_of_the_first_and_no_sft_starts_from_it(
    project, settings, tmp_path, make_version
):
    settings.DATA_DIRS = [tmp_path]
    names = [f"{number}.txt" for number in range(11)]
    for name in names:
        (tmp_path / name).write_text(name)
    first = claim(jobs.request_training(project=project, kind="pretrain", inputs={"data": names}))
    files = freeze_inputs(first)[3:]
    again = jobs.request_training(project=project, kind="pretrain", lane="experiment")
    TrainingJob.objects.filter(pk=again.pk).update(inputs={"judge_of": first.pk})
    again = claim(again)
    assert freeze_inputs(again)[3:] == files
    assert [Path(path).read_text() for path in files] == names
    (job_folder(first) / "inputs").rename(tmp_path / "away")
    with pytest.raises(BadInput, match=f"The files of job {first.pk} are gone"):
        freeze_inputs(again)
    mine = make_version("p", stage="pretrain")
    own = make_version("j", stage="pretrain")
    TrainingJob.objects.filter(pk=own.job_id).update(inputs={"judge_of": mine.job_id})
    assert versions.newest_pretrained(project) == mine


def test_a_ppo_job_whose_reward_is_a_judge_by_a_row_of_before_says_so(project, make_version):
    policy = make_version("p")
    reward = make_version("r", kind="reward", trunk=policy)
    job = jobs.request_training(project=project, kind="ppo", init=policy, reward=reward)
    Promotion.objects.create(project=project, slot=Slot.JUDGE, version=reward, verdict="by_admin")
    with pytest.raises(BadInput, match="r is a judge, and a judge is never a reward"):
        freeze_inputs(claim(job))


# --- the gate -----------------------------------------------------------------------------------


@pytest.fixture
def make_version(artifacts, project):
    def make(name, *, kind="policy", stage="registered", seed=0, trunk=None, **edges):
        folder = artifacts / "models" / name
        if kind == "policy":
            tiny_policy(folder, seed=seed)
        else:
            tiny_reward(folder, versions.directory_of(trunk), seed=seed)
        job = None
        if stage != "registered":
            config = {"max_response_tokens": 8} if stage == "ppo" else {}
            job = jobs.request_training(project=project, kind=stage, config=config)
            TrainingJob.objects.filter(pk=job.pk).update(status=JobStatus.DONE)
        return versions.register_version(kind=kind, stage=stage, directory=folder, job=job, **edges)

    return make


def test_a_judge_takes_its_slot_by_itself_and_leaves_the_rewards_alone(voted, make_version):
    judge = make_version("j", kind="reward", stage="judge", trunk=make_version("p"))
    assert list(versions.versions_without_verdict()) == [judge]
    verdict = judge_version(judge.pk)
    assert verdict.why == "A judge; 3 groups on dev are too few to try it on."
    assert versions.in_force(voted, Slot.JUDGE) == judge
    assert versions.in_force(voted, Slot.REWARD) is None
    assert Promotion.objects.get().verdict == "unjudged"


@pytest.mark.parametrize(("correct", "passed"), [(1.0, True), (0.0, False)])
def test_a_judge_that_does_no_better_than_a_coin_takes_no_slot(
    voted, make_version, monkeypatch, correct, passed
):
    rows = [PairRow(str(number), 0.5, correct, 1.0) for number in range(30)]
    seen = Seen(Evaluation(rows=rows), Invariance(0, 0.0))
    monkeypatch.setattr(Seen, "of", lambda *_: seen)
    judge = make_version("j", kind="reward", stage="judge", trunk=make_version("p"))
    verdict = judge_version(judge.pk)
    assert verdict.why.startswith(f"A judge: accuracy {correct:+.4f}")
    assert (versions.in_force(voted, Slot.JUDGE) == judge) is passed


@pytest.fixture
def ppo_version(project, make_version):
    root = make_version("sft-1", stage="sft", seed=1)
    versions.promote(project=project, slot="policy", version=root, verdict="first")
    make_prompts(project, ["dev", "dev", "dev"])
    reward = make_version("r", kind="reward", trunk=root)
    return make_version("ppo-1", stage="ppo", seed=2, reference=root, reward=reward)


def test_a_policys_gate_reports_what_the_judge_and_the_proxy_say_of_it_and_of_the_reference(
    project, ppo_version, make_version, monkeypatch
):
    assert "judge" not in policy_gate.judge_policy(ppo_version, project).numbers
    judge = make_version("j", kind="reward", trunk=make_version("p", seed=5), seed=5)
    versions.promote(project=project, slot="judge", version=judge, verdict="by_admin")
    seen = {}

    def remember(*arguments):
        seen["policy"], seen["reference"] = arguments[4], arguments[5]()
        seen["conversations"] = arguments[2]
        return judging.judge_figures(*arguments)

    monkeypatch.setattr(policy_gate, "judge_figures", remember)
    numbers = judge_version(ppo_version.pk).numbers
    found = numbers["judge"]
    assert found["name"] == "j"
    assert not found["other_groups"]  # nobody knows what it saw
    assert not found["other_trunk"]
    for name, version in (("proxy", ppo_version.reward), ("judge", judge)):
        scorer = load_scorer(versions.directory_of(version))
        slow = {
            who: [
                scorer.score([conversation], [one.text])[0]
                for conversation, one in zip(seen["conversations"], seen[who], strict=True)
            ]
            for who in ("policy", "reference")
        }
        mean = {who: sum(scores) / 6 for who, scores in slow.items()}
        assert found[name]["policy"] == pytest.approx(mean["policy"], abs=1e-4)
        assert found[name]["reference"] == pytest.approx(mean["reference"], abs=1e-4)
        gain = mean["policy"] - mean["reference"]
        if name == "judge":  # the first look has 6 / pi^2 of 5 %; two answers to each of 3 prompts
            each = np.subtract(slow["policy"], slow["reference"]).reshape(3, 2).mean(1)
            level, error = 0.05 * 6 / math.pi**2, each.std(ddof=1) / math.sqrt(3)
            ends = student.interval(1 - level, 2, loc=each.mean(), scale=error)
            assert found[name]["gain_at_look"]["interval"] == pytest.approx(ends, abs=1e-3)
        assert found[name]["gain"]["mean"] == pytest.approx(gain, abs=1e-4)
    assert found["judge"] != found["proxy"]
    apart = found["proxy"]["gain"]["mean"] - found["judge"]["gain"]["mean"]
    assert found["proxy_over_judge"]["mean"] == pytest.approx(apart)
    # the baseline is the reference here, so the gate's own figures say the same of the proxy
    assert found["proxy"]["policy"] == pytest.approx(numbers["score"])
    assert found["proxy"]["gain"] == numbers["score_gain"]


def test_the_reference_is_not_the_policy_in_force_where_these_differ(
    project, ppo_version, make_version
):
    judge = make_version("j", kind="reward", trunk=make_version("p", seed=5), seed=5)
    versions.promote(project=project, slot="judge", version=judge, verdict="by_admin")
    other = make_version("between", seed=9)
    versions.promote(project=project, slot="policy", version=other, verdict="by_admin")
    numbers = policy_gate.judge_policy(ppo_version, project).numbers
    assert numbers["against"] == "between"
    assert numbers["judge"]["proxy"]["policy"] == pytest.approx(numbers["score"])
    gain = numbers["judge"]["proxy"]["gain"]["mean"]
    assert gain != pytest.approx(numbers["score_gain"]["mean"])


def test_what_both_learned_from_is_told_by_their_snapshots(voted, make_version):
    policy = make_version("p")
    made = {}
    wish = {"init": "none", "judge_share": 0.5}
    for kind in ("reward", "judge"):
        job = claim(jobs.request_training(project=voted, kind=kind, inputs=wish))
        freeze_inputs(job)
        job.refresh_from_db()
        made[kind] = make_version(kind, kind="reward", trunk=policy, snapshot=job.snapshot)
    assert saw_other_groups(made["judge"], made["reward"])
    assert not saw_other_groups(made["reward"], made["judge"])
