"""The page of batches: what it shows, and what its buttons do."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.models import Batch, Comparison
from annotation.pages import batches
from annotation.pages.batches import BatchForm
from annotation.services.batches import change_batch
from annotation.services.projects import new_scheme
from tests.pages_cast import make_cast


@pytest.fixture
def batch(cast):
    return cast.ask("How do I return a jacket?", ["So.", "Thus."]).batch


def form(batch, **changes):
    return {
        "priority": "0",
        "due_on": "",
        "scheme": str(batch.scheme_id),
        "overlap": "",
        "strategy": "random",
        "skip_mode": "others",
        "skips_to_retire": "1",
    } | changes


def page(client, address="/p/shop/batches/"):
    return client.get(address).content.decode()


def test_the_list_names_each_batch_with_its_progress_and_pool(cast, enter, batch):
    html = page(enter(cast.reviewer))
    assert f'/p/shop/batches/{batch.pk}/">first</a>' in html
    assert "0 of 1 answers given or in hand" in html
    assert "overdue" not in html


def test_a_batch_is_overdue_the_day_after_while_places_are_free(cast, enter, batch):
    today = timezone.localdate()
    change_batch(batch=batch, changes={"due_on": today}, by=None)
    assert "overdue" not in page(enter(cast.reviewer))
    change_batch(batch=batch, changes={"due_on": today - timedelta(days=1)}, by=None)
    assert "overdue" in page(enter(cast.reviewer))
    Comparison.objects.update(open_slots=0, answers_wanted=0)
    assert "overdue" not in page(enter(cast.reviewer))


def test_a_lead_changes_a_batch(cast, enter, batch):
    newer = new_scheme(project=cast.project, by=None, axes=["overall"])
    changes = {"priority": "3", "due_on": "2026-12-01", "overlap": "2", "scheme": str(newer.pk)}
    response = enter(cast.admin).post(
        f"/p/shop/batches/{batch.pk}/change/", form(batch, **changes), follow=True
    )
    assert "The batch is changed." in response.content.decode()
    batch.refresh_from_db()
    assert (batch.priority, str(batch.due_on), batch.overlap) == (3, "2026-12-01", 2)
    assert batch.scheme == newer
    assert Comparison.objects.get().answers_wanted == 2


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"priority": "high"}, 422, "Enter a whole number"),
        ({"due_on": "someday"}, 422, "Enter a valid date"),
        ({"scheme": "0"}, 422, "Select a valid choice"),
        ({"skip_mode": "never"}, 422, "Select a valid choice"),
        ({"skips_to_retire": "0"}, 422, "greater than or equal to 1"),
        ({"overlap": "1"}, 200, "can only be raised: 1"),
    ],
)
def test_a_change_that_makes_no_sense_is_told(cast, enter, batch, changes, status, words):
    change_batch(batch=batch, changes={"overlap": 2}, by=None)
    response = enter(cast.admin).post(
        f"/p/shop/batches/{batch.pk}/change/",
        form(batch, **{"overlap": "2", **changes}),
        follow=True,
    )
    assert response.status_code == status
    assert words in response.content.decode()


def as_sent(client, batch, **changes):
    """What a browser sends of the page: its fields and what was seen in them, with changes."""
    html = page(client, f"/p/shop/batches/{batch.pk}/")
    seen = dict(re.findall(r'type="hidden" name="(initial-\w+)" value="([^"]*)"', html))
    seen = {f"initial-{name}": seen.get(f"initial-{name}", "") for name in BatchForm.base_fields}
    return form(batch) | seen | changes


def test_two_leads_who_change_different_things_at_once_both_have_their_way(cast, enter, batch):
    client, address = enter(cast.admin), f"/p/shop/batches/{batch.pk}/change/"
    first = as_sent(client, batch, priority="3", sensitive="on")
    second = as_sent(client, batch, due_on="2026-12-01")
    assert client.post(address, first).status_code == 302
    assert client.post(address, second).status_code == 302
    batch.refresh_from_db()
    assert (batch.priority, batch.sensitive, str(batch.due_on)) == (3, True, "2026-12-01")


def test_two_leads_who_change_the_same_thing_at_once_see_it(cast, enter, batch):
    client, address = enter(cast.admin), f"/p/shop/batches/{batch.pk}/change/"
    first = as_sent(client, batch, priority="3", sensitive="on", skip_mode="retire")
    second = as_sent(client, batch, priority="5", due_on="2026-12-01")
    client.post(address, first)
    overtaken = client.post(address, second)
    assert overtaken.status_code == 409
    html = overtaken.content.decode()
    assert "Somebody else set this meanwhile: 3. Save again to have yours." in html
    batch.refresh_from_db()
    assert (batch.priority, batch.due_on) == (3, None)
    shown = {tag[0]: tag[1] for tag in re.findall(r'name="(priority|due_on)" value="(.*?)"', html)}
    assert shown == {"priority": "5", "due_on": "2026-12-01"}  # what was typed
    again = dict(re.findall(r'name="(initial-\w+)" value="([^"]*)"', html))
    assert (again["initial-priority"], again["initial-skip_mode"]) == ("3", "retire")
    third = second | {"initial-due_on": "", "skip_mode": "retire", "sensitive": "on"} | again
    assert client.post(address, third).status_code == 302
    batch.refresh_from_db()
    assert (batch.priority, str(batch.due_on)) == (5, "2026-12-01")
    assert (batch.sensitive, batch.skip_mode) == (True, "retire")


def test_two_leads_who_set_the_same_agree(cast, enter, batch):
    client, address = enter(cast.admin), f"/p/shop/batches/{batch.pk}/change/"
    both = [as_sent(client, batch, priority="3") for _ in range(2)]
    assert [client.post(address, one).status_code for one in both] == [302, 302]


def test_another_projects_scheme_is_no_choice(cast, enter, batch):
    theirs = make_cast("other").project.schemes.get()
    response = enter(cast.admin).post(
        f"/p/shop/batches/{batch.pk}/change/", form(batch, scheme=str(theirs.pk))
    )
    assert response.status_code == 422


def test_pause_and_resume(cast, enter, batch):
    client = enter(cast.admin)
    client.post(f"/p/shop/batches/{batch.pk}/pause/", {"paused": "on"})
    assert Batch.objects.get().paused
    assert "paused" in page(client)
    client.post(f"/p/shop/batches/{batch.pk}/pause/")
    assert not Batch.objects.get().paused


def test_a_reviewer_retires_and_re_opens_a_comparison(cast, enter, batch):
    client, one = enter(cast.reviewer), Comparison.objects.get()
    client.post(f"/p/shop/comparisons/{one.pk}/retire/", {"reason": "Cut off"})
    one.refresh_from_db()
    assert one.retired_at is not None
    assert "No comparisons here." in page(client, f"/p/shop/batches/{batch.pk}/?state=open")
    assert "jacket" in page(client, f"/p/shop/batches/{batch.pk}/?state=retired")
    client.post(f"/p/shop/comparisons/{one.pk}/reopen/")
    one.refresh_from_db()
    assert one.retired_at is None


def test_a_reviewer_sees_no_form(cast, enter, batch):
    assert "batch-change" not in page(enter(cast.reviewer), f"/p/shop/batches/{batch.pk}/")
    assert "/change/" not in page(enter(cast.reviewer), f"/p/shop/batches/{batch.pk}/")
    assert "/change/" in page(enter(cast.admin), f"/p/shop/batches/{batch.pk}/")


def test_both_lists_go_on_where_a_page_ends(cast, enter, batch, monkeypatch):
    monkeypatch.setattr(batches, "COMPARISONS_PER_PAGE", 1)
    cast.ask("Two?", ["Yes.", "No."])
    client = enter(cast.reviewer)
    first = page(client, f"/p/shop/batches/{batch.pk}/")
    newest = max(one.pk for one in cast.comparisons)
    assert f"?before={newest}" in first
    assert "jacket" not in first
    assert "jacket" in page(client, f"/p/shop/batches/{batch.pk}/?before={newest}")


@pytest.mark.parametrize("before", ["x", "-1", "９", "1" * 30])
def test_an_address_that_is_no_place_is_the_first_page(cast, enter, batch, before):
    assert "first</a>" in page(enter(cast.reviewer), f"/p/shop/batches/?before={before}")


def test_a_labeler_sees_the_due_date_of_what_is_in_hand(cast, enter, batch):
    assert "Due on" not in page(enter(cast.labeler), "/p/shop/label/")
    change_batch(batch=batch, changes={"due_on": timezone.localdate()}, by=None)
    assert f"Due on {timezone.localdate()}" in page(enter(cast.labeler), "/p/shop/label/")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "It goes to somebody else and does not come back to you."),
        ({"skip_mode": "later"}, "comes back to you when nothing else is left"),
        ({"skip_mode": "retire"}, "It is taken out for everybody."),
        ({"skip_mode": "retire", "skips_to_retire": 3}, "once 3 people skipped it"),
    ],
)
def test_a_labeler_reads_what_a_skip_means_here(cast, enter, batch, changes, words):
    change_batch(batch=batch, changes=changes, by=None)
    assert words in page(enter(cast.labeler), "/p/shop/label/")
