"""The whole loop, small: rows, workers, page and export, with real parts at every joint.

A person labels in the page; real workers train real (tiny) models; the policy's own answers come
back as comparisons; a researcher's export holds the votes.
"""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client

from annotation.exporters.folder import export_folder
from annotation.models import (
    Comparison,
    ExportOrder,
    JobStatus,
    ModelVersion,
    OrderState,
    Preference,
    Promotion,
    Role,
    Slot,
    TrainingJob,
    User,
)
from annotation.services import exports
from annotation.services.jobs import request_training
from annotation.services.judges import saw_other_groups
from annotation.services.loop import change_loop, change_rule
from annotation.services.projects import add_member, create_project
from annotation.services.versions import in_force
from tests.workers.conftest import Installation, wait_for

pytestmark = [pytest.mark.celery, pytest.mark.loop]
PROMPTS = ("Where is the red cat?", "What does the dog eat?")
DEMONSTRATIONS = ("The red cat is in the house.", "The dog eats a small fish.")
VOTES = (
    ("It is in the red house.", "Cat cat cat cat."),
    ("It eats fish.", "I do not care."),
)
TINY = {
    "pretrain": {
        "vocab_size": 300,
        "width": 16,
        "layers": 1,
        "heads": 1,
        "context": 64,
        "steps": 4,
        "windows_per_step": 2,
        "eval_every": 4,
        "sample_every": 0,
        "heldout_fraction": 0.0,
    },
    "sft": {"epochs": 1, "rows_per_step": 2, "max_tokens": 64},
    "reward": {"epochs": 1, "comparisons_per_step": 2},
    "ppo": {"steps": 1, "rollouts_per_step": 2, "max_response_tokens": 8, "baseline_samples": 2},
    "sample": {"max_new_tokens": 8, "temperature": 1.0},
}


