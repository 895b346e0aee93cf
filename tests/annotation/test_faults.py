"""Why a job failed is kept in English and told in the reader's language."""

import pytest
from django.utils.translation import override

from annotation import faults
from annotation.management.commands.compile_translations import compile_file
from annotation.models import JobStatus, TrainingJob
from tests.annotation.test_translations import PO


@pytest.fixture(scope="module", autouse=True)
def compiled():
    compile_file(PO)


@pytest.mark.parametrize(
    ("said", "chinese"),
    [
        ("Training diverged: KL 99 nats", "训练发散：KL 99 nats"),
        (
            "The trainer ended with exit code -11: lr_peak must be above 0: -1",
            "训练进程以退出码 -11 结束：lr_peak 须大于 0，而不是 -1",
        ),
        (
            "This job needs a reward model in force, and the project has none.",
            "此任务需要启用中的奖励模型，而本项目没有。",
        ),
        (
            "The project has no comparisons to train on (train, dev).",
            "本项目没有可供训练的比较（train, dev）。",
        ),
        ("loss must be one of a, b: 'c'", "loss 须为 a, b 之一，而不是 'c'"),
        (
            "The worker vanished 5 times while this job ran; it is not tried again.",
            "此任务运行时工作进程失踪了 5 次；不再重试。",
        ),
        ("A line\nof another kind", "A line\nof another kind"),
        ("", ""),
    ],
)
def test_a_known_sentence_is_translated_and_another_shown_as_it_is(said, chinese):
    with override("zh-hans"):
        assert faults.in_words(said) == chinese
    with override("en"):
        assert faults.in_words(said) == said


def test_the_pages_tell_it(cast, enter):
    error = "This job needs a policy in force to improve, and the project has none."
    job = TrainingJob.objects.create(
        project=cast.project, kind="ppo", status=JobStatus.FAILED, error=error
    )
    client = enter(cast.admin)
    for page in ("/p/shop/", f"/p/shop/jobs/{job.pk}/"):
        html = client.get(page, headers={"Accept-Language": "zh-Hans"}).content.decode()
        assert "此任务需要一个可改进的启用中的策略模型，而本项目没有。" in html
        assert error in client.get(page, headers={"Accept-Language": "en"}).content.decode()
