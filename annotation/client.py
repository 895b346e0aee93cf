"""Concord's REST API from Python, with the standard library alone.

    from annotation.client import Concord

    shop = Concord("http://127.0.0.1:8000", token).project("shop")
    for answer in shop.preferences():
        print(answer["annotator"], answer["rankings"])

This one file can be copied to wherever it is needed: it imports nothing of Concord. What the API
answers is given as it came, dicts that /api/docs/ describes; whoever may do what, and which scopes
a token must have, is said there too. A client may serve several threads.
"""

import base64
import hashlib
import http.client
import ipaddress
import json
import random
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs, quote, urlencode, urlsplit

JSON = dict[str, Any]
Result = TypeVar("Result")

RETRIES = 5
TIMEOUT_SECONDS = 60.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
PIECE_BYTES = 1 << 20
POLL_SECONDS = 1.0
TOO_MANY = 429
OVERLOADED = (502, 503, 504)
"""A proxy's word for a server that is busy or being restarted; the request may have been done."""
ENDED = ("done", "failed", "cancelled")


class ApiError(Exception):
    """The API refused: status, code and detail as it sent them, all of it in body."""

    def __init__(self, status: int, body: JSON) -> None:
        super().__init__(f"{status} {body.get('code')}: {body.get('detail')}")
        self.status = status
        self.body = body

    @property
    def code(self) -> str:
        """What happened, for programs: not_found, bad_input, nothing_to_do ..."""
        return str(self.body.get("code"))


class JobFailed(Exception):
    """A job that was waited for failed or was cancelled."""

    def __init__(self, job: JSON) -> None:
        super().__init__(f"{job['kind']} job {job['id']} {job['status']}: {job['error']}")
        self.job = job


class ExportFailed(Exception):
    """An export that was waited for could not be written."""

    def __init__(self, order: JSON) -> None:
        super().__init__(f"{order['format']} export {order['state']}: {order['error']}")
        self.order = order


class DownloadFailed(Exception):
    """What arrived is not what was promised; nothing is left of it."""


