"""Limits: who is stopped, who must not be, and what happens when Redis is gone."""

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from django.test import Client, RequestFactory

from annotation import limits
from annotation.limits import Counter, Limit, address_of, count, seconds_to_wait
from annotation.services.tokens import issue_token
from tests.annotation.making import make_member, make_project
from tests.pages_cast import PASSWORD

FEW = 3
WRONG = "not the password"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    """A Redis of this module's own."""
    folder = tmp_path_factory.mktemp("redis")
    path = folder / "redis.sock"
    server = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "redis-server"),
            *("--port", "0", "--unixsocket", str(path), "--dir", str(folder), "--save", ""),
        ],
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis.from_url(f"unix://{path}")
    deadline = time.monotonic() + 60
    while not _answers(client):
        assert time.monotonic() < deadline, "Redis does not answer"
        time.sleep(0.05)
    yield f"unix://{path}"
    server.terminate()
    server.wait(30)


def _answers(client):
    try:
        return client.ping()
    except redis.RedisError:
        return False


@pytest.fixture(autouse=True)
def with_redis(settings, redis_url, monkeypatch):
    """Limits as small as may be, empty counters, and one window for the whole test."""
    settings.REDIS_URL = redis_url
    settings.SIGN_IN_FAILURES = FEW
    settings.API_PER_MINUTE = 5
    settings.ANONYMOUS_PER_MINUTE = 4
    monkeypatch.setattr(limits, "_left_alone_until", 0.0)
    now = time.time()
    monkeypatch.setattr(limits.time, "time", lambda: now)
    redis.Redis.from_url(redis_url).flushall()


@pytest.fixture
def gone(settings, tmp_path):
    settings.REDIS_URL = f"unix://{tmp_path}/nothing.sock"


def fails(username, address="10.0.0.1", client=None, password=WRONG):
    return (client or Client()).post(
        "/sign-in/", {"username": username, "password": password}, REMOTE_ADDR=address
    )


def is_stopped(response):
    return response.status_code == 429 and "Too many failed tries" in response.content.decode()


def test_so_many_times_and_no_more_until_the_window_ends(monkeypatch):
    counter = Counter(Limit("test", 3, 60), "wen")
    assert [count([counter]) > 0 for _ in range(5)] == [False, False, False, True, True]
    assert 0 < count([counter]) <= 60
    assert not count([Counter(Limit("test", 3, 60), "li")])
    later = limits.time.time() + 60
    monkeypatch.setattr(limits.time, "time", lambda: later)
    assert count([counter]) == 0


def test_asking_counts_nothing():
    counter = Counter(Limit("test", 1, 60), "wen")
    assert [seconds_to_wait([counter]) for _ in range(3)] == [0, 0, 0]
    count([counter])
    assert seconds_to_wait([counter]) > 0


def test_zero_is_no_limit_and_asks_nobody(gone, caplog):
    assert count([Counter(Limit("test", 0, 60), "wen")]) == 0
    assert not caplog.records


def test_guesses_at_an_account_from_one_address_are_stopped_even_when_right(cast):
    name = cast.labeler.username
    for _ in range(FEW):
        response = fails(name)
        assert response.status_code == 200
        assert not is_stopped(response)
    assert is_stopped(fails(name))
    assert is_stopped(fails(name.upper(), password=PASSWORD))
    assert is_stopped(fails(name, password=PASSWORD))


def test_whoever_knows_a_name_can_not_lock_its_owner_out(cast):
    name = cast.labeler.username
    for number in range(FEW * 4):
        fails(name, f"10.0.0.{number % 2}")
    assert is_stopped(fails(name, "10.0.0.1", password=PASSWORD))
    home = fails(name, "192.0.2.7", password=PASSWORD)
    assert home.status_code == 302


def test_a_browser_that_was_let_in_before_gets_in_while_the_account_is_attacked(cast):
    name, mine = cast.labeler.username, Client()
    assert fails(name, "192.0.2.7", mine, PASSWORD).status_code == 302
    mine.post("/sign-out/")
    for number in range(10 * FEW):
        fails(name, f"10.0.{number}.1")
    assert is_stopped(fails(name, "192.0.2.99", password=PASSWORD))
    assert fails(name, "192.0.2.7", mine, PASSWORD).status_code == 302


def test_a_known_browser_has_a_limit_of_its_own_and_a_forged_one_none(cast):
    name, mine = cast.labeler.username, Client()
    fails(name, "192.0.2.7", mine, PASSWORD)
    mine.post("/sign-out/")
    stopped = [is_stopped(fails(name, "192.0.2.7", mine)) for _ in range(FEW + 1)]
    assert stopped == [False] * FEW + [True]
    mine.cookies["concord_browser"] = f"{cast.reviewer.username}:x:y"
    for _ in range(FEW):
        fails(cast.reviewer.username, "192.0.2.7", mine)
    assert is_stopped(fails(cast.reviewer.username, "192.0.2.7", mine, PASSWORD))


