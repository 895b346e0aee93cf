"""workers.datasets: what a job works on is chosen once and kept."""

import json
from pathlib import Path

import pytest

from annotation.errors import BadInput
from annotation.models import Completion, ModelVersion, Origin
from annotation.services import jobs, queue, versions
from annotation.services.ledger import add_completion, add_prompt, record_generation
from annotation.services.projects import annotator_for, new_scheme
from policy.data import read_demonstrations
from policy.sft import encode
from policy.text import decode_completion
from policy.tokenizer import train_tokenizer
from tests.annotation.making import as_shown, make_comparisons, make_member
from workers.datasets import freeze_inputs

pytestmark = pytest.mark.django_db


@pytest.fixture
def make_version(artifacts, project):
    def make(name, kind="policy", stage=None, **edges):
        folder = artifacts / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"x")
        job = jobs.request_training(project=project, kind=stage) if stage else None
        return versions.register_version(
            kind=kind, stage=stage or "registered", directory=folder, job=job, **edges
        )

    return make


@pytest.fixture
def ask(project):
    def claim(kind, **wish):
        job = jobs.request_training(project=project, kind=kind, lane="experiment", **wish)
        return jobs.claim_job(job_id=job.pk, worker="w")

    return claim


def option(arguments, name):
    return arguments[arguments.index(name) + 1]


def rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def demonstration(project):
    prompt, _ = add_prompt(
        project=project,
        source=project.sources.get(),
        messages=[{"role": "user", "content": "How?"}],
        split="train",
    )
    completion, _ = add_completion(prompt=prompt, source=project.sources.get(), text="So.")
    record_generation(completion=completion, origin=Origin.DEMONSTRATION, writer="team")
    return completion


def test_a_job_of_the_loop_learns_from_no_row_that_forbids_commerce(
    project, make_version, demonstration, settings
):
    init = make_version("base", stage="pretrain")
    source = project.sources.create(name="theirs", licence="CC BY-NC 4.0")
    prompt, _ = add_prompt(
        project=project,
        source=source,
        messages=[{"role": "user", "content": "Why?"}],
        split="train",
    )
    completion, _ = add_completion(prompt=prompt, source=source, text="Because.")
    record_generation(completion=completion, origin=Origin.DEMONSTRATION, writer="them")
    texts = {}
    for lane, inputs in (
        ("loop", {}),
        ("experiment", {}),
        ("loop", {"licences": ["CC BY-NC 4.0"]}),
    ):
        wish = jobs.request_training(
            project=project, kind="sft", lane=lane, init=init, inputs=inputs
        )
        job = jobs.claim_job(job_id=wish.pk, worker="w")
        arguments = freeze_inputs(job)
        texts[lane, bool(inputs)] = [row["completion"] for row in rows(option(arguments, "--data"))]
        jobs.TrainingJob.objects.filter(pk=job.pk).update(status="done")
    assert texts == {
        ("loop", False): ["So."],
        ("experiment", False): ["So.", "Because."],
        ("loop", True): ["Because."],
    }


def test_pretraining_reads_copies_of_the_files_named(ask, settings, tmp_path):
    settings.DATA_DIRS = [tmp_path]
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    job = ask("pretrain", inputs={"data": ["a.txt", "b.txt"]})
    arguments = freeze_inputs(job)
    assert arguments[:3] == ["policy", "pretrain", "--data"]
    (tmp_path / "a.txt").write_text("changed while it trains")
    assert freeze_inputs(job) == arguments
    assert [Path(path).read_text() for path in arguments[3:]] == ["one", "two"]


def test_pretraining_needs_files(ask):
    with pytest.raises(BadInput, match=r"inputs\.data must be a list of file paths: None"):
        freeze_inputs(ask("pretrain"))


def test_sft_starts_from_the_newest_pretrained_version(ask, make_version, demonstration):
    make_version("pretrain-1", stage="pretrain")
    newest = make_version("pretrain-2", stage="pretrain")
    job = ask("sft")
    arguments = freeze_inputs(job)
    assert option(arguments, "--init") == str(versions.directory_of(newest))
    assert [row["completion"] for row in rows(option(arguments, "--data"))] == ["So."]
    job.refresh_from_db()
    assert job.init == newest
    assert job.snapshot.kind == "demonstrations"


def test_sft_learns_the_better_answer_that_somebody_wrote(ask, make_version, project):
    """From the labeling page to the tokens that are learned."""
    make_version("pretrain-1", stage="pretrain")
    new_scheme(project=project, by=None, options={"ideal": True})
    make_comparisons(project, 1, batch="edited")
    project.prompts.update(split="train")
    user = make_member(project, "labeler")
    lease = queue.claim_comparison(annotator=annotator_for(user=user, project=project))
    ideal = "It *should* be so: 您好。"
    queue.submit_preference(assignment=lease, rankings=as_shown(lease), ideal=ideal, key="k")
    data = option(freeze_inputs(ask("sft")), "--data")
    tokenizer = train_tokenizer(["So."], vocab_size=300, context=256)
    (example,) = encode(tokenizer, read_demonstrations(data), 256).examples
    *answer, end = example.ids[example.response_start :]
    assert decode_completion(tokenizer, answer) == ideal
    assert end == tokenizer.eos_token_id
    asked = tokenizer.decode(example.ids[: example.response_start])
    assert lease.comparison.prompt.messages[-1]["content"] in asked


def test_sft_without_any_model_or_demonstration_says_so(ask, make_version):
    with pytest.raises(BadInput, match="needs a pretrained model to start from"):
        freeze_inputs(ask("sft"))
    make_version("pretrain-1", stage="pretrain")
    with pytest.raises(BadInput, match="has no demonstrations to train on"):
        freeze_inputs(ask("sft"))


