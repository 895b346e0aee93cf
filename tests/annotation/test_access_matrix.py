"""The access matrix: every address of the URL map, every method, everybody who might ask.

What must come of it stands in `access_table.py`, by hand. Three things are looked at in each cell:
the status (404 to whoever is no member, never 403), that a refused request wrote nothing, and that
the answer holds no word of a project that is not the asker's.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.http import HttpResponseBase
from django.test import Client, override_settings
from django.urls import URLPattern, get_resolver

import annotation
from tests.annotation.access_table import (
    ADMIN_SITE,
    ALL,
    API_OF_A_PROJECT,
    ELSEWHERE,
    PAGES_OF_A_PROJECT,
    SCOPES,
    WITHOUT_A_LINE,
    Line,
    May,
    line_of,
)
from tests.annotation.access_world import MARKS, World, make_world
from tests.annotation.test_security_headers import faults_of

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ROLES = tuple(sorted(ALL))
KEYS = tuple(f"key:{scope}" for scope in (*SCOPES, "all"))
"""Tokens of the admin; `key:theirs` is one of whoever is in both, for the other project alone."""
MEMBERS = {
    "mine": {*ROLES, *KEYS, "both", "root"},
    "theirs": {"both", "their-admin", "root", "key:theirs"},
}
"""Who sees what; a superuser sees everything."""
OUTSIDE = ("outsider", "left", "their-admin", "staff", "gone", "nobody")
"""Who belongs to nothing, who did once, who belongs elsewhere, who may found projects, whose
account is closed, who never signed in."""
STANDING = {
    **dict.fromkeys(KEYS, "admin"),
    "both": "admin",
    "their-admin": "admin",
    "root": "admin",
    "staff": "admin",
}
"""What they count as outside a project, where staff may found projects as admins may."""
THROUGH = frozenset({200, 201, 204, 302, 400, 409, 422})
"""Past every door: done, or refused for what was sent."""


def routes(resolver=None, before: str = "") -> Iterator[str]:
    """Every route of the URL map as it is spelled there."""
    for pattern in (resolver or get_resolver()).url_patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route
        else:
            yield from routes(pattern, route)


ROUTES = sorted(set(routes()) - set(WITHOUT_A_LINE))


@dataclass(frozen=True)
class Cell:
    """One question: who asks, of which project, naming whose rows of which project."""

    method: str
    who: str
    slug: str = "mine"
    of: str = "mine"
    rows: str = "colleague"
    is_fragment: bool = False

    def __str__(self) -> str:
        way = " (htmx)" if self.is_fragment else ""
        return f"{self.method}{way} by {self.who} at {self.slug}, rows of {self.rows} in {self.of}"


def cells(route: str, line: Line) -> Iterator[Cell]:
    """Every question that is put to an address."""
    if route.startswith("admin/"):
        yield from _in_the_admin_site(route, line)
        return
    for method in [*line, *(["HEAD"] if "GET" in line else [])]:
        yield from _everybody(route, method)
        yield from _by_tokens(route, method)
        if method == "GET" and not route.startswith("api/"):
            yield from _everybody(route, method, is_fragment=True)
    for method in METHODS:
        if method not in line:
            yield from (Cell(method, who) for who in ("admin", "outsider", "nobody"))


def _by_tokens(route: str, method: str) -> Iterator[Cell]:
    if not route.startswith("api/"):
        yield Cell(method, "key:all", rows="admin")  # which opens no page
        return
    for who in KEYS:
        yield Cell(method, who, rows="admin")
    if "<slug:slug>" in route:
        yield Cell(method, "key:theirs", rows="both")
        yield Cell(method, "key:theirs", "theirs", "theirs", "both")


def _in_the_admin_site(route: str, line: Line) -> Iterator[Cell]:
    """It knows no projects: superusers may look, staff see the index. Other methods than those of
    the line it answers as it likes."""
    for method in line:
        yield from (Cell(method, who) for who in ("admin", "outsider", "nobody", "staff", "root"))
    if route.startswith("admin/annotation/") and not route.endswith("object_id>/"):
        yield from (Cell("POST", who) for who in ("admin", "staff", "nobody"))


def _everybody(route: str, method: str, *, is_fragment: bool = False) -> Iterator[Cell]:
    for who in (*ROLES, "both"):
        theirs = "both" if who == "both" else "their-admin"
        yield Cell(method, who, rows=who, is_fragment=is_fragment)
        if names_rows(route):
            yield Cell(method, who, is_fragment=is_fragment)
        if names_rows(route) and "<slug:slug>" in route:
            yield Cell(method, who, of="theirs", rows=theirs, is_fragment=is_fragment)
            yield Cell(method, who, slug="theirs", rows=who, is_fragment=is_fragment)
    if "<slug:slug>" in route:
        for who in ROLES:
            yield Cell(method, who, "theirs", "theirs", "their-admin", is_fragment=is_fragment)
        yield Cell(method, "root", of="theirs", rows="their-admin", is_fragment=is_fragment)
    for who in OUTSIDE:
        rows = "left" if who == "left" else "colleague"
        yield Cell(method, who, rows=rows, is_fragment=is_fragment)
    yield Cell(method, "root", is_fragment=is_fragment)


def names_rows(route: str) -> bool:
    """Whether the address names a row, which belongs to a project or a person."""
    return re.search(r"_id>", route) is not None


def expected(route: str, line: Line, cell: Cell) -> set[str]:
    """What may come of it: through, door (sign in first), 403, 404, 405."""
    may = line.get("GET" if cell.method == "HEAD" else cell.method)
    is_public = may is not None and "nobody" in may.who
    if is_public:
        return {"through", "door"}  # to which a sign-out leads
    if cell.who in ("nobody", "gone") or (
        cell.who.startswith("key:") and not route.startswith("api/")
    ):
        return {"door"} if may or "<slug:slug>" in route else {"door", "405"}
    if route.startswith("admin/"):
        if cell.who not in ("root", "staff"):
            return {"door"}
        if route.endswith("/history/"):  # of an empty table it leads back to the index
            return {"through", "403"}
        return {"through", "403"} if may and cell.who in may.who else {"403"}
    if "<slug:slug>" in route:
        return {_in_a_project(route, line, cell)}
    if may is None:
        is_open = any("nobody" in one.who for one in line.values())
        return {"405", "through"} if is_open else {"405"}
    if is_out_of_scope(may, cell):
        return {"403"}
    standing = STANDING.get(cell.who, cell.who if cell.who in ROLES else "outsider")
    if standing not in may.who:
        return {"403"}
    return {"404" if may.own and cell.who != cell.rows else "through"}


def _in_a_project(route: str, line: Line, cell: Cell) -> str:
    may = line.get("GET" if cell.method == "HEAD" else cell.method)
    is_member = cell.who in MEMBERS[cell.slug]
    if may is None:  # a page says so to anybody, before it looks for the project
        return "405" if is_member or route.startswith("p/") else "404"
    if not is_member:
        return "404"
    if is_out_of_scope(may, cell):
        return "403"
    role = cell.who if cell.who in ROLES else "admin"
    if role not in may.who:
        return "403"
    if names_rows(route) and cell.of != cell.slug:
        return "404"
    owner = "admin" if cell.who in KEYS else "both" if cell.who == "key:theirs" else cell.who
    return "404" if role in may.own and owner != cell.rows else "through"


def is_out_of_scope(may: May, cell: Cell) -> bool:
    """Whether it is asked with a token that is not for this."""
    return cell.who in KEYS and cell.who not in ("key:all", f"key:{may.scope}")


def address(route: str, cell: Cell, world: World) -> str:
    """The route with the cell's names filled in. Raises LookupError for an unknown one."""
    values = {"slug": cell.slug, **world.ids[cell.of].get(cell.rows, {})}

    def fill(found: re.Match[str]) -> str:
        if route.startswith("admin/"):
            return str(_row_of_a_table(route))
        if found[1] not in values:
            raise LookupError(
                f"No {found[1]} to ask {route} for: tests/annotation/access_world.py, rows_of(), "
                "makes one row of every kind that an address names. Add yours there."
            )
        return str(values[found[1]])

    return "/" + re.sub(r"<(?:\w+:)?(\w+)>", fill, route)


