"""Rows that forbid commercial use, and the models that learned from them."""

import pytest

from annotation import model_card
from annotation.errors import BadInput, Conflict
from annotation.importers.stores import source_for
from annotation.licences import forbids_commerce
from annotation.models import (
    AuditEntry,
    Completion,
    DatasetSnapshot,
    ModelVersion,
    Preference,
    Prompt,
)
from annotation.services.audit import record
from annotation.services.ledger import record_generation
from annotation.services.licences import (
    allowed_licences,
    licences_of,
    override_licences,
    require_shippable,
)
from annotation.services.lineage import History
from annotation.services.snapshots import freeze, path_of, rows_of
from annotation.services.versions import promote, roll_back
from tests.annotation.making import make_project, make_user
from tests.annotation.voting import cast, compare
from tests.pages_cast import make_cast

pytestmark = pytest.mark.django_db
NC = "CC BY-NC 4.0"


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


@pytest.fixture
def project():
    return make_project()


def voted(project, licence: str = ""):
    """A comparison with a vote, its prompt under a licence."""
    comparison = compare(project)
    if licence:
        source = source_for(project=project, name=f"set {licence}", licence=licence)
        Prompt.objects.filter(pk=comparison.prompt_id).update(source=source)
    cast(comparison)
    return comparison


def version_of(snapshot, kind="reward", name="r", **edges):
    return ModelVersion.objects.create(
        kind=kind, stage="reward", name=name, path=f"models/{name}", sha256="a" * 64,
        snapshot=snapshot, **edges,
    )  # fmt: skip


def frozen(project, **query):
    return freeze(project=project, kind="comparisons", query=query)


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [
        ("CC BY-NC 4.0", True),
        ("cc-by-nc-sa-4.0", True),
        ("CC_BY_NC", True),
        ("Non-commercial use", True),
        ("noncommercial", True),
        ("research only", True),
        ("for academic use only", True),
        ("MIT", False),
        ("CC BY-SA 4.0", False),
        ("Apache-2.0", False),
        ("France's open licence", False),
        ("", False),
    ],
)
def test_what_a_licence_forbids_is_read_from_its_name(licence, forbids):
    assert forbids_commerce(licence) is forbids


def test_a_snapshot_counts_its_rows_by_licence(project):
    voted(project), voted(project), voted(project, NC)
    snapshot = frozen(project)
    assert licences_of(snapshot) == {"": 3, NC: 1}  # the completions of all three are our own
    DatasetSnapshot.objects.update(sources=None)  # as rows of before have it
    assert licences_of(DatasetSnapshot.objects.get()) == {"": 3, NC: 1}
    assert DatasetSnapshot.objects.get().sources == snapshot.sources


def test_sources_of_votes_count_too(project):
    comparison = voted(project)
    source = source_for(project=project, name="votes", licence=NC)
    cast(comparison, source=source), cast(comparison, source=source)
    snapshot = frozen(project)
    assert licences_of(snapshot) == {"": 1, NC: 1}
    DatasetSnapshot.objects.update(sources=None)
    assert licences_of(DatasetSnapshot.objects.get()) == {"": 1, NC: 1}
    with pytest.raises(BadInput, match="forbid commercial use"):
        require_shippable(version_of(snapshot))
    left = frozen(project, licences=[""])
    assert left.counts["filtered_licence"] == 2
    assert licences_of(left) == {"": 1}


def test_completions_under_a_licence_that_forbids_are_left_out(project):
    comparison, other = voted(project), voted(project)
    source = source_for(project=project, name="texts", licence=NC)
    entry = comparison.entries.first()
    Completion.objects.filter(pk=entry.completion_id).update(source=source)
    snapshot = frozen(project, licences=allowed_licences(project, {}, "loop"))
    assert [row["id"] for row in rows_of(snapshot)] == [str(other.pk)]
    assert snapshot.counts["filtered_licence"] == 1
    asked = Preference.objects.select_related("annotator", "scheme").get(comparison=comparison)
    assert History([asked]).bucket_in(snapshot, asked) == "filtered_licence"
    record_generation(completion=entry.completion, origin="demonstration")
    ideal = freeze(project=project, kind="demonstrations", query={"licences": [""]})
    assert (ideal.rows, ideal.counts) == (0, {"filtered_licence": 1})
    require_shippable(version_of(snapshot))


@pytest.mark.parametrize("kind", ["comparisons", "demonstrations", "prompts"])
def test_a_licence_that_is_noted_later_changes_no_hash(project, kind):
    comparison = voted(project)
    record_generation(completion=comparison.entries.first().completion, origin="demonstration")

    def asked(**query):
        query = {"licences": [""], **query}
        return freeze(project=project, kind=kind, query=query)

    before = asked()
    path_of(before).unlink()  # so that it is written again
    source_for(project=project, name="default", licence="MIT")
    assert (before.rows, asked().rows) == (1, 0)
    again = asked(up_to=before.ledger_position)
    assert (again.sha256, again.rows) == (before.sha256, 1)
    now = asked().ledger_position
    record(action="source.change", target=project.sources.get(), project=project, fields=["terms"])
    assert asked(up_to=now).ledger_position == now
    record(
        action="source.change", target=project.sources.get(), project=project, fields=["licence"]
    )
    path_of(again).unlink()
    with pytest.raises(BadInput, match="licence of source 'default' was changed since"):
        asked(up_to=before.ledger_position)


