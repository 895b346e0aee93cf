"""The page of analysis: figures by hand-made tables, numbers as CSV, the votes behind them."""

import csv
import io
import random
import re
from statistics import quantiles

import pytest
from django.utils.html import strip_tags

from annotation.models import CompletionScore, ModelVersion, Promotion
from annotation.pages import mixes as pages_of_mixes
from annotation.pages.analysis import PARTS
from annotation.services import mixes
from annotation.services.leanings import by_length, scores_of, strict_answers
from annotation.services.ledger import record_generation
from annotation.services.mixes import languages_of, score_spreads
from annotation.services.quality import annotators_of, report
from tests.annotation.making import make_project
from tests.annotation.test_search import write
from tests.annotation.voting import cast as vote
from tests.annotation.voting import ids_of, make_voter

pytestmark = pytest.mark.django_db
FRAGMENT = {"HX-Request": "true"}


def make_reward(project, name="reward-1"):
    """A reward model in force."""
    version = ModelVersion.objects.create(
        kind="reward", stage="reward", name=name, path=f"models/{name}", sha256="a" * 64
    )
    Promotion.objects.create(project=project, slot="reward", version=version, verdict="registered")
    return version


def make_policy(project, name):
    version = ModelVersion.objects.create(
        kind="policy", stage="sft", name=name, path=f"models/{name}", sha256="b" * 64
    )
    Promotion.objects.create(project=project, slot="policy", version=version, verdict="registered")
    return version


def score(version, *scores, of):
    """Scores of a comparison's completions, in their stored order; None: it has none."""
    CompletionScore.objects.bulk_create(
        CompletionScore(completion_id=pk, model_version=version, score=one)
        for pk, one in zip(ids_of(of), scores, strict=True)
        if one is not None
    )


def rows_of(client, part, **more):
    """The CSV of a plot: (label, figure) -> row."""
    response = client.get("/p/shop/analysis/numbers.csv", {"part": part, **more})
    assert response.status_code == 200
    rows = csv.DictReader(io.StringIO(response.content.decode()))
    return {(row["label"], row["figure"]): row for row in rows}


def test_position_by_annotator_is_the_figure_of_the_page_of_quality(cast, enter):
    """One prefers what is shown first in 3 of 4, the other in 1 of 4; a tie says nothing."""
    one, two = make_voter(cast.project), make_voter(cast.project)
    for voter, firsts in ((one, "1110"), (two, "1000")):
        for place, first in enumerate(firsts):
            comparison = write(cast.project, f"{voter.pk} {place}?", "yes", "no no")
            shown = ids_of(comparison)
            order = [[0], [1]] if first == "1" else [[1], [0]]
            vote(comparison, voter, order=order, presented_order=shown)
    vote(comparison, make_voter(cast.project), outcome="equal", presented_order=shown)
    found = rows_of(enter(cast.researcher), "position")
    shares = {label: (float(row["value"]), int(row["n"])) for (label, _), row in found.items()}
    assert shares == {"everybody": (0.5, 8), one.pseudonym: (0.75, 4), two.pseudonym: (0.25, 4)}
    # Wilson's interval of 3 in 4, from its formula with z = 1.96 by hand
    row = found[one.pseudonym, "first_shown_wins"]
    assert (float(row["low"]), float(row["high"])) == pytest.approx((0.3006, 0.9544), abs=1e-3)
    for line in annotators_of(cast.project):
        if line.first_share:
            assert shares[line.pseudonym] == (line.first_share.value, line.first_share.n)


def test_a_vote_on_five_axes_leans_once(cast, enter):
    """Its axes were answered with the texts in one order: 14 of 20, whatever the other axes say."""
    project, voter = cast.project, make_voter(cast.project)
    for number in range(20):
        comparison = write(project, f"q {number}?", "yes", "no no")
        shown = ids_of(comparison)
        answer = vote(comparison, voter, presented_order=shown if number < 14 else shown[::-1])
        for axis in "bcde":
            groups = [[pk] for pk in (shown if number % 2 else shown[::-1])]
            answer.rankings.create(axis=axis, outcome="ranked", groups=groups)
    client = enter(cast.reviewer)
    (line,) = [one for one in annotators_of(project) if one.pseudonym == voter.pseudonym]
    row = rows_of(client, "position")[voter.pseudonym, "first_shown_wins"]
    assert (line.first_share.value, line.first_share.n) == (0.7, 20)
    assert (float(row["value"]), int(row["n"])) == (0.7, 20)
    for annotator in ("", voter.pseudonym):
        asked = {"part": "position", "annotator": annotator}
        behind = client.get("/p/shop/analysis/votes/", asked).context["behind"]
        assert behind.num_votes == 20
        assert [choice.n for choice in behind.choices] == [20, 14, 6]


