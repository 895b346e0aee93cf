"""Files to the browser in pieces, under ASGI and WSGI alike, never whole in memory.

Django gathers a plain iterator whole before it sends it under ASGI, and an async one under WSGI; so
the response is given whichever fits the request.
"""

import base64
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.http import content_disposition_header

PIECE_BYTES = 1 << 18


def attachment(
    request: HttpRequest,
    pieces: Iterator[bytes],
    *,
    name: str,
    num_bytes: int | None = None,
    sha256: str = "",
) -> StreamingHttpResponse:
    """A download called `name`; nothing in it is shown or run by the browser.

    sha256: hexadecimal, told in the header Repr-Digest (RFC 9530).
    """
    content = _in_turns(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(content, content_type="application/octet-stream")
    response["Content-Disposition"] = content_disposition_header(True, name)
    response["Cache-Control"] = "private, no-store"
    if sha256:
        digest = base64.b64encode(bytes.fromhex(sha256)).decode()
        response["Repr-Digest"] = f"sha-256=:{digest}:"
    if num_bytes is not None:
        response["Content-Length"] = str(num_bytes)
    return response


async def _in_turns(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    step = sync_to_async(lambda: next(pieces, b""), thread_sensitive=False)
    while piece := await step():
        yield piece


def file_pieces(path: Path) -> Iterator[bytes]:
    """A file's bytes."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def tar_pieces(folder: Path, *, root: str, extra: dict[str, bytes]) -> Iterator[bytes]:
    """The folder's files as a tar archive below `root/`, by name; links are left out.

    extra: files that are not on disk, name -> content. Owners and times stay at home.
    """
    for name, content in sorted(extra.items()):
        yield _tar_header(f"{root}/{name}", len(content))
        yield content + _padding(len(content))
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        size = path.stat().st_size
        yield _tar_header(f"{root}/{path.relative_to(folder).as_posix()}", size)
        yield from file_pieces(path)
        if padding := _padding(size):
            yield padding
    yield b"\0" * 2 * tarfile.BLOCKSIZE


def _tar_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(format=tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return b"\0" * (-size % tarfile.BLOCKSIZE)
