"""Delete a person's data: no dataset holds it any more, and of those that did a tombstone stays."""

import json
from unittest.mock import Mock

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotation import model_card
from annotation.errors import BadInput, Conflict
from annotation.exporters.folder import exports_of, is_withdrawn, make_export
from annotation.importers.load import Load
from annotation.importers.stores import preference_store, source_for
from annotation.models import (
    Annotator,
    AuditEntry,
    Completion,
    Decision,
    Forgotten,
    Membership,
    ModelVersion,
    Preference,
    Role,
    Tombstone,
)
from annotation.services import forgetting
from annotation.services.answers import add_ideal
from annotation.services.forgetting import forget_person, preview, replace_all, unfinished
from annotation.services.ledger import add_completion, record_generation
from annotation.services.lineage import History
from annotation.services.projects import annotator_for
from annotation.services.snapshot_diff import diff
from annotation.services.snapshots import freeze, path_of, rows_of
from annotation.services.voiding import carry_on_all
from tests.annotation.making import make_member, make_project
from tests.annotation.voting import cast, compare, make_voter
from tests.pages_cast import make_cast

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def admin(project):
    return make_member(project, Role.ADMIN)


def frozen(project, kind="comparisons", **query):
    return freeze(project=project, kind=kind, query=query)


def voters(snapshot) -> set[str]:
    return {vote["annotator"] for row in rows_of(snapshot) for vote in row["votes"]}


def forget(annotator, by) -> Forgotten:
    made = forget_person(annotator=annotator, reason="She asked us to.", by=by)
    replace_all(made.pk)
    made.refresh_from_db()
    return made


def test_a_dataset_that_held_them_is_replaced_and_its_tombstone_stays(project, admin):
    both, alone = compare(project), compare(project)
    gone, stays = make_voter(project), make_voter(project)
    cast(both, gone, note="my address is ...")
    cast(both, stays), cast(alone, gone)
    before, without = frozen(project), frozen(project, annotators=["simulated"])
    assert voters(before) == {str(gone.pk), str(stays.pk)}
    made = forget(gone, admin)
    stone = Tombstone.objects.get()
    assert (stone.snapshot, stone.forgotten) == (before, made)  # the other one held nobody
    after = stone.successor
    assert voters(after) == {str(stays.pk)}
    assert after.query == before.query
    assert after.counts["forgotten"] == 2
    assert sum(after.counts.values()) == sum(before.counts.values()) == 3
    assert not path_of(before).exists()
    assert path_of(without).exists()
    before.refresh_from_db()
    assert before.rows == 2
    with pytest.raises(Conflict, match=r"was withdrawn on .* \(She asked us to\.\)"):
        list(rows_of(before))
    with pytest.raises(BadInput, match="was withdrawn on"):
        diff(before, after)
    assert set(Preference.objects.values_list("note", flat=True)) == {""}
    assert Preference.objects.filter(annotator=gone, voided_at=None).count() == 0
    acts = AuditEntry.objects.filter(project=project).values_list("action", flat=True)
    assert {"person.forget", "snapshot.bury", "person.forgotten"} <= set(acts)
    assert not unfinished()


def write_ideal(comparison, text, *, by) -> Completion:
    """A person's own text, which stands in the comparison as one of its completions."""
    completion, _ = add_completion(
        prompt=comparison.prompt, source=comparison.prompt.source, text=text
    )
    record_generation(completion=completion, origin="demonstration", annotator=by)
    comparison.entries.filter(position=1).update(completion=completion)
    return completion


