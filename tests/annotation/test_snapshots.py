"""Frozen datasets: every vote in one bucket, and the same bytes for the same question."""

import hashlib
import json
import threading

import pytest
from django.db import connection
from django.utils import timezone

from annotation.errors import BadInput, Conflict
from annotation.funnel import NARROWING, Bucket, VoteFacts, VoteQuery, bucket_of
from annotation.models import AuditEntry, DatasetSnapshot, Preference, Prompt, Ranking
from annotation.services import snapshots
from annotation.services.audit import name_of
from annotation.services.ledger import add_completion, add_prompt, record_generation
from annotation.services.plans import comparisons, voted
from annotation.services.review import void_preference
from annotation.services.snapshots import freeze, path_of, rows_of
from tests.annotation.making import make_comparisons, make_project, make_user
from tests.annotation.voting import cast, compare, ids_of, make_voter, revise

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    return settings.ARTIFACTS_DIR


@pytest.fixture
def project():
    return make_project()


def void(preference):
    return void_preference(preference=preference, by=make_user(), reason="spam")


def frozen(project, **query):
    return freeze(project=project, kind="comparisons", query=query)


PICTURE = [
    {
        "role": "user",
        "content": [{"type": "image", "url": "x.png"}, {"type": "text", "text": "What is it?"}],
    }
]


def with_picture(comparison):
    """The comparison, its prompt now of typed parts."""
    Prompt.objects.filter(pk=comparison.prompt_id).update(messages=PICTURE)
    comparison.refresh_from_db()
    return comparison


def one_vote_in_each_bucket(project):
    """A project whose funnel is known by hand: bucket -> number of votes."""
    cast(compare(project))
    cast(compare(project, purpose="live"))
    cast(compare(project, split="dev"))
    cast(compare(project, split="dev", purpose="evaluation"))
    cast(compare(project, split="test", purpose="evaluation"))
    cast(compare(project, purpose="evaluation"))
    for purpose in ("gold", "qualification", "repeat"):
        cast(compare(project, purpose=purpose))
    cast(compare(project, split="test", purpose="gold"))
    void(cast(compare(project)))
    revise(cast(compare(project)), order=[[1], [0]])
    cast(compare(project), outcome="equal")
    cast(compare(project), outcome="both_bad")
    cast(compare(project), outcome="cannot_tell")
    cast(compare(project), make_voter(project, "simulated"))
    cast(compare(project), make_voter(project, "model"))
    cast(compare(project), make_voter(project, "outside"))
    cast(with_picture(compare(project)))
    return {
        "trained": 4,  # production, live, the revision, outside
        "dev": 2,
        "test": 1,
        "evaluation": 1,
        "gold": 2,
        "qualification": 1,
        "repeat": 1,
        "voided": 1,
        "superseded": 1,
        "no_strict_pair": 1,
        "both_bad": 1,
        "cannot_tell": 1,
        "decided": 0,
        "not_text": 1,
        "other_groups": 0,
        "filtered_kind": 2,
        "filtered_language": 0,
        "filtered_purpose": 0,
        "filtered_split": 0,
    }


def test_every_vote_falls_in_one_bucket_and_the_buckets_sum(project):
    expected = one_vote_in_each_bucket(project)
    cast(compare(make_project()))  # another project's votes are no business of this one
    snapshot = frozen(project)
    assert snapshot.counts == expected
    assert sum(snapshot.counts.values()) == Preference.objects.filter(project=project).count()
    assert set(snapshot.counts) == set(Bucket) - {*NARROWING.values(), Bucket.FORGOTTEN}


def test_filters_say_which_votes_they_took(project):
    cast(compare(project, language="en"))
    cast(compare(project, language="zh"))
    cast(compare(project, language="en", split="dev"))
    cast(compare(project, language="en", purpose="live"))
    counts = frozen(project, languages=["en"], splits=["train"], purposes=["production"]).counts
    assert {bucket: number for bucket, number in counts.items() if number} == {
        "trained": 1,
        "filtered_language": 1,
        "filtered_purpose": 1,
        "filtered_split": 1,
    }


def test_simulated_and_model_votes_count_only_where_they_are_asked_for(project):
    for kind in ("person", "outside", "simulated", "model"):
        cast(compare(project), make_voter(project, kind))
    kinds = [vote["kind"] for row in rows_of(frozen(project)) for vote in row["votes"]]
    assert kinds == ["person", "outside"]
    asked = frozen(project, annotators=["simulated"])
    assert [vote["kind"] for row in rows_of(asked) for vote in row["votes"]] == ["simulated"]


