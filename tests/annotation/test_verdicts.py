"""A gate's sentence is kept in English and shown in the reader's language."""

import pytest
from django.utils.translation import override

from annotation import verdicts
from annotation.management.commands.compile_translations import compile_file
from policy import score_scale
from tests.annotation.test_translations import PO

AGAINST = "Against reward-1 on 24 groups of dev: accuracy +0.0200 [-0.0100, +0.0500], log loss 0.1."


@pytest.fixture(scope="module", autouse=True)
def compiled():
    compile_file(PO)


@pytest.mark.parametrize(
    ("why", "chinese"),
    [
        ("The project's first policy.", "这是项目的第一个策略模型。"),
        (
            AGAINST,
            "在开发集的 24 组上与 reward-1 相比：准确率 +0.0200 [-0.0100, +0.0500]，对数损失 0.1。",
        ),
        (
            "No dev answers to compare with a 100% (new) on; it passes unjudged.",
            "没有可与 a 100% (new) 比较的开发集回答；未经评判即通过。",
        ),
        (
            "The project's first policy. Promoting it failed: BadInput: No\ndirectory.",
            "这是项目的第一个策略模型。 启用时出错：BadInput: No\ndirectory.",
        ),
        ("Somebody else's words.", "Somebody else's words."),
        ("", ""),
    ],
)
def test_a_sentence_is_shown_in_the_readers_language(why, chinese):
    with override("zh-hans"):
        assert verdicts.in_words(why) == chinese
    with override("en"):
        assert verdicts.in_words(why) == why


def test_every_sentence_is_found_again_whatever_it_is_filled_with():
    for sentence in verdicts.SENTENCES:
        names = verdicts._pattern(sentence).groupindex
        said = sentence % {name: f"(a.b*, {name}) of 3: x; y" for name in names}
        with override("en"):
            assert verdicts.in_words(said) == said
        with override("zh-hans"):
            assert verdicts.in_words(said) != said


@pytest.mark.parametrize(
    ("gate", "outcome"),
    [
        ({"passed": True, "verdict": "unjudged", "why": "Of another day."}, "unjudged"),
        ({"passed": True, "verdict": "passed", "why": AGAINST}, "passed"),
        ({"passed": False, "verdict": "undecided", "why": AGAINST}, "undecided"),
        ({"passed": True, "verdict": "undecided", "why": AGAINST}, "undecided"),  # as it was
        ({"passed": False, "verdict": "failed", "why": verdicts.NO_PROMPT}, "failed"),
        ({"passed": True, "verdict": "first", "why": verdicts.FIRST_POLICY}, "unjudged"),
        ({"verdict": "unjudged", "why": verdicts.SFT_BY_ADMIN % {"name": "sft-1"}}, "unjudged"),
        # as they were kept before there was such a verdict
        ({"verdict": "failed", "why": verdicts.SFT_BY_ADMIN % {"name": "sft-1"}}, "unjudged"),
        (
            {
                "passed": True,
                "verdict": "first",
                "why": verdicts.FIRST_REWARD_TOO_FEW % {"groups": 0} + " Promoting it failed: x",
            },
            "unjudged",
        ),
        (
            {
                "passed": True,
                "verdict": "first",
                "why": verdicts.FIRST_REWARD % {"accuracy": "0.7", "groups": 40},
            },
            "passed",
        ),
        (
            {"passed": True, "verdict": "passed", "why": verdicts.UNJUDGED % {"name": "r"}},
            "unjudged",
        ),
    ],
)
def test_a_pass_that_no_number_speaks_for_is_unjudged(gate, outcome):
    assert verdicts.outcome_of(gate) == outcome


def test_few_groups_are_as_few_as_the_laboratory_has_it():
    assert verdicts.FEWEST_GROUPS == score_scale.FEWEST_GROUPS
