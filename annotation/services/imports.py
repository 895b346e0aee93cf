"""A file that somebody hands in: kept, looked at whole, and only then imported.

Looking reads every row and writes none: a file that breaks off is refused before its first row is
stored. The row is the message: small files are done before the page comes back, the rest by the
workers. An import that was cut off goes on behind the last row that it had told of; what it stored
beyond that is recognised.
"""

import hashlib
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from io import SEEK_END
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.text import get_valid_filename
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict
from annotation.importers.formats import SOURCE_OF, Reading, fitting_formats
from annotation.importers.lines import GZIP_MAGIC, BadRow, RawRow
from annotation.importers.load import Load, Outcome, RowReport, read_as
from annotation.importers.parquet import is_parquet
from annotation.importers.rows import Refused, parse_json
from annotation.importers.stores import source_for
from annotation.models import AT_WORK, FileImport, ImportState, Project, User
from annotation.services import claims
from annotation.services.audit import record
from annotation.services.hints import wake_workers_on_commit
from annotation.storable import require_storable

SMALL_BYTES, SMALL_PACKED_BYTES = 1 << 20, 1 << 15
"""A file of no more is looked at while its owner waits; packed (gzip, Parquet) it holds more."""
SMALL_ROWS = 200
"""And imported, if the file is small too: a few rows may be long ones."""
REFUSALS_KEPT = 50
MOST_ATTEMPTS = 3
ROWS_PER_PULSE = 500
PULSE_SECONDS = 1.0
KEPT_DAYS = 7
"""A file that nobody imports goes after this."""


def receive_file(*, project: Project, name: str, pieces: Iterable[bytes], by: User) -> FileImport:
    """Keep a file's bytes. Raises BadInput where there are none, or more than a file may have.

    The same bytes handed in again while they wait are the same import.
    """
    require_storable(name)
    name = get_valid_filename(name.strip() or "file")[-100:]
    folder = Path(settings.ARTIFACTS_DIR) / "imports" / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        sha256, num_bytes = _write(folder / name, pieces)
        if not num_bytes:
            raise BadInput(gettext("%(name)s is empty.") % {"name": name})
        one = FileImport(
            project=project,
            name=name,
            path=str((folder / name).relative_to(settings.ARTIFACTS_DIR)),
            sha256=sha256,
            num_bytes=num_bytes,
            by=by,
        )
        one.reading = _first_guess(path_of(one))
        kept = _save_once(one)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if kept is not one:
        shutil.rmtree(folder, ignore_errors=True)
    return kept


@transaction.atomic
def _save_once(one: FileImport) -> FileImport:
    """It, or the import of the same bytes that waits already; two uploads at once come here one
    after the other."""
    Project.objects.select_for_update(no_key=True).get(pk=one.project_id)
    same = FileImport.objects.filter(
        project=one.project, sha256=one.sha256, by=one.by, name=one.name
    )
    found = same.exclude(state=ImportState.DONE).order_by("-pk").first()
    if found is None:
        one.save()
    return found or one


def _write(path: Path, pieces: Iterable[bytes]) -> tuple[str, int]:
    digest, num_bytes = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            num_bytes += len(piece)
            if num_bytes > settings.UPLOAD_BYTES:
                raise BadInput(
                    gettext(
                        "%(name)s has more than %(most)s bytes, which is as much as may be handed "
                        "in here; import_preferences takes it from a shell."
                    )
                    % {"name": path.name, "most": f"{settings.UPLOAD_BYTES:,}"}
                )
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest(), num_bytes


def _first_guess(path: Path) -> dict[str, Any]:
    """The one format that fits; none where several do, or none."""
    fitting = fitting_formats(path)
    return {"format": fitting[0]} if len(fitting) == 1 else {}


def path_of(one: FileImport) -> Path:
    """Where the file lies."""
    return Path(settings.ARTIFACTS_DIR) / one.path


def reading_of(one: FileImport) -> Reading:
    """What it is taken for. Raises BadInput while that isn't said."""
    if "format" not in one.reading:
        raise BadInput(gettext("Say first what format the file has."))
    return Reading(**one.reading)


def remember_reading(
    *, one: FileImport, reading: Reading, source: str, licence: str, terms: str
) -> None:
    """Keep what was said of a file so far, where something is still to be said."""
    require_storable(source, licence, terms)
    is_idle = ~Q(state__in=(*AT_WORK, ImportState.DONE))
    FileImport.objects.filter(is_idle, pk=one.pk).update(
        state=ImportState.NEW,
        reading=_as_json(reading),
        source_name=source,
        licence=licence,
        terms=terms,
        account={},
        error="",
    )