def test_what_they_alone_wrote_is_asked_about_no_more_and_in_no_dataset(project, admin):
    """Other people's votes on it are left out with it; a text that another wrote too stays."""
    gone, other = make_voter(project), make_voter(project)
    voted, still_open, shared = compare(project), compare(project), compare(project)
    for one in (voted, still_open):
        write_ideal(one, f"In my own words, {one.pk}.", by=gone)
    text = write_ideal(shared, "What two people wrote.", by=gone)
    record_generation(completion=text, origin="demonstration", annotator=other, writer="x")
    cast(voted), cast(shared)
    before = frozen(project)
    assert [row["id"] for row in rows_of(before)] == [str(voted.pk), str(shared.pk)]
    forget(gone, admin)
    after = Tombstone.objects.get(snapshot=before).successor
    assert [row["id"] for row in rows_of(after)] == [str(shared.pk)]
    assert after.counts["forgotten"] == 1
    vote, kept = voted.preferences.get(), shared.preferences.get()
    history = History([vote, kept])
    assert history.bucket_in(after, vote) == "forgotten"
    with CaptureQueriesContext(connection) as asked:
        assert history.bucket_in(after, kept) == "trained"
    assert not [one for one in asked if "comparisoncompletion" in one["sql"]]  # once for all votes
    assert not path_of(before).exists()
    for one in (voted, still_open, shared):
        one.refresh_from_db()
    assert still_open.retired_at is not None
    assert shared.retired_at is None


def test_no_position_brings_them_back(project, admin):
    comparison = compare(project)
    gone = make_voter(project)
    cast(comparison, gone), cast(comparison)
    before = frozen(project)
    forget(gone, admin)
    again = frozen(project, up_to=before.ledger_position)
    assert again == Tombstone.objects.get().successor
    assert str(gone.pk) not in voters(again)
    assert str(gone.pk) not in voters(frozen(project, splits=["train"]))
    old = before.ledger_position | {"forgotten": 0}
    assert str(gone.pk) not in voters(frozen(project, splits=["train"], up_to=old))


def test_name_and_membership_go_with_them(project, admin):
    user = make_member(project)
    gone = annotator_for(user=user, project=project)
    before = gone.pseudonym
    forget(gone, admin)
    gone.refresh_from_db()
    assert (gone.user, gone.external_id) == (None, "")
    assert gone.pseudonym != before
    assert not Membership.objects.filter(project=project, user=user).exists()
    with pytest.raises(Conflict, match="deleted already"):
        forget(gone, admin)
    with pytest.raises(BadInput, match="needs a reason"):
        forget_person(annotator=make_voter(project), reason="", by=admin)


def test_ideal_answers_and_decisions_of_theirs_go_too(project, admin):
    comparison = compare(project)
    gone, stays = make_voter(project), make_voter(project)
    vote = cast(comparison, gone)
    add_ideal(vote, "As I would say it.")
    vote.save()
    add_ideal(other := cast(compare(project), stays), "As others would.")
    other.save()
    cast(comparison, stays)
    first, second = [entry.completion_id for entry in comparison.entries.all()]
    Decision.objects.create(
        project=project, comparison=comparison, by=gone, number=1, reason="Mine.",
        votes_seen=0, presented_order=[first, second],
        scheme=comparison.batch.scheme,
        rankings=[{"axis": "overall", "outcome": "ranked", "groups": [[first], [second]],
                   "strengths": [], "acceptable": None}],
    )  # fmt: skip
    before = frozen(project, "demonstrations")
    decided = frozen(project)
    assert len(list(rows_of(before))) == 2
    assert any("decision" in row for row in rows_of(decided))
    forget(gone, admin)
    stones = {one.snapshot: one.successor for one in Tombstone.objects.all()}
    assert [row["completion"] for row in rows_of(stones[before])] == ["As others would."]
    assert stones[before].counts["forgotten"] == 1
    assert not any("decision" in row for row in rows_of(stones[decided]))


def test_what_a_forgotten_reviewer_overruled_comes_not_back(project, admin):
    comparison = compare(project)
    vote = cast(comparison)
    ids = [entry.completion_id for entry in comparison.entries.all()]
    for number, current in ((1, False), (2, True)):
        Decision.objects.create(
            project=project, comparison=comparison, by=make_voter(project), number=number,
            reason="So.", votes_seen=1, presented_order=ids, scheme=comparison.batch.scheme,
            current=current,
            rankings=[{"axis": "overall", "outcome": "ranked", "groups": [[pk] for pk in ids],
                       "strengths": [], "acceptable": None}],
        )  # fmt: skip
    (row,) = rows_of(frozen(project, decisions="instead"))
    assert row["decision"]["number"] == 2
    forget(Decision.objects.get(number=2).by, admin)
    after = frozen(project, decisions="instead")
    (row,) = rows_of(after)
    assert "decision" not in row
    assert row["votes"][0]["annotator"] == str(vote.annotator_id)
    asked = Preference.objects.select_related("annotator", "scheme", "guideline").get()
    assert History([asked]).bucket_in(after, asked) == "trained"


