"""The judge of a round: which groups it gets, when it is asked for, and that it never rewards."""

import hashlib

import pytest
from django.utils import timezone

from annotation.errors import BadInput
from annotation.funnel import VoteQuery
from annotation.group_shares import GroupShare, are_disjoint
from annotation.models import JobStatus, Lane, TrainingJob
from annotation.services import jobs, judges, queue, roles, versions, wishes
from annotation.services.lineage import trained_on
from annotation.services.rankings import AxisRanking
from annotation.services.snapshots import freeze, rows_of
from tests.annotation.making import as_shown, make_annotator, make_comparisons, make_project

GROUPS = [f"thread {number}" for number in range(400)]


def side(name, share=0.25, seed=0):
    return GroupShare(side=name, judge_share=share, seed=seed)


def test_each_group_stands_on_one_side_by_a_hash_of_seed_and_name():
    of_judge = [group for group in GROUPS if side("judge", seed=7).holds(group)]
    digests = {g: hashlib.sha256(f"judge\x1f7\x1f{g}".encode()).hexdigest() for g in GROUPS}
    assert of_judge == [g for g in GROUPS if int(digests[g][:16], 16) / 16**16 < 0.25]
    assert 70 <= len(of_judge) <= 130  # 100 +- 3.5 deviations
    of_reward = [group for group in GROUPS if side("reward", seed=7).holds(group)]
    assert sorted(of_judge + of_reward) == sorted(GROUPS)


def test_a_greater_share_takes_groups_from_the_reward_model_and_none_from_the_judge():
    quarter = {group for group in GROUPS if side("judge", 0.25).holds(group)}
    half = {group for group in GROUPS if side("judge", 0.5).holds(group)}
    assert quarter < half


@pytest.mark.parametrize(
    ("reward", "judge", "disjoint"),
    [
        (side("reward"), side("judge"), True),
        (side("reward", 0.5), side("judge", 0.25), True),
        (side("reward", 0.25), side("judge", 0.5), False),
        (side("reward", seed=1), side("judge"), False),
        (side("judge"), side("reward"), False),
        (None, side("judge"), False),
        (side("reward"), None, False),
    ],
)
def test_two_sides_are_disjoint_only_where_that_is_certain(reward, judge, disjoint):
    assert are_disjoint(reward, judge) is disjoint


@pytest.mark.parametrize(
    "value", ["judge", {"side": "judge"}, {"side": "both", "judge_share": 0.2, "seed": 0},
              {"side": "judge", "judge_share": 0.6, "seed": 0},
              {"side": "judge", "judge_share": True, "seed": 0}],
)  # fmt: skip
def test_a_query_of_other_groups_is_refused_with_what_it_holds(value):
    with pytest.raises(BadInput, match="groups must be a side, a judge_share and a seed: "):
        VoteQuery.of({"groups": value})


def test_a_query_without_groups_is_what_it_was_before():
    assert "groups" not in VoteQuery.of({}).as_json()
    query = VoteQuery.of({"groups": side("judge").as_json()})
    assert VoteQuery.of(query.as_json()) == query


# --- in the ledger ------------------------------------------------------------------------------


