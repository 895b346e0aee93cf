"""A raw export makes an equal ledger again, and half a folder makes nothing."""

import json
from contextlib import suppress

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from annotation.errors import Conflict
from annotation.exporters.folder import write_export
from annotation.exporters.pseudonyms import Pseudonyms
from annotation.importers.load import file_sha256
from annotation.importers.raw import import_raw
from annotation.models import (
    AuditEntry,
    Batch,
    CompletionJudgment,
    Preference,
    Project,
    Ranking,
    Review,
)
from annotation.services import search
from annotation.services.decisions import decide, void_decision
from annotation.services.disagreements import look_again
from annotation.services.ledger import add_completion, record_generation
from annotation.services.projects import DEFAULT_SOURCE, new_scheme
from annotation.services.rankings import AxisRanking
from annotation.services.review import void_preference
from tests.annotation.making import make_member, make_project, make_user, numbers
from tests.annotation.voting import cast, compare, ids_of, make_voter, revise

pytestmark = pytest.mark.django_db
KINDS = {"person": "outside"}


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


def ledger(project, name_of):
    """Everything that a vote is or is about, row by row, without numbers of the database."""
    found = []
    for vote in Preference.objects.filter(project=project).order_by("pk"):
        comparison, prompt = vote.comparison, vote.comparison.prompt
        entries = [entry.completion for entry in comparison.entries.all()]
        text = {one.pk: one.text for one in prompt.completions.all()}
        revisions = Preference.objects.filter(comparison=comparison, annotator=vote.annotator)
        found.append(
            {
                "annotator": name_of(vote.annotator),
                "kind": KINDS.get(vote.annotator.kind, vote.annotator.kind),
                "scheme": [vote.scheme.version, vote.scheme.axes, vote.scheme.options],
                "guideline": vote.guideline and [vote.guideline.version, vote.guideline.texts],
                "shown": [text[one] for one in vote.presented_order],
                "revision": vote.revision,
                "is_newest": vote.revision == max(one.revision for one in revisions),
                "cause": vote.cause,
                "void": [vote.voided_at, vote.void_reason],
                "is_void_in_log": AuditEntry.objects.filter(
                    action="preference.void", target=f"preference:{vote.pk}"
                ).exists(),
                "source": vote.source.name if vote.source else DEFAULT_SOURCE,
                "said": [vote.external_id, vote.note, vote.seconds, vote.active_seconds],
                "ideal": vote.ideal and vote.ideal.text,
                "at": vote.created_at,
                "rankings": sorted(
                    [
                        one.axis,
                        one.outcome,
                        [[text[pk] for pk in group] for group in one.groups],
                        one.strengths,
                        repr(one.acceptable),
                    ]
                    for one in vote.rankings.all()
                ),
                "judgments": sorted(
                    [one.completion.text, one.ratings, one.flags] for one in vote.judgments.all()
                ),
                "purpose": [comparison.purpose, comparison.language, comparison.skill],
                "batch": [comparison.batch.name, comparison.batch.purpose],
                "prompt": [prompt.messages, prompt.metadata, prompt.task, prompt.language],
                "group": [prompt.split_group, prompt.split, prompt.external_id],
                "from": [prompt.source.name, prompt.source.licence],
                "completions": [
                    [
                        one.text,
                        sorted(
                            [act.origin, act.writer, act.sampling, repr(act.seed)]
                            for act in one.generations.all()
                        ),
                    ]
                    for one in entries
                ],
                "decisions": [
                    [
                        one.number,
                        name_of(one.by),
                        [
                            [said["axis"], [[text[pk] for pk in group] for group in said["groups"]]]
                            for said in one.rankings
                        ],
                        one.undecidable,
                        one.reason,
                        one.current,
                        one.voided_at,
                        one.created_at,
                        Preference.objects.filter(
                            comparison=comparison, pk__lte=one.votes_seen
                        ).count(),
                    ]
                    for one in comparison.decisions.order_by("number")
                ],
            }
        )
    return sorted(found, key=lambda one: (str(one["prompt"]), one["annotator"], one["revision"]))


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8
)
VOTES = st.fixed_dictionaries(
    {
        "voter": st.integers(0, 3),
        "outcome": st.sampled_from(["ranked", "ranked", "equal", "both_bad", "cannot_tell"]),
        "order": st.permutations([0, 1, 2]),
        "tied": st.booleans(),
        "line": st.sampled_from([None, 0, 1]),
        "strength": st.sampled_from([[], [1.0], [2.5]]),
        "rated": st.booleans(),
        "ideal": st.booleans(),
        "note": TEXTS,
        "then": st.sampled_from(["stays", "stays", "revised", "void", "revised and void"]),
    }
)
COMPARISONS = st.fixed_dictionaries(
    {
        "split": st.sampled_from(["train", "dev", "test"]),
        "purpose": st.sampled_from(["production", "evaluation", "gold"]),
        "language": st.sampled_from(["", "en", "zh"]),
        "votes": st.lists(VOTES, min_size=1, max_size=3, unique_by=lambda one: one["voter"]),
        "decided": st.sampled_from(["no", "no", "yes", "twice", "void"]),
    }
)


