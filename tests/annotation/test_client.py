"""The Python client: what it sends again and what never, and its calls against a real server."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from annotation import client
from annotation.client import ApiError, Concord, DownloadFailed, ExportFailed, JobFailed
from annotation.models import Preference, TrainingJob
from annotation.services.tokens import issue_token
from tests.annotation.making import make_comparisons, make_member, make_project
from tests.annotation.voting import cast, compare

README = Path(__file__).resolve().parent.parent.parent / "README.md"
BUSY = (503, {}, {"code": "busy", "detail": "later"})
TOO_MANY = (429, {"Retry-After": "7"}, {"code": "throttled", "detail": "slowly"})
FINE = (200, {}, {"fine": True})
DROPPED = "the connection ends without an answer"


class Scripted:
    """A server that gives these answers in turn, and remembers what it was asked."""

    def __init__(self, answers):
        self.asked = asked = []
        left = iter(answers)

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self):
                length = int(self.headers.get("Content-Length") or 0)
                asked.append((self.command, self.path, self.rfile.read(length)))
                answer = next(left)
                if answer is DROPPED:
                    self.close_connection = True
                    return
                status, headers, body = answer
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": len(body), **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = handle_any

            def log_message(self, *given):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def scripted():
    made = []

    def make(*answers):
        made.append(Scripted(answers))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture
def waits(monkeypatch):
    """Seconds that the client would have waited."""
    found = []
    monkeypatch.setattr(client.time, "sleep", found.append)
    return found


ORDER = {"id": 7, "format": "trl", "state": "waiting", "export": "", "error": ""}


def test_an_export_that_workers_write_is_waited_for(scripted, waits):
    done = ORDER | {"state": "done", "export": "20261128-trl-0123456789ab"}
    server = scripted((202, {}, ORDER), (200, {}, ORDER), (200, {}, done), (200, {}, {"id": "it"}))
    made = Concord(server.address, "t").project("p").export("trl", splits=["train"])
    assert (made, len(waits)) == ({"id": "it"}, 2)
    assert [(method, path) for method, path, _ in server.asked] == [
        ("POST", "/api/projects/p/exports/"),
        ("GET", "/api/projects/p/exports/orders/7"),
        ("GET", "/api/projects/p/exports/orders/7"),
        ("GET", "/api/projects/p/exports/20261128-trl-0123456789ab"),
    ]


def test_an_export_that_could_not_be_written_says_why(scripted, waits):
    failed = ORDER | {"state": "failed", "error": "No space left."}
    server = scripted((202, {}, ORDER), (200, {}, failed))
    with pytest.raises(ExportFailed, match=r"trl export failed: No space left\."):
        Concord(server.address, "t").project("p").export("trl")


def test_what_does_no_harm_is_sent_again_after_waits_that_double(scripted, waits):
    server = scripted(BUSY, DROPPED, BUSY, FINE)
    assert Concord(server.address, "t").get("x") == {"fine": True}
    assert len(server.asked) == 4
    assert all(0.25 * 2**n <= wait <= 0.5 * 2**n for n, wait in enumerate(waits)), waits


@pytest.mark.parametrize("answer", [BUSY, DROPPED])
def test_a_request_that_may_have_been_done_is_not_sent_again(scripted, waits, answer):
    server = scripted(answer, FINE)
    with pytest.raises((ApiError, OSError)):
        Concord(server.address, "t").project("p").train("reward")
    assert (len(server.asked), waits) == (1, [])


def test_whoever_is_too_fast_waits_as_long_as_the_server_says(scripted, waits):
    server = scripted(TOO_MANY, (201, {}, {"id": 3}))
    assert Concord(server.address, "t").project("p").train("reward")["id"] == 3
    assert waits == [7.0]
    method, path, body = server.asked[1]
    assert (method, path) == ("POST", "/api/projects/p/jobs/")
    assert json.loads(body) == {"kind": "reward"}


def test_an_answer_is_sent_again_under_the_same_key(scripted, waits):
    server = scripted(DROPPED, (201, {}, {}))
    Concord(server.address, "t").project("p").submit({"id": 5}, [[2], [1, 3]])
    first, second = (json.loads(body) for _, _, body in server.asked)
    assert first == second
    ranking = {"axis": "overall", "outcome": "ranked", "groups": [[2], [1, 3]]}
    assert (first["rankings"], len(first["key"])) == ([ranking], 36)


def test_a_server_that_stays_busy_is_given_up(scripted, waits):
    server = scripted(*[BUSY] * 3)
    with pytest.raises(ApiError, match="503 busy: later") as caught:
        Concord(server.address, "t", retries=2).get("x")
    assert (caught.value.code, caught.value.status, len(waits)) == ("busy", 503, 2)


def test_no_token_follows_a_redirect(scripted, waits):
    elsewhere = scripted(FINE)
    moved = (302, {"Location": f"{elsewhere.address}/api/x"}, b"")
    with pytest.raises(ApiError, match=r"302 redirected: The address now is .* give that one"):
        Concord(scripted(moved).address, "t").get("x")
    assert elsewhere.asked == []


def test_nobody_answers(waits):
    with pytest.raises(OSError, match="refused"):
        Concord("http://127.0.0.1:1", "t", retries=1).project("p").train("reward")
    assert len(waits) == 1, "a refused connection has done nothing yet"


def test_rows_come_page_by_page(scripted):
    server = scripted(
        (
            200,
            {},
            {"results": [{"id": 3}, {"id": 2}], "next": "https://x/api/j/?cursor=a%3D&kind=k"},
        ),
        (200, {}, {"results": [{"id": 1}], "next": None}),
    )
    rows = Concord(server.address, "t").pages("j/", kind="k")
    assert next(rows)["id"] == 3
    assert len(server.asked) == 1
    assert [row["id"] for row in rows] == [2, 1]
    assert server.asked[1][1] == "/api/j/?kind=k&cursor=a%3D"


def test_a_download_is_there_whole_or_not_at_all(scripted, waits, tmp_path):
    cut = (200, {"Content-Length": 5}, b"who")
    whole = (200, {}, b"whole")
    concord = Concord(scripted(cut, whole, whole).address, "t")
    digest = hashlib.sha256(b"whole").hexdigest()
    pieces = []
    concord.download("f", tmp_path / "f", sha256=digest, on_bytes=pieces.append)
    assert ((tmp_path / "f").read_bytes(), sum(pieces)) == (b"whole", 8)
    with pytest.raises(DownloadFailed, match=r"f has SHA-256 .*, not 0000"):
        concord.download("f", tmp_path / "g", sha256="0000")
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    ("header", "is_right"),
    [
        ("sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:", True),  # of "abc", FIPS 180-2
        ("sha-512=:AAAA:, SHA-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:", True),
        ("sha-512=:AAAA:", True),  # nothing that is looked at
        ("sha-256=:AAAA:", False),
        ("sha-256=:no base64:", False),
    ],
)
def test_a_digest_that_the_server_tells_is_checked(scripted, tmp_path, header, is_right):
    concord = Concord(scripted((200, {"Repr-Digest": header}, b"abc")).address, "t")
    if is_right:
        assert concord.download("f", tmp_path / "f").read_bytes() == b"abc"
        return
    with pytest.raises(DownloadFailed, match="f has SHA-256 ba7816bf"):
        concord.download("f", tmp_path / "f")
    assert not list(tmp_path.iterdir())


def test_a_job_is_followed_to_its_end(scripted, waits):
    states = [("queued", 0), ("running", 1), ("running", 1), ("failed", 2)]
    jobs = [
        {"id": 4, "kind": "ppo", "status": status, "step": step, "phase": "", "error": "no disk"}
        for status, step in states
    ]
    server = scripted(*[(200, {}, job) for job in jobs])
    seen = []
    with pytest.raises(JobFailed, match="ppo job 4 failed: no disk"):
        Concord(server.address, "t").project("p").wait(4, on_change=seen.append, poll_seconds=0.1)
    assert [(job["status"], job["step"]) for job in seen] == [states[0], states[1], states[3]]
    assert waits == [0.1] * 3


@pytest.mark.django_db(transaction=True)
def test_the_readmes_examples_run(live_server, settings, tmp_path, monkeypatch, capsys):
    """A labeler answers, an admin asks for training, a researcher takes the data away."""
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    monkeypatch.chdir(tmp_path)
    project = make_project("shop", open_target=0)
    cast(compare(project))
    make_comparisons(project, batch="asked")
    token = issue_token(user=make_member(project, "admin"), name="client")[1]
    monkeypatch.setenv("CONCORD_URL", live_server.url)
    monkeypatch.setenv("CONCORD_TOKEN", token)
    section = README.read_text(encoding="utf-8").split("### From Python")[1].split("\n## ")[0]
    examples = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(examples) == 2
    names = {}
    for example in examples:
        exec(example, names)
    assert Preference.objects.filter(annotator__user__username__startswith="admin").count() == 2
    (job,) = TrainingJob.objects.all()
    assert (job.kind, job.status, job.config) == ("reward", "cancelled", {"epochs": 2})
    lines = (tmp_path / "shop-trl" / "train.jsonl").read_text().splitlines()
    assert {"prompt", "chosen", "rejected"} <= set(json.loads(lines[0]))
