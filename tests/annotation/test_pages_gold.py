"""The pages of gold: leads make, answer, watch and decide; labelers practise and are told late."""

import re
from datetime import date, timedelta

import pytest
from django.utils import timezone

from annotation.models import Annotator, GoldCheck, GoldItem, Membership, Report, Role
from annotation.services.batches import change_batch
from annotation.services.checkrules import change_checks
from annotation.services.projects import annotator_for
from annotation.services.queue import claim_comparison, skip_comparison
from annotation.services.standing import own_accuracy
from tests.annotation.golden import answer, make_item, make_items
from tests.annotation.making import make_comparisons, make_member

pytestmark = pytest.mark.django_db


@pytest.fixture
def second(cast):
    """Another reviewer."""
    return make_member(cast.project, Role.REVIEWER)


@pytest.fixture
def answered(cast):
    """The labeler's answer to an ordinary comparison."""
    cast.ask("How do I return a jacket?", ["Within 30 days.", "No idea."])
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    return answer(claim_comparison(annotator=annotator))


def rule(cast, **changes):
    change_checks(project=cast.project, changes=changes, by=None)
    cast.project.refresh_from_db()


def better(page: str, text: str) -> str:
    """The place at which a page shows the completion of this text."""
    options = re.findall(r'data-choice="(\d)".*?<div class="prose">(.*?)</div>', page, re.DOTALL)
    return next(place for place, html in options if text in html)


def test_two_reviewers_make_a_comparison_gold_each_by_themselves(cast, enter, second, answered):
    rob, other = enter(cast.reviewer), enter(second)
    page = rob.get(f"/p/shop/preferences/{answered.pk}/").content.decode()
    assert f"/p/shop/comparisons/{answered.comparison_id}/gold/" in page
    made = rob.post(f"/p/shop/comparisons/{answered.comparison_id}/gold/", {"use": "practice"})
    url = made.headers["Location"]
    assert url == f"/p/shop/gold/{GoldItem.objects.get().pk}/"
    for client, explanation in ((rob, "It says when."), (other, "It answers.")):
        page = client.get(url).content.decode()
        assert "It says when." not in page  # nobody sees another's before their own
        assert "checked" not in page
        choice = better(page, "30 days")
        sent = client.post(url, {"axis0-choice": choice, "note": explanation})
        assert sent.status_code == 302
    page = rob.get(url).content.decode()
    assert "It answers." in page
    assert GoldItem.objects.get().state == "live"
    assert "In use" in rob.get("/p/shop/gold/?use=practice&state=live").content.decode()
    assert "jacket" not in rob.get("/p/shop/gold/?use=hidden").content.decode()


def test_an_answer_that_makes_no_sense_is_said_so(cast, enter, second, answered):
    item = make_item([cast.admin, second], answered.comparison)
    client = enter(cast.reviewer)
    response = client.post(f"/p/shop/gold/{item.pk}/", {"note": "kept"})
    assert response.status_code == 422
    assert "Choose an answer first." in response.content.decode()
    assert "kept" in response.content.decode()


def test_an_item_is_taken_out_or_answered_anew(cast, enter, second, answered):
    item = make_item([cast.admin, second], answered.comparison)
    client, url = enter(cast.reviewer), f"/p/shop/gold/{item.pk}/retire/"
    client.post(url, {"reason": "unclear", "anew": "1"})
    item.refresh_from_db()
    assert item.state == "draft"
    client.post(url, {"reason": "too easy", "is_wrong": "on"})
    item.refresh_from_db()
    assert (item.state, item.retire_reason) == ("retired", "too easy")
    page = client.get(f"/p/shop/gold/{item.pk}/").content.decode()
    assert "too easy" in page
    assert 'class="answer"' not in page  # nothing to fill in any more
    assert "is retired" in client.post(url, {"reason": "again"}, follow=True).content.decode()