def _as_json(reading: Reading) -> dict[str, Any]:
    return {name: getattr(reading, name) for name in reading.__slots__}


def ask_for_look(
    *, one: FileImport, reading: Reading, source: str = "", licence: str = "", terms: str = ""
) -> FileImport:
    """Say what a file is and whose, and have it read to its end; nothing is imported.

    Raises BadInput for columns, a source or a batch that cannot be, Conflict while it is at work or
    done.
    """
    require_storable(source, licence, terms)
    source = source.strip() or SOURCE_OF.get(reading.format, reading.format)
    reading.require_fit(path_of(one))
    with transaction.atomic():  # asked for what is wrong with them, and kept by the import alone
        kept = source_for(project=one.project, name=source, licence=licence.strip(), terms=terms)
        reading.store(one.project, kept)
        transaction.set_rollback(True)
    is_idle = ~Q(state__in=(*AT_WORK, ImportState.DONE))
    asked = FileImport.objects.filter(is_idle, pk=one.pk).update(
        state=ImportState.CHECKING,
        reading=_as_json(reading),
        source_name=source,
        licence=licence.strip(),
        terms=terms,
        account={},
        error="",
        rows_done=0,
        attempt=0,
        heartbeat_at=None,
    )
    if not asked:
        raise Conflict(gettext("The file is at work or imported already."))
    return _begun(one, at_once=_is_small(one))


def start_import(*, one: FileImport, by: User) -> FileImport:
    """Import a file that was looked at. Asked twice it happens once. Raises Conflict where it is
    not ready."""
    with transaction.atomic():
        started = FileImport.objects.filter(pk=one.pk, state=ImportState.CHECKED).update(
            state=ImportState.IMPORTING, attempt=0, heartbeat_at=None, by=by
        )
        if started:
            record(
                action="import.start",
                target=one,
                project=one.project,
                actor=by,
                file=one.name,
                sha256=one.sha256,
            )
    one.refresh_from_db()
    if not started:
        if one.state in (ImportState.IMPORTING, ImportState.DONE):
            return one
        raise Conflict(gettext("Look at the file first: it is not ready to be imported."))
    return _begun(one, at_once=one.account["rows"] <= SMALL_ROWS and _is_small(one))


def discard_import(*, one: FileImport, by: User) -> None:
    """Forget a file that was not imported. Raises Conflict while it is at work or once it is in."""
    path = path_of(one)
    is_idle = ~Q(state__in=(*AT_WORK, ImportState.DONE))
    if not FileImport.objects.filter(is_idle, pk=one.pk).delete()[0]:
        raise Conflict(gettext("The file is at work or imported already."))
    shutil.rmtree(path.parent, ignore_errors=True)


def waiting_imports() -> QuerySet[FileImport]:
    """What somebody should work on: nobody does, or whoever did fell silent."""
    return FileImport.objects.filter(claims.is_unattended(), state__in=AT_WORK).order_by("pk")


def forget_old_files() -> None:
    """Files that were handed in long ago and never imported go."""
    old = timezone.now() - timedelta(days=KEPT_DAYS)
    is_idle = ~Q(state__in=(*AT_WORK, ImportState.DONE))
    for one in FileImport.objects.filter(is_idle, created_at__lt=old).exclude(path=""):
        shutil.rmtree(path_of(one).parent, ignore_errors=True)
        one.delete()


def work_on(pk: int) -> None:
    """Look at a file or import it, whichever it waits for. Safe to run twice at once."""
    one = waiting_imports().filter(pk=pk).first()
    if one is None or not claims.claim(one):
        return
    try:
        if one.attempt > MOST_ATTEMPTS:
            raise BadInput(f"Its worker vanished {MOST_ATTEMPTS} times; it is not tried again.")
        if one.state == ImportState.CHECKING:
            _look(one)
        else:
            _import(one)
    except BadInput as error:  # an account of rows that were imported before it stays
        claims.let_go(one, ImportState.FAILED, error=error.detail)
    except claims.Lost:
        return


def _begun(one: FileImport, *, at_once: bool) -> FileImport:
    if at_once:
        work_on(one.pk)
    else:
        wake_workers_on_commit()
    one.refresh_from_db()
    return one


def _is_small(one: FileImport) -> bool:
    path = path_of(one)
    with path.open("rb") as file:
        is_packed = file.read(2) == GZIP_MAGIC
    most = SMALL_PACKED_BYTES if is_packed or is_parquet(path) else SMALL_BYTES
    return one.num_bytes <= most


