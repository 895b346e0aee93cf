"""What a run wrote: by step, by score, in order, escaped, and never a whole file in memory."""

import csv
import io
import json

import pytest

from annotation import rollouts
from annotation.models import JobKind, JobStatus, TrainingJob
from annotation.pages.rollouts import ROLLOUTS_PER_PAGE


@pytest.fixture
def job(cast, settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    return TrainingJob.objects.create(
        project=cast.project, kind=JobKind.PPO, status=JobStatus.RUNNING, step=3, attempt=2
    )


@pytest.fixture
def write(job, tmp_path):
    """Rows of (score, KL, text) as the texts of a step."""

    def write_step(step, *rows, folder="jobs/{}/attempt-2/model"):
        path = tmp_path / folder.format(job.pk) / "texts" / f"step-{step:05d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            {
                "step": step,
                "of": len(rows),
                "prompt_id": "p",
                "prompt": [
                    {"role": "user", "content": "Hi <i>"},
                    {"role": "assistant", "content": "Hello."},
                    {"role": "user", "content": f"Question to {text}"},
                ],
                "text": text,
                "score": score,
                "baseline": 0.25,
                "kl": kl,
                "tokens": 4,
                "finish": "end",
                "parts": {"part": score},
                "seen": {},
            }
            for score, kl, text in rows
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return write_step


@pytest.fixture
def page(cast, enter, job):
    client = enter(cast.reviewer)
    return lambda query="": client.get(f"/p/shop/jobs/{job.pk}/rollouts/{query}")


def order_of(response, *texts) -> list[str]:
    html = response.content.decode()
    found = [text for text in texts if f">{text}</p>" in html]
    return sorted(found, key=lambda text: html.index(f">{text}</p>"))


def test_the_newest_step_stands_there_with_the_lowest_scores_first(page, write):
    write(1, (9.0, 0.0, "old"))
    write(2, (0.5, 3.0, "middle"), (2.0, 1.0, "best"), (-1.5, 2.0, "worst"))
    every = ("old", "middle", "best", "worst")
    assert order_of(page(), *every) == ["worst", "middle", "best"]
    assert order_of(page("?sort=highest"), *every) == ["best", "middle", "worst"]
    assert order_of(page("?sort=farthest"), *every) == ["middle", "worst", "best"]
    assert order_of(page("?sort=drawn"), *every) == ["middle", "best", "worst"]
    assert order_of(page("?step=1"), *every) == ["old"]
    assert order_of(page("?step=77"), *every) == ["worst", "middle", "best"]
    html = page().content.decode()
    assert "Step 2: scores from -1.5 to 2." in html
    assert "Question to worst" in html
    assert "-1.75" in html  # 1.5 below nothing, and 0.25 of the reference


def test_only_scores_that_were_asked_for(page, write):
    write(1, (0.5, 3.0, "middle"), (2.0, 1.0, "best"), (-1.5, 2.0, "worst"))
    every = ("middle", "best", "worst")
    assert order_of(page("?score_from=0.5"), *every) == ["middle", "best"]
    assert order_of(page("?score_to=0.5&score_from=-1"), *every) == ["middle"]
    assert "No answer of this step has such a score." in page("?score_from=9").content.decode()
    wrong = page("?score_from=x")
    assert (wrong.status_code, "Enter a number." in wrong.content.decode()) == (400, True)


def test_what_a_model_wrote_is_never_markup(page, write):
    write(1, (0.0, 0.0, "<script>alert(1)</script>\x1b[1m**bold**"))
    html = page().content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;**bold**" in html
    assert "\x1b" not in html
    assert "Hi &lt;i&gt;" in html


def test_a_long_step_has_pages(page, write):
    write(1, *[(float(n), 0.0, f"answer {n}") for n in range(ROLLOUTS_PER_PAGE + 3)])
    texts = [f"answer {n}" for n in range(ROLLOUTS_PER_PAGE + 3)]
    assert order_of(page("?page=2"), *texts) == texts[ROLLOUTS_PER_PAGE:]


def test_lines_that_are_no_rows_are_left_out(page, write):
    path = write(1, (1.0, 0.0, "whole"))
    with path.open("a") as file:
        file.write(
            '[1]\n{"score": NaN, "kl": 1, "tokens": 2}\n' + "[" * 9000 + '\n{"score": 1.0, "k'
        )
    assert order_of(page(), "whole") == ["whole"]


def test_a_page_holds_the_texts_of_its_own_rows_alone(write, monkeypatch):
    path = write(1, *[(float(n), 0.0, "x" * 100) for n in range(50)])
    lines = rollouts.lines_of(path)
    read = []
    monkeypatch.setattr(rollouts, "_rollout", lambda row, line: read.append(line) or line)
    assert rollouts.rollouts_at(path, lines[40:42]) == lines[40:42] == read


def test_a_published_run_is_read_where_it_lies_and_an_early_attempt_where_no_later_wrote(
    page, write, job
):
    write(1, (1.0, 0.0, "first"), folder="jobs/{}/attempt-1/model")
    assert order_of(page(), "first") == ["first"]
    write(1, (1.0, 0.0, "second"))
    assert order_of(page(), "first", "second") == ["second"]
    write(1, (1.0, 0.0, "published"), folder="models/ppo-{}")
    assert order_of(page(), "first", "second", "published") == ["published"]


def test_a_run_without_texts_says_so(page):
    response = page()
    assert (response.status_code, "No text is kept" in response.content.decode()) == (200, True)


def test_the_numbers_of_a_step_as_csv(cast, enter, job, write):
    write(1, (0.5, 3.0, "=1+1"))
    client = enter(cast.reviewer)
    text = client.get(f"/p/shop/jobs/{job.pk}/rollouts/1.csv").content.decode()
    assert list(csv.reader(io.StringIO(text))) == [
        ["score", "reference_score", "kl_nats", "tokens", "finish"],
        ["0.5", "0.25", "3.0", "4", "end"],
    ]
    assert client.get(f"/p/shop/jobs/{job.pk}/rollouts/2.csv").status_code == 404


def test_the_page_has_a_query_budget(page, write, django_assert_max_num_queries):
    write(1, *[(float(n), 0.0, "x") for n in range(200)])
    with django_assert_max_num_queries(8):
        page()