@pytest.mark.parametrize("kind", ["prompts", "demonstrations"])
def test_other_snapshots_count_theirs_too(project, kind):
    voted(project, NC)
    snapshot = freeze(project=project, kind=kind, query=None)
    told = snapshot.sources
    DatasetSnapshot.objects.update(sources=None)
    found = DatasetSnapshot.objects.get()
    licences_of(found)
    assert found.sources == told
    assert licences_of(found) == ({NC: 1} if kind == "prompts" else {})


def test_a_model_is_put_in_force_only_once_somebody_answers(project):
    admin = make_user("ada")
    voted(project, NC)
    snapshot = frozen(project)
    version = version_of(snapshot)

    def put():
        return promote(
            project=project, slot="reward", version=version, verdict="by_admin", by=admin
        )

    with pytest.raises(BadInput, match=rf"{snapshot.sha256[:12]}, which holds .*: {NC} \(1\)"):
        put()
    assert "nobody has answered for it" in model_card.render(version)
    with pytest.raises(BadInput, match="An override needs a reason"):
        override_licences(snapshot=snapshot, reason=" ", by=admin)
    override_licences(snapshot=snapshot, reason="Agreed with the owner.", by=admin)
    entry = AuditEntry.objects.get(action="snapshot.override")
    assert (entry.actor, entry.data["reason"], entry.data["licences"]) == (
        admin, "Agreed with the owner.", [NC],
    )  # fmt: skip
    with pytest.raises(Conflict, match="answered for this dataset already"):
        override_licences(snapshot=snapshot, reason="Once more.", by=admin)
    assert put().version == version
    card = model_card.render(version)
    assert "ada answered for it on" in card
    assert "Agreed with the owner." in card


def test_nothing_is_rolled_back_to_that_would_not_be_put_in_force(project):
    voted(project)
    before = version_of(frozen(project), name="before")
    newer = version_of(None, name="newer")
    for version in (before, newer):
        promote(project=project, slot="reward", version=version, verdict="by_admin")
    project.sources.update(licence=NC)
    with pytest.raises(BadInput, match=r"before learned from dataset .*forbid commercial use"):
        roll_back(project=project, slot="reward")
    override_licences(snapshot=before.snapshot, reason="Agreed.", by=make_user())
    assert roll_back(project=project, slot="reward").version == before


def test_a_policy_is_bound_by_what_rewarded_it(project):
    voted(project, NC)
    reward = version_of(frozen(project))
    policy = version_of(None, kind="policy", name="p", reward=reward)
    later = version_of(None, kind="policy", name="q", init=policy)
    for version in (reward, policy, later):
        with pytest.raises(BadInput, match="forbid commercial use"):
            require_shippable(version)
    version = version_of(reward.snapshot, name="judge")
    assert promote(project=project, slot="judge", version=version, verdict="first")  # measures only


def test_what_is_free_needs_no_answer(project):
    voted(project, "MIT")
    snapshot = frozen(project)
    require_shippable(version_of(snapshot))
    with pytest.raises(BadInput, match="No row of this dataset forbids"):
        override_licences(snapshot=snapshot, reason="Why not.", by=make_user())
    assert "Licences" not in model_card.render(ModelVersion.objects.get())


def test_a_licence_that_a_source_gets_later_is_not_answered_for(project):
    voted(project, NC)
    snapshot = frozen(project)
    override_licences(snapshot=snapshot, reason="Agreed.", by=make_user())
    version = version_of(snapshot)
    require_shippable(version)
    project.sources.filter(name="default").update(licence="research only")
    with pytest.raises(BadInput, match=r"research only \(1\)"):
        require_shippable(version)


def test_a_job_of_the_loop_leaves_them_out_unless_it_asks(project):
    assert allowed_licences(project, {}, "loop") is None
    for comparison, licence in ((voted(project), NC), (voted(project), "MIT")):
        source = source_for(project=project, name=licence, licence=licence)
        Prompt.objects.filter(pk=comparison.prompt_id).update(source=source)
    assert allowed_licences(project, {}, "loop") == ["", "MIT"]
    assert allowed_licences(project, {}, "experiment") is None
    assert allowed_licences(project, {"licences": [NC]}, "loop") == [NC]
    snapshot = frozen(project, licences=["", "MIT"])
    assert snapshot.counts["filtered_licence"] == 1
    require_shippable(version_of(snapshot))
    project.sources.update(licence=NC)
    with pytest.raises(BadInput, match="Every source of the project"):
        allowed_licences(project, {}, "loop")


def test_an_admin_answers_on_the_page(enter):
    people = make_cast()
    project = people.project
    voted(project, NC)
    snapshot = frozen(project)
    address = f"/p/shop/export/{snapshot.pk}/override/"
    assert "Answer for it" not in enter(people.researcher).get("/p/shop/export/").content.decode()
    client = enter(people.admin)
    html = client.get("/p/shop/export/").content.decode()
    assert f"{NC} (1)" in html
    assert "Answer for it" in html
    assert "An override needs a reason" in client.post(address, follow=True).content.decode()
    html = client.post(address, {"reason": "Agreed."}, follow=True).content.decode()
    assert "You answer for this dataset" in html
    assert "Answer for it" not in html
    assert f"{people.admin} answers for it since" in html