def test_exports_of_before_lose_their_files(project, admin):
    gone = make_voter(project)
    comparison = compare(project)
    cast(comparison, gone), cast(comparison)
    cast(compare(project), make_voter(project, "simulated"))
    held = make_export(project=project, format="comparisons")
    other = make_export(project=project, format="trl", query={"annotators": ["simulated"]})
    raw = make_export(project=project, format="raw", query={"annotators": ["simulated"]})
    forget(gone, admin)
    found = {one["id"]: is_withdrawn(project, one) for one in exports_of(project)}
    assert found == {held.name: True, other.name: False, raw.name: True}
    assert (held / "manifest.json").is_file()
    anew = make_export(project=project, format="raw")
    assert (anew / "train.jsonl").read_text().count("\n") == 2  # of three votes


def once(act):
    """What does it at the first call alone."""
    left = [act]
    return lambda: left.pop()() if left else None


def test_a_dataset_that_is_being_frozen_meanwhile_holds_them_not(project, admin):
    gone = make_voter(project)
    comparison = compare(project)
    cast(comparison, gone), cast(comparison), cast(compare(project), gone)
    deleting = once(lambda: forget(gone, admin))
    made = freeze(project=project, kind="comparisons", on_row=deleting)
    assert str(gone.pk) not in voters(made)
    assert made.counts["forgotten"] == 2
    assert [path.suffix for path in path_of(made).parent.iterdir()].count(".jsonl") == 1


@pytest.mark.parametrize(("format", "calls"), [("comparisons", 3), ("raw", 2), ("comparisons", 4)])
def test_an_export_that_is_being_written_meanwhile_holds_them_not(project, admin, format, calls):
    gone = make_voter(project)
    first, second = compare(project), compare(project)
    cast(first, gone), cast(first), cast(second, gone), cast(second)
    acts = [lambda: None] * (calls - 1) + [lambda: forget(gone, admin)]
    folder = make_export(
        project=project, format=format, on_row=lambda: acts.pop(0)() if acts else None
    )
    assert not acts
    (manifest,) = exports_of(project)
    assert manifest["position"]["forgotten"] == Forgotten.objects.get().pk
    assert not is_withdrawn(project, manifest)
    assert manifest["funnel"]["forgotten"] == 2
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_file_that_brought_them_brings_them_not_back(project, admin, tmp_path):
    def row(asked, *names):
        said = {"axis": "overall", "ranking": [["a"], ["b"]], "kind": "outside"}
        votes = [said | {"annotator": name} for name in names]
        texts = [{"id": pk, "text": f"Text {pk}.", "model": None} for pk in "ab"]
        return {"id": asked, "prompt": asked, "completions": texts, "votes": votes}

    path = tmp_path / "votes.jsonl"
    rows = [row("One?", "jane", "kim"), row("Two?", "jane"), row("Three?", "kim")]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    told = []

    def imported(into=project):
        told.clear()
        return Load(
            project=into,
            path=path,
            source=lambda: source_for(project=into, name="set"),
            store_for=lambda source: preference_store(
                project=into, source=source, format="comparisons"
            ),
            on_row=told.append,
        ).run()

    assert imported().imported == 3
    forget(project.annotators.get(external_id="set:jane"), admin)
    made = Forgotten.objects.get()
    assert len(made.outside_digest) == 64
    again = imported()
    assert (again.imported, again.already_there, again.refused) == (0, 2, 1)
    assert again.left_out == {"votes of people whose data was deleted": 1}
    assert [one.reason for one in told if one.reason] == [
        "nothing is left of it: whoever voted had their data deleted here"
    ]
    assert sorted(project.annotators.values_list("external_id", flat=True)) == ["", "set:kim"]
    assert frozen(project).rows == 2
    path.write_text(path.read_text() + json.dumps(row("Four?", "jane", "kim")) + "\n")
    anew = imported()
    assert (anew.imported, anew.left_out) == (1, {"votes of people whose data was deleted": 2})
    assert frozen(project).rows == 3
    assert imported(make_project("other")).imported == 4  # who was deleted here alone