def test_the_votes_behind_a_week_are_those_that_its_figure_takes(cast, enter):
    """Of adaptive comparisons the first two on the axis."""
    project, people = cast.project, [make_voter(cast.project) for _ in range(4)]
    expected = []
    for number in range(6):
        comparison = write(project, f"q {number}?", "yes", "no no")
        type(comparison).objects.filter(pk=comparison.pk).update(full_overlap=3)
        answers = [vote(comparison, one) for one in people]
        expected += answers[:2]
        for answer in answers[2:]:
            answer.rankings.create(axis="b", outcome="ranked", groups=answer.rankings.get().groups)
    client = enter(cast.reviewer)
    page = client.get("/p/shop/analysis/", {"part": "agreement"}, headers=FRAGMENT)
    links = re.findall(r'href="(/p/shop/analysis/votes/[^"]+)">n 6</a>', page.content.decode())
    behind = [client.get(one.replace("&amp;", "&")).context["behind"] for one in links]
    assert [sorted(one.ids) for one in behind] == [sorted(one.pk for one in expected)]


def test_length_by_ratio_against_slow_loops(db):
    project, draw = make_project(), random.Random(5)
    reward, people = make_reward(project), [make_voter(project) for _ in range(3)]
    told = []
    for number in range(40):
        texts = ["a" * draw.choice([10, 11, 12, 15, 20, 30, 40]) for _ in range(2)]
        texts = [f"{text}{number:02d}" for text in texts]
        if texts[0] == texts[1]:
            continue
        split = draw.choice(["train", "dev", "test"])
        comparison = write(project, f"q {number}?", *texts, split=split)
        scores = [draw.choice([None, 0.0, 1.0]) for _ in texts]
        score(reward, *scores, of=comparison)
        for voter in people[: draw.randint(1, 3)]:
            order = draw.choice([[[0], [1]], [[1], [0]]])
            vote(comparison, voter, order=order, presented_order=ids_of(comparison))
            told.append((texts, scores if split != "test" else [None, None], order[0][0]))
    found = strict_answers(project, with_lengths=True)
    buckets = by_length(found, scores_of(found, reward))
    for bucket in buckets:
        by_people, by_model = [], []
        for texts, scores, won in told:
            long = max(texts, key=len)
            ratio = len(long) / len(min(texts, key=len))
            if len({len(text) for text in texts}) < 2:
                continue
            if bucket.low <= ratio and (bucket.high is None or ratio < bucket.high):
                by_people.append(texts[won] == long)
                if None not in scores and scores[0] != scores[1]:
                    by_model.append(texts[scores.index(max(scores))] == long)
        for statistic, expected in ((bucket.people, by_people), (bucket.model, by_model)):
            assert statistic.n == len(expected)
            if expected:
                assert statistic.value == pytest.approx(sum(expected) / len(expected))
    assert sum(bucket.people.n for bucket in buckets) > 20
    assert sum(bucket.model.n for bucket in buckets) > 5
    overall = report(project).longer_wins
    longer = sum(bucket.people.n * (bucket.people.value or 0) for bucket in buckets)
    assert overall.value == pytest.approx(longer / overall.n)


def test_languages_count_prompts_comparisons_and_votes(db):
    project = make_project()
    for language, votes in (("en", 2), ("en", 0), ("zh", 1), ("", 0)):
        comparison = write(project, f"{language} {votes}?", "one", "two", language=language)
        for _ in range(votes):
            vote(comparison)
        vote(comparison, make_voter(project, kind="simulated"))
    shares, there_are_more = languages_of(project)
    found = {one.language: (one.prompts, one.comparisons, one.votes) for one in shares}
    assert found == {"en": (2, 2, 2), "zh": (1, 1, 1), "": (1, 1, 0)}
    assert not there_are_more
    simulated, _more = languages_of(project, ["simulated"])
    assert {one.language: one.votes for one in simulated} == {"en": 2, "zh": 1, "": 1}