@pytest.fixture
def votes(project):
    """Three people's votes and two simulated ones, on all splits."""
    for kind, count in (("person", 3), ("simulated", 2)):
        user = make_member(project)
        annotator_for(user=user, project=project, kind=kind)
        make_comparisons(project, count, batch=kind)
        for _ in range(count):
            lease = queue.claim_comparison(annotator=annotator_for(user=user, project=project))
            queue.submit_preference(assignment=lease, rankings=as_shown(lease), key=f"k{lease.pk}")
    project.prompts.update(split="train")


def test_the_anchors_of_a_project_are_drawn_once_and_serve_every_later_round(
    ask, make_version, votes, project, artifacts
):
    make_version("sft-1", stage="sft")
    first = option(freeze_inputs(ask("reward", inputs={"init": "none"})), "--anchors")
    assert first == str(artifacts / "anchors" / f"project-{project.pk}.jsonl")
    kept = Path(first).read_bytes()
    texts = {row["text"] for row in rows(first)}
    assert texts <= set(Completion.objects.values_list("text", flat=True))
    assert len(texts) >= 2
    make_comparisons(project, 2, batch="later")
    project.prompts.update(split="train")
    assert option(freeze_inputs(ask("reward", inputs={"init": "none"})), "--anchors") == first
    assert Path(first).read_bytes() == kept
    assert [path.name for path in Path(first).parent.iterdir()] == [Path(first).name]


def test_a_reward_model_starts_from_the_sft_root_and_reads_peoples_votes(ask, make_version, votes):
    root = make_version("sft-1", stage="sft")
    ModelVersion.objects.filter(pk=root.pk).update(stage="sft")
    root.job.lane = "loop"
    root.job.save()
    arguments = freeze_inputs(ask("reward"))
    assert option(arguments, "--init") == str(versions.directory_of(root))
    found = rows(option(arguments, "--data"))
    assert len(found) == 3
    assert {row["split"] for row in found} <= {"train", "dev"}


def test_simulated_votes_train_where_the_inputs_ask_for_them(ask, project, votes):
    job = ask("reward", inputs={"annotators": ["person", "simulated"], "init": "none"})
    arguments = freeze_inputs(job)
    assert option(arguments, "--init") == "none"
    assert len(rows(option(arguments, "--data"))) == 5


def test_weights_and_decisions_are_as_the_inputs_ask(ask, votes):
    job = ask("reward", inputs={"init": "none", "weights": "dawid_skene", "decisions": "instead"})
    freeze_inputs(job)
    assert job.snapshot.query["weights"] == "dawid_skene"
    assert job.snapshot.query["decisions"] == "instead"
    plain = ask("reward", inputs={"init": "none"})
    freeze_inputs(plain)
    assert not {"weights", "decisions"} & set(plain.snapshot.query)
    with pytest.raises(BadInput, match=r"inputs\.weights must be one of none, dawid_skene"):
        ask("reward", inputs={"weights": "loud"})


def test_a_later_attempt_reads_the_same_snapshot_though_votes_came_meanwhile(ask, project, votes):
    job = ask("reward", inputs={"init": "none"})
    before = freeze_inputs(job)
    make_comparisons(project, 1, batch="later")
    project.prompts.update(split="train")
    lease = queue.claim_comparison(
        annotator=annotator_for(user=make_member(project), project=project)
    )
    queue.submit_preference(assignment=lease, rankings=as_shown(lease), key="late")
    again = jobs.TrainingJob.objects.select_related("project", "snapshot").get(pk=job.pk)
    assert freeze_inputs(again) == before


def test_ppo_improves_the_policy_in_force_and_measures_kl_from_the_root(ask, project, make_version):
    root = make_version("sft-1", stage="sft")
    make_version("sft-2", stage="sft")  # newer, and nothing came of it
    policy = make_version("ppo-1", stage="ppo", init=root, reference=root)
    reward = make_version("r", "reward")
    versions.promote(project=project, slot="policy", version=policy, verdict="by_admin")
    versions.promote(project=project, slot="reward", version=reward, verdict="by_admin")
    for split in ("train", "dev"):
        add_prompt(
            project=project,
            source=project.sources.get(),
            messages=[{"role": "user", "content": f"{split}?"}],
            split=split,
        )
    job = ask("ppo")
    arguments = freeze_inputs(job)
    named = {name: option(arguments, name) for name in ("--init", "--reference", "--reward-model")}
    assert named == {
        "--init": str(versions.directory_of(policy)),
        "--reference": str(versions.directory_of(root)),
        "--reward-model": str(versions.directory_of(reward)),
    }
    assert [row["split"] for row in rows(option(arguments, "--prompts"))] == ["train"]
    newer = make_version("ppo-2")
    versions.promote(project=project, slot="policy", version=newer, verdict="by_admin")
    again = jobs.TrainingJob.objects.select_related("init", "reference", "reward", "snapshot")
    assert freeze_inputs(again.get(pk=job.pk)) == arguments
    job.refresh_from_db()
    assert job.config["kl_stop_nats"] == project.kl_budget_nats  # its gate's
    elsewhere = make_version("another-sft", stage="sft")
    own = ask("ppo", init=elsewhere, config={"kl_stop_nats": None})
    arguments = freeze_inputs(own)  # an experiment has a root of its own
    assert own.config == {"kl_stop_nats": None}
    assert option(arguments, "--reference") == str(versions.directory_of(elsewhere))
