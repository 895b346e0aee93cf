"""tests.flushing: after a test that committed, nothing is left, whatever guards the rows."""

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection

from annotation.models import User
from annotation.services import queue
from tests.annotation.making import as_shown, make_annotator, make_comparisons, make_project

pytestmark = pytest.mark.django_db(transaction=True)


def flush(*, reset_sequences: bool = False) -> None:
    """As Django does it at the end of such a test."""
    call_command(
        "flush",
        verbosity=0,
        interactive=False,
        reset_sequences=reset_sequences,
        allow_cascade=False,
        inhibit_post_migrate=True,
    )


def answer() -> None:
    """Rows in many tables, those of the trail too, which may be neither changed nor deleted."""
    project = make_project()
    make_comparisons(project)
    lease = queue.claim_comparison(annotator=make_annotator(project))
    queue.submit_preference(assignment=lease, rankings=as_shown(lease), key="k")


def num_rows() -> int:
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    with connection.cursor() as cursor:
        counts = []
        for table in set(tables) - {"django_migrations"}:
            cursor.execute(f"SELECT count(*) FROM {connection.ops.quote_name(table)}")
            counts.append(cursor.fetchone()[0])
    return sum(counts)


def test_every_row_goes_and_what_guards_them_stays():
    answer()
    assert num_rows() > 10
    flush()
    assert num_rows() == 0
    answer()
    with pytest.raises(DatabaseError, match="append only"), connection.cursor() as cursor:
        cursor.execute("UPDATE annotation_auditentry SET action = 'other'")
    flush()
    assert num_rows() == 0


def test_numbers_begin_again_where_that_is_asked_for():
    User.objects.create(username="ada")
    flush(reset_sequences=True)
    assert User.objects.create(username="bob").pk == 1
    flush()
    assert User.objects.create(username="eve").pk > (0 if connection.vendor == "sqlite" else 1)