@pytest.fixture
def project(db, settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    return make_project()


@pytest.fixture
def voted(project):
    """Twelve train comparisons and four of dev, each a group of its own, each answered."""
    annotator = make_annotator(project)
    make_comparisons(project, 16)
    for number, prompt in enumerate(project.prompts.order_by("pk")):
        prompt.split, prompt.split_group = ("dev" if number >= 12 else "train"), f"g{number}"
        prompt.save()
    for _ in range(16):
        lease = queue.claim_comparison(annotator=annotator)
        queue.submit_preference(assignment=lease, rankings=as_shown(lease), key=str(lease.pk))
    return project


def prompts_in(snapshot, split):
    return {
        row["prompt"][0]["content"] for row in rows_of(snapshot) if row["split"] == split
    }  # fmt: skip


def test_snapshots_of_both_sides_share_dev_and_no_train_group_and_the_funnel_sums(voted):
    frozen = {
        name: freeze(project=voted, kind="comparisons", query={"groups": side(name, 0.5).as_json()})
        for name in ("reward", "judge")
    }
    train = {name: prompts_in(snapshot, "train") for name, snapshot in frozen.items()}
    assert not train["reward"] & train["judge"]
    assert len(train["reward"]) + len(train["judge"]) == 12
    assert min(map(len, train.values())) > 0
    assert prompts_in(frozen["reward"], "dev") == prompts_in(frozen["judge"], "dev")
    counts = frozen["judge"].counts
    assert (counts["trained"], counts["other_groups"]) == (
        len(train["judge"]),
        len(train["reward"]),
    )
    assert sum(counts.values()) == 16


def test_a_project_has_a_judge_by_itself_from_a_number_of_answered_train_groups_on(
    voted, monkeypatch
):
    job = jobs.request_training(project=voted, kind="reward")
    assert judges.num_groups(job) == 12
    assert judges.share_for(job) == 0.0
    monkeypatch.setattr(judges, "FEWEST_GROUPS", 12)
    assert judges.share_for(job) == 0.25
    none = jobs.request_training(project=voted, kind="reward", inputs={"judge_share": 0})
    assert judges.share_for(none) == 0.0
    voted.prompts.filter(split="train").update(split_group="one thread")
    assert judges.num_groups(job) == 1


def test_only_groups_with_answers_that_the_job_learns_from_are_counted(voted):
    asked = {"project": voted, "kind": "reward"}
    simulated = jobs.request_training(inputs={"annotators": ["simulated"]}, **asked)
    assert judges.num_groups(simulated) == 0
    for number, comparison in enumerate(make_comparisons(voted, 3)):
        voted.prompts.filter(pk=comparison.prompt_id).update(
            split="train", split_group=f"n{number}"
        )
    lone = make_annotator(voted)
    for outcome in ("cannot_tell", "equal", "ranked"):
        lease = queue.claim_comparison(annotator=lone)
        groups = as_shown(lease)[0].groups if outcome == "ranked" else []
        said = AxisRanking(outcome=outcome, groups=groups)
        queue.submit_preference(assignment=lease, rankings=[said], key=f"lone {outcome}")
    assert judges.num_groups(jobs.request_training(**asked)) == 13


@pytest.mark.parametrize("share", [0.6, -0.1, True, "half", None])
def test_a_share_that_is_none_is_refused(project, share):
    with pytest.raises(BadInput, match=r"inputs\.judge_share must be a share from 0 to 0\.5: "):
        jobs.request_training(project=project, kind="reward", inputs={"judge_share": share})


@pytest.fixture
def make_version(project, tmp_path):
    def make(name, kind="policy", stage="registered", config=None, **edges):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"x")
        job = None
        if stage != "registered":
            job = jobs.request_training(project=project, kind=stage, config=config)
            TrainingJob.objects.filter(pk=job.pk).update(status=JobStatus.DONE)
        return versions.register_version(
            kind=kind, stage=stage, name=name, directory=folder, job=job, **edges
        )

    return make


def reward_job(project, init=None, **wish):
    inputs = {"judge_share": 0.25} | wish.pop("inputs", {})
    return jobs.request_training(project=project, kind="reward", init=init, inputs=inputs, **wish)


def test_the_judge_learns_as_the_reward_model_does_with_other_seeds(project):
    wish = {"config": {"epochs": 2, "seed": 3}, "inputs": {"annotators": ["simulated"]}}
    job = reward_job(project, **wish)
    judge = judges.request_judge(beside=job)
    assert (judge.kind, judge.lane, judge.status) == ("judge", "loop", "queued")
    assert judge.config == {"epochs": 2, "seed": 1003}
    assert judge.inputs == {"judge_share": 0.25, "annotators": ["simulated"]}
    assert judges.request_judge(beside=job) is None  # it waits already
    assert judges.request_judge(beside=reward_job(project, inputs={"judge_share": 0})) is None
    assert judges.request_judge(beside=reward_job(project, lane=Lane.EXPERIMENT)) is None


def test_the_judge_starts_from_a_pretraining_of_its_own_which_is_made_once(project, make_version):
    first = make_version("p", stage="pretrain", config={"steps": 5})
    sft = make_version("s", stage="sft", init=first)
    judge = judges.request_judge(beside=reward_job(project, init=sft))
    again = TrainingJob.objects.get(kind="pretrain", status="queued")
    assert (again.config, again.lane) == ({"steps": 5, "seed": 1000}, "experiment")
    assert again.inputs == {"judge_of": first.job_id}
    assert judge not in jobs.startable_jobs()
    assert judges.start_of(sft, project) == sft  # while there is none
    TrainingJob.objects.filter(pk=again.pk).update(status=JobStatus.DONE)
    assert judge in jobs.startable_jobs()
    own = make_version("o")
    own.job, own.stage = again, "pretrain"
    own.save()
    assert judges.start_of(sft, project) == own
    assert judges.start_of(sft, make_project()) == sft  # whose judges wait for no other's
    judges.request_judge(beside=reward_job(project, init=sft, config={"epochs": 3}))
    assert TrainingJob.objects.filter(kind="pretrain").count() == 2


def test_a_model_from_outside_is_not_pretrained_again(project, make_version):
    outside = make_version("gpt")
    assert judges.request_judge(beside=reward_job(project, init=outside)).init == outside
    assert not TrainingJob.objects.filter(kind="pretrain").exists()
    assert judges.start_of(outside, project) == outside
    assert judges.start_of(None, project) is None


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_pretraining_that_came_to_nothing_is_asked_for_again(project, make_version, status):
    sft = make_version("s", stage="sft", init=make_version("p", stage="pretrain"))
    judges.request_judge(beside=reward_job(project, init=sft))
    own = TrainingJob.objects.filter(inputs__has_key="judge_of")
    own.update(status=status)
    judges.request_judge(beside=reward_job(project, init=sft, config={"epochs": 3}))
    assert list(own.order_by("pk").values_list("status", flat=True)) == [status, JobStatus.QUEUED]


