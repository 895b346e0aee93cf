"""Two runs side by side: what was told otherwise, what came of it, curves on the same axes."""

import csv
import io

import pytest

from annotation.models import JobKind, JobMetric, JobStatus, ModelVersion, TrainingJob
from annotation.pages.job_pairs import Line, charts_of, results_of, settings_that_differ


@pytest.fixture
def make(cast):
    def make_job(scores=(), *, kind=JobKind.PPO, **more):
        job = TrainingJob.objects.create(
            project=cast.project, kind=kind, status=JobStatus.DONE, **more
        )
        for step, score in scores:
            JobMetric.objects.create(job=job, phase="ppo", step=step, values={"score": score})
        return job

    return make_job


@pytest.fixture
def both(cast, make):
    version = ModelVersion.objects.create(
        kind="reward", stage="reward", name="reward-7", path="models/reward-7", sha256="a" * 64
    )
    one = make(
        [(1, 0.0), (3, 4.0)],
        config={"lr_peak": 1e-5, "epochs": 3},
        inputs={"processes": 2},
        result={"wall_seconds": 10, "final": {"final": {"step": 3, "score": 1.5, "kl_nats": 2.0}}},
    )
    other = make(
        [(1, 1.0), (2, -1.0)],
        config={"lr_peak": 2e-5},
        reward=version,
        result={"wall_seconds": 8, "final": {"final": {"step": 2, "score": 2.0}}},
    )
    return one, other


def test_only_what_was_told_otherwise_is_shown_and_a_default_is_told_too(both):
    assert settings_that_differ(*both) == [
        Line("Rewarded by", "–", "reward-7"),
        Line("epochs", "3", "2"),
        Line("lr_peak", "1e-05", "2e-05"),
        Line("Processes", "2", "–"),
    ]


def test_results_have_their_difference(both):
    assert results_of(*both) == [
        Line("Seconds in all", "10", "8", "-2"),
        Line("After the last step: Score", "1.5", "2", "+0.5"),
        Line("After the last step: KL to the reference, nats per answer", "2", "–", ""),
    ]


def test_curves_share_their_axes(both):
    [(place, chart)] = charts_of(*both)
    assert place == ("ppo", "score")
    # x from 1 to 3 over 282 units from 48, y from -2 to 4 over 118 units up from 128
    assert [tick.text for tick in chart.x_ticks] == ["1", "3"]
    assert [tick.text for tick in chart.y_ticks] == ["-2", "0", "2", "4"]
    assert chart.lines == ["48.0,88.7 330.0,10.0"]
    assert chart.beside.lines == ["48.0,69.0 189.0,108.3"]
    assert (chart.last, chart.beside.last) == ("4", "-1")


def test_a_figure_that_one_run_lacks_is_drawn_for_the_other(make):
    [(_, chart)] = charts_of(make(), make([(1, 0.0), (2, 1.0)]))
    assert (chart.last, chart.lines, chart.beside.last) == ("", [], "1")


def test_the_page_asks_which_and_shows_both(cast, enter, both):
    one, other = both
    client = enter(cast.reviewer)
    asked = client.get(f"/p/shop/jobs/pair/?one={one.pk}")
    assert asked.status_code == 200
    assert f'<option value="{one.pk}" selected>#{one.pk} PPO · Done' in asked.content.decode()
    html = client.get(f"/p/shop/jobs/pair/?one={one.pk}&other={other.pk}").content.decode()
    assert '<polyline class="line beside"' in html
    assert "Score: 4 at the end, and -1 beside it" in html
    assert ">+0.5</td>" in html
    assert f'href="/p/shop/jobs/pair/numbers.csv?one={one.pk}&amp;other={other.pk}"' in html


@pytest.mark.parametrize("path", ["", "numbers.csv"])
def test_runs_of_two_kinds_or_of_another_project_are_refused(cast, enter, both, make, path):
    client = enter(cast.reviewer)
    sft = make(kind=JobKind.SFT)
    wrong = client.get(f"/p/shop/jobs/pair/{path}?one={both[0].pk}&other={sft.pk}")
    assert wrong.status_code == 400
    assert "Only runs of one kind stand side by side: these are PPO and" in wrong.content.decode()
    missing = client.get(f"/p/shop/jobs/pair/{path}?one={both[0].pk}&other=999999")
    assert missing.status_code == 400


def test_every_number_of_both_as_csv(cast, enter, both):
    one, other = both
    path = f"/p/shop/jobs/pair/numbers.csv?one={one.pk}&other={other.pk}"
    rows = list(csv.reader(io.StringIO(enter(cast.reviewer).get(path).content.decode())))
    assert rows == [
        ["phase", "step", "name", f"job_{one.pk}", f"job_{other.pk}"],
        ["ppo", "1", "score", "0.0", "1.0"],
        ["ppo", "2", "score", "", "-1.0"],
        ["ppo", "3", "score", "4.0", ""],
    ]


def test_the_page_has_a_query_budget(cast, enter, both, make, django_assert_max_num_queries):
    for _ in range(20):
        make(kind=JobKind.REWARD)
    client = enter(cast.reviewer)
    with django_assert_max_num_queries(16):
        client.get(f"/p/shop/jobs/pair/?one={both[0].pk}&other={both[1].pk}")
