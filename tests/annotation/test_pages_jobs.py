"""A job's page: progress, charts, numbers as CSV, cancel."""

import csv
import io

import pytest

from annotation.models import DatasetSnapshot, JobKind, JobMetric, JobStatus, TrainingJob
from annotation.templatetags.logs import without_colours


@pytest.fixture
def job(cast):
    job = TrainingJob.objects.create(
        project=cast.project,
        kind=JobKind.PPO,
        status=JobStatus.RUNNING,
        config={"kl": "<b>"},
        log_tail="step 3 <script>alert(1)</script>",
        step=3,
        total_steps=10,
        attempt=2,
    )
    for step, score in ((1, 0.5), (2, None), (3, 0.75)):
        values = {"score": score, "note": "text", "ok": True}
        JobMetric.objects.create(job=job, phase="ppo", step=step, values=values)
    return job


def test_the_page_shows_progress_charts_and_the_log(cast, enter, job):
    html = enter(cast.reviewer).get(f"/p/shop/jobs/{job.pk}/").content.decode()
    assert '<progress value="3" max="10"' in html
    assert html.count("<figure") == 1
    assert "Score: from 0.5 to 0.75 over 3 points" in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert 'hx-trigger="every 2s"' in html


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[1mREPORT\x1b[0m from: a\n", "REPORT from: a\n"),
        ("\x1b[38;5;12mblue\x1b[K", "blue"),
        ("\x1b]0;a title\x07loss 0.5", "loss 0.5"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bplain \x1b7[1m]", "plain [1m]"),
        ("a [1] b", "a [1] b"),
    ],
)
def test_what_only_a_terminal_can_read_is_left_out_of_a_log(said, shown):
    assert without_colours(said) == shown


def test_neither_log_nor_error_of_a_job_shows_escapes(cast, enter, job):
    bold = "\x1b[1mbold\x1b[0m"
    TrainingJob.objects.update(status=JobStatus.FAILED, log_tail=bold, error=bold)
    client = enter(cast.reviewer)
    for page in (f"jobs/{job.pk}/", ""):
        html = client.get(f"/p/shop/{page}").content.decode()
        assert "bold" in html
        assert "\x1b" not in html


def test_a_job_that_ended_is_not_asked_for_again(cast, enter, job):
    TrainingJob.objects.update(status=JobStatus.FAILED, error="It diverged: KL 99 nats.")
    html = enter(cast.reviewer).get(f"/p/shop/jobs/{job.pk}/").content.decode()
    assert "hx-get" not in html
    assert "It diverged: KL 99 nats." in html


def test_the_list_counts_its_jobs_and_renews_itself(cast, enter, job):
    client = enter(cast.reviewer)
    html = client.get("/p/shop/jobs/").content.decode()
    assert "1 job</p>" in html
    assert 'hx-get="/p/shop/jobs/" hx-trigger="every 2s"' in html
    assert '3<span class="muted"> / 10</span>' in html
    TrainingJob.objects.update(status=JobStatus.DONE)
    renewed = client.get("/p/shop/jobs/", headers={"HX-Request": "true"}).content.decode()
    assert 'hx-trigger="every 8s"' in renewed
    assert "<html" not in renewed


def test_a_number_without_end_is_a_sentence(cast, enter):
    client = enter(cast.admin)
    for field in ("config", "inputs"):
        body = {"kind": "reward", "lane": "loop", field: '{"a": ' + "9" * 5000 + "}"}
        html = client.post("/p/shop/jobs/start/", body, follow=True).content.decode()
        assert "A number in it is too long." in html
    body = {"kind": "pretrain", "lane": "loop", "inputs": '{"data": ["' + "x" * 5000 + '"]}'}
    assert (
        "No file &#x27;xxx"
        in client.post("/p/shop/jobs/start/", body, follow=True).content.decode()
    )
    assert not TrainingJob.objects.exists()


def test_the_address_of_a_button_says_that_it_is_one(cast, enter, job):
    response = enter(cast.admin).get(f"/p/shop/jobs/{job.pk}/cancel/")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert "a button of another page" in response.content.decode()
    job.refresh_from_db()
    assert job.cancel_requested_at is None


def test_every_number_as_csv(cast, enter, job):
    response = enter(cast.reviewer).get(f"/p/shop/jobs/{job.pk}/metrics.csv")
    rows = list(csv.reader(io.StringIO(response.content.decode())))
    assert rows[0] == ["phase", "step", "name", "value"]
    assert [row for row in rows if row[2] == "score"] == [
        ["ppo", "1", "score", "0.5"],
        ["ppo", "2", "score", ""],
        ["ppo", "3", "score", "0.75"],
    ]
    assert response.headers["Content-Disposition"].startswith("attachment")


def test_an_admin_cancels(cast, enter, job):
    client = enter(cast.admin)
    response = client.post(f"/p/shop/jobs/{job.pk}/cancel/", follow=True)
    job.refresh_from_db()
    assert job.cancel_requested_at is not None
    assert "Stopping…" in response.content.decode()


@pytest.mark.parametrize("field", ["config", "inputs"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1e999}', "a number is out of range: inf"),
        ('{"a": NaN}', "a number is out of range: nan"),
        ('{"a": "x\\u0000"}', "a NUL character at place 1"),
        ("[" * 60 + "]" * 60, "nested too deeply, more than 50 levels"),
        ("[" * 5000, "nested too deeply, more than 50 levels"),
        ("[1]", "must be a JSON object"),
    ],
)
def test_json_that_can_not_be_kept_starts_no_job(cast, enter, field, text, words):
    form = {"kind": "reward", "lane": "loop", "config": "{}", "inputs": "{}", field: text}
    response = enter(cast.admin).post("/p/shop/jobs/start/", form, follow=True)
    assert words in response.content.decode()
    assert not TrainingJob.objects.exists()