def make_world(said):
    """A ledger as drawn."""
    project = make_project()
    admin = make_member(project, "admin")
    schemes = [
        project.schemes.get(),
        new_scheme(project=project, axes=["overall"], allow_cannot_tell=False, by=None),
    ]
    voters = [make_voter(project, kind) for kind in ("person", "outside", "model", "simulated")]
    for one in said:
        comparison = compare(
            project,
            split=one["split"],
            purpose=one["purpose"],
            language=one["language"],
            k=3,
        )
        for vote in one["votes"]:
            _vote(comparison, voters[vote["voter"]], vote, schemes, admin)
        look_again(comparison.pk)
        if one["decided"] != "no":
            _decide(comparison, admin, one["decided"])
    return project


def _vote(comparison, voter, said, schemes, admin):
    first, second, third = said["order"]
    order = [[first, second], [third]] if said["tied"] else [[first], [second]]
    ids = ids_of(comparison)
    vote = cast(
        comparison,
        voter,
        outcome=said["outcome"],
        order=order,
        note=said["note"],
        presented_order=[ids[place] for place in said["order"]],
        seconds=len(said["note"]) + 0.5,
    )
    Preference.objects.filter(pk=vote.pk).update(scheme=schemes[len(said["note"]) % 2])
    Ranking.objects.filter(preference=vote).update(
        acceptable=said["line"], strengths=said["strength"]
    )
    if said["rated"]:
        CompletionJudgment.objects.create(
            preference=vote, completion_id=ids[1], ratings={"清楚": 3}, flags=["rude"]
        )
    if said["ideal"]:
        prompt = comparison.prompt
        ideal, _ = add_completion(prompt=prompt, source=prompt.source, text="应该这样。")
        record_generation(
            completion=ideal,
            origin="demonstration",
            writer=f"annotator {voter.pk}",
            annotator=voter,
        )
        Preference.objects.filter(pk=vote.pk).update(ideal=ideal)
    if "revised" in said["then"]:
        vote = revise(vote, order=[[third], [first]])
    if "void" in said["then"]:
        void_preference(preference=vote, by=admin, reason="不认真")


def _decide(comparison, admin, how):
    for _ in range(2 if how == "twice" else 1):
        ids = ids_of(comparison)
        newest = comparison.decisions.count()
        with suppress(Conflict):
            decision = decide(
                comparison=comparison,
                by=admin,
                rankings=[AxisRanking(groups=[[ids[1]], [ids[0], ids[2]]])],
                reason="so",
                seen=newest,
            )
            if how == "void":
                void_decision(decision=decision, by=admin, reason="mistaken")


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # what fails is told key by key
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    said=st.lists(COMPARISONS, min_size=1, max_size=3), files=st.sampled_from(["jsonl", "parquet"])
)
def test_raw_out_and_in_gives_an_equal_ledger(tmp_path, said, files):
    project, number = make_world(said), next(numbers)
    out = tmp_path / f"out-{number}"
    manifest = write_export(project=project, format="raw", files=files, out=out)
    names = Pseudonyms(manifest["salt_id"])
    event(f"decisions: {project.decisions.count()}")
    made = import_raw(folder=out, slug=f"again-{number}", by=make_user())
    found = ledger(made.project, lambda one: one.external_id)
    for one, other in zip(found, ledger(project, lambda one: names.of(one.pk)), strict=True):
        for key in one:
            assert one[key] == other[key], key
    again = write_export(project=made.project, format="raw", out=tmp_path / f"second-{number}")
    assert again["funnel"] == manifest["funnel"]
    assert [file["rows"] for file in again["files"]] == [file["rows"] for file in manifest["files"]]


@pytest.fixture
def folder(tmp_path):
    project = make_project("here")
    for split in ("train", "dev"):
        cast(compare(project, split=split))
    write_export(project=project, format="raw", out=tmp_path / "out")
    return tmp_path / "out"


