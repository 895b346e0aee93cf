"""Projects made and members added in a page; schemes in versions."""

import pytest

from annotation.models import AuditEntry, Membership, Project, Role, Scheme
from tests.pages_cast import person

NEW = {"name": "Poems", "slug": "poems", "axes": "overall"}


def test_an_admin_makes_a_project_and_is_its_first_admin(cast, enter):
    response = enter(cast.admin).post("/projects/new/", NEW)
    assert response.headers["Location"] == "/p/poems/members/"
    project = Project.objects.get(slug="poems")
    assert project.memberships.get().user == cast.admin
    assert project.memberships.get().role == Role.ADMIN


@pytest.mark.parametrize(
    "change",
    [
        *({"slug": "shop"}, {"slug": "no blanks"}, {"name": ""}, {"axes": "a, a"}),
        {"axes": "a\x00b"},
    ],
)
def test_a_project_that_makes_no_sense_keeps_what_was_typed(cast, enter, change):
    response = enter(cast.admin).post("/projects/new/", NEW | {"description": "Ode"} | change)
    html = response.content.decode()
    assert response.status_code == 200
    assert "Ode" in html
    assert "error" in html
    assert Project.objects.count() == 1


def test_others_make_no_projects(cast, enter):
    assert enter(cast.labeler).get("/projects/new/").status_code == 403
    assert enter(cast.labeler).post("/projects/new/", NEW).status_code == 403


def test_a_member_is_added_by_username(cast, enter):
    person("mei")
    form = {"username": "mei", "role": "labeler", "languages": "zh，en", "skills": "sql"}
    enter(cast.admin).post("/p/shop/members/add/", form)
    added = Membership.objects.get(user__username="mei")
    assert (added.role, added.languages, added.skills) == ("labeler", ["zh", "en"], ["sql"])


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"username": "nobody", "role": "labeler"}, "There is no user nobody."),
        ({"username": "lea-shop", "role": "labeler"}, "already"),
        ({"username": "sam-shop", "role": "king"}, "king"),
        ({"username": "", "role": "labeler"}, "Username"),
    ],
)
def test_a_member_that_cannot_be_added_is_told(cast, enter, form, words):
    response = enter(cast.admin).post("/p/shop/members/add/", form, follow=True)
    assert words in response.content.decode()
    assert cast.project.memberships.count() == 4


@pytest.mark.parametrize(
    ("page", "form"),
    [
        ("scheme", {"axes": "a\x00b"}),
        ("members/add", {"username": "sam-shop", "role": "labeler", "languages": "z\x00h"}),
        ("members/add", {"username": "sam-shop", "role": "labeler", "skills": "s\x00ql"}),
    ],
)
def test_a_word_that_no_database_can_hold_is_told(cast, enter, page, form):
    response = enter(cast.admin).post(f"/p/shop/{page}/", form, follow=True)
    assert "holds a NUL character at place 1" in response.content.decode()
    assert cast.project.schemes.count() == 1
    assert cast.project.memberships.count() == 4


def test_role_and_languages_are_changed(cast, enter):
    member = cast.project.memberships.get(user=cast.labeler)
    form = {"role": "reviewer", "languages": "en", "skills": ""}
    enter(cast.admin).post(f"/p/shop/members/{member.pk}/change/", form)
    member.refresh_from_db()
    assert (member.role, member.languages) == ("reviewer", ["en"])


def test_a_change_that_fails_in_part_changes_nothing(cast, enter):
    member = cast.project.memberships.get(user=cast.labeler)
    before, entries = (member.role, member.languages), AuditEntry.objects.count()
    form = {"role": "reviewer", "languages": "x" * 41, "skills": ""}
    response = enter(cast.admin).post(f"/p/shop/members/{member.pk}/change/", form, follow=True)
    assert "A language has at most 40 characters" in response.content.decode()
    member.refresh_from_db()
    assert (member.role, member.languages) == before
    assert AuditEntry.objects.count() == entries