def _row_of_a_table(route: str) -> object:
    model = apps.get_model(*route.split("/")[1:3])
    return model._default_manager.order_by("-pk").values_list("pk", flat=True).first() or 1


def outcome(response: HttpResponseBase) -> str:
    """The answer in the table's words; an unexpected status is said as it is."""
    status, location = response.status_code, response.headers.get("Location", "")
    to_the_door = ("/sign-in/", "/admin/login/")
    if status == 401 or (status == 302 and location.startswith(to_the_door)):
        return "door"
    if status == 204 and response.headers.get("HX-Redirect", "").startswith(to_the_door):
        return "door"
    if status == 404 and '"nothing_to_do"' in response.said:  # labels, and nothing is left
        return "through"
    return "through" if status in THROUGH else str(status)


@pytest.fixture(scope="module")
def world(django_db_setup, django_db_blocker, tmp_path_factory) -> Iterator[World]:
    """Both projects once for all addresses; whatever a cell does is rolled back."""
    folder = tmp_path_factory.mktemp("artifacts")
    with (
        django_db_blocker.unblock(),
        override_settings(ARTIFACTS_DIR=folder),
        transaction.atomic(),
    ):
        yield make_world()
        transaction.set_rollback(True)


@pytest.fixture(scope="module")
def doors(world) -> dict[str, Client]:
    """A browser for each; `gone` signed in before the account was closed."""
    found = {"nobody": Client(raise_request_exception=False)}
    for name, key in world.keys.items():
        bearer = {"Authorization": f"Bearer {key}"}
        found[name] = Client(raise_request_exception=False, headers=bearer)
    for name, user in world.people.items():
        found[name] = Client(raise_request_exception=False)
        found[name].force_login(user)
    world.people["gone"].is_active = False
    world.people["gone"].save()
    return found


