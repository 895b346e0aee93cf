"""Model against people: how far they part by slow loops, and what the button sends to review."""

import csv
import io
import random
import re
from itertools import combinations

import pytest
from django.utils import timezone

from annotation.errors import BadInput
from annotation.models import AuditEntry, Comparison, Review, ReviewState
from annotation.services.decisions import decide
from annotation.services.disagreements import (
    look_again,
    open_reviews,
    send_to_review,
    set_bar,
)
from annotation.services.ledger import record_generation
from annotation.services.partings import partings
from annotation.services.review import void_preference
from annotation.services.search import Wanted
from tests.annotation.making import make_member, make_project, make_user
from tests.annotation.test_pages_analysis import make_policy, make_reward, score
from tests.annotation.test_search import write
from tests.annotation.voting import cast as vote
from tests.annotation.voting import make_voter

pytestmark = pytest.mark.django_db
PAGE = "/p/shop/analysis/disagreements/"
FIRST, SECOND = [[0], [1]], [[1], [0]]


def parted(project, reward, *orders, scores=(0.0, 1.0), number=0, split="train", **more):
    """A comparison of two with these answers and scores; the model prefers the second."""
    comparison = write(
        project, f"Which, {number}?", f"one {number}", f"two {number}", split=split, **more
    )
    score(reward, *scores, of=comparison)
    for order in orders:
        vote(comparison, order=order)
    look_again(comparison.pk)
    return comparison


def test_three_of_three_count_their_margin_and_two_of_three_a_third_of_it(db):
    project = make_project()
    reward = make_reward(project)
    one = parted(project, reward, FIRST, FIRST, FIRST, scores=(-0.5, 1.0), number=1)
    two = parted(project, reward, FIRST, FIRST, SECOND, scores=(-0.5, 1.0), number=2)
    parted(project, reward, SECOND, scores=(-0.5, 1.0), number=3)  # they agree
    parted(project, reward, FIRST, SECOND, number=4)  # people are even
    parted(project, reward, FIRST, scores=(0.0, None), number=5)
    parted(project, reward, FIRST, number=6, split="test")
    parted(project, reward, number=7)
    found = partings(project, reward)
    assert found.num_compared == 4
    assert [(part.comparison, part.size) for part in found.found] == [(one.pk, 1.5), (two.pk, 0.5)]
    assert [(part.for_people, part.against, part.votes) for part in found.found] == [
        (3, 0, 3),
        (2, 1, 3),
    ]


def slowly(project, reward):
    """Comparison -> the farthest that any two of its completions part, by the definition."""
    found = {}
    for comparison in Comparison.objects.filter(project=project).exclude(prompt__split="test"):
        scores = {}
        for completion in comparison.completions.all():
            for stored in completion.scores.filter(model_version=reward):
                scores[completion.pk] = stored.score
        sizes = []
        for a, b in combinations(sorted(scores), 2):
            net = placed = 0
            for preference in comparison.preferences.filter(
                current=True, voided_at=None, annotator__kind="person"
            ):
                groups = preference.rankings.get().groups
                places = {pk: place for place, group in enumerate(groups) for pk in group}
                if a in places and b in places:
                    placed += 1
                    net += (places[a] < places[b]) - (places[a] > places[b])
            if placed:
                sizes.append(net / placed * (scores[b] - scores[a]))
        if sizes and max(sizes) > 0:
            found[comparison.pk] = max(sizes)
    return found


def test_lists_part_by_their_two_farthest_against_slow_loops(db):
    project, draw = make_project(), random.Random(11)
    reward = make_reward(project)
    ways = ([[0], [1], [2]], [[2], [0, 1]], [[1, 2], [0]], [[1], [2]], [[2], [1], [0]])
    for number in range(25):
        split = draw.choice(["train", "dev", "test"])
        texts = [f"{word} {number}" for word in ("a", "b", "c")]
        comparison = write(project, f"q {number}?", *texts, split=split)
        score(reward, *(draw.choice([None, *range(-3, 4)]) for _ in range(3)), of=comparison)
        for _ in range(draw.randint(0, 4)):
            kind = draw.choice(["person", "person", "person", "simulated"])
            vote(comparison, make_voter(project, kind=kind), order=draw.choice(ways))
        vote(comparison, outcome=draw.choice(["equal", "both_bad", "cannot_tell"]))
        thrown = vote(comparison, order=draw.choice(ways))
        void_preference(preference=thrown, by=make_user(), reason="spam")
    expected = slowly(project, reward)
    found = {one.comparison: one.size for one in partings(project, reward).found}
    assert found == pytest.approx(expected)
    assert len(expected) > 5
    sizes = [one.size for one in partings(project, reward).found]
    assert sizes == sorted(sizes, reverse=True)