def write_rows(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def project(concord: Installation):
    """Own prompts, demonstrations and votes, imported by the public commands; one labeler."""
    project = create_project(name="Own", slug="own", by=None)
    labeler = User.objects.create_user("lin", password="lin")
    add_member(project=project, user=labeler, role=Role.LABELER, by=None)
    change_loop(
        project=project,
        changes={"open_target": 2, "heldout_share": 0.0, "auto_promote": True,
                 "kl_budget_nats": 1000.0, "job_defaults": TINY},
        by=None,
    )  # fmt: skip
    change_rule(project=project, changes={"after_preferences": 2}, by=None)
    project.refresh_from_db()
    folder = concord.var
    turns = [[{"role": "user", "content": text}] for text in PROMPTS]
    imports = {
        "import_prompts": [
            {"id": f"p{n}", "split": "train", "prompt": turn, "task": "dialogue", "language": "en"}
            for n, turn in enumerate(turns)
        ],
        "import_demonstrations": [
            {"id": f"d{n}", "split": "train", "prompt": turn, "completion": DEMONSTRATIONS[n]}
            for n, turn in enumerate(turns)
        ],
    }
    for command, rows in imports.items():
        call_command(
            command, write_rows(folder / f"{command}.jsonl", rows), project="own", stdout=StringIO()
        )
    votes = [
        {"prompt": turn, "chosen": [{"role": "assistant", "content": VOTES[n][0]}],
         "rejected": [{"role": "assistant", "content": VOTES[n][1]}], "split": "train"}
        for n, turn in enumerate(turns)
    ]  # fmt: skip
    call_command(
        "import_preferences", write_rows(folder / "votes.jsonl", votes), project="own",
        format="trl", stdout=StringIO(),
    )  # fmt: skip
    return project


def done(project, kind: str) -> TrainingJob | None:
    """The newest job of a kind if it is done; a failed one is the test's failure."""
    job = TrainingJob.objects.filter(project=project, kind=kind).last()
    assert job is None or job.status != JobStatus.FAILED, (kind, job.error, job.log_tail)
    return job if job is not None and job.status == JobStatus.DONE else None


def label_one(browser: Client) -> Preference:
    """Open the page as the labeler does, choose the first answer, submit the form."""
    page = browser.get("/p/own/label/").content.decode()
    assignment = re.search(r"/label/(\d+)/submit/", page).group(1)
    key = re.search(r'name="key" value="([^"]+)"', page).group(1)
    answer = browser.post(
        f"/p/own/label/{assignment}/submit/", {"key": key, "axis0-choice": "1"}, follow=True
    )
    assert answer.status_code == 200
    return Preference.objects.get(idempotency_key=key)


def judged(project) -> None:
    """The judge learned from the group that the reward model did not, from a model pretrained with
    another seed, and stands in its slot."""
    wait_for(lambda: done(project, "judge"), "the judge beside the reward model")
    reward, judge = (
        ModelVersion.objects.get(job__project=project, stage=stage) for stage in ("reward", "judge")
    )
    wait_for(lambda: in_force(project, Slot.JUDGE) == judge, "the judge to be in its slot")
    assert saw_other_groups(judge, reward)
    since = reward.snapshot.created_at  # the labeler's vote may have come between the snapshots
    late = Preference.objects.filter(project=project, created_at__gte=since).count()
    trained = reward.snapshot.counts["trained"]
    assert 0 < trained <= judge.snapshot.counts["other_groups"] <= trained + late
    first = ModelVersion.objects.get(job__project=project, job__lane="loop", stage="pretrain")
    assert judge.init.job.inputs == {"judge_of": first.job_id}
    seeds = [one.job.config.get("seed", 0) for one in (first, judge.init, reward, judge)]
    assert seeds == [0, 1000, 0, 1000]


def once_around(concord: Installation, project, monkeypatch) -> None:
    """From a policy in force to its improved answers, labeled and exported."""
    browser = Client()
    browser.force_login(User.objects.get(username="lin"))
    wait_for(lambda: done(project, "sample"), "the policy's first comparisons")
    preference = label_one(browser)
    assert preference.counted
    assert preference.comparison.purpose == "production"
    assert preference.rankings.get().groups[0] == [preference.presented_order[0]]

    wait_for(lambda: done(project, "reward"), "the reward model that the rule made due")
    wait_for(lambda: done(project, "ppo"), "PPO after it")
    reward = ModelVersion.objects.get(job__project=project, stage="reward")
    policy = ModelVersion.objects.get(job__project=project, stage="ppo")
    assert policy.reward == reward
    assert policy.reference == policy.init
    wait_for(lambda: policy_gate(policy), "the gate's verdict")
    if not Promotion.objects.filter(version=policy).exists():  # one step seldom passes its gate
        admin = User.objects.create_superuser("ada")
        boss = Client()
        boss.force_login(admin)
        page = f"/p/own/versions/{policy.pk}/"
        assert 'name="slot" value="policy"' in boss.get(page).content.decode()
        boss.post(f"{page}promote/", {"slot": "policy"}, follow=True)
        assert Promotion.objects.filter(version=policy).exists()
    wait_for(lambda: comparisons_of(policy), "the improved policy's comparisons")

    monkeypatch.setattr(exports, "SMALL", 0)  # a worker writes what is large
    concord.start("files")
    order = exports.order_export(project=project, format="trl")
    assert order.state == OrderState.WAITING
    wait_for(lambda: written(order), "the worker of files to write the export")
    out = export_folder(project, written(order))
    rows = [
        json.loads(line) for file in out.glob("*.jsonl") for line in file.read_text().splitlines()
    ]
    assert VOTES[0][0] in json.dumps(rows, ensure_ascii=False)
    manifest = json.loads((out / "manifest.json").read_text())
    assert sum(manifest["funnel"].values()) == Preference.objects.filter(project=project).count()


def written(order: ExportOrder) -> str:
    order.refresh_from_db()
    assert order.state != OrderState.FAILED, order.error
    return order.export


def comparisons_of(policy: ModelVersion) -> bool:
    return Comparison.objects.filter(completions__generations__model_version=policy).exists()


def policy_gate(policy: ModelVersion) -> dict | None:
    policy.refresh_from_db()
    return policy.metrics.get("gate")


def test_two_prompts_and_a_one_layer_model_go_once_around(
    concord: Installation, project, monkeypatch
):
    corpus = " ".join([*PROMPTS, *DEMONSTRATIONS, *(text for pair in VOTES for text in pair)])
    (concord.var / "data" / "corpus.txt").write_text("\n\n".join([corpus] * 20))
    request_training(project=project, kind="pretrain", inputs={"data": ["corpus.txt"]})
    request_training(project=project, kind="sft")
    shares = {"reward": {"judge_share": 0.5}}
    change_loop(project=project, changes={"job_defaults": TINY | {"inputs": shares}}, by=None)
    concord.start("training")
    concord.start("generate")
    once_around(concord, project, monkeypatch)
    judged(project)


@pytest.mark.shared_data
def test_own_prompts_and_an_outside_model_go_once_around(
    concord: Installation, project, shared_data: Path, monkeypatch
):
    call_command(
        "register_model", project="own", dir=shared_data / "tiny-lm" / "hf", slot="policy",
        stdout=StringIO(),
    )  # fmt: skip
    concord.start("training")
    concord.start("generate")
    once_around(concord, project, monkeypatch)
