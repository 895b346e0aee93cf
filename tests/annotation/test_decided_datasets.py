"""Reviewers' decisions in datasets: beside the votes, or in their place; the funnel still sums."""

import json

import pytest

from annotation.errors import BadInput
from annotation.exporters.folder import make_export
from annotation.models import Preference
from annotation.services.decisions import decide, void_decision
from annotation.services.disagreements import look_again
from annotation.services.lineage import lineage_of_preference
from annotation.services.rankings import AxisRanking
from annotation.services.snapshots import freeze, path_of, rows_of
from tests.annotation.making import make_member, make_project
from tests.annotation.voting import cast, compare, ids_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def reviewer(project):
    return make_member(project, "reviewer")


def apart(project, **fields):
    comparison = compare(project, **fields)
    for order in ([[0], [1]], [[1], [0]]):
        cast(comparison, order=order)
    look_again(comparison.pk)
    return comparison


def second_first(comparison, by, seen=0):
    groups = [[pk] for pk in reversed(ids_of(comparison))]
    return decide(
        comparison=comparison, by=by, seen=seen, rankings=[AxisRanking(groups=groups)], reason="so"
    )


def undecided(comparison, by, seen=0):
    return decide(comparison=comparison, by=by, seen=seen, undecidable=True, reason="a riddle")


def frozen(project, **query):
    return freeze(project=project, kind="comparisons", query=query)


def counted(snapshot):
    return {bucket: number for bucket, number in snapshot.counts.items() if number}


def test_by_default_a_decision_stands_beside_the_votes(project, reviewer):
    comparison = apart(project)
    decision = second_first(comparison, reviewer)
    snapshot = frozen(project)
    (row,) = rows_of(snapshot)
    assert len(row["votes"]) == 2
    assert row["decision"] == {
        "annotator": str(decision.by_id),
        "undecidable": False,
        "reason": "so",
        "number": 1,
        "rankings": [
            {
                "axis": "overall",
                "outcome": "ranked",
                "ranking": [[str(pk)] for pk in reversed(ids_of(comparison))],
                "strength": None,
            }
        ],
    }
    assert counted(snapshot) == {"trained": 2}
    assert "decisions" not in snapshot.query
    assert snapshot.notes == {}


def test_instead_of_the_votes_it_is_the_only_one(project, reviewer):
    decided, riddle, other = apart(project), apart(project), apart(project)
    decision = second_first(decided, reviewer)
    undecided(riddle, reviewer)
    snapshot = frozen(project, decisions="instead")
    rows = {row["id"]: row for row in rows_of(snapshot)}
    assert set(rows) == {str(decided.pk), str(other.pk)}
    assert rows[str(decided.pk)]["votes"] == [
        {
            "axis": "overall",
            "outcome": "ranked",
            "ranking": [[str(pk)] for pk in reversed(ids_of(decided))],
            "strength": None,
            "annotator": str(decision.by_id),
            "kind": "person",
            "weight": 1.0,
            "decision": decision.pk,
        }
    ]
    assert counted(snapshot) == {"trained": 2, "decided": 4}
    assert sum(snapshot.counts.values()) == Preference.objects.count()
    assert snapshot.notes == {"decisions": {"used": 1, "unused": 1}}
    assert snapshot.query["decisions"] == "instead"


def test_votes_that_a_dataset_does_not_take_bring_no_decision(project, reviewer):
    for fields in ({"split": "test"}, {"split": "train", "purpose": "evaluation"}):
        second_first(apart(project, **fields), reviewer)
    snapshot = frozen(project, decisions="instead", splits=["train"])
    assert list(rows_of(snapshot)) == []
    assert counted(snapshot) == {"evaluation": 2, "filtered_split": 2}


def test_a_position_keeps_the_decision_that_was_in_force(project, reviewer):
    comparison = apart(project)
    first = second_first(comparison, reviewer)
    snapshot = frozen(project, decisions="instead")
    data = path_of(snapshot).read_bytes()
    void_decision(decision=first, by=reviewer, reason="wrong")
    assert counted(frozen(project, decisions="instead")) == {"trained": 2}
    undecided(comparison, reviewer, seen=1)
    assert counted(frozen(project, decisions="instead")) == {"decided": 2}
    path_of(snapshot).unlink()
    again = frozen(project, decisions="instead", up_to=snapshot.ledger_position)
    assert again == snapshot
    assert path_of(again).read_bytes() == data


def test_of_two_decisions_the_later_is_in_force(project, reviewer):
    comparison = apart(project)
    undecided(comparison, reviewer)
    second_first(comparison, reviewer, seen=1)
    (row,) = rows_of(frozen(project, decisions="instead"))
    assert len(row["votes"]) == 1


def test_the_lineage_of_a_vote_knows_that_it_was_decided(project, reviewer):
    comparison = apart(project)
    before = frozen(project)
    second_first(comparison, reviewer)
    frozen(project, decisions="instead")
    after = frozen(project)
    vote = comparison.preferences.first()
    assert [one for one, _bucket in lineage_of_preference(vote).snapshots] == [before, after]


def test_exports_name_the_reviewer_by_pseudonym(project, reviewer):
    second_first(apart(project), reviewer)
    folder = make_export(project=project, format="comparisons")
    (row,) = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert row["decision"]["reason"] == "so"
    assert row["decision"]["annotator"].startswith("annotator-")
    folder = make_export(project=project, format="comparisons", query={"decisions": "instead"})
    (row,) = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert row["votes"][0]["decision"] is True
    assert row["votes"][0]["annotator"] == row["decision"]["annotator"]
    assert "Reviewers' decisions stand in the place" in (folder / "README.md").read_text()
    folder = make_export(project=project, format="raw")
    raw = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert [one["comparison"]["decision"]["reason"] for one in raw] == ["so", "so"]
    assert raw[0]["comparison"]["decision"]["annotator"].startswith("annotator-")


def test_an_unknown_way_is_refused(project):
    with pytest.raises(BadInput, match="decisions is one of off, instead: not 'both'"):
        frozen(project, decisions="both")