CODES = {
    "door": "not_authenticated",
    "403": "not_allowed",
    "404": "not_found",
    "405": "method_not_allowed",
}
"""What the API calls its refusals."""


class Writes:
    """Notes the tables that a request wrote to; a token may always note that it was used."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, execute, sql, params, many, context):
        if re.match(r"\s*(INSERT|UPDATE|DELETE)\b", sql) and "last_used_at" not in sql:
            self.seen.append(sql.split("SET")[0][:80])
        return execute(sql, params, many, context)


def ask(client: Client, url: str, cell: Cell, line: Line) -> tuple[HttpResponseBase, list[str]]:
    """The answer, and what was written for it; all of it is undone."""
    may, writes = line.get(cell.method), Writes()
    body = dict(may.sent) if may else {}
    session = client.cookies.get("sessionid")
    headers = {"HX-Request": "true"} if cell.is_fragment else {}
    with transaction.atomic(), connection.execute_wrapper(writes):
        if cell.method in ("GET", "HEAD"):
            response = client.generic(cell.method, url, headers=headers)
        elif url.startswith("/api/"):
            response = client.generic(
                cell.method, url, json.dumps(body), "application/json", headers=headers
            )
        else:
            response = (
                client.post(url, body)
                if cell.method == "POST"
                else client.generic(cell.method, url)
            )
        response.said = said(response)
        transaction.set_rollback(True)
    client.cookies.clear()
    if session is not None and session.value:
        client.cookies["sessionid"] = session.value
    return response, writes.seen


def said(response: HttpResponseBase) -> str:
    """All that the asker gets to read: headers and body."""
    body = b"".join(response.streaming_content) if response.streaming else response.content
    return f"{dict(response.headers)}\n{body.decode(errors='replace')}"


def test_every_address_has_a_line():
    missing = [route for route in ROUTES if line_of(route) is None]
    assert not missing, (
        f"Who may open {', '.join(missing)}? Add a line to tests/annotation/access_table.py."
    )


def test_every_line_has_its_address():
    known = {id(line_of(route)) for route in ROUTES}
    for lines in (PAGES_OF_A_PROJECT, API_OF_A_PROJECT, ELSEWHERE, ADMIN_SITE):
        for route, line in lines.items():
            assert id(line) in known, f"The line for {route!r} leads nowhere."


@pytest.mark.django_db
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route or "/")
def test_access(route, world, doors):
    line = line_of(route)
    wrong = []
    for cell in cells(route, line):
        wanted = expected(route, line, cell)
        response, written = ask(doors[cell.who], address(route, cell, world), cell, line)
        got = outcome(response)
        if got not in wanted:
            wrong.append(f"{cell}: {got}, not {' or '.join(sorted(wanted))}")
        is_worded = route.startswith("api/projects/") and got in CODES and cell.method != "HEAD"
        if is_worded and f'"code":"{CODES[got]}"' not in response.said:
            wrong.append(f"{cell}: does not say {CODES[got]}: {response.said[-90:]}")
        wrong += [f"{cell}: {fault}" for fault in faults_of(response)]
        if "through" not in wanted and written:
            wrong.append(f"{cell}: refused, yet it wrote: {written[0]}")
        for slug, mark in MARKS.items():
            if cell.who not in MEMBERS[slug] and mark in response.said:
                place = response.said.index(mark)
                wrong.append(
                    f"{cell}: shows of {slug}: ...{response.said[max(0, place - 60) : place + 60]}"
                )
    assert not wrong, "\n".join([f"/{route}", *wrong])


READS = [
    route
    for route in ROUTES
    if "GET" in (line_of(route) or {}) and "<slug:slug>" in route and "admin" not in route
]
PARAMETERS = sorted(
    {
        name
        for path in Path(annotation.__file__).parent.rglob("*.py")
        for name in re.findall(
            r"""(?:GET|query_params)\.(?:get|getlist)\("(\w+)\"""", path.read_text()
        )
    }
    | {"outcome", "purpose", "split", "kind", "status", "cursor", "page", "format"}
)
JUNK = ("'", "-1", "9" * 30, "１２", "a__b", "\x00", "%", "é" * 300)


@pytest.mark.django_db
@pytest.mark.parametrize("route", READS)
def test_no_query_parameter_reaches_the_tables(route, world, doors):
    """Unknown values are refused or mean nothing, and lookups of the ORM are not parameters."""
    cell = Cell("GET", "admin", rows="admin")
    url, client = address(route, cell, world), doors["admin"]
    for value in JUNK:
        response = client.get(url, dict.fromkeys(PARAMETERS, value))
        assert response.status_code in (200, 204, 302, 400, 404), (value, response.status_code)
    plain = client.get(url)
    if plain.headers.get("Content-Type") == "application/json":
        lookups = {
            "annotator__user__password__startswith": "zzz",
            "user__password": "zzz",
            "order_by": "user__password",
            "ordering": "-user__password",
            "fields": "password",
        }
        assert client.get(url, lookups).json() == plain.json()


def test_its_size(capsys):
    asked = [(route, cell) for route in ROUTES for cell in cells(route, line_of(route) or {})]
    with capsys.disabled():
        print(f"\nThe access matrix: {len(ROUTES)} addresses, {len(asked)} cells.")
    assert len(ROUTES) >= 200
    assert len(set(asked)) == len(asked)