def test_cancelling_what_has_ended_is_told(cast, enter, job):
    TrainingJob.objects.update(status=JobStatus.DONE)
    response = enter(cast.admin).post(f"/p/shop/jobs/{job.pk}/cancel/", follow=True)
    assert "has ended already" in response.content.decode()


def test_the_list_of_jobs_has_a_query_budget(cast, enter, django_assert_max_num_queries):
    for _ in range(60):
        TrainingJob.objects.create(project=cast.project, kind=JobKind.SAMPLE)
    client = enter(cast.reviewer)
    with django_assert_max_num_queries(9):
        html = client.get("/p/shop/jobs/").content.decode()
    assert "?page=2" in html


@pytest.mark.parametrize(
    ("planned", "result", "words"),
    [
        ([1, 2], {"comparisons": 2}, "Asked about 2 prompts, the policy made 2 new comparisons."),
        (
            [1, 2, 3],
            {"comparisons": 0, "too_few_distinct": 2, "without_text": 1, "alike_caught": 4},
            "Asked about 3 prompts, the policy made 0 new comparisons. Prompts for which it had "
            "too few different answers: 2. Prompts that hold more than text, which it can&#x27;t "
            "read: 1. Texts caught as leaks or as too much alike: 4.",
        ),
        ([], {"comparisons": 0}, "Nothing was written: enough comparisons were open already"),
    ],
)
def test_a_sample_job_says_what_it_made_and_why_nothing(cast, enter, planned, result, words):
    job = TrainingJob.objects.create(
        project=cast.project,
        kind=JobKind.SAMPLE,
        status=JobStatus.DONE,
        inputs={"planned": planned},
        result=result,
    )
    assert words in enter(cast.reviewer).get(f"/p/shop/jobs/{job.pk}/").content.decode()


def reward_job(cast, num_dev, **columns):
    """A reward job that ended, of a snapshot with so many dev answers."""
    snapshot = DatasetSnapshot.objects.create(
        project=cast.project,
        kind="comparisons",
        query={},
        ledger_position={},
        counts={"trained": 40, "dev": num_dev},
        rows=40 + num_dev,
        sha256=f"{num_dev:064}",
        path="d",
    )
    job = TrainingJob.objects.create(
        project=cast.project,
        kind=JobKind.REWARD,
        status=JobStatus.DONE,
        snapshot=snapshot,
        result={"final": {"scores": SCORES, "dev": {"accuracy": 0.625}}},
        **columns,
    )
    JobMetric.objects.create(job=job, phase="scores", step=9, values=SCORES)
    JobMetric.objects.create(job=job, phase="dev", step=9, values={"accuracy": 0.625})
    return job


SCORES = {"mean": 0.25, "temperature": 100.0, "dev_accuracy": 0.375}
NOTHING = "Nobody has answered a held-out (dev) question, so nothing measures this model"


@pytest.mark.parametrize(
    ("num_dev", "said", "shown", "hidden"),
    [
        (0, NOTHING, ["0.25"], ["Temperature", "0.375", "0.625"]),
        (1, "Only 1 answer to held-out", ["0.25", "0.375", "0.625"], ["Temperature"]),
        (19, "Only 19 answers to held-out", ["0.25", "0.375", "0.625"], ["Temperature"]),
        (20, "", ["0.25", "0.375", "0.625", "Temperature"], []),
    ],
)
def test_no_figure_is_shown_that_was_measured_on_nothing(cast, enter, num_dev, said, shown, hidden):
    job = reward_job(cast, num_dev)
    html = enter(cast.reviewer).get(f"/p/shop/jobs/{job.pk}/").content.decode()
    assert said in html
    assert [words for words in shown if words not in html] == []
    assert [words for words in hidden if words in html] == []
    assert ("message warning" in html) == bool(said)


def test_a_job_that_waits_says_what_the_project_lacks_and_one_of_files_what_they_lack(cast, enter):
    client = enter(cast.reviewer)
    queued = TrainingJob.objects.create(project=cast.project, kind=JobKind.REWARD)
    assert NOTHING in client.get(f"/p/shop/jobs/{queued.pk}/").content.decode()
    of_files = TrainingJob.objects.create(
        project=cast.project,
        kind=JobKind.REWARD,
        status=JobStatus.RUNNING,
        inputs={"data": ["pairs.jsonl"]},
    )
    page = f"/p/shop/jobs/{of_files.pk}/"
    assert NOTHING not in client.get(page).content.decode()  # not read yet
    JobMetric.objects.create(job=of_files, phase="data", step=0, values={"dev_num_used": 0})
    assert NOTHING in client.get(page).content.decode()
    ppo = TrainingJob.objects.create(project=cast.project, kind=JobKind.PPO)
    assert NOTHING not in client.get(f"/p/shop/jobs/{ppo.pk}/").content.decode()