def refused(folder, slug="again"):
    with pytest.raises(CommandError) as problem:
        call_command("import_raw", folder, slug=slug)
    assert problem.value.returncode == 2
    assert Project.objects.count() == 1
    return str(problem.value)


def test_half_a_file_is_told_by_its_hash(folder):
    data = (folder / "train.jsonl").read_bytes()
    (folder / "train.jsonl").write_bytes(data[: len(data) // 2])
    assert "train.jsonl is not the file that manifest.json names" in refused(folder)
    assert "uploaded to its end?" in refused(folder)


def test_a_missing_file_another_format_and_a_taken_name_are_refused(folder, tmp_path):
    (folder / "dev.jsonl").rename(tmp_path / "dev.jsonl")
    assert "dev.jsonl: No such file" in refused(folder)
    (tmp_path / "dev.jsonl").rename(folder / "dev.jsonl")
    assert "There is a project 'here' already" in refused(folder, slug="here")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": "trl"}))
    assert 'Only a raw export makes a ledger again: format "trl"' in refused(folder)
    (folder / "manifest.json").write_text("[")
    assert "is no JSON" in refused(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row.pop("revision"), "no field or number 'revision'"),
        (lambda row: row.update(scheme=77), "no field or number 77"),
        (lambda row: row.update(comparison=3), "names no comparison: 3"),
        (lambda row: row["rankings"][0]["groups"].append(["9999"]), "no field or number '9999'"),
        (lambda row: row.update(created_at="yesterday"), "yesterday"),
    ],
)
def test_a_bad_row_leaves_no_project(folder, change, said):
    rewrite(folder, "dev.jsonl", change)
    assert said in refused(folder)
    assert not Batch.objects.filter(project__slug="again").exists()


def rewrite(folder, name, change):
    """Change the one row of a file, and the manifest with it."""
    row = json.loads((folder / name).read_text())
    change(row)
    (folder / name).write_text(json.dumps(row) + "\n")
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["name"] == name:
            file["sha256"] = file_sha256(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_command_says_what_it_made_and_answers_that_differ_are_compared(tmp_path, capsys):
    project = make_project("here")
    comparison = compare(project)
    cast(comparison)
    cast(comparison, order=[[1], [0]])
    write_export(project=project, format="raw", out=tmp_path / "out")
    admin = make_user("boss")
    call_command("import_raw", tmp_path / "out", slug="again", name="Again", admin="boss")
    assert "Project again: 1 comparisons, 2 votes, 0 decisions." in capsys.readouterr().out
    made = Project.objects.get(slug="again")
    assert made.memberships.get().user == admin
    assert Review.objects.get(project=made).lowest == 0
    with pytest.raises(CommandError, match="no user 'nobody'"):
        call_command("import_raw", tmp_path / "out", slug="third", admin="nobody")


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("schemes", {"project_id": 1, "version": 99}, 'a field that is not known: "project_id"'),
        ("guidelines", {"project_id": 1}, 'a field that is not known: "project_id"'),
        ("batches", {"scheme_id": 1}, 'a field that is not known: "scheme_id"'),
        ("batches", {"priority": "high"}, "manifest.json: "),
        ("batches", {"name": None}, "manifest.json: "),
    ],
)
def test_a_manifest_leads_into_no_other_project(folder, kind, change, said):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[kind][0].update(change)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = list(Project.objects.get().schemes.values())
    assert said in refused(folder)
    assert list(Project.objects.get().schemes.values()) == before


def test_what_came_is_found_by_its_text(folder):
    again = import_raw(folder=folder, slug="again").project
    text = Preference.objects.filter(project=again)[0].comparison.prompt.messages[0]["content"]
    rows = search.found(again, search.Wanted(text=text))
    assert text in [row.prompt.messages[0]["content"] for row in rows]


def test_it_takes_a_handful_of_queries_for_many_comparisons(tmp_path):
    project = make_project("here")
    voter = make_voter(project)
    for _ in range(30):
        cast(compare(project), voter)
    write_export(project=project, format="raw", out=tmp_path / "out")
    with connection.execute_wrapper(count := Count()):
        import_raw(folder=tmp_path / "out", slug="again")
    assert count.queries < 60


class Count:
    """Of queries."""

    queries = 0

    def __call__(self, execute, sql, params, many, context):
        self.queries += 1
        return execute(sql, params, many, context)
