"""Labelers over HTTP, in a process of their own: claim, answer, and how long each took.

    python tests/benchmarks/desk_client.py < job.json > result.json

The job: {"system": "concord" or "label-studio", "port", "tokens", "labelers", "seconds",
"warm_up", "think", "project"}. One connection per labeler, kept open; a request's time is that from
its first byte sent to the answer's last received. Nothing but the standard library, so that the
client takes as little of the machine as it can.
"""

import asyncio
import json
import sys
import time
import uuid
from typing import Any


class Connection:
    """One kept-alive HTTP/1.1 connection."""

    def __init__(self, port: int, authorization: str) -> None:
        self.port = port
        self.head = f"Host: 127.0.0.1:{port}\r\nAuthorization: {authorization}\r\n"
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any, float]:
        """Status, JSON and seconds."""
        content = b"" if body is None else json.dumps(body).encode()
        request = (
            f"{method} {path} HTTP/1.1\r\n{self.head}Content-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        ).encode() + content
        started = time.perf_counter()
        for attempt in (1, 2):
            if self.streams is None:
                self.streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self.streams
            try:
                writer.write(request)
                status, found = await self._answer(reader)
                break
            except (ConnectionError, asyncio.IncompleteReadError):
                self.streams = None  # a server may close a connection between two requests
                if attempt == 2:
                    raise
        return status, found, time.perf_counter() - started

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, Any]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length, chunks = 0, b""
        if "transfer-encoding: chunked" in head:
            while size := int(await reader.readline(), 16):
                chunks += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        elif "content-length:" in head:
            length = int(head.split("content-length:", 1)[1].split("\r\n", 1)[0])
            chunks = await reader.readexactly(length)
        if "connection: close" in head or head.startswith("http/1.0"):
            self.streams[1].close()  # type: ignore[index]
            self.streams = None
        status = int(head.split(" ", 2)[1])
        is_json = "application/json" in head and chunks
        return status, json.loads(chunks) if is_json else None


async def concord(connection: Connection, think: float, _: Any) -> tuple[float, float] | None:
    """One cycle's seconds of claim and submit; None where there was nothing to do."""
    status, task, claimed = await connection.ask("POST", "/api/projects/desk/claim", {})
    if status == 404:
        return None
    require(status == 200, status, task)
    await asyncio.sleep(think)
    groups = [[one["id"]] for one in task["completions"]]
    answer = {
        "key": f"bench {uuid.uuid4().hex}",
        "rankings": [{"axis": "overall", "outcome": "ranked", "groups": groups}],
    }
    path = f"/api/projects/desk/assignments/{task['id']}/submit"
    status, stored, submitted = await connection.ask("POST", path, answer)
    require(status == 201, status, stored)
    return claimed, submitted


async def label_studio(connection: Connection, think: float, project: Any) -> Any:
    """The same for Label Studio: its next task, then an annotation of it."""
    status, task, claimed = await connection.ask("GET", f"/api/projects/{project}/next")
    if status == 404:
        return None
    require(status == 200, status, task)
    await asyncio.sleep(think)
    result = {
        "from_name": "better", "to_name": "first,second", "type": "pairwise",
        "value": {"selected": "left"},
    }  # fmt: skip
    path = f"/api/tasks/{task['id']}/annotations/?project={project}"
    body = {"result": [result], "lead_time": 1.0}
    status, stored, submitted = await connection.ask("POST", path, body)
    require(status == 201, status, stored)
    return claimed, submitted


class Failed(Exception):
    """The server broke down over a request; the labeler tries again."""


def require(right: bool, status: int, found: Any) -> None:
    """Raises Failed for a server's error, RuntimeError for what the client must have got wrong."""
    if not right:
        raise (Failed if status >= 500 else RuntimeError)(f"{status}: {str(found)[:300]}")


async def labeler(job: dict[str, Any], number: int, clock: list[float], out: list[Any]) -> None:
    """Work until the time is over; only cycles that began after the warm-up are noted."""
    cycle = concord if job["system"] == "concord" else label_studio
    word = "Bearer" if job["system"] == "concord" else "Token"
    connection = Connection(job["port"], f"{word} {job['tokens'][number]}")
    await asyncio.sleep(job["think"] * number / job["labelers"])
    while (began := time.perf_counter()) < clock[1]:
        try:
            took = await cycle(connection, job["think"], job.get("project"))
        except Failed:
            took = "failed"
        counts = began >= clock[0] and time.perf_counter() <= clock[1]
        out.append((counts, took))
        if took is None or took == "failed":
            await asyncio.sleep(0.2)


async def main(job: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    clock = [start + job["warm_up"], start + job["warm_up"] + job["seconds"]]
    out: list[Any] = []
    await asyncio.gather(*(labeler(job, one, clock, out) for one in range(job["labelers"])))
    failed = sum(1 for _, took in out if took == "failed")
    out = [(counts, took) for counts, took in out if took != "failed"]
    noted = [took for counts, took in out if counts and took]
    return {
        "failed": failed,
        "acknowledged": sum(1 for _, took in out if took),
        "nothing": sum(1 for _, took in out if took is None),
        "cycles_per_second": len(noted) / job["seconds"],
        "claim": _percentiles([one for one, _ in noted]),
        "submit": _percentiles([one for _, one in noted]),
    }


def _percentiles(seconds: list[float]) -> list[float]:
    """p50, p95 and p99 in milliseconds."""
    ordered = sorted(seconds) or [float("nan")]
    return [
        1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]
        for share in (0.5, 0.95, 0.99)
    ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
