"""The votes behind figures of Quality, head to head and a gate, against what was voted by hand."""

import pytest

from annotation.models import DatasetSnapshot, ModelVersion
from annotation.services.ledger import record_generation
from tests.annotation.test_pages_analysis import make_policy, make_reward, rows_of, score
from tests.annotation.test_search import write
from tests.annotation.voting import cast as vote
from tests.annotation.voting import compare, ids_of, make_voter

pytestmark = pytest.mark.django_db
PAGE = "/p/shop/votes/"


def behind(client, page=PAGE, **asked):
    """Ids of the votes that the page lists."""
    response = client.get(page, asked)
    assert response.status_code == 200
    listed = [row.preference.pk for row in response.context["rows"]]
    assert response.context["behind"].num_votes == len(listed)
    return sorted(listed)


def test_agreement_is_made_of_what_two_people_or_more_answered(cast, enter):
    project, people = cast.project, [make_voter(cast.project) for _ in range(2)]
    english, chinese = compare(project, language="en"), compare(project, language="zh")
    lists = compare(project, k=3)
    pairs = [vote(one, voter).pk for one in (english, chinese) for voter in people]
    ranked = [vote(lists, voter).pk for voter in people]
    alone = vote(compare(project), people[0]).pk
    client = enter(cast.reviewer)
    asked = {"of": "agreement", "axis": "overall"}
    assert behind(client, **asked) == sorted(pairs)
    assert behind(client, **asked, pairs="lists") == sorted(ranked)
    assert behind(client, **asked, by="language", label="zh") == sorted(pairs[2:])
    assert behind(client, of="agreement", axis="other") == []
    of_one = {"of": "annotator", "name": people[0].pseudonym}
    assert behind(client, **of_one) == sorted([pairs[0], pairs[2], ranked[0], alone])
    assert behind(client, **of_one, whose="models") == []


def test_a_meeting_is_made_of_what_people_said_of_two_players(cast, enter):
    """Dev alone, and not of those who cannot tell."""
    project = cast.project
    one, two, three = (make_policy(project, name) for name in ("a", "b", "c"))

    def meet(*writers, split="dev", **said):
        comparison = compare(project, purpose="evaluation", split=split)
        for writer, text in zip(writers, comparison.completions.order_by("entries__position")):
            record_generation(completion=text, origin="policy", model_version=writer, seed=1)
        return vote(comparison, **said).pk

    first, second = meet(one, two), meet(one, two, outcome="both_bad")
    third = meet(one, three)
    meet(one, two, outcome="cannot_tell")
    meet(one, two, split="test")
    client = enter(cast.reviewer)
    named = f"a #{one.pk}"
    assert behind(client, of="met", player=named, other=f"b #{two.pk}") == [first, second]
    assert behind(client, of="met", player=named) == [first, second, third]
    assert behind(client, of="met", player="nobody") == []


def test_a_gate_is_made_of_the_dev_votes_of_its_dataset(cast, enter):
    project = cast.project
    train, dev = vote(compare(project)), vote(compare(project, split="dev"))
    model = vote(compare(project, split="dev"), make_voter(project, kind="model"))
    evaluation = vote(compare(project, split="dev", purpose="evaluation"))
    snapshot = DatasetSnapshot.objects.create(
        project=project, kind="comparisons", query={"annotators": ["person"]},
        ledger_position={"preference": evaluation.pk}, sha256="c" * 64, path="c.jsonl", rows=4,
        counts={},
    )  # fmt: skip
    vote(compare(project, split="dev"))  # came later
    reward = make_reward(project)
    client = enter(cast.reviewer)
    assert client.get(PAGE, {"of": "gate", "version": reward.pk}).status_code == 404
    ModelVersion.objects.filter(pk=reward.pk).update(snapshot=snapshot)
    assert behind(client, of="gate", version=reward.pk) == [dev.pk]
    assert train.pk < model.pk
    for asked in ({"of": "gate", "version": "x"}, {"of": "nothing"}, {"of": "gate"}):
        assert client.get(PAGE, asked).status_code == 404


def test_a_version_is_met_in_the_votes_on_what_it_wrote(cast, enter):
    policy = make_policy(cast.project, "sft-1")
    mine, other = compare(cast.project), compare(cast.project)
    text = mine.completions.first()
    record_generation(completion=text, origin="policy", model_version=policy, seed=1)
    given = vote(mine)
    vote(other)
    client = enter(cast.reviewer)
    assert behind(client, of="written", version=policy.pk) == [given.pk]
    page = client.get(f"/p/shop/versions/{policy.pk}/").content.decode()
    assert f'/p/shop/votes/?of=written&amp;version={policy.pk}">' in page


def test_side_columns_of_length_lead_to_the_votes_that_have_scores(cast, enter):
    """Of three answers in one bucket two have scores, and of one of these they differ; the longer
    text of a fourth is in another bucket."""
    project, reward = cast.project, make_reward(cast.project)
    given = []
    for number, scores in enumerate([(0.0, 1.0), (1.0, 1.0), (None, 1.0)]):
        comparison = write(project, f"q {number}?", "aaaa", "aaaaaa")
        score(reward, *scores, of=comparison)
        given.append(vote(comparison, presented_order=ids_of(comparison)).pk)
    far = write(project, "far?", "aaaa", "a" * 40)
    given.append(vote(far, presented_order=ids_of(far)).pk)
    client = enter(cast.reviewer)
    page = "/p/shop/analysis/votes/"
    asked = {"part": "length", "bucket": "3"}  # 6 / 4 = 1.5
    assert behind(client, page, **asked) == given[:3]
    assert behind(client, page, **asked, scored="people") == given[:2]
    assert behind(client, page, **asked, scored="model") == given[:1]
    assert behind(client, page, part="length", bucket="all") == given
    rows = rows_of(client, "length")
    counts = {figure: int(row["n"]) for (label, figure), row in rows.items() if "1.5" in label}
    assert sorted(counts.values()) == [1, 2, 3]
