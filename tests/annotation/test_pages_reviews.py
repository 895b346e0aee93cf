"""The pages of review: what waits, all answers side by side, the form, the decision."""

import pytest

from annotation.models import Decision, ModelVersion, Review, ReviewState, TrainingJob
from annotation.services.audit import record
from annotation.services.caught import caught_in
from annotation.services.decisions import decide
from annotation.services.disagreements import look_again
from annotation.services.leases import shown_order
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from tests.annotation.voting import cast as vote
from tests.annotation.voting import ids_of, make_voter
from tests.pages_cast import make_cast


@pytest.fixture
def apart(cast):
    """A comparison of which two people say opposite things, one of them why."""
    comparison = cast.ask("Which?", ["Go **left**.", "Go right."])
    vote(comparison, order=[[0], [1]], note="left is nearer")
    vote(comparison, order=[[1], [0]])
    look_again(comparison.pk)
    return comparison


def shown_first(comparison, user):
    """The text of what a reviewer sees as answer 1."""
    annotator = annotator_for(user=user, project=comparison.project)
    return shown_order(comparison, annotator)[0]


def test_what_waits_is_listed_with_its_agreement(cast, enter, apart):
    html = enter(cast.reviewer).get("/p/shop/reviews/").content.decode()
    assert "1 comparison waits" in html
    assert f"/p/shop/reviews/{apart.pk}/" in html
    assert "0.00" in html


def test_the_next_leads_to_it_and_then_back(cast, enter, apart):
    client = enter(cast.reviewer)
    assert client.get("/p/shop/reviews/next/").headers["Location"] == f"/p/shop/reviews/{apart.pk}/"
    passed = client.get(f"/p/shop/reviews/next/?but={apart.pk}")
    assert passed.headers["Location"] == "/p/shop/reviews/"
    Review.objects.update(state=ReviewState.DECIDED)
    after = client.get("/p/shop/reviews/next/", follow=True)
    assert "Nothing waits for your review." in after.content.decode()


def test_a_reviewer_sees_all_answers_but_not_who_wrote_what(cast, enter, apart):
    html = enter(cast.reviewer).get(f"/p/shop/reviews/{apart.pk}/").content.decode()
    assert "left is nearer" in html
    assert html.count("voter-") >= 2
    assert "1 &gt; 2" in html
    assert "2 &gt; 1" in html
    assert 'data-key="1"' in html
    assert "From default" not in html
    assert "checked" not in html.split("<form")[2]  # nothing is preselected


def test_the_ordinary_form_decides_and_goes_on(cast, enter, apart):
    client = enter(cast.reviewer)
    url = f"/p/shop/reviews/{apart.pk}/"
    empty = client.post(url, {"seen": "0"})
    assert empty.status_code == 422
    assert "Choose an answer first." in empty.content.decode()
    done = client.post(url, {"seen": "0", "axis0-choice": "1", "note": "it says so"})
    assert done.headers["Location"] == "/p/shop/reviews/next/"
    decision = Decision.objects.get()
    assert decision.rankings[0]["groups"][0] == [shown_first(apart, cast.reviewer)]
    assert decision.reason == "it says so"
    html = client.get(url).content.decode()
    assert "From default" in html  # the writers, once it is decided
    assert "it says so" in html
    assert "axis0-choice" not in html
    assert "axis0-choice" in client.get(f"{url}?again=1").content.decode()


def test_the_second_reviewer_is_shown_the_first_ones_decision(cast, enter, apart):
    decide(
        comparison=apart,
        by=cast.reviewer,
        seen=0,
        rankings=[AxisRanking(groups=[[pk] for pk in ids_of(apart)])],
        reason="the first word",
    )
    client = enter(cast.admin)
    url = f"/p/shop/reviews/{apart.pk}/"
    late = client.post(url, {"seen": "0", "axis0-choice": "2"}, follow=True).content.decode()
    assert "Somebody else has decided this meanwhile" in late
    assert "the first word" in late
    assert Decision.objects.count() == 1
    client.post(url, {"seen": "1", "axis0-choice": "2"})
    assert Decision.objects.filter(current=True).get().number == 2


def test_what_cannot_be_decided_is_closed_with_a_reason(cast, enter, apart):
    client = enter(cast.reviewer)
    url = f"/p/shop/reviews/{apart.pk}/"
    assert client.post(url, {"seen": "0", "undecidable": "1"}).status_code == 422
    client.post(url, {"seen": "0", "undecidable": "1", "reason": "no map"})
    assert Decision.objects.get().undecidable
    assert "Cannot be decided" in client.get("/p/shop/reviews/").content.decode()


