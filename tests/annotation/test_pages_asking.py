"""The page "Asking": what came of each way to ask, the mix as a form, the numbers as CSV."""

import csv
import io
import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotation.models import CompletionScore, Ranking
from annotation.pages.asking import facts_of
from annotation.services import jobs, versions
from annotation.services.asked import what_came
from annotation.services.ledger import add_completion, add_prompt, batch_for, open_comparison
from annotation.services.loop import change_loop
from tests.annotation.making import make_project, numbers
from tests.annotation.voting import cast as vote
from tests.annotation.voting import make_voter

pytestmark = pytest.mark.django_db


def made(project, selector, *lengths, split="train"):
    """A comparison of texts of these lengths, as a worker made it."""
    source = project.sources.get()
    prompt, _ = add_prompt(
        project=project,
        source=source,
        messages=[{"role": "user", "content": f"{next(numbers)}?"}],
        split=split,
    )
    texts = [
        add_completion(prompt=prompt, source=source, text="xyz"[place] * length)[0]
        for place, length in enumerate(lengths or (10, 20))
    ]
    purpose = "production" if split == "train" else "evaluation"
    batch = batch_for(project=project, name=f"w {purpose}", source=source, purpose=purpose)
    return open_comparison(
        batch=batch, prompt=prompt, completions=texts, answers_wanted=1, selector=selector
    )[0]


def test_what_came_of_each_way(cast):
    project = cast.project
    for outcome in ("ranked", "ranked", "equal", "both_bad"):
        vote(made(project, "uniform-1"), outcome=outcome, order=[[1], [0]])
    vote(made(project, "uniform-1", 20, 21))  # preferred, and of one length
    vote(made(project, "uniform-1", split="dev"), order=[[0], [1]])
    vote(made(project, "anchor-length-1"), make_voter(project, "simulated"))
    made(project, "")
    made(make_project(), "uniform-1")
    same, anchor = what_came(project, None)
    assert (same.pairing, same.length, same.asked, same.heldout) == ("same", "", 6, 1)
    assert (same.undecided.value, same.undecided.n) == (pytest.approx(2 / 6), 6)
    assert (same.longer.value, same.longer.n) == (pytest.approx(2 / 3), 3)
    assert same.right.n == 0
    assert (anchor.pairing, anchor.length, anchor.undecided.n) == ("anchor", "length", 0)


def test_of_each_vote_the_first_axis_speaks(cast):
    answer = vote(made(cast.project, "uniform-1"), outcome="equal")
    Ranking.objects.create(preference=answer, axis="safe", outcome="both_bad", groups=[])
    (same,) = what_came(cast.project, None)
    assert (same.undecided.value, same.undecided.n) == (1.0, 1)


@pytest.fixture
def reward(artifacts):
    folder = artifacts / "models" / "r"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"r")
    return versions.register_version(kind="reward", stage="registered", directory=folder)


@pytest.fixture
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    return settings.ARTIFACTS_DIR


def test_the_model_is_asked_on_dev_where_it_scored_both(cast, reward):
    """It learned from train, and test stays sealed."""
    splits = ("dev", "dev", "dev", "test", "train")
    rows = [made(cast.project, "uniform-1", split=split) for split in splits]
    unscored = made(cast.project, "uniform-1", split="dev")
    for one in (*rows, unscored):
        vote(one)
    told = ((1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 1.0))
    for one, scores in zip(rows, told, strict=True):
        for entry, score in zip(one.entries.all(), scores, strict=True):
            CompletionScore.objects.create(
                completion=entry.completion, model_version=reward, score=score
            )
    (same,) = what_came(cast.project, reward)
    assert (same.right.value, same.right.n) == (pytest.approx(2 / 3), 3)


def test_scores_between_an_old_text_and_a_new_one_are_not_read(cast, reward):
    """An anchor's id is old: rows that are read are those of the pair, however many lie between."""
    old, new = made(cast.project, "uniform-1", split="dev"), made(cast.project, "anchor-1")
    between = made(cast.project, "uniform-1")
    last = made(cast.project, "anchor-1", split="dev")
    first_text = old.entries.first().completion
    last.entries.filter(position=0).update(completion=first_text)
    vote(last)
    for one in (old, new, between, last):
        for entry in one.entries.all():
            CompletionScore.objects.get_or_create(
                completion=entry.completion, model_version=reward, defaults={"score": 1.0}
            )
    with CaptureQueriesContext(connection) as asked:
        what_came(cast.project, reward)
    (scores,) = [q["sql"] for q in asked if "completionscore" in q["sql"] and "IN (" in q["sql"]]
    assert "BETWEEN" not in scores
    assert ">=" not in scores


def test_what_is_counted_has_an_end(cast, django_assert_max_num_queries, monkeypatch):
    monkeypatch.setattr("annotation.services.asked.NEWEST", 3)
    for outcome in ("equal",) * 4 + ("ranked",) * 3:
        vote(made(cast.project, "uniform-1"), outcome=outcome)
    with django_assert_max_num_queries(8):
        (same,) = what_came(cast.project, None)
    assert (same.asked, same.undecided.value, same.undecided.n) == (7, 0.0, 3)


def page_of(client, query="", status=200):
    response = client.get(f"/p/shop/asking/{query}")
    assert response.status_code == status
    return response.content.decode()


