"""Why a job was asked for, in the reader's language."""

import ast
from pathlib import Path

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
        ("rolled back to tiny model", "已退回 tiny model"),
        ("the judge of reward job 12", "奖励任务 12 的评判模型"),
        ("where judges start, beside pretrain-3", "评判模型的起点，与 pretrain-3 并列"),
        ("", ""),
    ],
)
def test_known_sentences_are_translated_and_others_stay(reason, chinese):
    with override("zh-hans"):
        assert in_words(reason) == chinese
    with override("en"):
        assert in_words(reason) == reason


ROOT = Path(__file__).parents[2]
ASKING = ("request_training", "_request_top_up", "_request_ppo")


def written() -> list[str]:
    """The sentences that code hands to what asks for a job, with 7 for whatever they insert."""
    found = []
    for path in [*ROOT.glob("annotation/**/*.py"), *ROOT.glob("workers/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ASKING:
                named = [one.value for one in node.keywords if one.arg == "reason"]
                found += [text for one in [*node.args, *named] if (text := _text_of(one))]
    return found


def _text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text_of(one) or "7" for one in node.values)
    return ""


def test_every_reason_that_the_code_writes_down_is_known():
    assert len(written()) >= 6
    with override("zh-hans"):
        assert [reason for reason in written() if in_words(reason) == reason] == []