def test_the_last_admin_stays(cast, enter):
    member = cast.project.memberships.get(user=cast.admin)
    client = enter(cast.admin)
    response = client.post(f"/p/shop/members/{member.pk}/remove/", follow=True)
    assert "A project keeps at least one admin." in response.content.decode()
    client.post(f"/p/shop/members/{member.pk}/change/", {"role": "labeler"})
    member.refresh_from_db()
    assert member.role == Role.ADMIN


def test_a_member_is_removed(cast, enter):
    member = cast.project.memberships.get(user=cast.researcher)
    enter(cast.admin).post(f"/p/shop/members/{member.pk}/remove/")
    assert not cast.project.memberships.filter(user=cast.researcher).exists()


def test_the_scheme_gets_a_new_version(cast, enter):
    form = {"axes": "helpful, safe", "allow_tie": "on"}
    enter(cast.admin).post("/p/shop/scheme/", form)
    newest = Scheme.objects.latest("version")
    assert (newest.version, newest.axes) == (2, ["helpful", "safe"])
    assert (newest.allow_tie, newest.allow_both_bad, newest.allow_cannot_tell) == (
        True,
        False,
        False,
    )


def test_the_list_of_members_has_a_query_budget(cast, enter, django_assert_max_num_queries):
    for number in range(20):
        Membership.objects.create(
            project=cast.project, user=person(f"user-{number}"), role=Role.LABELER
        )
    client = enter(cast.admin)
    with django_assert_max_num_queries(7):
        client.get("/p/shop/members/")


EVERYTHING = {
    "axes": "helpful",
    "allow_tie": "on",
    "acceptability": "on",
    "ideal": "on",
    "strength_steps": "7",
    "reason": "required",
    "ratings": "correct 1-5\n\n polite : 0–3 ",
    "flags": "unsafe，wrong language",
}


def test_a_scheme_that_asks_for_everything(cast, enter):
    enter(cast.admin).post("/p/shop/scheme/", EVERYTHING)
    newest = Scheme.objects.latest("version")
    assert (newest.version, newest.axes) == (2, ["helpful"])
    assert (newest.allow_tie, newest.allow_both_bad, newest.allow_cannot_tell) == (1, 0, 0)
    assert newest.options == {
        "strength_steps": 7,
        "allow_partial": False,
        "acceptability": True,
        "ratings": [
            {"name": "correct", "low": 1, "high": 5},
            {"name": "polite", "low": 0, "high": 3},
        ],
        "flags": ["unsafe", "wrong language"],
        "reason": "required",
        "ideal": True,
    }
    html = enter(cast.admin).get("/p/shop/members/").content.decode()
    assert "correct 1-5\npolite 0-3</textarea>" in html
    assert 'value="unsafe, wrong language"' in html


def test_the_preview_shows_what_labelers_would_see_and_keeps_nothing(cast, enter):
    client = enter(cast.admin)
    html = client.post("/p/shop/scheme/preview/", EVERYTHING).content.decode()
    assert "<html" not in html
    for words in (
        "1 much better",
        "2 slightly better",
        "polite",
        "wrong language",
        "Better answer",
    ):
        assert words in html
    assert "Both bad" not in html
    assert "inert" in html
    assert Scheme.objects.count() == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ratings": "correct"}, "such as: correct 1-5. Seen: correct"),
        ({"ratings": "correct 5-1"}, "5 to 1"),
        ({"flags": "unsafe, unsafe"}, "two flags"),
        ({"strength_steps": "3"}, "3 is not one of the available choices"),
        ({"axes": ""}, "Axes"),
    ],
)
def test_a_scheme_that_makes_no_sense_is_told_in_preview_and_never_kept(cast, enter, wrong, words):
    client = enter(cast.admin)
    form = EVERYTHING | wrong
    assert words in client.post("/p/shop/scheme/preview/", form).content.decode()
    assert words in client.post("/p/shop/scheme/", form, follow=True).content.decode()
    assert Scheme.objects.count() == 1
