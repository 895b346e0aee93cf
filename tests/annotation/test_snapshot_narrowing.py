"""Snapshots by question, tag, accuracy on hidden checks and agreement: the same at one position."""

import pytest

from annotation.errors import BadInput
from annotation.exporters.folder import make_export
from annotation.funnel import VoteQuery
from annotation.models import Annotator, GoldCheck, GoldItem, Preference, Ranking
from annotation.services.gold import retire_gold, vote_on_gold
from annotation.services.lineage import lineage_of_preference
from annotation.services.plans.narrowing import verdicts_at
from annotation.services.review import void_preference
from annotation.services.search import tag_comparisons, untag_comparisons
from annotation.services.snapshots import count, freeze, rows_of
from annotation.services.standing import accuracies
from tests.annotation.golden import in_order, make_experts, make_items
from tests.annotation.making import make_annotator, make_project, make_user
from tests.annotation.voting import cast, compare, revise

pytestmark = pytest.mark.django_db
REVERSED = [[1], [0]]


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


@pytest.fixture
def project():
    return make_project()


def frozen(project, **query):
    return freeze(project=project, kind="comparisons", query=query)


def ids(snapshot):
    return [int(row["id"]) for row in rows_of(snapshot)]


def is_lineage_of(snapshot, votes, held) -> bool:
    """Whether the page of each vote says the same as the file."""
    return all(
        (snapshot in [one for one, _ in lineage_of_preference(vote).snapshots]) == (vote in held)
        for vote in votes
    )


def test_an_axis_takes_its_rankings_alone(project):
    one, other = compare(project), compare(project)
    vote, without = cast(one), cast(other)
    a, b = [entry.completion_id for entry in one.entries.all()]
    Ranking.objects.create(preference=vote, axis="safe", outcome="ranked", groups=[[b], [a]])
    snapshot = frozen(project, axes=["safe"])
    (row,) = rows_of(snapshot)
    assert int(row["id"]) == one.pk
    assert [(said["axis"], said["ranking"]) for said in row["votes"]] == [
        ("safe", [[str(b)], [str(a)]])
    ]
    assert snapshot.counts["filtered_axis"] == 1
    assert sum(snapshot.counts.values()) == 2
    assert is_lineage_of(snapshot, [vote, without], [vote])
    assert ids(frozen(project, axes=["overall", "safe"])) == [one.pk, other.pk]


def test_a_tie_on_the_axis_asked_for_is_no_strict_pair(project):
    comparison = compare(project)
    vote = cast(comparison)
    both = [entry.completion_id for entry in comparison.entries.all()]
    Ranking.objects.create(preference=vote, axis="safe", outcome="equal", groups=[both])
    assert frozen(project, axes=["safe"]).counts["no_strict_pair"] == 1


def test_tags_are_those_of_the_position(project):
    one, other = compare(project), compare(project)
    votes = [cast(one), cast(other)]
    tag_comparisons(project=project, comparisons=[one.pk], name="hard", by=None)
    first = frozen(project, tags=["hard"])
    assert ids(first) == [one.pk]
    assert first.counts["filtered_tag"] == 1
    tag_comparisons(project=project, comparisons=[other.pk], name="hard", by=None)
    untag_comparisons(project=project, comparisons=[one.pk], name="hard", by=None)
    second = frozen(project, tags=["hard"])
    assert ids(second) == [other.pk]
    assert is_lineage_of(first, votes, votes[:1])
    assert is_lineage_of(second, votes, votes[1:])
    first.delete()
    again = frozen(project, tags=["hard"], up_to=first.ledger_position)
    assert again.sha256 == first.sha256
    assert ids(frozen(project, tags=["hard", "x"])) == [other.pk]
    assert ids(frozen(project, tags=["x"])) == []


def scored(annotator: Annotator, item: GoldItem, *, right: bool) -> Preference:
    """An answer to a hidden check, scored as the queue does; its stored order is the right one."""
    vote = cast(item.comparison, annotator, order=None if right else REVERSED)
    GoldCheck.objects.create(
        item=item,
        annotator=annotator,
        preference=vote,
        verdict="held" if right else "broken",
        created_at=vote.created_at,
    )
    return vote


def test_accuracy_on_enough_checks_decides_whose_votes_come(project):
    experts = make_experts(project)
    items = make_items(experts, project, 5)
    good, bad, new = (make_annotator(project) for _ in range(3))
    for place, item in enumerate(items):
        scored(good, item, right=place != 0)
        scored(bad, item, right=place < 3)
    scored(new, items[0], right=True)
    votes = [cast(compare(project), who) for who in (good, bad, new)]
    snapshot = frozen(project, accuracy=0.8, checks=5)
    assert ids(snapshot) == [votes[0].comparison_id]
    assert snapshot.counts["filtered_accuracy"] == 2
    assert snapshot.notes["accuracy"] == {"annotators": [good.pk]}
    assert is_lineage_of(snapshot, votes, votes[:1])
    assert ids(frozen(project, accuracy=0.5, checks=1)) == [vote.comparison_id for vote in votes]
    assert ids(frozen(project, accuracy=0.81, checks=1)) == [votes[2].comparison_id]
    assert ids(frozen(project, accuracy=0.1)) == []  # nobody has ten checks