def test_an_admin_sets_the_checks_in_a_form_and_a_reviewer_sees_none(cast, enter):
    form = {
        "gold_every": 10,
        "repeat_every": 0,
        "repeat_gap": 20,
        "bar_percent": 70,
        "bar_window": 20,
        "bar_more": 10,
        "qualification_items": 0,
        "qualification_percent": 80,
        "qualification_skill": "",
    }
    ann = enter(cast.admin)
    ann.post("/p/shop/gold/checks/", form)
    cast.project.refresh_from_db()
    assert cast.project.checks == {"gold_every": 10, "bar_percent": 70}
    assert 'name="gold_every" value="10"' in ann.get("/p/shop/gold/").content.decode()
    assert 'name="gold_every"' not in enter(cast.reviewer).get("/p/shop/gold/").content.decode()
    page = ann.post("/p/shop/gold/checks/", form | {"gold_every": 1}, follow=True)
    assert "1 would leave no real work" in page.content.decode()
    page = ann.post("/p/shop/gold/checks/", form | {"bar_window": 1}, follow=True)
    assert "Looked at: the last so many checks" in page.content.decode()


def test_whoever_is_stopped_or_failed_is_listed_and_let_go_on(cast, enter):
    one = annotator_for(user=cast.labeler, project=cast.project)
    Annotator.objects.filter(pk=one.pk).update(
        standing="stopped", standing_from=timezone.now(), qualification="failed"
    )
    client = enter(cast.reviewer)
    page = client.get("/p/shop/gold/").content.decode()
    assert one.pseudonym in page
    assert "Stopped" in page
    assert "lea-shop" not in page
    label = enter(cast.labeler).get("/p/shop/label/").content.decode()
    assert "Your work here is paused" in label
    client.post(f"/p/shop/gold/people/{one.pk}/", {"act": "lift", "reason": "We talked."})
    client.post(f"/p/shop/gold/people/{one.pk}/", {"act": "pass"})
    one.refresh_from_db()
    assert (one.standing, one.qualification) == ("good", "passed")
    page = client.post(f"/p/shop/gold/people/{one.pk}/", {"act": "praise"}, follow=True)
    assert "praise" in page.content.decode()


def test_a_warning_is_read_once_its_time_has_come(cast, enter):
    cast.ask("One?", ["Yes.", "No."])
    one = annotator_for(user=cast.labeler, project=cast.project)
    client, words = enter(cast.labeler), "Lately too many of your answers"
    now = timezone.now()
    for since, is_read in ((now + timedelta(minutes=5), False), (now, True)):
        Annotator.objects.filter(pk=one.pk).update(standing="warned", standing_from=since)
        for url in ("/p/shop/label/", "/p/shop/practice/"):
            assert (words in client.get(url).content.decode()) == is_read


def test_a_labeler_practises_and_is_told_why(cast, enter, second, answered):
    item = make_item([cast.admin, second], answered.comparison, "practice")
    client = enter(cast.labeler)
    assert "Practice" in client.get("/p/shop/preferences/").content.decode()
    assert "jacket" in client.get("/p/shop/practice/").content.decode()
    url = f"/p/shop/practice/{item.pk}/"
    page = client.get(url).content.decode()
    assert "The first says how." not in page
    assert client.post(url, {}).status_code == 422
    wrong = better(page, "No idea")
    page = client.post(url, {"axis0-choice": wrong}, follow=True).content.decode()
    assert "The experts see it differently" in page
    assert "The first says how." in page
    client.post(f"{url}contest/", {"words": "Nobody could know."})
    assert "Nobody could know." in client.get(url).content.decode()
    page = enter(cast.reviewer).get("/p/shop/gold/").content.decode()
    assert "Nobody could know." in page


def test_a_newcomer_qualifies_on_the_page_and_is_told_that_it_is_one(cast, enter, second):
    make_items([cast.admin, second], cast.project, 2, "qualification")
    make_comparisons(cast.project, 3)
    rule(cast, qualification_items=2)
    client, words = enter(cast.labeler), "by which you qualify"
    for _ in range(2):
        assert words in client.get("/p/shop/label/").content.decode()
        me = annotator_for(user=cast.labeler, project=cast.project)
        answer(claim_comparison(annotator=me), right=False)
    assert "Not passed this time" in client.get("/p/shop/label/").content.decode()
    enter(cast.reviewer).post(f"/p/shop/gold/people/{me.pk}/", {"act": "pass"})
    page = client.get("/p/shop/label/").content.decode()
    assert 'class="answer"' in page
    assert words not in page