def test_what_is_wanted_narrows_the_list(db):
    project = make_project()
    reward, policy = make_reward(project), make_policy(project, "sft-1")
    one = parted(project, reward, FIRST, number=1, split="dev", language="zh")
    two = parted(project, reward, FIRST, FIRST, number=2, split="train", language="en")
    record_generation(completion=one.completions.first(), origin="policy", model_version=policy)

    def ids(**more):
        return {each.comparison for each in partings(project, reward, **more).found}

    assert ids() == {one.pk, two.pk}
    assert ids(wanted=Wanted(split="dev")) == {one.pk}
    assert ids(wanted=Wanted(language="en")) == {two.pk}
    assert ids(wanted=Wanted(version=policy.pk)) == {one.pk}
    assert ids(least_votes=2) == {two.pk}
    assert ids(kinds=["simulated"]) == set()
    assert ids(wanted=Wanted(split="test")) == set()
    assert partings(make_project(), reward).found == []


def test_the_page_shows_the_farthest_first_each_with_its_votes(
    cast, enter, django_assert_max_num_queries
):
    reward = make_reward(cast.project)
    for number in range(53):
        parted(cast.project, reward, FIRST, scores=(0.0, number + 1.0), number=number)
    client = enter(cast.researcher)
    with django_assert_max_num_queries(20):
        page = client.get(PAGE)
    html = page.content.decode()
    assert "parts from people on 53 of 53" in html
    assert "Send the ticked" not in html, "a researcher only looks"
    assert [row.parting.margin for row in page.context["rows"][:2]] == [53.0, 52.0]
    (answer, *_) = re.findall(r"/p/shop/preferences/\d+/", html)
    assert client.get(answer).status_code == 200
    rest = client.get(f"{PAGE}?{page.context['farther']}")
    assert [row.parting.margin for row in rest.context["rows"]] == [3.0, 2.0, 1.0]
    assert rest.context["farther"] == ""
    address = "/p/shop/analysis/disagreements.csv?least_votes=1"
    rows = list(csv.DictReader(io.StringIO(client.get(address).content.decode())))
    assert [float(row["size"]) for row in rows] == [float(n) for n in range(53, 0, -1)]
    assert client.get(f"{PAGE}?split=test").status_code == 400
    assert (
        "No reward model has scored" in enter(cast.admin).get(f"{PAGE}?reward=9").content.decode()
    )


def test_the_button_sends_what_is_ticked_and_pressed_twice_it_sends_once(cast, enter):
    project, reward = cast.project, make_reward(cast.project)
    one, two = (parted(project, reward, FIRST, FIRST, number=number) for number in range(2))
    alone = parted(project, reward, FIRST, number=2)
    sealed = parted(project, reward, FIRST, FIRST, number=3, split="test")
    silent = parted(project, reward, number=4)
    retired = parted(project, reward, FIRST, FIRST, number=5)
    Comparison.objects.filter(pk=retired.pk).update(retired_at=timezone.now())
    other = parted(make_project("other"), reward, FIRST, FIRST, number=6)
    client = enter(cast.reviewer)
    asked = [one.pk, alone.pk, sealed.pk, silent.pk, retired.pk, other.pk, 10**12]
    sent = {"comparison": asked, "query": "split=train"}
    said = client.post(f"{PAGE}send/", sent, follow=True)
    assert said.redirect_chain[0][0] == f"{PAGE}?split=train"
    assert "2 comparisons were sent to review." in said.content.decode()
    assert "5 stay as they are" in said.content.decode()
    waiting = {review.comparison_id for review in open_reviews(project)}
    assert waiting == {one.pk, alone.pk}
    again = client.post(f"{PAGE}send/", sent, follow=True).content.decode()
    assert "0 comparisons were sent" in again
    assert AuditEntry.objects.filter(action="review.send").count() == 1
    assert "Choose 1 to 200" in client.post(f"{PAGE}send/", {}, follow=True).content.decode()
    for review in Review.objects.filter(sent_at__isnull=False):
        page = client.get(f"/p/shop/reviews/{review.comparison_id}/")
        assert page.status_code == 200
    assert "sent here" in client.get("/p/shop/reviews/").content.decode()
    assert two.review.state == ReviewState.ABOVE


def test_what_was_sent_waits_until_it_is_decided_whatever_comes(db):
    project = make_project()
    reward, lead = make_reward(project), make_member(project, "reviewer")
    comparison = parted(project, reward, FIRST, FIRST)
    assert send_to_review(project=project, comparisons=[comparison.pk], by=lead) == 1

    def state():
        return Review.objects.get(comparison=comparison).state

    last = vote(comparison, order=FIRST)
    look_again(comparison.pk)
    assert state() == ReviewState.OPEN, "a third who agrees does not take it back"
    set_bar(project=project, below=0.0, by=lead)
    assert state() == ReviewState.OPEN, "nor does a lower bar"
    decide(comparison=comparison, by=lead, seen=0, undecidable=True, reason="both are wrong")
    assert state() == ReviewState.DECIDED
    assert send_to_review(project=project, comparisons=[comparison.pk], by=lead) == 0
    assert state() == ReviewState.DECIDED
    other = parted(project, reward, FIRST, number=2)
    assert send_to_review(project=project, comparisons=[other.pk], by=lead) == 1
    void_preference(preference=other.preferences.get(), by=lead, reason="spam")
    assert Review.objects.get(comparison=other).state == ReviewState.ABOVE, "nothing to decide"
    assert last.pk
    with pytest.raises(BadInput, match="Choose 1 to 200 comparisons, not 201"):
        send_to_review(project=project, comparisons=range(201), by=lead)
