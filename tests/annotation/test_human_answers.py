"""Which answers of people stand, and so may meet those of models."""

import pytest

from annotation.models import Preference
from annotation.services import ledger
from annotation.services.forgetting import forget_person
from annotation.services.human_answers import human_answers
from annotation.services.review import void_preference
from annotation.services.snapshots import freeze, rows_of
from tests.annotation.making import make_member, make_project
from tests.annotation.voting import cast, compare, make_voter, revise

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def admin(project):
    return make_member(project, "admin")


def write(comparison, text, *votes, by):
    """An ideal answer, as the desk stores it with the votes that give it."""
    completion, _ = ledger.add_completion(
        prompt=comparison.prompt, source=comparison.prompt.source, text=text
    )
    ledger.record_generation(
        completion=completion,
        origin="demonstration",
        writer=by.pseudonym if by else "a file",
        annotator=by,
    )
    Preference.objects.filter(pk__in=[vote.pk for vote in votes]).update(ideal=completion)


def test_what_is_void_replaced_or_deleted_meets_nobody(project, admin):
    there = [compare(project, split="dev") for _ in range(9)]
    who = [make_voter(project) for _ in there]
    votes = [cast(one, by) for one, by in zip(there, who, strict=True)]

    def void(vote):
        void_preference(preference=vote, by=admin, reason="spam")

    write(there[0], "stands", votes[0], by=who[0])
    write(there[1], "void", votes[1], by=who[1])
    void(votes[1])
    write(there[2], "deleted with its answer", votes[2], by=who[2])
    write(there[3], "deleted without one", by=who[3])
    write(there[4], "replaced", votes[4], by=who[4])
    revise(votes[4], order=[[1], [0]])
    write(there[5], "void, and written outside too", votes[5], by=who[5])
    write(there[5], "void, and written outside too", by=None)
    void(votes[5])
    again = cast(there[6], make_voter(project))
    write(there[6], "void, and given by another too", votes[6], again, by=who[6])
    void(votes[6])
    also = cast(there[7], make_voter(project))
    write(there[7], "deleted, and given by another too", votes[7], also, by=who[7])
    write(there[8], "beside no answer", by=who[8])
    for gone in (who[2], who[3], who[7]):
        forget_person(annotator=gone, reason="She asked us to.", by=admin)
    expected = {
        "stands",
        "void, and written outside too",
        "void, and given by another too",
        "deleted, and given by another too",
        "beside no answer",
    }
    met = human_answers(project, "dev").values_list("completion__text", flat=True)
    assert set(met) == expected
    assert not human_answers(project, "test").exists()
    frozen = freeze(project=project, kind="demonstrations", query={"splits": ["dev"]})
    assert {row["completion"] for row in rows_of(frozen)} == expected