def test_who_is_new_is_led_to_practice(cast, enter, second):
    comparison = cast.ask("One?", ["Yes.", "No."])
    cast.ask("Two?", ["Yes.", "No."])
    make_item([cast.admin, second], comparison, "practice")
    client = enter(cast.labeler)
    assert "Practice first" in client.get("/p/shop/label/").content.decode()
    me = annotator_for(user=cast.labeler, project=cast.project)
    answer(claim_comparison(annotator=me))
    assert "Practice first" not in client.get("/p/shop/label/").content.decode()


def test_own_accuracy_comes_a_day_late_and_from_twenty_on(cast, second):
    comparisons = make_comparisons(cast.project, 20, answers_wanted=0)
    me = annotator_for(user=cast.labeler, project=cast.project)
    make_comparisons(cast.project, 60, batch="work")
    for comparison in comparisons:
        make_item([cast.admin, second], comparison)
    rule(cast, gold_every=2)
    me.project.refresh_from_db()
    while GoldCheck.objects.count() < 20:
        answer(claim_comparison(annotator=me))
    assert own_accuracy(me).value is None  # all of today
    yesterday = timezone.now() - timedelta(days=1)
    GoldCheck.objects.update(created_at=yesterday)
    found = own_accuracy(me)
    assert (found.value, found.n) == (1.0, 20)
    last = GoldCheck.objects.order_by("pk").last()
    last.counts = False
    last.save()
    assert own_accuracy(me).value is None


def without_numbers(page: str) -> str:
    page = re.sub(r'value="\w{32,64}"|data-draft="[^"]*"', "", page)
    return re.sub(r"\d+", "N", re.sub(r"Question \d+|Answer \d\.", "", page))


def test_the_page_of_an_own_answer_does_not_tell_gold_from_work(cast, enter, second):
    make_items([cast.admin, second], cast.project, 3)
    make_comparisons(cast.project, 10)
    rule(cast, gold_every=2)
    me = annotator_for(user=cast.labeler, project=cast.project)
    client, pages = enter(cast.labeler), {}
    while len(pages) < 2:
        lease = claim_comparison(annotator=me)
        work = client.get("/p/shop/label/").content.decode()
        given = answer(lease)
        url = f"/p/shop/preferences/{given.pk}/"
        client.post(f"{url}report/", {"words": "It is wrong."})
        pages[lease.comparison.purpose] = (
            "gold" in work.lower(),
            "It is wrong." in client.get(url).content.decode(),
            without_numbers(client.get(url).content.decode()).lower().count("gold"),
            len(without_numbers(client.get(url).content.decode())),
        )
    assert pages["gold"] == pages["production"]
    assert pages["gold"][:3] == (False, True, 0)
    assert Report.objects.count() >= 2


def test_the_labeling_page_does_not_tell_gold_from_work(cast, enter, second):
    """Due dates, rules of skipping and schemes of the work around a check are the check's too."""
    make_items([cast.admin, second], cast.project, 3)
    make_comparisons(cast.project, 10, batch="work")
    batch = cast.project.batches.get(name="work")
    change_batch(
        batch=batch, changes={"due_on": date(2030, 1, 1), "skip_mode": "later"}, by=cast.admin
    )
    rule(cast, gold_every=2)
    me = annotator_for(user=cast.labeler, project=cast.project)
    answer(claim_comparison(annotator=me))
    client, pages, skipped = enter(cast.labeler), {}, {}
    while len(pages) < 2 or len(skipped) < 2:
        page = client.get("/p/shop/label/").content.decode()
        lease = claim_comparison(annotator=me)
        purpose = lease.comparison.purpose
        assert "2030-01-01" in page
        pages[purpose] = without_numbers(page)
        if purpose in skipped:
            answer(lease)
        else:
            skipped[purpose] = skip_comparison(assignment=lease, reason="harmful").state
    assert pages["gold"] == pages["production"]
    assert skipped["gold"] == skipped["production"] == "later"


def test_gold_of_another_project_is_not_there(cast, enter, second, answered):
    item = make_item([cast.admin, second], answered.comparison, "practice")
    stranger = enter(cast.stranger)
    assert stranger.get(f"/p/shop/gold/{item.pk}/").status_code == 404
    assert Membership.objects.filter(user=cast.stranger).count() == 0
