"""A version's directory as one zip, streamed: a large model needs no room beside it."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from django.http import Http404, HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.utils.text import get_valid_filename
from django.utils.translation import gettext as _

from annotation.models import Membership, ModelVersion
from annotation.pages.shell import project_page
from annotation.pages.versions import version_of
from annotation.services.versions import directory_of

CHUNK_BYTES = 1 << 20
CARD = "README.md"


class Sink:
    """A file that zipfile writes to and a response takes from."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._written = 0

    def write(self, data: bytes) -> int:
        self._waiting.append(bytes(data))
        self._written += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def tell(self) -> int:
        return self._written

    def take(self) -> bytes:
        taken, self._waiting = b"".join(self._waiting), []
        return taken


def zipped(directory: Path, folder: str, card: str) -> Iterator[bytes]:
    """The directory's files under `folder`, stored as they are; the card where there is none."""
    sink = Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in sorted(p for p in directory.rglob("*") if p.is_file() and not p.is_symlink()):
            name = f"{folder}/{path.relative_to(directory).as_posix()}"
            info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    yield sink.take()
            yield sink.take()
        if not (directory / CARD).is_file():
            archive.writestr(f"{folder}/{CARD}", card)
    yield sink.take()


def card_of(version: ModelVersion) -> str:
    """The model card: what it is, what it was made from, its numbers."""
    edges = {
        "starts from": version.init,
        "KL measured from": version.reference,
        "rewarded by": version.reward,
        "value model from": version.value_init,
    }
    lines = [f"# {version.name}", "", f"A {version.get_kind_display()} made by `{version.stage}`."]
    lines += [
        f"- {words}: {other.name} ({other.sha256[:12]})" for words, other in edges.items() if other
    ]
    if version.snapshot:
        lines.append(f"- dataset: {version.snapshot.sha256} ({version.snapshot.rows} rows)")
    lines += [f"- licence: {version.licence or 'not stated'}", f"- sha256: {version.sha256}", ""]
    return "\n".join(lines)


@project_page()
def download(request: HttpRequest, membership: Membership, version_id: int) -> HttpResponseBase:
    """All files of a version with its card."""
    found = version_of(membership.project, version_id)
    directory = directory_of(found)
    if not directory.is_dir():
        raise Http404(_("The files of this version are not on this machine."))
    name = get_valid_filename(found.name)
    return StreamingHttpResponse(
        zipped(directory, name, card_of(found)),
        content_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{name}.zip"'},
    )
