"""Setting a job up: every setting with its default, meaning and limits, and a look before."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from annotation.models import AuditEntry, JobKind, JobStatus, Split, TrainingJob
from annotation.pages.job_form import read_config
from annotation.pages.job_presets import PRESETS, USUAL
from annotation.pages.job_tables import config_lines, input_lines, minutes_left, result_phases
from annotation.services import dryrun, queue
from annotation.services.dryrun import dry_run
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from annotation.services.snapshots import freeze
from tests.annotation.making import make_project

NEW, ASK = "/p/shop/jobs/new/", "/p/shop/jobs/new/ask/"
KEY = "5b2a3cf1-7a1e-4c8f-9a60-0d0c4be6a7b1"


def answer(cast, number: int) -> None:
    """So many answers of the labeler, each on a train prompt of its own."""
    first = len(cast.comparisons)
    for place in range(first, first + number):
        comparison = cast.ask(f"Question {place}?", ["Yes.", "No."])
        comparison.prompt.split = Split.TRAIN
        comparison.prompt.save()
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    for _ in range(number):
        lease = queue.claim_comparison(annotator=annotator)
        rankings = [AxisRanking(groups=[[pk] for pk in lease.presented_order])]
        queue.submit_preference(assignment=lease, rankings=rankings, key=f"key {lease.pk}")


@pytest.mark.parametrize("kind", JobKind.values)
def test_every_setting_of_a_kind_stands_in_its_form(cast, enter, kind):
    html = enter(cast.admin).get(NEW, {"kind": kind}).content.decode()
    _config, lines = read_config(kind, {}, {})
    assert set(USUAL[kind]) <= {line.name for line in lines}
    for line in lines:
        assert f'name="set-{line.name}"' in html
    for preset in PRESETS[kind]:
        assert read_config(kind, _typed(preset.config), {})[0] == preset.config
        assert not any(line.fault for line in read_config(kind, _typed(preset.config), {})[1])


def _typed(config):
    return {f"set-{name}": str(value).replace("True", "true") for name, value in config.items()}


def test_a_job_is_queued_as_it_was_typed(cast, enter):
    answer(cast, 1)
    body = {
        "kind": "reward",
        "lane": "experiment",
        "reason": "longer",
        "annotators": ["person"],
        "set-epochs": "2",
        "set-lr_peak": "1e-4",
        "set-length_head": "true",
        "set-axis": "",
        "set-axes": '{"a": 1, "b": 0.5}',
        "from_nothing": "on",
        "decisions": "instead",
    }
    response = enter(cast.admin).post(ASK, body)
    job = TrainingJob.objects.get()
    assert response.url == f"/p/shop/jobs/{job.pk}/"
    assert job.config == {
        "epochs": 2,
        "lr_peak": 1e-4,
        "length_head": True,
        "axes": {"a": 1, "b": 0.5},
    }
    assert job.inputs == {"annotators": ["person"], "init": "none", "decisions": "instead"}
    assert (job.lane, job.reason, job.requested_by) == ("experiment", "longer", cast.admin)


@pytest.mark.parametrize(
    ("typed", "fault"),
    [
        ({"set-epochs": "none"}, "It must be a whole number."),
        ({"set-epochs": "0"}, "It must be at least 1."),
        ({"set-loss": "hinge"}, "It must be one of bradley_terry"),
        ({"set-axes": "[" * 5000}, "It must be an object of numbers or null."),
        ({"set-label_smoothing": "0.5"}, "It must be below 0.5."),
        ({"set-axis": "\x00"}, "It must be"),
    ],
)
def test_what_cannot_be_is_marked_and_stays_as_it_was_typed(cast, enter, typed, fault):
    answer(cast, 1)
    response = enter(cast.admin).post(ASK, {"kind": "reward", "lane": "loop"} | typed)
    assert response.status_code == 422
    assert fault in response.content.decode()
    assert not TrainingJob.objects.exists()


def test_a_form_that_is_sent_twice_asks_once(cast, enter):
    answer(cast, 1)
    client = enter(cast.admin)
    body = {"kind": "reward", "lane": "loop", "key": KEY}
    assert client.post(ASK, body).url == client.post(ASK, body).url
    quick = {"kind": "reward", "lane": "loop", "config": "{}", "inputs": "{}", "key": KEY}
    client.post("/p/shop/jobs/start/", quick)
    assert TrainingJob.objects.count() == 1
    client.post(ASK, body | {"key": KEY.replace("5", "6")})
    assert TrainingJob.objects.count() == 2


@pytest.mark.parametrize("change", [{"set-epochs": "4"}, {"lane": "experiment"}])
def test_another_wish_under_the_same_key_is_a_conflict(cast, enter, change):
    """Back in the browser, other settings, sent again: the first job must not pass for them."""
    answer(cast, 1)
    client = enter(cast.admin)
    body = {"kind": "reward", "lane": "loop", "key": KEY}
    client.post(ASK, body)
    first = TrainingJob.objects.get()
    TrainingJob.objects.update(config={"filled": "in"}, inputs={"at": "its start"})
    assert client.post(ASK, body).url == f"/p/shop/jobs/{first.pk}/"
    refused = client.post(ASK, body | change)
    html = refused.content.decode()
    assert (refused.status_code, TrainingJob.objects.count()) == (422, 1)
    assert f"This form has queued job {first.pk} already" in html
    key = re.search(r'name="key" value="([0-9a-f-]{36})"', html)[1]
    assert key != KEY
    client.post(ASK, body | change | {"key": key})
    assert TrainingJob.objects.count() == 2


def test_a_key_of_another_projects_form_is_a_conflict(cast, enter):
    answer(cast, 1)
    other = make_project("other")
    TrainingJob.objects.create(project=other, kind="reward", wish_key=KEY)
    body = {"kind": "reward", "lane": "loop", "key": KEY}
    assert enter(cast.admin).post(ASK, body).status_code == 422
    assert TrainingJob.objects.count() == 1


def test_each_form_has_a_key_of_its_own(cast, enter):
    client = enter(cast.admin)
    pattern = re.compile(r'name="key" value="([0-9a-f-]{36})"')
    keys = {pattern.search(client.get(path).content.decode())[1] for path in (NEW, NEW, "/p/shop/")}
    assert len(keys) == 3


def test_a_copy_has_the_settings_and_inputs_of_the_job(cast, enter):
    job = TrainingJob.objects.create(
        project=cast.project,
        kind="reward",
        config={"epochs": 3, "keep": "last", "lr": 1},  # lr: of a row from before
        inputs={"judge_share": 0.25, "weights": "dawid_skene"},
        status=JobStatus.DONE,
    )
    client = enter(cast.admin)
    assert f"?from={job.pk}" in client.get(f"/p/shop/jobs/{job.pk}/").content.decode()
    html = client.get(NEW, {"from": job.pk}).content.decode()
    assert 'id="set-epochs" value="3"' in html
    assert "<option selected>last</option>" in html
    assert 'name="judge_share" value="0.25"' in html
    assert '<option value="dawid_skene" selected>' in html
    assert client.get(NEW, {"from": "9" * 30}).status_code == 400
    assert client.get(NEW, {"from": job.pk + 1}).status_code == 404
    assert client.get(NEW, {"kind": "nap"}).status_code == 400


def test_a_look_counts_what_is_new_and_keeps_nothing(cast, enter, settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    answer(cast, 3)
    snapshot = freeze(
        project=cast.project, kind="comparisons", query={"splits": ["train", "dev"]}, by=None
    )
    last = TrainingJob.objects.create(
        project=cast.project,
        kind="reward",
        status=JobStatus.DONE,
        snapshot=snapshot,
        result={"wall_seconds": 60.0},
    )
    answer(cast, 3)
    before = AuditEntry.objects.count()
    found = dry_run(
        project=cast.project, by=cast.admin, kind="reward", config={"epochs": 4}, lane="loop"
    )
    assert found.last == last
    assert found.num_new == 3
    assert found.funnel.rows == 6
    assert found.funnel.buckets == (("trained", 6, 3),)
    assert found.seconds == 60.0 * (6 * 4) / (3 * 1)  # rows times passes, against the last run's
    assert found.config == {"epochs": 4}
    assert (TrainingJob.objects.count(), AuditEntry.objects.count()) == (1, before)
    body = {"kind": "reward", "lane": "loop", "look": "1", "set-epochs": "4"}
    html = enter(cast.admin).post(ASK, body).content.decode()
    assert "about 8 minutes, by job" in html
    assert '<td class="number">+3</td>' in html
    assert (TrainingJob.objects.count(), AuditEntry.objects.count()) == (1, before)


def test_a_look_counts_while_others_may_write(cast, monkeypatch):
    """On SQLite a transaction that has written holds the one lock until its end."""
    answer(cast, 2)
    held, count = [], dryrun._funnel
    outside = list(connection.savepoint_ids)  # of the test's own transaction

    def counting(*given):
        held.append(connection.savepoint_ids != outside)
        return count(*given)

    monkeypatch.setattr(dryrun, "_funnel", counting)
    found = dry_run(project=cast.project, by=cast.admin, kind="reward", config={}, lane="loop")
    assert (held, found.funnel.rows) == ([False], 2)


def test_a_look_refuses_what_the_queue_would(cast, enter):
    response = enter(cast.admin).post(ASK, {"kind": "ppo", "lane": "loop", "look": "1"})
    assert response.status_code == 422
    assert "needs a policy in force" in response.content.decode()


def test_a_job_is_told_in_tables(cast):
    job = TrainingJob(
        project=cast.project,
        kind="sample",
        config={"top_p": 0.9, "temperature": 1.0},
        inputs={"planned": [4, 5, 6], "propensities": [1, 1, 1], "comparisons": 3},
        result={"wall_seconds": 7, "final": {"dev": {"step": 4, "accuracy": 0.5}}},
    )
    assert [(line.name, line.value, line.default) for line in config_lines(job)] == [
        ("temperature", "1.0", "0.7"),
        ("top_p", "0.9", ""),
    ]
    assert input_lines(job) == [("Prompts chosen", "3"), ("Comparisons to write", "3")]
    names = [(phase.name, [one.key for one in phase.singles]) for phase in result_phases(job)]
    assert names == [("", ["wall_seconds"]), ("On the dev split", ["accuracy"])]


@pytest.mark.parametrize(
    ("changes", "minutes"),
    [
        ({}, 8),  # 20 of 100 steps took 2 minutes
        ({"step": 2}, None),
        ({"attempt": 2}, None),
        ({"total_steps": 0}, None),
        ({"status": JobStatus.QUEUED}, None),
        ({"step": 100}, 0),
    ],
)
def test_the_time_that_is_left(changes, minutes):
    now = timezone.now()
    columns = {"kind": "ppo", "status": JobStatus.RUNNING, "attempt": 1, "step": 20}
    columns |= {"total_steps": 100, "started_at": now - timedelta(minutes=2)}
    assert minutes_left(TrainingJob(**(columns | changes)), now) == minutes