def test_an_office_behind_one_address_signs_in_at_nine(db):
    project = make_project("shop")
    for _ in range(11 * FEW):
        user = make_member(project)
        assert fails(user.username, password="secret").status_code == 302


def test_names_that_do_not_exist_are_answered_alike_and_one_address_has_its_limit(db):
    for number in range(10 * FEW):
        assert not is_stopped(fails(f"nobody-{number}"))
    assert is_stopped(fails("nobody-else"))
    assert not is_stopped(fails("nobody-else", "10.0.0.2"))


def test_the_door_of_the_admin_site_counts_too(cast):
    form = {"username": cast.admin.username, "password": WRONG}
    for _ in range(FEW):
        Client().post("/admin/login/", form, REMOTE_ADDR="10.0.0.1")
    html = Client().post("/admin/login/", form, REMOTE_ADDR="10.0.0.1").content.decode()
    assert "Too many failed tries" in html
    assert is_stopped(fails(cast.admin.username))


def test_the_old_password_can_not_be_guessed_for_ever(cast, enter):
    client = enter(cast.labeler)
    new = {"new_password1": "a new battery horse", "new_password2": "a new battery horse"}
    for _ in range(FEW):
        client.post("/password/", new | {"old_password": WRONG})
    html = client.post("/password/", new | {"old_password": PASSWORD}).content.decode()
    assert "Too many failed tries" in html
    cast.labeler.refresh_from_db()
    assert cast.labeler.check_password(PASSWORD)


def test_links_that_lead_nowhere_are_not_tried_for_ever(db):
    seen = [Client().get(f"/join/guess-{number}/").status_code for number in range(31)]
    assert seen == [404] * 30 + [429]


def test_a_token_has_its_requests_a_minute_and_another_its_own(db):
    user = make_member(make_project("shop"), "admin")
    first, second = (issue_token(user=user, name=name)[1] for name in "ab")

    def ask(token):
        return Client(headers={"Authorization": f"Bearer {token}"}).get("/api/projects/")

    assert [ask(first).status_code for _ in range(6)] == [200] * 5 + [429]
    refused = ask(first)
    assert refused.json()["code"] == "throttled"
    assert 0 < int(refused["Retry-After"]) <= 60
    assert ask(second).status_code == 200


def test_addresses_without_a_token_or_with_a_wrong_one_are_limited(db):
    schema = [Client().get("/api/schema/").status_code for _ in range(5)]
    assert schema == [200] * 4 + [429]
    wrong = Client(headers={"Authorization": "Bearer concord_no"})
    assert wrong.get("/api/projects/").status_code == 429
    assert wrong.get("/api/projects/", REMOTE_ADDR="10.0.0.2").status_code == 401


def test_a_claim_costs_one_round_trip(cast, monkeypatch):
    cast.ask("Which?", ["This.", "That."])
    token = issue_token(user=cast.labeler, name="script")[1]
    sent = []
    pipelines = redis.client.Pipeline.execute
    monkeypatch.setattr(
        redis.client.Pipeline,
        "execute",
        lambda self, *more: sent.append("pipeline") or pipelines(self, *more),
    )
    monkeypatch.setattr(redis.Redis, "execute_command", lambda *more: sent.append("command"))
    client = Client(headers={"Authorization": f"Bearer {token}"})
    claim = client.post("/api/projects/shop/claim", {}, "application/json")
    assert claim.status_code == 200
    assert sent == ["pipeline"]


def test_without_redis_people_sign_in_and_work_and_the_log_says_so(cast, gone, caplog):
    cast.ask("Which?", ["This.", "That."])
    client = Client()
    with caplog.at_level(logging.WARNING, "annotation.limits"):
        for _ in range(FEW + 1):
            assert fails(cast.labeler.username, client=client).status_code == 200
        assert fails(cast.labeler.username, client=client, password=PASSWORD).status_code == 302
        for _ in range(7):
            claim = client.post("/api/projects/shop/claim", {}, "application/json")
            assert claim.status_code == 200
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in said] == [
        "Redis is out of reach, nothing is limited meanwhile"
    ]  # once: it is left alone for a while, so that nobody waits for it


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "", "10.0.0.9"),
        (0, "203.0.113.5", "10.0.0.9"),
        (1, "", "10.0.0.9"),
        (1, "203.0.113.5", "203.0.113.5"),
        (1, "1.1.1.1, 203.0.113.5", "203.0.113.5"),
        (2, "1.1.1.1, 203.0.113.5, 10.0.0.8", "203.0.113.5"),
        (2, "203.0.113.5", "10.0.0.9"),
        (1, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        (1, "2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
    ],
)
def test_the_address_is_what_our_own_proxy_saw(settings, proxies, forwarded, address):
    settings.PROXIES = proxies
    more = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    assert address_of(RequestFactory().get("/", REMOTE_ADDR="10.0.0.9", **more)) == address