def test_a_judge_that_a_person_asks_for_has_a_start_of_its_own_too(voted, make_version):
    first = make_version("p", stage="pretrain")
    make_version("s", stage="sft", init=first)
    ask = {"project": voted, "kind": "judge", "by": make_annotator(voted).user}
    judge = wishes.ask_for_training(inputs={"judge_share": 0.25}, **ask)
    assert TrainingJob.objects.get(inputs__judge_of=first.job_id).project == voted
    assert judge not in jobs.startable_jobs()


def test_what_a_projects_defaults_say_of_judges_goes_before_the_reward_jobs_settings(project):
    project.job_defaults = {
        "judge": {"epochs": 5, "lr": 0.1},
        "reward": {"epochs": 2, "members": 4},
        "inputs": {"judge": {"annotators": ["person"], "judge_share": 0.5}},
    }
    project.save()
    job = reward_job(project, inputs={"annotators": ["simulated"]})
    judge = judges.request_judge(beside=job)
    assert judge.config == {"epochs": 5, "lr": 0.1, "members": 4, "seed": 1000}
    assert judge.inputs == {"judge_share": 0.25, "annotators": ["person"]}
    assert judges.request_judge(beside=job) is None  # it waits already


def test_another_trunk_is_told_by_the_seeds_of_what_made_the_first_weights(make_version):
    outside = make_version("gpt")
    first = make_version("p", stage="pretrain")
    second = make_version("q", stage="pretrain", config={"seed": 1000})
    sft = make_version("s", stage="sft", init=first)
    reward = make_version("r", "reward", "reward", init=sft)
    same, other, strange = (
        make_version(f"j{number}", "reward", "judge", config={"seed": 1000}, init=start)
        for number, start in enumerate((first, second, outside))
    )
    nothing = make_version("n", "reward", "judge", config={"seed": 1000})
    found = [judges.has_other_trunk(one, reward) for one in (same, other, strange, nothing)]
    assert found == [False, True, False, True]


# --- never a reward -----------------------------------------------------------------------------


def test_a_judge_is_never_a_reward_and_a_reward_never_a_judge(project, make_version):
    made, named = make_version("j", "reward", "judge"), make_version("k", "reward")
    reward = make_version("r", "reward", "reward")
    versions.promote(project=project, slot="judge", version=named, verdict="by_admin")
    versions.promote(project=project, slot="reward", version=reward, verdict="by_admin")
    for judge in (made, named):
        refusal = f"{judge.name} is a judge, and a judge is never a reward."
        with pytest.raises(BadInput, match=refusal):
            versions.promote(project=project, slot="reward", version=judge, verdict="by_admin")
        with pytest.raises(BadInput, match=refusal):
            jobs.request_training(project=project, kind="ppo", reward=judge)
    with pytest.raises(BadInput, match="r is or has been a reward, so it cannot be a judge"):
        versions.promote(project=project, slot="judge", version=reward, verdict="by_admin")
    used = make_version("u", "reward")
    make_version("p", stage="ppo", reward=used)
    with pytest.raises(BadInput, match="u is or has been a reward"):
        versions.promote(project=project, slot="judge", version=used, verdict="by_admin")


@pytest.mark.parametrize(
    ("status", "started", "counts"),
    [
        (JobStatus.QUEUED, False, True),
        (JobStatus.RUNNING, True, True),
        (JobStatus.FAILED, True, True),
        (JobStatus.CANCELLED, False, False),
    ],
)
def test_a_reward_that_a_policy_learns_from_or_ever_began_to_cannot_become_a_judge(
    project, make_version, status, started, counts
):
    reward = make_version("r", "reward")
    job = jobs.request_training(project=project, kind="ppo", reward=reward)
    began = timezone.now() if started else None
    TrainingJob.objects.filter(pk=job.pk).update(status=status, started_at=began)
    assert roles.has_rewarded(reward) is counts
    assert roles.may_stand_in(reward, "judge") is not counts


def test_a_person_may_ask_for_a_judge_only_where_groups_are_kept_for_it(voted):
    by = make_annotator(voted).user
    ask = {"project": voted, "kind": "judge", "by": by}
    for inputs in ({}, {"judge_share": 0.0}):
        with pytest.raises(BadInput, match="A judge learns from groups that the reward model goes"):
            wishes.ask_for_training(inputs=inputs, **ask)
    assert wishes.ask_for_training(inputs={"judge_share": 0.25}, **ask).status == "queued"


def test_the_lineage_of_a_vote_leads_to_the_model_that_learned_from_it_alone(voted, make_version):
    of_vote = voted.comparisons.filter(prompt__split="train").first()
    group = of_vote.prompt.split_group
    mine, other = ("judge", "reward") if side("judge", 0.5).holds(group) else ("reward", "judge")
    made = {
        name: make_version(
            name,
            "reward",
            snapshot=freeze(
                project=voted, kind="comparisons", query={"groups": side(name, 0.5).as_json()}
            ),
        )
        for name in (mine, other)
    }
    assert trained_on(of_vote.preferences.all()) == ([made[mine].snapshot], [made[mine]])