def test_the_verdicts_of_now_are_those_of_the_bar(project):
    experts = make_experts(project)
    items = make_items(experts, project, 4)
    annotator = make_annotator(project)
    votes = [scored(annotator, item, right=True) for item in items]
    unscored, again = make_annotator(project), make_annotator(project)
    cast(items[3].comparison, unscored)  # before it was gold, say
    scored(again, items[3], right=True)
    GoldCheck.objects.filter(annotator=again).update(attempt=1)
    void_preference(preference=votes[0], by=make_user(), reason="spam")
    retire_gold(item=items[1], by=None, reason="wrong", is_wrong=True)
    retire_gold(item=items[2], by=None, reason="old", is_wrong=False)
    position = frozen(project, accuracy=0.5, checks=1).ledger_position
    told = verdicts_at(project, position)
    assert told == [(annotator.pk, "held")] * 2
    everybody = [one.pk for one in (annotator, unscored, again)]
    assert accuracies(everybody) == {annotator.pk: ["held", "held"]}


def test_gold_that_changed_since_is_not_told_from_memory(project):
    experts = make_experts(project)
    (item,) = make_items(experts, project, 1)
    annotator = make_annotator(project)
    scored(annotator, item, right=True)
    cast(compare(project), annotator)
    snapshot = frozen(project, accuracy=0.9, checks=1)
    position = snapshot.ledger_position
    revised = [group[0] for group in reversed(item.votes.first().rankings[0]["groups"])]
    for expert in experts:
        vote_on_gold(item=item, by=expert, rankings=in_order(revised))
    assert frozen(project, accuracy=0.9, checks=1, up_to=position) == snapshot  # it lies there
    assert ids(frozen(project, accuracy=0.9, checks=1)) == []
    with pytest.raises(BadInput, match="The gold has changed since"):
        frozen(project, accuracy=0.8, checks=1, up_to=position)


def test_agreement_leaves_out_what_people_differ_on(project):
    alike, apart, alone = (compare(project) for _ in range(3))
    votes = [cast(alike), cast(alike), cast(apart), cast(alone)]
    votes.append(cast(apart, order=REVERSED))
    snapshot = frozen(project, agreement=0.6)
    assert ids(snapshot) == [alike.pk]
    assert snapshot.counts["filtered_agreement"] == 3
    assert is_lineage_of(snapshot, votes, votes[:2])
    void_preference(preference=votes[0], by=make_user(), reason="spam")
    later = frozen(project, agreement=0.6)
    assert ids(later) == []  # one vote is left
    assert is_lineage_of(later, votes, [])
    assert is_lineage_of(snapshot, votes, votes[:2])
    snapshot.delete()
    again = frozen(project, agreement=0.6, up_to=snapshot.ledger_position)
    assert again.sha256 == snapshot.sha256


def test_of_a_revised_answer_the_last_one_by_then_agrees(project):
    comparison = compare(project)
    vote, _other = cast(comparison), cast(comparison)
    first = frozen(project, agreement=0.9)
    revise(vote, order=REVERSED)
    assert ids(frozen(project, agreement=0.9)) == []
    assert ids(first) == [comparison.pk]
    assert is_lineage_of(first, [vote], [vote])


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"accuracy": 1.5}, "accuracy lies from 0 to 1: 1.5"),
        ({"agreement": "much"}, "agreement lies from 0 to 1: 'much'"),
        ({"agreement": True}, "agreement lies from 0 to 1: True"),
        ({"checks": 5}, "checks says of how many an accuracy must be"),
        ({"accuracy": 0.5, "checks": -1}, "checks is a whole number"),
        ({"tags": 3}, "tags must be a list of texts: 3"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(query, says):
    with pytest.raises(BadInput, match=says):
        VoteQuery.of(query)


def test_a_query_says_no_more_than_it_asks():
    assert not {"accuracy", "checks", "agreement", "axes", "tags"} & set(VoteQuery().as_json())
    asked = VoteQuery.of({"accuracy": 0.8, "tags": ["b", "a"]})
    assert asked.as_json()["checks"] == 10
    assert VoteQuery.of(asked.as_json()) == asked


def test_counting_and_raw_rows_know_the_filters(project):
    tagged, other = compare(project), compare(project)
    cast(tagged), cast(other)
    tag_comparisons(project=project, comparisons=[tagged.pk], name="hard", by=None)
    rows, counts = count(project=project, kind="comparisons", query={"tags": ["hard"]})
    assert (rows, counts["filtered_tag"]) == (1, 1)
    folder = make_export(project=project, format="raw", query={"tags": ["hard"]})
    buckets = (folder / "train.jsonl").read_text().count('"bucket": "filtered_tag"')
    assert buckets == 1