def filled_in(**changes):
    plain = {
        "same": "100", "in_force": "0", "reference": "0", "anchor": "0", "length_matched": "0",
        "heldout_share": "10", "open_target": "50", "completions_per_comparison": "2",
        "answers_wanted": "1", "catch_alike": "on",
    }  # fmt: skip
    return plain | changes


def test_an_admin_changes_the_mix(cast, enter):
    client = enter(cast.admin)
    mix = filled_in(same="50", in_force="20", reference="20", anchor="10", length_matched="33.3")
    response = client.post("/p/shop/asking/save/", mix | {"heldout_share": "25"})
    assert response.status_code == 302
    cast.project.refresh_from_db()
    assert cast.project.asking == {
        "same": 0.5, "in_force": 0.2, "reference": 0.2, "anchor": 0.1, "length_matched": 0.333,
    }  # fmt: skip
    assert (cast.project.heldout_share, cast.project.catch_leaks) == (0.25, False)
    assert 'value="33.3"' in page_of(client)
    entry = cast.project.audit_entries.latest("pk")
    assert (entry.action, entry.data["before"]["asking"]) == ("project.loop", {})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"same": "70"}, "The four shares are 70 percent together, and not 100."),
        ({"same": "101"}, "less than or equal to 100"),
        ({"anchor": ""}, "required"),
        ({"anchor": "nan"}, "Enter a number"),
        ({"completions_per_comparison": "1"}, "greater than or equal to 2"),
    ],
)
def test_what_is_no_mix_changes_nothing_and_stays_in_the_form(cast, enter, changes, said):
    sent = filled_in(open_target="77") | changes
    response = enter(cast.admin).post("/p/shop/asking/save/", sent)
    page = response.content.decode()
    assert response.status_code == 422
    assert said in page
    assert 'value="77"' in page
    cast.project.refresh_from_db()
    assert (cast.project.asking, cast.project.open_target) == ({}, 50)


def test_a_suggestion_fills_the_form_and_saves_nothing(cast, enter):
    client = enter(cast.admin)
    assert "?use=held-out#mix" in page_of(client)
    page = page_of(client, "?use=held-out")
    assert 'name="heldout_share" value="30"' in page
    assert "not saved yet" in page
    cast.project.refresh_from_db()
    assert cast.project.heldout_share == 0.1
    assert "not saved yet" not in page_of(client, "?use=nothing")
    assert "?use=" not in page_of(enter(cast.researcher))


def test_the_newest_reward_model_says_how_many_answers_it_wants(cast, reward):
    job = jobs.request_training(project=cast.project, kind="reward")
    type(reward).objects.filter(pk=reward.pk).update(
        job=job,
        stage="reward",
        metrics={"gate": {"verdict": "undecided", "numbers": {"look": {"more_groups": 51}}}},
    )
    assert facts_of(cast.project)[0].more_groups == 51
    type(reward).objects.filter(pk=reward.pk).update(metrics={"gate": {"verdict": "passed"}})
    assert facts_of(cast.project)[0].more_groups is None


def test_a_number_leads_to_its_comparisons(cast, enter):
    client = enter(cast.reviewer)
    shown = made(cast.project, "anchor-length-1")
    answer = vote(shown)
    made(cast.project, "anchor-1")
    made(cast.project, "uniform-1")
    page = page_of(client)
    assert "/p/shop/search/?made_as=anchor-length-1" in page
    assert "/p/shop/search/?made_as=uniform-1" in page
    found = client.get("/p/shop/search/?made_as=anchor-length-1").content.decode()
    assert f"/p/shop/preferences/{answer.pk}/" in found
    assert found.count('name="comparison"') == 1


def test_the_numbers_as_csv(cast, enter):
    vote(made(cast.project, "reference-1"), outcome="equal")
    text = enter(cast.researcher).get("/p/shop/asking/numbers.csv").content.decode()
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["pairing"] == "reference"
    assert (row["asked"], row["undecided"], row["undecided_n"]) == ("1", "1.0", "1")
    assert row["right"] == ""
    assert row["length"] == ""


def test_thirds_stay_thirds(cast, enter):
    """What the form shows can be sent back."""
    third = {"same": 1 / 3, "in_force": 1 / 3, "anchor": 1 / 3, "reference": 0}
    change_loop(project=cast.project, changes={"asking": third}, by=None)
    client = enter(cast.admin)
    shown = re.findall(r'name="(same|in_force|anchor)" value="([\d.]+)"', page_of(client))
    assert len(shown) == 3
    response = client.post("/p/shop/asking/save/", filled_in(**dict(shown)))
    assert response.status_code == 302


def test_it_is_told_in_chinese(cast, enter):
    made(cast.project, "anchor-length-1")
    client = enter(cast.admin)
    page = client.get("/p/shop/asking/", headers={"accept-language": "zh-hans"}).content.decode()
    assert "提示的锚点文本，长度相近" in page
    assert "接下来问什么，为什么" in page


def test_the_page_asks_no_more_of_a_larger_ledger(cast, enter):
    client = enter(cast.admin)

    def queries():
        with CaptureQueriesContext(connection) as asked:
            page_of(client)
        return len(asked)

    for selector in ("uniform-1", "anchor-1"):
        vote(made(cast.project, selector))
    queries()
    few = queries()
    for _ in range(10):
        vote(made(cast.project, "uniform-1"))
        vote(made(cast.project, "anchor-1"))
    assert queries() == few