def test_what_learned_from_it_says_so(project, admin):
    gone = make_voter(project)
    cast(compare(project), gone)
    version = ModelVersion.objects.create(
        kind="reward", stage="reward", name="r", path="models/r", sha256="a" * 64,
        snapshot=frozen(project),
    )  # fmt: skip
    assert preview(gone).trained == [version]
    assert preview(gone).answers == 1
    forget(gone, admin)
    version = ModelVersion.objects.get()
    assert "withdrawn since: Dataset" in model_card.render(version)


def test_an_act_that_was_cut_off_goes_on(project, admin, monkeypatch):
    gone = make_voter(project)
    comparison = compare(project)
    cast(comparison, gone), cast(comparison)
    snapshots = [frozen(project), frozen(project, splits=["train"])]
    made = forget_person(annotator=gone, reason="She asked us to.", by=admin)
    assert list(unfinished()) == [made]
    replace_all(made.pk)
    path_of(snapshots[0]).write_text("left by a crash between the row and the file")
    Forgotten.objects.update(finished_at=None)
    replace_all(made.pk)
    assert Tombstone.objects.count() == 2
    replace_all(made.pk)
    assert AuditEntry.objects.filter(action="snapshot.bury").count() == 2


def test_whoever_is_cut_off_after_the_name_is_off_has_ordered_the_void(project, admin, monkeypatch):
    gone = make_voter(project)
    vote = cast(compare(project), gone)
    monkeypatch.setattr(forgetting, "carry_on", Mock(side_effect=SystemExit))
    with pytest.raises(SystemExit):
        forget_person(annotator=gone, reason="She asked us to.", by=admin)
    assert carry_on_all() == 1
    vote.refresh_from_db()
    assert vote.void_reason == "She asked us to."


def test_an_admin_does_it_on_the_page(enter):
    cast_ = make_cast()
    project = cast_.project
    gone = make_voter(project)
    cast(compare(project), gone), cast(compare(project))
    frozen(project)
    client = enter(cast_.admin)
    html = client.get("/p/shop/forget/").content.decode()
    assert gone.pseudonym not in html  # a project may have thousands
    html = client.get(f"/p/shop/forget/?annotator={gone.pseudonym}").content.decode()
    assert "What it would do" in html
    wish = {"annotator": gone.pseudonym}
    html = client.post("/p/shop/forget/order/", wish, follow=True).content.decode()
    assert "Reason: This field is required." in html
    html = client.post("/p/shop/forget/order/", wish | {"reason": "She asked."}, follow=True)
    assert "The data of this person is deleted." in html.content.decode()
    stone = Tombstone.objects.get()
    html = client.get("/p/shop/export/").content.decode()
    assert f"Dataset {stone.snapshot.sha256[:12]} was withdrawn on" in html
    assert f"In its place: {stone.successor.sha256[:12]}" in html


def test_the_command_does_the_same(project, admin, capsys):
    gone = make_voter(project)
    cast(compare(project), gone), cast(compare(project))
    before = frozen(project)
    wish = {"project": project.slug, "annotator": gone.pseudonym, "reason": "She asked."}
    with pytest.raises(CommandError, match="'nobody' is no admin"):
        call_command("forget_person", **wish, by="nobody")
    call_command("forget_person", **wish, by=admin.username)
    assert f"{before.sha256[:12]} -> {Tombstone.objects.get().successor.sha256[:12]}" in (
        capsys.readouterr().out
    )


