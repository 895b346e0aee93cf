"""The search page and the API beside it: who may look, what is shown, what is done with many."""

import json

import pytest

from annotation.models import Comparison, Tag
from annotation.services.search import tag_comparisons
from tests.annotation.making import make_comparisons, make_project
from tests.annotation.test_search import TEXTS, write
from tests.annotation.voting import cast as vote

pytestmark = pytest.mark.django_db


@pytest.fixture
def written(cast):
    return {name: write(cast.project, *texts) for name, texts in TEXTS.items()}


def shown(client, query=""):
    response = client.get(f"/p/shop/search/{query}")
    assert response.status_code == 200
    return response.content.decode()


def test_what_is_found_is_shown_with_its_answers_and_tags(cast, enter, written):
    client = enter(cast.reviewer)
    assert "weather" not in shown(client), "nothing was asked for yet"
    answer = vote(written["weather"])
    tag_comparisons(
        project=cast.project, comparisons=[written["weather"].pk], name="odd", by=cast.reviewer
    )
    page = shown(client, "?text=weather")
    assert "Sunny, 25 degrees." in page
    assert f"/p/shop/preferences/{answer.pk}/" in page
    assert ">odd</span>" in page
    assert "harbour" not in page
    assert "Nothing fits" in shown(client, "?text=submarine")
    assert "今天晴" in shown(client, "?text=天气")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?text=%3F", "needs a word or a character"),
        ("?score_from=1", "No reward model is in force"),
        ("?score_from=much", "Enter a number"),
        ("?split=nowhere", "Select a valid choice"),
    ],
)
def test_what_can_not_be_looked_up_is_said(cast, enter, written, query, said):
    response = enter(cast.reviewer).get(f"/p/shop/search/{query}")
    assert response.status_code == 400
    assert said in response.content.decode()


def test_pages_go_on_where_the_one_before_ended(cast, enter):
    for number in range(52):
        write(cast.project, f"Which of these walks, {number}?", "one", "two")
    client = enter(cast.researcher)
    first = client.get("/p/shop/search/?text=walks")
    ids = [row.comparison.pk for row in first.context["rows"]]
    rest = client.get(f"/p/shop/search/?{first.context['older']}")
    ids += [row.comparison.pk for row in rest.context["rows"]]
    newest_first = Comparison.objects.order_by("-pk").values_list("pk", flat=True)
    assert (ids, rest.context["older"]) == (list(newest_first), "")
    assert "Ask for one more answer" not in first.content.decode(), "a researcher only looks"


def test_a_page_takes_as_many_queries_for_fifty_as_for_one(
    cast, enter, django_assert_max_num_queries
):
    client = enter(cast.reviewer)
    for number in range(50):
        one = write(cast.project, f"Which of these walks, {number}?", "one", "two")
        vote(one)
    tag_comparisons(project=cast.project, comparisons=[one.pk], name="odd", by=None)
    client.get("/p/shop/search/?text=walks")
    with django_assert_max_num_queries(20):
        client.get("/p/shop/search/?text=walks")


def act(client, **fields):
    return client.post("/p/shop/search/act/", fields, follow=True).content.decode()


def test_the_ticked_ones_are_tagged_untagged_and_asked_again(cast, enter, written):
    client = enter(cast.reviewer)
    ids = [written["walk"].pk, written["phone"].pk]
    page = act(client, act="tag", name="odd", comparison=ids, query="text=walk")
    assert "2 comparisons are tagged now." in page
    assert "A walk is good." in page, "back at the search"
    assert set(Tag.objects.get().comparisons.values_list("pk", flat=True)) == set(ids)
    assert "gone from 1 comparison." in act(client, act="untag", name="odd", comparison=ids[:1])
    assert "0 comparisons wait for one more" in act(client, act="ask", comparison=ids), "they do"
    Comparison.objects.update(open_slots=0)
    assert "2 comparisons wait for one more" in act(client, act="ask", comparison=ids)
    wanted = Comparison.objects.filter(pk__in=ids).values_list("answers_wanted", "open_slots")
    assert list(wanted) == [(2, 1), (2, 1)]
    assert "Choose 1 to 5000" in act(client, act="ask")
    assert "no such act: &#x27;burn&#x27;" in act(client, act="burn", comparison=ids)


def test_all_that_is_found_is_meant_and_no_more(cast, enter, written):
    client = enter(cast.reviewer)
    said = act(client, act="tag", name="odd", all="on", query="text=a", comparison=[9999])
    assert "2 comparisons are tagged now." in said
    found = set(Tag.objects.get().comparisons.values_list("pk", flat=True))
    assert found == {written["phone"].pk, written["walk"].pk}


def test_others_comparisons_are_not_reached(cast, enter):
    (other,) = make_comparisons(make_project("other", open_target=0))
    said = act(enter(cast.reviewer), act="ask", comparison=[other.pk])
    assert "0 comparisons wait" in said
    other.refresh_from_db()
    assert other.answers_wanted == 1


def test_the_api_finds_tags_and_asks_again(cast, enter, written):
    client = enter(cast.reviewer)
    url = "/api/projects/shop"
    (row,) = client.get(f"{url}/search/?text=天气").json()["results"]
    assert row["id"] == written["天气"].pk
    assert row["completions"] == ["今天晴，适合散步。", "我不知道。"]
    assert row["prompt"][0]["content"] == "今天天气怎么样？"

    def send(method, path, **body):
        return getattr(client, method)(
            f"{url}/{path}", json.dumps(body), content_type="application/json"
        )

    assert send("post", "tags/", name="zh", comparisons=[row["id"]]).json() == {"changed": 1}
    assert client.get(f"{url}/tags/").json() == ["zh"]
    assert client.get(f"{url}/search/?tag=zh").json()["results"][0]["tags"] == ["zh"]
    assert send("delete", "tags/", name="zh", comparisons=[row["id"]]).json() == {"changed": 1}
    Comparison.objects.update(open_slots=0)
    assert send("post", "ask-again", comparisons=[row["id"]]).json() == {"changed": 1}
    assert send("post", "ask-again", comparisons=[]).status_code == 400
    assert client.get(f"{url}/search/?text=%3F").json()["code"] == "bad_input"
    assert client.get(f"{url}/search/?score_from=x").status_code == 400
    assert client.get(f"{url}/search/?version={9**30}").status_code == 400
    assert send("post", "ask-again", comparisons=[9**30]).status_code == 400