@dataclass(slots=True)
class Account:
    """What was found in a file, or became of it."""

    total: int = 0
    """Rows of the file, once it was looked at."""
    rows: int = 0
    good: int = 0
    already_there: int = 0
    """Of the good ones; known once they are imported."""
    refused: int = 0
    refusals: list[tuple[int, str]] = field(default_factory=list)
    """Line and reason, the first few."""
    left_out: dict[str, int] = field(default_factory=dict)

    def count(self, line: int, reason: str = "", left_out: Iterable[str] = ()) -> None:
        """One row; reason: why it is refused."""
        self.rows += 1
        if reason:
            self.refused += 1
            if len(self.refusals) < REFUSALS_KEPT:
                self.refusals.append((line, reason))
            return
        self.good += 1
        for name in set(left_out):
            if name in self.left_out or len(self.left_out) < REFUSALS_KEPT:
                self.left_out[name] = self.left_out.get(name, 0) + 1

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def _look(one: FileImport) -> None:
    """Read the file to its end. Raises BadInput where it breaks off, or nothing in it would do."""
    path, account = path_of(one), Account()
    refusal = ""  # of the row read last, whether the account keeps it or not
    parse = reading_of(one).parse()
    raw: RawRow | BadRow | None = None
    for raw in read_as(path, one.reading["format"]):
        if isinstance(raw, BadRow):
            if raw.ends:
                raise BadInput(_broken(one, raw.line, raw.reason))
            refusal = raw.reason
            account.count(raw.line, refusal)
        else:
            try:
                parsed = parse(parse_json(raw))
            except Refused as refused:
                refusal = str(refused)
                account.count(raw.line, refusal)
            else:
                refusal = ""
                account.count(raw.line, left_out=_left_out(parsed))
        if account.rows % ROWS_PER_PULSE == 0:
            claims.pulse(one, rows_done=account.rows)
    if raw is None:
        raise BadInput(f"{one.name} holds no row.")
    if refusal and _is_cut_off(path, refusal):
        raise BadInput(_broken(one, raw.line, "the last row breaks off"))
    if not account.good:
        line, reason = account.refusals[0]
        raise BadInput(
            f"Not one of the {account.rows:,} rows can be imported as "
            f"{one.reading['format']}; line {line}: {reason}."
        )
    account.total = account.rows
    claims.let_go(one, ImportState.CHECKED, account=account.as_json(), rows_done=0)


def _left_out(parsed: Any) -> list[str]:
    rows = parsed if isinstance(parsed, list) else [parsed]
    return [name for row in rows for name in getattr(row, "left_out", ())]


def _broken(one: FileImport, line: int, reason: str) -> str:
    return f"{one.name}, line {line}: {reason}. Nothing was imported; was it uploaded to its end?"


def _is_cut_off(path: Path, refusal: str) -> bool:
    """Whether the last line, which is refused, lacks its newline. refusal: why."""
    if is_parquet(path):
        return False
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP_MAGIC
        file.seek(-1, SEEK_END)
        ended = file.read(1) == b"\n"
    return not zipped and not ended and (refusal.startswith("not JSON") or "cells, the" in refusal)


def _import(one: FileImport) -> None:
    account = Account(**one.account) if one.rows_done else Account(one.account["total"])
    told = timezone.now()

    def on_row(row: RowReport) -> None:
        nonlocal told
        refused = row.outcome == Outcome.REFUSED
        account.count(row.line, row.reason if refused else "", row.left_out)
        account.already_there += row.outcome == Outcome.ALREADY_THERE
        if (timezone.now() - told).total_seconds() >= PULSE_SECONDS:
            told = timezone.now()
            claims.pulse(one, rows_done=account.rows, account=account.as_json())

    reading = reading_of(one)
    Load(
        project=one.project,
        path=path_of(one),
        source=partial(
            source_for,
            project=one.project,
            name=one.source_name,
            licence=one.licence,
            terms=one.terms,
        ),
        store_for=partial(reading.store, one.project),
        format=reading.format,
        on_row=on_row,
        skip=one.rows_done,
        by=one.by,
    ).run()
    path = path_of(one)
    claims.let_go(
        one, ImportState.DONE, account=account.as_json(), rows_done=account.rows, path="",
        finished_at=timezone.now(),
    )  # fmt: skip
    shutil.rmtree(path.parent, ignore_errors=True)