def test_a_person_is_found_by_what_they_are_called_exactly(enter, django_assert_max_num_queries):
    cast_ = make_cast()
    project = cast_.project
    by_user = annotator_for(user=cast_.labeler, project=project)
    outside = Annotator.objects.create(
        project=project, kind="outside", pseudonym="o-1", external_id="worker-7"
    )
    Annotator.objects.create(project=make_project(), kind="outside", pseudonym="o-9")
    client = enter(cast_.admin)

    def look(said):
        return client.get("/p/shop/forget/", {"annotator": said}).content.decode()

    for said, name in [
        (by_user.pseudonym, f"{by_user.pseudonym} · {cast_.labeler.username}"),
        (cast_.labeler.username, f"{by_user.pseudonym} · {cast_.labeler.username}"),
        ("o-1", "o-1 · worker-7"),
        ("worker-7", "o-1 · worker-7"),
    ]:
        html = look(said)
        assert f'<p class="mono">{name}</p>' in html
        hidden = name.partition(" ")[0]
        assert f'<input type="hidden" name="annotator" value="{hidden}"' in html
    for said in ("o-", "O-1", "o-9", "worker", cast_.stranger.username):
        assert f"No annotator is called exactly “{said}”." in look(said)
    assert "What it would do" not in look("")
    twin = Annotator.objects.create(
        project=project, kind="simulated", pseudonym="s-1", external_id="worker-7"
    )
    assert "type the pseudonym of one: o-1 · worker-7, s-1 · worker-7." in look("worker-7")
    forget_person(annotator=twin, reason="It was asked.", by=cast_.admin)
    assert "o-1 · worker-7" in look("worker-7")
    for number in range(60):
        Annotator.objects.create(
            project=project, kind="outside", pseudonym=f"many-{number}", external_id=f"m-{number}"
        )
    with django_assert_max_num_queries(12):
        assert "many-59 · m-59" in look("m-59")
    assert "many-1" not in look(outside.pseudonym)


API = "/api/projects/shop/deletions/"


def test_the_api_looks_first_and_deletes_once_it_is_told_whom_twice(enter):
    cast_ = make_cast()
    project = cast_.project
    gone = make_voter(project)
    cast(compare(project), gone), cast(compare(project))
    snapshot = frozen(project)
    client = enter(cast_.admin)
    name = gone.pseudonym
    looked = client.post(f"{API}preview", {"annotator": name}, "application/json")
    assert looked.json() == {"answers": 1, "datasets": [snapshot.sha256], "trained": []}
    wish = {"annotator": name, "reason": "She asked."}
    for lacking in (wish, wish | {"confirm": "me"}, wish | {"confirm": name, "reason": " "}):
        refused = client.post(API, lacking, "application/json")
        assert refused.status_code == 400
    assert not Forgotten.objects.exists()
    made = client.post(API, wish | {"confirm": name}, "application/json")
    assert made.status_code == 201
    (stone,) = Tombstone.objects.all()
    told = made.json()
    assert told["datasets"] == [{"sha256": snapshot.sha256, "successor": stone.successor.sha256}]
    assert told["annotator"].startswith("forgotten-")
    assert (told["by"], told["reason"]) == (cast_.admin.username, "She asked.")
    assert told["finished_at"] is not None
    assert Preference.objects.get(annotator=gone).voided_at is not None
    assert client.get(API).json()["results"] == [told]
    again = client.post(API, wish | {"confirm": name}, "application/json")
    assert again.status_code == 404
    for other in (cast_.reviewer, cast_.researcher, cast_.labeler):
        assert enter(other).post(f"{API}preview", {"annotator": name}).status_code == 403


def test_many_rows_are_left_to_the_workers_by_the_api_too(enter, monkeypatch):
    cast_ = make_cast()
    gone = make_voter(cast_.project)
    cast(compare(cast_.project), gone), cast(compare(cast_.project))
    frozen(cast_.project)
    monkeypatch.setattr(forgetting, "ROWS_AT_ONCE", 0)
    client = enter(cast_.admin)
    looked = client.post(f"{API}preview", {"annotator": gone.pseudonym}, "application/json")
    assert looked.json()["datasets"] is None
    wish = {"annotator": gone.pseudonym, "confirm": gone.pseudonym, "reason": "She asked."}
    told = client.post(API, wish, "application/json").json()
    assert (told["finished_at"], told["datasets"]) == (None, [])
    assert [one.pk for one in unfinished()] == [told["id"]]