def test_who_answered_sees_no_form(cast, enter):
    comparison = cast.ask("Which?", ["Left.", "Right."])
    vote(comparison, annotator_for(user=cast.reviewer, project=cast.project), order=[[0], [1]])
    vote(comparison, order=[[1], [0]])
    look_again(comparison.pk)
    client = enter(cast.reviewer)
    html = client.get(f"/p/shop/reviews/{comparison.pk}/").content.decode()
    assert "somebody else decides it" in html
    assert "axis0-choice" not in html
    posted = client.post(f"/p/shop/reviews/{comparison.pk}/", {"seen": "0", "axis0-choice": "1"})
    assert posted.status_code == 403
    assert "Nothing waits" in client.get("/p/shop/reviews/next/", follow=True).content.decode()


def test_a_void_decision_opens_the_review(cast, enter, apart):
    client = enter(cast.reviewer)
    client.post(f"/p/shop/reviews/{apart.pk}/", {"seen": "0", "axis0-choice": "tie"})
    decision = Decision.objects.get()
    client.post(f"/p/shop/decisions/{decision.pk}/void/", {"reason": "too quick"})
    html = client.get(f"/p/shop/reviews/{apart.pk}/").content.decode()
    assert "too quick" in html
    assert "axis0-choice" in html


def test_answers_after_the_decision_are_marked(cast, enter, apart):
    client = enter(cast.reviewer)
    client.post(f"/p/shop/reviews/{apart.pk}/", {"seen": "0", "axis0-choice": "1"})
    vote(apart, make_voter(cast.project), order=[[0], [1]])
    look_again(apart.pk)
    assert "1 answer came after it" in client.get(f"/p/shop/reviews/{apart.pk}/").content.decode()
    assert "answers since" in client.get("/p/shop/reviews/").content.decode()


def test_the_bar_is_the_admins_and_only_of_the_own_project(cast, enter, apart):
    client, other = enter(cast.admin), make_cast("other")
    client.post("/p/shop/reviews/bar/", {"batch": "", "below": "0"})
    assert not Review.objects.filter(state=ReviewState.OPEN).exists()
    client.post("/p/shop/reviews/bar/", {"batch": apart.batch_id, "below": "0,4"})
    assert Review.objects.filter(state=ReviewState.OPEN).exists()
    odd = client.post("/p/shop/reviews/bar/", {"batch": "", "below": "much"}, follow=True)
    assert "A bar is a number from 0 to 1: much" in odd.content.decode()
    assert (
        enter(other.admin)
        .post("/p/other/reviews/bar/", {"batch": apart.batch_id, "below": "1"})
        .status_code
        == 404
    )
    assert "review-bar" not in enter(cast.reviewer).get("/p/shop/reviews/").content.decode()


def test_the_decision_stands_on_the_page_of_each_answer(cast, enter, apart):
    client = enter(cast.reviewer)
    client.post(
        f"/p/shop/reviews/{apart.pk}/", {"seen": "0", "axis0-choice": "tie", "note": "both do"}
    )
    pk = apart.preferences.first().pk
    html = client.get(f"/p/shop/preferences/{pk}/").content.decode()
    assert "Decided by a reviewer" in html
    assert "both do" in html


def test_the_list_takes_a_fixed_number_of_queries(cast, enter, django_assert_max_num_queries):
    client = enter(cast.reviewer)
    for number in range(6):
        comparison = cast.ask(f"Which, {number}?", ["Left.", "Right."])
        vote(comparison, order=[[0], [1]])
        vote(comparison, order=[[1], [0]])
        look_again(comparison.pk)
        if number % 2:
            decide(
                comparison=comparison, by=cast.admin, seen=0, undecidable=True, reason="a riddle"
            )
    with django_assert_max_num_queries(17):
        client.get("/p/shop/reviews/")


def test_what_was_caught_is_counted_by_version_and_source_and_switched_by_the_admin(cast, enter):
    version = ModelVersion.objects.create(
        kind="policy", stage="ppo", name="ppo-7", path="models/p7", sha256="7" * 64
    )
    for leaks in (2, 3):
        TrainingJob.objects.create(
            project=cast.project,
            kind="sample",
            status="done",
            init=version,
            result={"leaks_caught": leaks, "alike_caught": 1},
        )
    source = cast.project.sources.get()
    record(action="file.import", target=source, project=cast.project, leaks=4, alike=0)
    record(action="file.import", target=make_cast("other").project.sources.get(), leaks=99, alike=9)
    found = [(one.name, one.leaks, one.alike, one.kept) for one in caught_in(cast.project)]
    assert found == [("ppo-7", 5, 2, False), (source.name, 4, 0, True)]
    client = enter(cast.admin)
    assert "ppo-7" in client.get("/p/shop/reviews/").content.decode()
    client.post("/p/shop/reviews/catch/", {"catch_alike": "on"})
    cast.project.refresh_from_db()
    assert (cast.project.catch_leaks, cast.project.catch_alike) == (False, True)
