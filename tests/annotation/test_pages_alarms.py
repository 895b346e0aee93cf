"""Alarms of a run on its page, on its charts, and among what to do now."""

import pytest
from django.utils.translation import override

from annotation.models import JobKind, JobMetric, JobStatus, TrainingJob
from annotation.pages.advice import advice_for
from annotation.pages.alarms import alarms_of, key_of
from annotation.pages.overview import state_of
from policy.alarms import SAYS


@pytest.fixture
def run(cast):
    """Five steps of PPO; the clip rang in 2 and 3, a watched model's score was no number in 5."""
    job = TrainingJob.objects.create(
        project=cast.project, kind=JobKind.PPO, status=JobStatus.RUNNING, step=5, total_steps=9
    )
    rows = [("ppo", step, {"clipfrac": 0.1 * step, "score": step / 3}) for step in range(1, 6)]
    rows += [
        ("alarms", 2, {"clipfrac": 0.41}),
        ("alarms", 3, {"clipfrac": 0.52}),
        ("alarms", 5, {"reward_model_2_not_finite": None}),
        ("skipped", 4, {"num_skipped": 1, "in_a_row": 1, "rolled_back_to": -1}),
    ]
    for phase, step, values in rows:
        JobMetric.objects.create(job=job, phase=phase, step=step, values=values)
    return job


def test_each_alarm_has_its_first_step_and_value_and_what_rings_now_stands_first(run):
    told = [(one.name, one.first_step, one.first, one.steps, one.last) for one in alarms_of(run)]
    assert told == [
        ("reward_model_2_not_finite", 5, "no number", 1, "no number"),
        ("clipfrac", 2, "0.41", 2, "0.52"),
        ("num_skipped", 4, "1", 1, "1"),
    ]
    assert [one.is_on for one in alarms_of(run)] == [True, False, False]
    assert all(one.help.endswith(".") and one.healthy for one in alarms_of(run))


def test_the_page_says_what_helps_and_marks_the_chart(cast, enter, run):
    html = enter(cast.reviewer).get(f"/p/shop/jobs/{run.pk}/").content.decode()
    assert "First at step 2: 0.41. In 2 steps in all, last at 3: 0.52." in " ".join(html.split())
    assert SAYS["clipfrac"].help in html
    assert html.count('class="mark"') == 1  # of three charts, on the clip's
    [before] = [part for part in html.split("<figure") if "An alarm began at step 2" in part]
    assert "Clipped tokens, share" in before
    assert 'x1="118.5"' in before  # 48 + 282 / 4, the second of five steps


def test_the_chinese_page_says_it_in_chinese(cast, enter, run):
    client = enter(cast.reviewer)
    with override("en"):  # what a request leaves behind is put back
        zh = {"Accept-Language": "zh-hans"}
        html = client.get(f"/p/shop/jobs/{run.pk}/", headers=zh).content.decode()
    assert "首次在第 2 步：0.41。" in html
    assert "调低 lr_peak，或减少 epochs。" in html
    assert "正常范围：每个回答都有一个数。" in html
    assert SAYS["clipfrac"].help not in html


def test_what_rings_in_the_newest_step_of_a_running_job_is_something_to_do(cast, enter, run):
    loop = state_of(cast.project)["loop"]
    assert [one.sentence for one in advice_for(loop) if "rings" in one.sentence] == [
        f"Job {run.pk} (PPO) rings: reward_model_2 is no number. {SAYS['*_not_finite'].help}"
    ]
    JobMetric.objects.create(job=run, phase="ppo", step=6, values={"clipfrac": 0.1})
    assert not [one for one in advice_for(loop) if "rings" in one.sentence]


@pytest.mark.parametrize("kind", SAYS)
def test_every_kind_of_alarm_finds_its_figure_and_its_sentence(kind, run):
    name = kind.replace("*", "reward_model")
    figures = {
        "kl_below_zero": "kl_nats",
        "response_tokens_drift": "response_tokens",
        "end_rate_drift": "end_rate",
        "distinct_2_drift": "distinct_2",
        "entropy_drift": "entropy",
        "*_fallen": "reward_model",
        "*_against": "reward_model",
        "*_not_finite": "reward_model",
    }
    assert key_of(name) == figures.get(kind, name)
    JobMetric.objects.create(job=run, phase="alarms", step=6, values={name: 0.5})
    [found] = [one for one in alarms_of(run) if one.name == name]
    assert (found.help, found.healthy) == (SAYS[kind].help, SAYS[kind].healthy)


def test_a_run_without_alarms_says_nothing_of_them(cast, enter, run):
    JobMetric.objects.filter(phase__in=("alarms", "skipped")).delete()
    html = enter(cast.reviewer).get(f"/p/shop/jobs/{run.pk}/").content.decode()
    assert "Healthy is" not in html
    assert 'class="mark"' not in html
