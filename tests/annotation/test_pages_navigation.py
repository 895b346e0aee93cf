"""The navigation: what each role finds in it, written by hand, and where it leads."""

import re

import pytest
from django.test import RequestFactory
from django.utils.translation import override

from annotation import permissions
from annotation.management.commands.compile_translations import compile_file
from annotation.pages.navigation import Menu, navigation
from annotation.services import queue
from annotation.services.projects import annotator_for
from annotation.services.questions import ask
from tests.annotation.test_translations import PO
from tests.pages_cast import make_cast

pytestmark = pytest.mark.django_db

ADMIN = {
    "": ["Overview", "Label"],
    "Work": ["Batches", "Questions", "Chat", "Guideline"],
    "Review": ["Review queue", "Gold", "Quality"],
    "Data": ["Preferences", "Search", "Analysis", "Import", "Export"],
    "Training": ["Asking", "Jobs", "Versions", "Head to head"],
    "Project": ["Members", "Health"],
}
FOUND = {
    "labeler": {"": ["Overview", "Label", "Questions", "Guideline", "Preferences"]},
    "reviewer": {
        "": ["Overview", "Label"],
        "Work": ["Batches", "Questions", "Guideline"],
        "Review": ["Review queue", "Gold", "Quality"],
        "Data": ["Preferences", "Search", "Analysis"],
        "Training": ["Asking", "Jobs", "Versions", "Head to head"],
    },
    "researcher": {
        "": ["Overview", "Guideline", "Quality"],
        "Data": ["Preferences", "Search", "Analysis", "Import", "Export"],
        "Training": ["Asking", "Jobs", "Versions", "Head to head"],
    },
    "admin": ADMIN,
}
"""Role -> menu ("" = in the line itself) -> pages."""


@pytest.fixture
def cast():
    return make_cast()


def shown(cast, role, path="/p/shop/"):
    """What stands above a page for a role."""
    user = getattr(cast, role)
    return navigation(RequestFactory().get(path), permissions.member(user, "shop"))


def in_menus(entries):
    """The labels by menu."""
    found = {"": [one.label for one in entries if not isinstance(one, Menu)]}
    return found | {
        one.label: [entry.label for entry in one.entries]
        for one in entries
        if isinstance(one, Menu)
    }


def links(entries):
    """Every link, in menus or not."""
    for one in entries:
        yield from one.entries if isinstance(one, Menu) else [one]


@pytest.mark.parametrize("role", FOUND)
def test_each_role_finds_its_pages_by_name(cast, role):
    assert in_menus(shown(cast, role)) == FOUND[role]


@pytest.mark.parametrize("role", FOUND)
def test_every_link_leads_to_a_page_that_is_marked(cast, client, role):
    client.force_login(getattr(cast, role))
    for entry in links(shown(cast, role)):
        html = client.get(entry.url).content.decode()
        marked = re.findall(r'<a href="([^"]+)" aria-current="page">', html)
        assert marked == [entry.url]


@pytest.mark.parametrize(
    ("path", "menu", "label"),
    [
        ("/p/shop/jobs/new/", "Training", "Jobs"),
        ("/p/shop/conversations/", "Work", "Chat"),
        ("/p/shop/void-range/", "Review", "Quality"),
        ("/p/shop/forget/", "Project", "Members"),
        ("/p/shop/timesheet/", "Data", "Preferences"),
    ],
)
def test_a_page_behind_another_marks_that_one_and_its_menu(cast, path, menu, label):
    entries = shown(cast, "admin", path)
    assert [one.label for one in entries if one.current] == [menu]
    assert [one.label for one in links(entries) if one.current] == [label]


def test_a_closed_menu_says_what_waits_in_it(cast, client):
    cast.ask("Two?", ["Yes.", "No."])
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    for text in ("May it?", "And must it?"):
        lease = queue.claim_comparison(annotator=annotator)
        ask(annotator=annotator, comparison=lease.comparison, text=text)
    assert [(one.label, one.waiting) for one in shown(cast, "admin") if one.waiting] == [
        ("Work", "2")
    ]
    client.force_login(cast.admin)
    html = client.get("/p/shop/").content.decode()
    assert '<summary>Work <span class="badge due" title="waiting for you">2</span>' in html


def test_a_chat_that_is_open_is_everybodys_who_labels(cast):
    cast.project.chat_open = True
    cast.project.save()
    assert "Chat" in in_menus(shown(cast, "labeler"))[""]
    assert "Chat" in in_menus(shown(cast, "reviewer"))["Work"]
    assert "Chat" not in [entry.label for entry in links(shown(cast, "researcher"))]


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_no_two_pages_have_one_name(cast, language):
    compile_file(PO)
    with override(language):
        labels = [entry.label for entry in links(shown(cast, "admin"))]
    assert len(labels) == 20
    assert len(set(labels)) == len(labels)
