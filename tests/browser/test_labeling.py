"""Labeling in a real browser: by keys alone, from the page to the database."""

import pytest

from annotation.models import Assignment, AssignmentState, Outcome, Preference, Ranking
from tests.pages_cast import Cast

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def answer_of(cast: Cast) -> Ranking:
    return Ranking.objects.get(preference__project=cast.project)


def test_a_pair_is_answered_with_two_key_presses(visitor, cast):
    cast.ask("Hello?", ["Hi, how can I help?", "What."])
    visitor.sign_in(cast.labeler.username)
    visitor.wait_for("form.answer")
    visitor.keys("2", "Enter")
    visitor.wait_for(".empty")
    lease = Assignment.objects.get()
    first, second = lease.presented_order
    assert answer_of(cast).groups == [[second], [first]]
    assert lease.state == AssignmentState.ANSWERED
    assert "All done" in visitor.text("h1")