def test_of_languages_the_newest_count_and_the_page_says_so(cast, enter, monkeypatch):
    monkeypatch.setattr(mixes, "MOST_COUNTED", 2)
    monkeypatch.setattr(pages_of_mixes, "MOST_COUNTED", 2)
    for language in ("de", "en", "zh"):
        vote(write(cast.project, f"{language}?", "one", "two", language=language))
    shares, there_are_more = languages_of(cast.project)
    assert there_are_more
    found = {one.language: (one.prompts, one.comparisons, one.votes) for one in shares}
    assert found == {"en": (1, 1, 1), "zh": (1, 1, 1)}
    client = enter(cast.admin)
    page = client.get("/p/shop/analysis/?part=languages").content.decode()
    assert "Only the newest 2 of each are counted." in page
    lists = [
        client.get(f"/p/shop/analysis/votes/?part=languages&language={one}").context["behind"]
        for one in ("de", "en")
    ]
    assert [one.num_votes for one in lists] == [0, 1]


def test_scores_by_writer_are_quantiles_and_test_prompts_stay_sealed(cast, enter):
    project, draw = cast.project, random.Random(2)
    reward, policy = make_reward(project), make_policy(project, "sft-1")
    scores = {"sft-1": [], "outsider": []}
    for number in range(21):
        split = "test" if number > 17 else "train"
        comparison = write(project, f"q {number}?", "one", "two", split=split)
        given = [round(draw.gauss(0, 1), 3), round(draw.gauss(1, 1), 3)]
        score(reward, *given, of=comparison)
        first, second = comparison.completions.order_by("entries__position")
        record_generation(completion=first, origin="policy", model_version=policy)
        record_generation(completion=second, origin="imported", writer="outsider")
        if number < 3:  # written twice, counted once
            record_generation(completion=second, origin="demonstration", writer="outsider")
        if split != "test":
            scores["sft-1"].append(given[0])
            scores["outsider"].append(given[1])
    spreads, there_are_more = score_spreads(project, reward)
    assert [one.writer for one in spreads] == ["outsider", "sft-1"]
    assert not there_are_more
    for one in spreads:
        expected = quantiles(scores[one.writer], n=20, method="inclusive")
        assert one.n == 18
        assert list(one.quantiles.values()) == pytest.approx(
            [expected[place] for place in (1, 4, 9, 14, 17)]
        )
    found = rows_of(enter(cast.reviewer), "scores")
    assert float(found["sft-1", "quantile_50"]["value"]) == spreads[1].quantiles[0.5]


def test_the_name_of_another_projects_version_is_not_told(cast, enter):
    """A number in the address is no key to it, nor does the answer tell that it exists."""
    here, elsewhere = make_policy(cast.project, "mine"), make_project("other")
    strange = make_policy(elsewhere, "secret-of-the-others")
    for project, version in ((cast.project, here), (elsewhere, strange)):
        comparison = write(project, "Why?", "because", "no reason")
        record_generation(
            completion=comparison.completions.first(), origin="policy", model_version=version
        )
    client = enter(cast.reviewer)
    asked = [
        client.get("/p/shop/analysis/votes/", {"part": "scores", "version": number})
        for number in (here.pk, strange.pk, strange.pk + 1000)
    ]
    assert [one.status_code for one in asked] == [200, 404, 404]
    assert "Scores: mine" in asked[0].content.decode()
    assert strange.name not in asked[1].content.decode()


@pytest.fixture
def everything(cast):
    """Something to see in every plot."""
    project, reward = cast.project, make_reward(cast.project)
    policy = make_policy(project, "sft-1")
    people = [make_voter(project) for _ in range(2)]
    for number in range(6):
        comparison = write(
            project, f"q {number}?", f"a {number}", f"longer {number}", language="en", split="train"
        )
        score(reward, 0.5, number / 4, of=comparison)
        record_generation(
            completion=comparison.completions.first(), origin="policy", model_version=policy
        )
        for place, voter in enumerate(people):
            order = [[0], [1]] if place or number % 3 else [[1], [0]]
            vote(comparison, voter, order=order, presented_order=ids_of(comparison))
    return cast