def test_a_row_is_the_comparison_with_the_votes_that_count(project):
    comparison = compare(project, split="dev", language="en", k=3)
    first = cast(comparison, order=[[2], [0, 1]])
    second = cast(comparison, outcome="both_bad")
    void(cast(comparison))
    record_generation(
        completion=comparison.completions.get(pk=ids_of(comparison)[0]),
        origin="imported",
        writer="somebody",
    )
    (row,) = rows_of(frozen(project))
    a, b, c = map(str, ids_of(comparison))
    assert row == {
        "id": str(comparison.pk),
        "split": "dev",
        "group": hashlib.sha256(comparison.prompt.split_group.encode()).hexdigest()[:16],
        "language": "en",
        "task": "",
        "purpose": "production",
        "prompt": comparison.prompt.messages,
        "completions": [
            {"id": a, "text": "Answer 0.", "model": "somebody"},
            {"id": b, "text": "Answer 1.", "model": ""},
            {"id": c, "text": "Answer 2.", "model": ""},
        ],
        "votes": [
            {
                "axis": "overall",
                "outcome": "ranked",
                "ranking": [[c], [a, b]],
                "strength": None,
                "weight": 1.0,
                "annotator": str(first.annotator_id),
                "kind": "person",
                "preference": first.pk,
            },
            {
                "axis": "overall",
                "outcome": "both_bad",
                "ranking": [],
                "strength": None,
                "weight": 1.0,
                "annotator": str(second.annotator_id),
                "kind": "person",
                "preference": second.pk,
            },
        ],
    }


def test_a_comparison_that_nobody_ranked_has_no_row(project):
    cast(compare(project), outcome="both_bad")
    cast(compare(project), outcome="cannot_tell")
    tied = compare(project)
    cast(tied, outcome="equal")
    assert [row["id"] for row in rows_of(frozen(project))] == [str(tied.pk)]


def test_what_the_laboratories_cannot_read_has_no_row_and_is_counted(project):
    cast(with_picture(compare(project)), outcome="both_bad")
    prompt, _ = add_prompt(
        project=project, source=project.sources.get(), messages=PICTURE, split="train"
    )
    ideal, _ = add_completion(prompt=prompt, source=project.sources.get(), text="A cat.")
    record_generation(completion=ideal, origin="demonstration")
    for kind, number in (("comparisons", 1), ("prompts", 2), ("demonstrations", 1)):
        snapshot = freeze(project=project, kind=kind)
        assert list(rows_of(snapshot)) == []
        assert {name: n for name, n in snapshot.counts.items() if n} == {"not_text": number}


def test_the_same_question_gives_the_same_row_and_the_hashes_hold(project):
    one_vote_in_each_bucket(project)
    first = frozen(project, splits=["dev", "train"])
    assert frozen(project, splits=["train", "dev", "dev"]) == first
    assert DatasetSnapshot.objects.count() == 1
    manifest = path_of(first).with_suffix(".json").read_bytes()
    assert hashlib.sha256(manifest).hexdigest() == first.sha256
    rows = hashlib.sha256(path_of(first).read_bytes()).hexdigest()
    assert json.loads(manifest)["file_sha256"] == rows
    assert first.rows == sum(1 for _ in rows_of(first))
    assert frozen(project) != first


def test_what_comes_later_is_not_seen_at_an_earlier_position(project, artifacts):
    comparison = compare(project)
    kept, revised, voided = (cast(comparison) for _ in range(3))
    void(cast(comparison))
    before = frozen(project)
    data = path_of(before).read_bytes()
    # everything that can happen to these votes
    revise(revised, order=[[1], [0]])
    void(voided)
    cast(compare(project))
    cast(comparison)
    record_generation(
        completion=comparison.completions.first(), origin="imported", writer="a late finder"
    )
    after = frozen(project)
    assert after != before
    assert sum(after.counts.values()) == 7
    # written anew from the ledger, not found
    path_of(before).unlink()
    again = frozen(project, up_to=before.ledger_position)
    assert again == before
    assert path_of(before).read_bytes() == data
    assert before.counts["trained"] == 3
    assert before.counts["voided"] == 1
    assert kept.pk in {vote["preference"] for row in rows_of(again) for vote in row["votes"]}


def test_a_later_vote_outside_the_file_makes_another_snapshot_with_the_same_rows(project):
    cast(compare(project))
    before = frozen(project)
    cast(compare(project, purpose="gold"))
    after = frozen(project)
    assert path_of(before).read_bytes() == path_of(after).read_bytes()
    assert before.sha256 != after.sha256
    assert (sum(before.counts.values()), sum(after.counts.values())) == (1, 2)


def test_an_empty_project_freezes_to_an_empty_file_of_its_own(project):
    here, there = frozen(project), frozen(make_project())
    assert (here.rows, there.rows) == (0, 0)
    assert here.sha256 != there.sha256


