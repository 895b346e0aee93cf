"""The reviewer's day in a real browser: a case is settled, an answer sent back and given again, a
vote voided, and the page of agreement follows."""

import pytest
from playwright.sync_api import Page

from annotation.models import Comparison, Decision, Preference, Role, SendBack
from annotation.services import projects
from annotation.services.projects import annotator_for
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.rankings import AxisRanking
from tests.pages_cast import person

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
BY_NEED = "Prefer what answers the question asked."
WHY = "The customer asked about a jacket; please read both answers again."


def answer(cast, user, *, first: dict[Comparison, bool]) -> None:
    """Everything that waits for a person; True: what stands first in the ledger is better."""
    annotator = annotator_for(user=user, project=cast.project)
    for _ in first:
        lease = claim_comparison(annotator=annotator)
        order = sorted(lease.presented_order, reverse=not first[lease.comparison])
        said = [AxisRanking(groups=[[pk] for pk in order])]
        submit_preference(assignment=lease, rankings=said, key=f"{user.pk} {lease.pk}")


def alike(page: Page) -> tuple[str, str]:
    """What Quality says of the share of people who answered alike, and its n."""
    cells = page.locator("#figures section").first.locator("tbody tr").first.locator("td")
    return cells.nth(1).locator("strong").inner_text(), cells.nth(2).inner_text()


def test_a_reviewer_settles_a_case_sends_one_back_and_voids_a_vote(visitors, cast):
    kim = person("kim-shop")
    projects.add_member(project=cast.project, user=kim, role=Role.LABELER, by=cast.admin)
    disputed = cast.ask("How do I return a jacket?", ["Within 30 days, by post.", "No idea."])
    others = [cast.ask(f"Question {number}?", ["Yes, gladly.", "No."]) for number in (1, 2)]
    Comparison.objects.update(answers_wanted=2, open_slots=2)
    projects.new_guideline(project=cast.project, texts={"en": BY_NEED}, by=cast.admin)
    answer(cast, cast.labeler, first={disputed: False, **dict.fromkeys(others, True)})
    answer(cast, kim, first={disputed: True, **dict.fromkeys(others, True)})

    # comes in by the door, and the page of review says what waits
    reviewer = visitors()
    reviewer.sign_in(cast.reviewer.username)
    reviewer.visit("/p/shop/quality/")
    reviewer.wait_for("#figures")
    assert reviewer.do(alike) == ("0.667", "3")  # two of three comparisons, by hand
    reviewer.go("Work", "Guideline")
    reviewer.wait_for(f"text={BY_NEED}")
    reviewer.go("Review", "Review queue")
    reviewer.wait_for("text=1 comparison waits")
    reviewer.go(str(disputed.pk))

    # both votes stand beside the form, which is filled in by keys
    reviewer.wait_for("form.answer")
    said = reviewer.text("aside.side")
    assert "1 > 2" in said
    assert "2 > 1" in said
    text = "Within 30 days"
    first = reviewer.do(lambda page: text in page.locator(".option").first.inner_text())
    reviewer.keys("1" if first else "2", "Enter")
    reviewer.wait_for("text=Nothing waits for your review.")
    decision = Decision.objects.get()
    better = disputed.completions.get(text__startswith=text).pk
    assert decision.rankings[0]["groups"][0] == [better]

    # the one who saw it otherwise is asked to look again, from the case itself
    against = Preference.objects.get(comparison=disputed, annotator__user=cast.labeler)
    reviewer.go(str(disputed.pk), against.annotator.pseudonym)
    reviewer.wait_for("#comment")
    reviewer.do(lambda page: page.fill("#comment", WHY))
    reviewer.do(lambda page: page.get_by_role("button", name="Send it back").click())
    reviewer.wait_for(".badge.due")

    # the labeler meets it at the desk, by the key that leads to what waits, and answers anew
    labeler = visitors()
    labeler.enter(cast.labeler, "/p/shop/label/")
    labeler.wait_for("#desk")
    labeler.keys("i")
    labeler.wait_for(f"text={WHY}")
    labeler.do(lambda page: page.get_by_role("link", name="Look at it again").click())
    labeler.wait_for("form.answer")
    place = labeler.do(lambda page: text in page.locator(".option").first.inner_text())
    labeler.keys("1" if place else "2", "Enter")
    labeler.wait_for(".empty")
    revision = Preference.objects.get(
        comparison=disputed, annotator=against.annotator, current=True
    )
    assert (revision.revision, revision.rankings.get().groups[0]) == (2, [better])

    # the reviewer sees it settled
    reviewer.do(lambda page: page.reload())
    reviewer.go("The revised answer")
    reviewer.wait_for(f"h1:has-text('Preference {revision.pk}')")
    assert WHY in reviewer.text("main")
    assert SendBack.objects.get().revision == revision

    # first answers count for agreement, so it moves when the other vote is voided
    other = Preference.objects.get(comparison=disputed, annotator__user=kim)
    reviewer.visit(f"/p/shop/preferences/{other.pk}/")
    reviewer.do(lambda page: page.fill("#reason", "Answered in a hurry."))
    reviewer.do(lambda page: page.get_by_role("button", name="Void", exact=True).click())
    reviewer.wait_for("text=The answer is void; its place is open again.")
    reviewer.go("Review", "Quality")
    reviewer.wait_for("#figures")
    assert reviewer.do(alike) == ("1.000", "2")
    assert reviewer.dialogs == []