@pytest.mark.parametrize("part", PARTS)
def test_every_figure_leads_to_as_many_votes_as_it_counts(everything, enter, part):
    """The page, the list of votes, a vote: three clicks."""
    client = enter(everything.researcher)
    page = client.get("/p/shop/analysis/", {"part": part}, headers=FRAGMENT).content.decode()
    links = re.findall(r'href="(/p/shop/analysis/votes/[^"]+)">n (\d+)</a>', page)
    assert links
    for address, n in links:
        response = client.get(address.replace("&amp;", "&"))
        assert response.status_code == 200
        behind, votes = response.context["behind"], response.context["rows"]
        assert behind.num_votes == len(votes) > 0
        # there n counts comparisons, here texts, and two people voted on each of both
        each = 2 if part in ("agreement", "scores") else 1
        assert behind.num_votes == each * int(n)
        assert client.get(f"/p/shop/preferences/{votes[0].preference.pk}/").status_code == 200
        for choice, query in response.context["choices"]:
            narrowed = client.get(f"/p/shop/analysis/votes/?{query}").context["behind"]
            assert narrowed.num_votes == choice.n


@pytest.mark.parametrize("part", PARTS)
def test_the_page_shows_the_numbers_of_its_csv(everything, enter, part):
    client = enter(everything.admin)
    alone = client.get("/p/shop/analysis/", {"part": part})
    text = strip_tags(alone.content.decode())
    assert "All plots" in text
    rows = rows_of(client, part)
    assert rows
    for (label, _figure), row in rows.items():
        assert label in text
        if row["value"]:
            assert f"{float(row['value']):.3f}" in text


def test_the_page_comes_at_once_and_its_plots_after_it(cast, enter):
    client = enter(cast.researcher)
    page = client.get("/p/shop/analysis/?whose=models").content.decode()
    for part in PARTS:
        assert f"whose=models&amp;part={part}" in page
        empty = client.get(f"/p/shop/analysis/?whose=models&part={part}", headers=FRAGMENT)
        assert "<table" not in empty.content.decode()
        assert client.get("/p/shop/analysis/votes/", {"part": part}).status_code == 200
    assert client.get("/p/shop/analysis/numbers.csv?part=nothing").status_code == 404
    assert client.get("/p/shop/analysis/votes/?part=nothing").status_code == 404
    assert client.get("/p/shop/analysis/?part=<b>&whose=<b>").status_code == 200


@pytest.mark.parametrize("part", PARTS)
def test_a_plot_takes_as_many_queries_for_many_votes_as_for_few(
    everything, enter, part, django_assert_max_num_queries
):
    client = enter(everything.researcher)
    for number in range(60):
        comparison = write(everything.project, f"more {number}?", "a", f"b {number}", split="dev")
        vote(comparison, presented_order=ids_of(comparison))
    with django_assert_max_num_queries(9):
        client.get("/p/shop/analysis/", {"part": part}, headers=FRAGMENT)
    address = {"part": part, "annotator": "", "bucket": 5, "version": "1", "language": "en"}
    with django_assert_max_num_queries(12):
        client.get("/p/shop/analysis/votes/", address)


def test_older_votes_are_on_the_next_page(cast, enter):
    voter = make_voter(cast.project)
    for number in range(52):
        comparison = write(cast.project, f"q {number}?", "a", f"b {number}", language="en")
        vote(comparison, voter, presented_order=ids_of(comparison))
    client = enter(cast.researcher)
    for address in (f"part=position&annotator={voter.pseudonym}", "part=languages&language=en"):
        first = client.get(f"/p/shop/analysis/votes/?{address}")
        rest = client.get(f"/p/shop/analysis/votes/?{first.context['older']}")
        ids = [row.preference.pk for page in (first, rest) for row in page.context["rows"]]
        assert len(set(ids)) == 52
        assert ids == sorted(ids, reverse=True)
        assert rest.context["older"] == ""
