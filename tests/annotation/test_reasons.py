"""Why a job was asked for, in the reader's language."""

import pytest
from django.utils.translation import override

from annotation.management.commands.compile_translations import compile_file
from annotation.models import RetrainRule
from annotation.services.retraining import Facts, is_due
from annotation.templatetags.reasons import in_words
from tests.annotation.test_translations import PO


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    compile_file(PO)


def composed() -> str:
    """What the rule says where both of its limits are reached."""
    rule = RetrainRule(after_preferences=50, every_minutes=10, enabled=True)
    facts = Facts(
        new_preferences=57, minutes_since=12.4, job_open=False, policy_in_the_making=False
    )
    return is_due(rule, facts)[1]


@pytest.mark.parametrize(
    ("reason", "chinese"),
    [
        (composed(), "57 条新偏好, 距上一个奖励任务 12 分钟"),
        ("reward-3 was promoted", "reward-3 已启用"),
        ("12 of 50 comparisons are open", "开放的比较 12 / 50"),
        ("first start of the demo", "演示首次启动"),
        ("57 new preferences, because I say so", "57 new preferences, because I say so"),
        ("", ""),
    ],
)
def test_known_sentences_are_translated_and_others_stay(reason, chinese):
    with override("zh-hans"):
        assert in_words(reason) == chinese
    with override("en"):
        assert in_words(reason) == reason