@pytest.mark.django_db(transaction=True)
def test_two_who_freeze_at_once_get_one_snapshot(artifacts, monkeypatch):
    project = make_project()
    for _ in range(3):
        cast(compare(project))
    both, found = threading.Barrier(2, timeout=60), []
    write = snapshots._write_rows

    def write_together(*args):
        both.wait()
        return write(*args)

    def work():
        try:
            found.append(freeze(project=project, kind="comparisons").pk)
        finally:
            connection.close()

    monkeypatch.setattr(snapshots, "_write_rows", write_together)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len(set(found)) == DatasetSnapshot.objects.count() == 1
    assert len(list((artifacts / "snapshots").iterdir())) == 2  # rows and manifest, no parts


def late_votes(project, monkeypatch, number):
    """Let so many votes appear below the position, one per attempt, once the rows are written."""
    comparison = compare(project)
    gaps = [cast(comparison) for _ in range(number)]
    cast(comparison)
    ids = [vote.pk for vote in gaps]
    Ranking.objects.filter(preference__in=ids).delete()
    Preference.objects.filter(pk__in=ids).delete()
    write = snapshots._write_rows

    def write_and_be_late(*args):
        written = write(*args)
        if ids:
            cast(comparison, pk=ids.pop())
        return written

    monkeypatch.setattr(snapshots, "_write_rows", write_and_be_late)


def test_a_vote_that_is_committed_late_is_counted_too(project, monkeypatch, artifacts):
    late_votes(project, monkeypatch, 2)
    snapshot = frozen(project)
    assert snapshot.counts["trained"] == 3
    assert len(list((artifacts / "snapshots").iterdir())) == 2


def test_a_ledger_that_never_rests_is_a_conflict(project, monkeypatch, artifacts):
    late_votes(project, monkeypatch, snapshots.MAX_TRIES)
    with pytest.raises(Conflict, match="did not come to rest"):
        frozen(project)
    assert list((artifacts / "snapshots").iterdir()) == []
    assert not DatasetSnapshot.objects.exists()


def void_while_frozen(project, monkeypatch, acts):
    """Do these acts one by one, each before another page of the first freeze is read."""
    monkeypatch.setattr(voted, "PAGE_COMPARISONS", 1)
    facts_at, waiting = comparisons.facts_at, list(acts)

    def act_then_read(*args, **more):
        if waiting:
            waiting.pop(0)()
        return facts_at(*args, **more)

    monkeypatch.setattr(comparisons, "facts_at", act_then_read)
    return frozen(project)


def test_a_void_while_it_is_read_comes_after_the_position(project, monkeypatch):
    first, second, third = (cast(compare(project)) for _ in range(3))
    void(first)
    snapshot = void_while_frozen(project, monkeypatch, [lambda: void(third), lambda: void(second)])
    assert (snapshot.counts["trained"], snapshot.counts["voided"]) == (2, 1)
    data = path_of(snapshot).read_bytes()
    path_of(snapshot).unlink()
    assert frozen(project, up_to=snapshot.ledger_position) == snapshot
    assert path_of(snapshot).read_bytes() == data
    assert frozen(project).counts["voided"] == 3


def test_a_void_that_is_committed_late_is_counted_too(project, monkeypatch):
    late, seen = (cast(compare(project)) for _ in range(2))
    void(seen)

    def commit_late():
        """As a transaction that took its id before the position was read and ends after that."""
        entry = AuditEntry(pk=0, project=project, action="preference.void", target=name_of(late))
        AuditEntry.objects.bulk_create([entry])
        words = {"voided_at": timezone.now(), "void_reason": "spam", "voided_by": make_user()}
        Preference.objects.filter(pk=late.pk).update(**words)

    snapshot = void_while_frozen(project, monkeypatch, [commit_late])
    assert (snapshot.counts["trained"], snapshot.counts["voided"]) == (0, 2)


def test_nothing_is_left_behind_when_writing_fails(project, artifacts, monkeypatch):
    cast(compare(project))

    def breaks(*args):
        raise OSError("disk full")

    monkeypatch.setattr(snapshots.os, "fsync", breaks)
    with pytest.raises(OSError, match="disk full"):
        frozen(project)
    assert list((artifacts / "snapshots").iterdir()) == []
    assert not DatasetSnapshot.objects.exists()


