"""A prepared query returns what its queryset does, on both databases."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotation.models import Assignment, Comparison, Preference, Ranking
from annotation.prepared import Prepared, insert
from annotation.services.queue import claim_comparison
from tests.annotation.making import make_annotator, make_comparisons, make_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def leases():
    project = make_project()
    make_comparisons(project, 4)
    return [claim_comparison(annotator=make_annotator(project)) for _ in range(3)]


def columns(row):
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def test_rows_and_their_relations_are_the_same(leases):
    def queryset(project, now):
        return (
            Assignment.objects.filter(project=project, expires_at__gt=now, holds_slot=True)
            .select_related("comparison__batch", "guideline", "stands_in_for")
            .order_by("-pk")[:2]
        )

    prepared = Prepared(queryset, project=1, now=datetime(2026, 1, 1, tzinfo=UTC))
    project, now = leases[0].project_id, timezone.now()
    for _ in range(2):
        found = prepared(project=project, now=now)
        wanted = list(queryset(project, now))
        assert [columns(one) for one in found] == [columns(one) for one in wanted]
        assert len(found) == 2
        with CaptureQueriesContext(connection) as queries:
            for one, other in zip(found, wanted, strict=True):
                assert columns(one.comparison.batch) == columns(other.comparison.batch)
                assert columns(one.guideline) == columns(other.guideline)
                assert one.stands_in_for is None
        assert not queries
    assert prepared(project=project, now=now + timedelta(hours=1)) == []
    assert prepared(project=0, now=now) == []


def test_columns_are_the_same(leases):
    def queryset(pk):
        return Assignment.objects.filter(pk=pk).values_list(
            "presented_order", "holds_slot", "leased_at", "state", "comparison__purpose"
        )

    prepared = Prepared(queryset, pk=1)
    assert prepared.first(pk=leases[0].pk) == queryset(leases[0].pk).get()
    assert prepared.first(pk=0) is None


def test_a_lock_is_part_of_the_sql(leases):
    locked = Prepared(lambda pk: Comparison.objects.select_for_update().filter(pk=pk), pk=1)
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        assert locked(pk=leases[0].comparison_id) == [leases[0].comparison]
    assert ("FOR UPDATE" in queries[0]["sql"]) == (connection.vendor == "postgresql")


def test_a_value_that_the_sql_does_not_hold_is_refused(leases):
    prepared = Prepared(lambda pk, other: Comparison.objects.filter(pk=pk), pk=1, other=1)
    with pytest.raises(ValueError, match="'other'"):
        prepared(pk=1, other=2)


def test_an_inserted_row_is_as_if_it_were_saved(leases):
    [lease, other, _] = leases
    values = {
        "project_id": lease.project_id,
        "scheme_id": lease.scheme_id,
        "presented_order": lease.presented_order,
        "note": 'A "note" 例',
    }
    saved = Preference.objects.create(
        comparison=lease.comparison, annotator=lease.annotator, **values
    )
    inserted = Preference(comparison=other.comparison, annotator=other.annotator, **values)
    insert(inserted)
    saved, stored = (Preference.objects.get(pk=one.pk) for one in (saved, inserted))
    assert columns(stored) == columns(inserted)
    different = {name for name in columns(saved) if columns(saved)[name] != columns(stored)[name]}
    assert different == {"id", "comparison_id", "annotator_id", "created_at"}
    ranking = Ranking(preference=inserted, outcome="ranked", groups=[[1], [2]], strengths=[0.5])
    insert(ranking)
    assert columns(Ranking.objects.get()) == columns(ranking)
    inserted.note = "changed"
    inserted.save(update_fields=["note"])
    assert Preference.objects.get(pk=inserted.pk).note == "changed"
