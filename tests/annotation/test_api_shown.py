"""The desk's fast reading and writing, held against the serializers that the API promises."""

import json

import pytest
from rest_framework.renderers import JSONRenderer

from annotation.api import shown
from annotation.api.desk import AssignmentOut, PreferenceIn, PreferenceOut
from annotation.models import Assignment, Preference
from annotation.services.answers import Judgment
from annotation.services.projects import new_guideline, new_scheme
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.rankings import AxisRanking
from annotation.services.review import void_preference
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_project,
    make_user,
)

pytestmark = pytest.mark.django_db

FULL = {
    "strength_steps": 7,
    "acceptability": True,
    "ratings": [{"name": "correct", "low": 0, "high": 3}],
    "flags": ["unsafe"],
    "ideal": True,
}


def sent(data):
    """As it goes over the wire."""
    return json.loads(JSONRenderer().render(data))


@pytest.fixture(params=[{}, FULL], ids=["plain scheme", "full scheme"])
def lease(request):
    project = make_project()
    new_scheme(project=project, by=None, options=request.param)
    texts = {"en": "Read.", "zh-hans": "请读。"}
    new_guideline(project=project, by=None, texts=texts)
    make_comparisons(project)
    return claim_comparison(annotator=make_annotator(project))


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_a_lease_is_shown_as_the_serializer_would(lease, language, settings):
    settings.LANGUAGE_CODE = language
    again = Assignment.objects.get(pk=lease.pk)
    assert sent(shown.lease(lease)) == sent(AssignmentOut(again).data)


def test_a_lease_without_guideline_is_shown_as_the_serializer_would(lease):
    lease.guideline = None
    assert sent(shown.lease(lease)) == sent(AssignmentOut(lease).data)


def test_an_answer_is_shown_as_the_serializer_would(lease):
    is_full = bool(lease.scheme.options.get("ratings"))
    first, second = lease.presented_order
    ranking = AxisRanking(groups=[[first], [second]], strengths=[3.0] if is_full else [])
    more = {
        "judgments": [
            Judgment(completion=first, ratings={"correct": 3}, flags=["unsafe"]),
            Judgment(completion=second, ratings={"correct": 0}),
        ],
        "ideal": "As it should be.",
    }
    preference = submit_preference(
        assignment=lease, rankings=[ranking], key="k", note="Why", **(more if is_full else {})
    )
    stored = Preference.objects.get(pk=preference.pk)
    assert sent(shown.answer(preference)) == sent(PreferenceOut(stored).data)
    voided = void_preference(preference=stored, by=make_user(), reason="No")
    assert sent(shown.answer(voided)) == sent(PreferenceOut(voided).data)


def test_an_answer_without_guideline_is_shown_as_the_serializer_would(lease):
    lease.guideline = None
    preference = Preference(
        scheme=lease.scheme,
        annotator=lease.annotator,
        comparison=lease.comparison,
        project=lease.project,
    )
    preference.save()
    assert sent(shown.answer(preference)) == sent(PreferenceOut(preference).data)


RANKED = {"axis": "overall", "outcome": "ranked", "groups": [[1], [2, 3]]}


@pytest.mark.parametrize(
    "body",
    [
        {"key": "k", "rankings": [RANKED]},
        {"key": "k", "rankings": [RANKED, {"outcome": "both_bad"}], "note": "Two\nlines"},
        {"key": "k", "rankings": [{**RANKED, "strengths": [1, 2.5], "acceptable": 1}]},
        {"key": "k", "rankings": [{**RANKED, "acceptable": None}], "unknown": 1},
        {"key": "k" * 80, "rankings": [{"outcome": "equal", "groups": []}], "note": ""},
    ],
)
def test_a_plain_answer_is_read_as_the_serializer_would(body):
    serializer = PreferenceIn(data=body)
    serializer.is_valid(raise_exception=True)
    assert shown.plain_answer(body) == serializer.validated_data


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key": "k"},
        {"key": " k", "rankings": [RANKED]},
        {"key": "", "rankings": [RANKED]},
        {"key": "k" * 81, "rankings": [RANKED]},
        {"key": 1, "rankings": [RANKED]},
        {"key": "k", "rankings": []},
        {"key": "k", "rankings": RANKED},
        {"key": "k", "rankings": [None]},
        {"key": "k", "rankings": [{"groups": [[1]]}]},
        {"key": "k", "rankings": [{**RANKED, "outcome": "won"}]},
        {"key": "k", "rankings": [{**RANKED, "outcome": ["ranked"]}]},
        {"key": "k", "rankings": [{**RANKED, "axis": ""}]},
        {"key": "k", "rankings": [{**RANKED, "axis": "x" * 41}]},
        {"key": "k", "rankings": [{**RANKED, "axis": None}]},
        {"key": "k", "rankings": [{**RANKED, "groups": [["1"]]}]},
        {"key": "k", "rankings": [{**RANKED, "groups": [[True]]}]},
        {"key": "k", "rankings": [{**RANKED, "groups": None}]},
        {"key": "k", "rankings": [{**RANKED, "groups": [[1]] * 10}]},
        {"key": "k", "rankings": [{**RANKED, "groups": [[1] * 10]}]},
        {"key": "k", "rankings": [{**RANKED, "groups": [[10**40]]}]},
        {"key": "k", "rankings": [{**RANKED, "strengths": ["1"]}]},
        {"key": "k", "rankings": [{**RANKED, "acceptable": "1"}]},
        {"key": "k", "rankings": [{**RANKED, "other": 1}]},
        {"key": "k", "rankings": [RANKED], "note": " blank before"},
        {"key": "k", "rankings": [RANKED], "note": None},
        {"key": "k", "rankings": [RANKED], "judgments": []},
        {"key": "k", "rankings": [RANKED], "ideal": ""},
    ],
)
def test_whatever_is_not_plain_is_left_to_the_serializer(body):
    assert shown.plain_answer(body) is None


def test_the_answer_that_as_shown_makes_is_plain(lease):
    [ranking] = as_shown(lease)
    body = {"key": "k", "rankings": [{"outcome": ranking.outcome, "groups": ranking.groups}]}
    assert shown.plain_answer(body) is not None