class Concord:
    """A server, entered as one user by token."""

    def __init__(
        self, address: str, token: str, *, retries: int = RETRIES, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """address: e.g. "https://concord.example". retries: of a request that can be sent again
        without harm, after waits that double, or as long as the server says. timeout: seconds of
        silence until a connection counts as lost."""
        self.address = address.rstrip("/")
        self.retries = retries
        self.timeout = timeout
        self._token = token
        proxies = [urllib.request.ProxyHandler({})] if _is_loopback(address) else []
        self._opener = urllib.request.build_opener(*proxies, _NoRedirects())

    def projects(self) -> Iterator[JSON]:
        """Those that the token opens, newest first."""
        return self.pages("projects/")

    def project(self, slug: str) -> "ProjectClient":
        """One project; whether it exists is found out at the first call."""
        return ProjectClient(self, slug)

    def get(self, path: str, **query: Any) -> Any:
        """The JSON at a path under /api/. Raises ApiError, or OSError where nobody answers."""
        return self._json("GET", _with_query(path, query))

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, again: bool = False) -> Any:
        """The JSON that answers a POST. again: it may be sent twice without harm; else it is sent
        once more only where the server has certainly not done it."""
        return self._json("POST", path, body or {}, again=again)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that answers a PATCH."""
        return self._json("PATCH", path, body)

    def pages(self, path: str, **query: Any) -> Iterator[JSON]:
        """All rows of a list, page by page as they are asked for."""
        while True:
            page = self.get(path, **query)
            yield from page["results"]
            if not page["next"]:
                return
            following = parse_qs(urlsplit(page["next"]).query)
            query |= {name: values[0] for name, values in following.items()}

    def download(
        self,
        path: str,
        to: str | Path,
        *,
        sha256: str | None = None,
        on_bytes: Callable[[int], object] = lambda count: None,
    ) -> Path:
        """Stream a file under /api/ to `to`, which is there whole or not at all.

        sha256: hex digest that it must have; one that the server tells in Repr-Digest (RFC 9530) is
        checked too. on_bytes gets the length of each piece, for a progress bar. Raises
        DownloadFailed where a digest differs.
        """
        target = Path(to)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")

        def take(answer: http.client.HTTPResponse) -> tuple[str, str | None]:
            digest, count = hashlib.sha256(), 0
            with part.open("wb") as file:
                while piece := answer.read(PIECE_BYTES):
                    file.write(piece)
                    digest.update(piece)
                    count += len(piece)
                    on_bytes(len(piece))
            promised = answer.headers.get("Content-Length")
            if promised is not None and int(promised) != count:
                raise http.client.IncompleteRead(b"", int(promised) - count)
            return digest.hexdigest(), _told_sha256(answer.headers.get("Repr-Digest"))

        try:
            found, told = self._send("GET", path, None, take, again=True)
            for wanted in (sha256, told):
                if wanted is not None and found != wanted:
                    raise DownloadFailed(f"{path} has SHA-256 {found}, not {wanted}.")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, again: bool = True
    ) -> Any:
        text = self._send(method, path, body, lambda answer: answer.read(), again=again)
        return json.loads(text) if text else None

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        take: Callable[[http.client.HTTPResponse], Result],
        *,
        again: bool,
    ) -> Result:
        """What `take` makes of the answer; both are tried again where that does no harm."""
        for attempt in range(self.retries + 1):
            request = urllib.request.Request(
                f"{self.address}/api/{path}",
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={
                    "Authorization": f"Bearer {self._token}",
                    "Content-Type": "application/json",
                    "Accept": "application/json, */*",
                },
            )
            try:
                with self._opener.open(request, timeout=self.timeout) as answer:
                    return take(answer)
            except urllib.error.HTTPError as error:
                may = error.code == TOO_MANY or (again and error.code in OVERLOADED)
                if not may or attempt == self.retries:
                    raise ApiError(error.code, _body_of(error)) from None
                wait = _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)  # of an URLError
                never_sent = isinstance(reason, ConnectionRefusedError)
                if not (again or never_sent) or attempt == self.retries:
                    raise
                wait = None
            if wait is None:
                wait = FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.0)
            time.sleep(min(wait, LONGEST_WAIT_SECONDS))
        raise AssertionError("the last attempt returns or raises")


class ProjectClient:
    """One project of a server."""

    def __init__(self, concord: Concord, slug: str) -> None:
        self.concord = concord
        self.slug = slug
        self._root = f"projects/{quote(slug, safe='')}"

    # the desk

    def claim(self, kind: str = "active") -> JSON | None:
        """A comparison to answer, leased to the caller; None where there is nothing to do now.
        Asked again before it is answered, it is the same one."""
        try:
            return cast(JSON, self._post("claim", {"kind": kind}, again=True))
        except ApiError as error:
            if error.code == "nothing_to_do":
                return None
            raise

    def submit(
        self,
        task: Mapping[str, Any],
        groups: Sequence[Sequence[int]] | None = None,
        *,
        rankings: Sequence[Mapping[str, Any]] | None = None,
        key: str | None = None,
        **more: Any,
    ) -> JSON:
        """Answer a claimed comparison.

        groups: completion ids, best first, those of one group tied; on the axis `overall`. Or
        rankings, one per axis, as /api/docs/ describes them. key: made by the caller where the
        answer may be sent again later; the answer counts once. more: note, judgments, ideal.
        """
        if (groups is None) == (rankings is None):
            raise ValueError("give either groups or rankings")
        if groups is not None:
            outcome = "equal" if len(groups) == 1 else "ranked"
            lists = [list(group) for group in groups]
            rankings = [{"axis": "overall", "outcome": outcome, "groups": lists}]
        body = {"key": key or str(uuid.uuid4()), "rankings": rankings, **more}
        path = f"assignments/{task['id']}/submit"
        return cast(JSON, self._post(path, body, again=True))

    def skip(self, task: Mapping[str, Any], reason: str = "") -> JSON:
        """Give a claimed comparison back and never see it again."""
        return cast(JSON, self._post(f"assignments/{task['id']}/skip", {"reason": reason}))

    def preferences(self, *, mine: bool = False) -> Iterator[JSON]:
        """Answers, newest first: the caller's own, or everybody's to whoever may review."""
        return self._pages("preferences/", **({"mine": "true"} if mine else {}))

    # training

    def jobs(self, *, kind: str | None = None, status: str | None = None) -> Iterator[JSON]:
        """Newest first."""
        wanted = {"kind": kind, "status": status}
        return self._pages("jobs/", **{name: one for name, one in wanted.items() if one})

    def job(self, number: int) -> JSON:
        """With its metrics and the end of its log."""
        return cast(JSON, self._get(f"jobs/{number}/"))

    def train(self, kind: str, **wish: Any) -> JSON:
        """Ask for a job: config, inputs, init, reference, reward, reason, lane. It is queued at
        once and started by a worker. Not sent again by itself, so that one call is one job."""
        return cast(JSON, self._post("jobs/", {"kind": kind, **wish}))

    def cancel(self, number: int) -> JSON:
        """End a queued job; a running one stops soon."""
        return cast(JSON, self._post(f"jobs/{number}/cancel"))

    def wait(
        self,
        number: int,
        *,
        on_change: Callable[[JSON], object] = lambda job: None,
        poll_seconds: float = POLL_SECONDS,
    ) -> JSON:
        """The job once it is done. on_change gets it each time its state or step is new. Raises
        JobFailed where it fails or is cancelled; there is no deadline but the job's own."""
        seen: tuple[Any, ...] = ()
        while True:
            job = self.job(number)
            now = (job["status"], job["step"], job["phase"])
            if now != seen:
                seen = now
                on_change(job)
            if job["status"] in ENDED:
                break
            time.sleep(poll_seconds)
        if job["status"] != "done":
            raise JobFailed(job)
        return job

    def versions(self) -> Iterator[JSON]:
        """Newest first."""
        return self._pages("versions/")

    def version(self, number: int) -> JSON:
        """With its metrics; its gate's verdict is in metrics["gate"] once there is one."""
        return cast(JSON, self._get(f"versions/{number}/"))

    def promote(self, number: int, slot: str | None = None) -> JSON:
        """Put a version in force, whatever its gate said."""
        return cast(JSON, self._post(f"versions/{number}/promote", {"slot": slot} if slot else {}))

    def roll_back(self, slot: str) -> JSON:
        """Put the version before the one in force back."""
        return cast(JSON, self._post(f"slots/{quote(slot, safe='')}/rollback"))

    def in_force(self, slot: str) -> JSON | None:
        """The version that stands in this slot, e.g. `policy`; None where there is none yet."""
        for promotion in self._pages("promotions/"):
            if promotion["slot"] == slot:
                return self.version(promotion["version"])
        return None

    def download_version(self, number: int, to: str | Path, **more: Any) -> Path:
        """A version's directory as a .tar, with its model card. more: as of Concord.download."""
        return self.concord.download(f"{self._root}/versions/{number}/download", to, **more)

    def loop(self) -> JSON:
        """How the project's loop turns."""
        return cast(JSON, self._get("loop"))

    def change_loop(self, **changes: Any) -> JSON:
        """Change these settings of the loop; the rest stays."""
        return cast(JSON, self.concord.patch(f"{self._root}/loop", changes))

    # datasets

    def exports(self) -> list[JSON]:
        """Newest first."""
        return cast(list[JSON], self._get("exports/"))

    def export(self, format: str, **query: Any) -> JSON:
        """Freeze the project's comparisons, those that the query names, and render them. Waits for
        the workers where the project is large. Raises ExportFailed where they could not."""
        made = cast(JSON, self._post("exports/", {"format": format, "query": query}))
        if "state" not in made:
            return made
        while made["state"] == "waiting":
            time.sleep(POLL_SECONDS)
            made = self._get(f"exports/orders/{made['id']}")
        if made["state"] != "done":
            raise ExportFailed(made)
        return cast(JSON, self._get(f"exports/{made['export']}"))

    def download_export(
        self,
        export: Mapping[str, Any],
        folder: str | Path,
        *,
        on_bytes: Callable[[int], object] = lambda count: None,
    ) -> Path:
        """All files of an export into a folder, which may be new. Returns the folder.

        Data files are checked against the SHA-256 that the export names, its documents (manifest
        and card) against the one that the server tells as it sends them.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        digests = {file["name"]: file["sha256"] for file in export["files"]}
        for name in [*digests, *export["documents"]]:
            at = f"{self._root}/exports/{export['id']}/{quote(name, safe='')}"
            place = target / Path(name).name
            self.concord.download(at, place, sha256=digests.get(name), on_bytes=on_bytes)
        return target

    def _get(self, path: str) -> Any:
        return self.concord.get(f"{self._root}/{path}")

    def _post(
        self, path: str, body: Mapping[str, Any] | None = None, *, again: bool = False
    ) -> Any:
        return self.concord.post(f"{self._root}/{path}", body, again=again)

    def _pages(self, path: str, **query: Any) -> Iterator[JSON]:
        return self.concord.pages(f"{self._root}/{path}", **query)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token to wherever it points, and make a GET of a POST."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _with_query(path: str, query: Mapping[str, Any]) -> str:
    if not query:
        return path
    return f"{path}{'&' if '?' in path else '?'}{urlencode(query)}"


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; None for a date or for none."""
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None


def _told_sha256(header: str | None) -> str | None:
    """The hex SHA-256 of a Repr-Digest header, `sha-256=:BASE64:`; None where it has none."""
    for told in (header or "").split(","):
        name, _, value = told.strip().partition("=")
        if name.lower() == "sha-256":
            try:
                return base64.b64decode(value.strip(":"), validate=True).hex()
            except ValueError:
                return value  # which no file has
    return None


def _body_of(error: urllib.error.HTTPError) -> JSON:
    if to := error.headers.get("Location"):
        return {"code": "redirected", "detail": f"The address now is {to}: give that one."}
    text = error.read()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    return {"code": "no_json", "detail": text[:200].decode(errors="replace")}