@pytest.mark.parametrize(
    ("kind", "query", "reason"),
    [
        ("rollouts", {}, "comparisons, prompts, demonstrations: not 'rollouts'"),
        ("comparisons", {"colour": ["red"]}, "not 'colour'"),
        ("comparisons", {"splits": ["valid"]}, "train, dev, test: not 'valid'"),
        ("comparisons", {"splits": []}, "splits must name one of"),
        ("comparisons", {"splits": 3}, "splits must be a list of texts: 3"),
        ("comparisons", {"purposes": ["gold"]}, "not 'gold'"),
        ("comparisons", {"annotators": ["robot"]}, "not 'robot'"),
        ("comparisons", {"up_to": {"preference": -1}}, "0 or more: -1"),
        ("comparisons", {"up_to": {"vote": 1}}, "up_to must be an object"),
        ("prompts", {"annotators": ["person"]}, "not 'annotators'"),
        ("demonstrations", {"splits": ["test"]}, "train, dev: not 'test'"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(project, kind, query, reason):
    with pytest.raises(BadInput, match=reason):
        freeze(project=project, kind=kind, query=query)
    assert not DatasetSnapshot.objects.exists()


@pytest.mark.parametrize("value", [1, 10**24])
@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("comparisons", "preference"),
        ("comparisons", "audit"),
        ("comparisons", "generation"),
        ("prompts", "prompt"),
        ("demonstrations", "generation"),
    ],
)
def test_a_position_that_the_ledger_has_not_reached_is_refused(project, kind, part, value):
    with pytest.raises(BadInput, match=f"up_to.{part} is beyond .* 0: {value}"):
        freeze(project=project, kind=kind, query={"up_to": {part: value}})
    assert not DatasetSnapshot.objects.exists()


def ask(project, text, split, language=""):
    prompt, _ = add_prompt(
        project=project,
        source=project.sources.get(),
        messages=[{"role": "user", "content": text}],
        language=language,
        split=split,
    )
    return prompt


def test_prompts_come_from_train_unless_told_otherwise(project):
    train = ask(project, "One?", "train", "en")
    ask(project, "Two?", "dev", "en")
    ask(project, "Three?", "test", "zh")
    snapshot = freeze(project=project, kind="prompts")
    assert [row["id"] for row in rows_of(snapshot)] == [str(train.pk)]
    assert snapshot.counts == {"train": 1, "filtered_split": 2}
    wider = freeze(
        project=project, kind="prompts", query={"splits": ["dev", "test"], "languages": ["en"]}
    )
    assert [row["split"] for row in rows_of(wider)] == ["dev"]
    assert wider.counts == {"dev": 1, "filtered_language": 1, "filtered_split": 1}
    (row,) = rows_of(snapshot)
    assert (row["prompt"], row["language"]) == (train.messages, "en")


def test_demonstrations_are_ideal_answers_to_train_prompts(project):
    source = project.sources.get()
    for text, split in (("One?", "train"), ("Two?", "dev"), ("Three?", "test")):
        prompt = ask(project, text, split)
        ideal, _ = add_completion(prompt=prompt, source=source, text=f"Ideal {text}")
        record_generation(completion=ideal, origin="demonstration")
        other, _ = add_completion(prompt=prompt, source=source, text="Any.")
        record_generation(completion=other, origin="imported")
    snapshot = freeze(project=project, kind="demonstrations")
    assert [row["completion"] for row in rows_of(snapshot)] == ["Ideal One?"]
    assert snapshot.counts == {"train": 1, "filtered_split": 2}


def test_freezing_takes_a_fixed_number_of_reads_a_page(project, django_assert_max_num_queries):
    for _ in range(5):
        for _ in range(2):
            cast(compare(project))
    locks = 12 if connection.vendor == "postgresql" else 0  # of four tables, in savepoints here
    with django_assert_max_num_queries(30 + locks):
        frozen(project)


def test_a_page_of_the_longest_lists_is_read(project):
    for comparison in make_comparisons(project, 120, k=9):
        cast(comparison)
    snapshot = frozen(project)
    assert sum(snapshot.counts.values()) == 120


FACTS = {
    "superseded": False,
    "voided": False,
    "purpose": "production",
    "split": "train",
    "kind": "person",
    "language": "en",
    "text_alone": True,
    "answered": None,
}


@pytest.mark.parametrize(
    ("facts", "bucket"),
    [
        ({}, "trained"),
        ({"superseded": True, "voided": True, "purpose": "gold"}, "superseded"),
        ({"voided": True, "purpose": "gold"}, "voided"),
        ({"purpose": "gold", "split": "test", "kind": "model"}, "gold"),
        ({"purpose": "evaluation", "kind": "model"}, "evaluation"),
        ({"purpose": "evaluation", "split": "test"}, "test"),
        ({"kind": "model", "answered": Bucket.BOTH_BAD}, "filtered_kind"),
        ({"split": "dev", "answered": Bucket.BOTH_BAD}, "both_bad"),
        ({"text_alone": False, "answered": Bucket.BOTH_BAD}, "not_text"),
        ({"text_alone": False, "kind": "model"}, "filtered_kind"),
    ],
)
def test_the_first_reason_decides(facts, bucket):
    assert bucket_of(VoteFacts(**FACTS | facts), VoteQuery()) == bucket
