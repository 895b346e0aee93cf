"""Filters of a snapshot, counts before it is frozen, and what two of them have in common."""

from datetime import UTC, datetime

import pytest

from annotation.errors import BadInput
from annotation.funnel import NARROWING, VoteQuery
from annotation.importers.stores import source_for
from annotation.models import DatasetSnapshot, Preference, Prompt
from annotation.services.lineage import lineage_of_preference
from annotation.services.projects import new_guideline, new_scheme
from annotation.services.review import void_preference
from annotation.services.snapshot_diff import diff
from annotation.services.snapshots import count, freeze, rows_of
from tests.annotation.making import make_project, make_user
from tests.annotation.voting import cast, compare, revise

pytestmark = pytest.mark.django_db


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


def on(day, comparison, **fields):
    return cast(comparison, created_at=datetime(2026, 1, day, 12, tzinfo=UTC), **fields)


def test_dates_take_the_first_day_and_not_the_last(project):
    first, second, third = (compare(project) for _ in range(3))
    for day, comparison in ((1, first), (2, second), (3, third)):
        on(day, comparison)
    snapshot = frozen(project, since="2026-01-02", until="2026-01-03")
    assert ids(snapshot) == [second.pk]
    assert snapshot.counts["filtered_date"] == 2
    assert ids(frozen(project, since="2026-01-02T12:00:00+00:00")) == [second.pk, third.pk]
    assert ids(frozen(project, since="2026-01-02T12:00:01+00:00")) == [third.pk]
    assert ids(frozen(project, until="2026-01-02T12:00:00+00:00")) == [first.pk]


def test_schemes_guidelines_sources_and_licences_narrow_and_are_counted(project):
    one, other = compare(project), compare(project)
    scheme = new_scheme(project=project, axes=["overall"], allow_tie=False, by=None)
    guideline = new_guideline(project=project, texts={"en": "New."}, by=None)
    source = source_for(project=project, name="set", licence="CC BY-NC 4.0")
    Prompt.objects.filter(pk=other.prompt_id).update(source=source)
    cast(one)
    vote = cast(other, guideline=guideline)
    Preference.objects.filter(pk=vote.pk).update(scheme=scheme)
    asked = {
        "schemes": [str(scheme.version)],
        "guidelines": [str(guideline.version)],
        "sources": ["set"],
        "licences": ["CC BY-NC 4.0"],
    }
    for name, values in asked.items():
        snapshot = frozen(project, **{name: values})
        assert ids(snapshot) == [other.pk], name
        assert snapshot.counts[NARROWING[name]] == 1
        assert sum(snapshot.counts.values()) == 2
    held = [one for one, _bucket in lineage_of_preference(vote).snapshots]
    assert held == list(DatasetSnapshot.objects.order_by("pk"))


def test_a_query_without_filters_is_what_it_was(project):
    cast(compare(project))
    snapshot = frozen(project)
    assert not set(snapshot.query) & set(NARROWING)
    assert not set(snapshot.counts) & {str(bucket) for bucket in NARROWING.values()}


def test_one_moment_said_in_two_ways_is_one_query():
    one = VoteQuery.of({"since": "2026-01-02"})
    assert one == VoteQuery.of({"since": "2026-01-02T08:00:00+08:00"})
    assert VoteQuery.of(one.as_json()) == one


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"since": "yesterday"}, "since is a date or time like 2026-01-31: 'yesterday'"),
        ({"until": 3}, "until is a date"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "since is a date or time .* '0001-01-01T00"),
        ({"until": "9999-12-31T23:00:00-14:00"}, "until is a date or time .* '9999-12-31T23"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, "since lies before until"),
        ({"schemes": 3}, "schemes must be a list of texts: 3"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(query, reason):
    with pytest.raises(BadInput, match=reason):
        VoteQuery.of(query)


def test_counting_writes_nothing_and_says_what_freezing_would_give(project):
    cast(compare(project))
    cast(compare(project, split="dev"), outcome="cannot_tell")
    rows, counts = count(project=project, kind="comparisons", query={"languages": []})
    assert not DatasetSnapshot.objects.exists()
    snapshot = frozen(project)
    assert (rows, counts) == (snapshot.rows, snapshot.counts)
    with pytest.raises(BadInput, match="not 'x'"):
        count(project=project, kind="x")


def test_a_diff_says_what_came_went_and_changed_and_why(project):
    stays, voided, revised, more = (compare(project) for _ in range(4))
    cast(stays)
    gone = cast(voided)
    old = cast(revised)
    cast(more)
    before = frozen(project)
    void_preference(preference=gone, by=make_user(), reason="spam")
    revise(old, order=[[1], [0]])
    cast(more, order=[[1], [0]])
    new = compare(project)
    cast(new)
    after = frozen(project)
    found = diff(before, after)
    assert found.same == 1
    assert (found.gone.examples, found.gone.why) == ([str(voided.pk)], {"voided": 1})
    assert (found.new.examples, found.new.why) == ([str(new.pk)], {"later": 1})
    assert found.changed.examples == [str(revised.pk), str(more.pk)]
    assert found.changed.why == {"superseded": 1, "later": 2}
    back = diff(after, before)
    assert (back.new.examples, back.gone.examples) == (found.gone.examples, found.new.examples)
    assert diff(after, after).same == 4


def test_a_diff_of_two_filters_names_the_filter_and_another_weight_is_otherwise(project):
    on(1, compare(project))
    both = compare(project)
    on(2, both)
    on(2, both)
    found = diff(frozen(project), frozen(project, since="2026-01-02"))
    assert found.gone.why == {"filtered_date": 1}
    assert (found.new.comparisons, found.changed.comparisons, found.same) == (0, 0, 1)


def test_what_cannot_be_held_together_is_refused(project):
    cast(compare(project))
    other = make_project()
    cast(compare(other))
    prompts = freeze(project=project, kind="prompts", query={})
    with pytest.raises(BadInput, match="not of prompts"):
        diff(frozen(project), prompts)
    with pytest.raises(BadInput, match="of two projects"):
        diff(frozen(project), frozen(other))
