"""Delete a person's data from a project: their name, their words, and their rows in datasets.

The ledger is append only, so answers stay as rows that say who gave them no more: they are void,
their notes are empty, and no dataset takes them, at any position. A dataset that held one is frozen
again without them; of the old one the row stays, with counts and hash, and its file and whatever
was exported from it go. Models that learned from it are named by their lineage.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict
from annotation.exporters.folder import CARD, MANIFEST, export_folder, exports_of
from annotation.models import (
    Annotator,
    AnnotatorKind,
    Comparison,
    DatasetSnapshot,
    Forgotten,
    Generation,
    Membership,
    ModelVersion,
    Origin,
    Preference,
    Project,
    Tombstone,
    User,
)
from annotation.services.audit import record
from annotation.services.hints import wake_workers_on_commit
from annotation.services.outside import digest_of
from annotation.services.projects import lock_project, remove_member
from annotation.services.reasons import said_why
from annotation.services.snapshots import freeze, path_of
from annotation.services.voiding import AT_ONCE, carry_on, write_order

EVER = datetime(1970, 1, 1, tzinfo=UTC)
MOST_CALLED = 20
ROWS_AT_ONCE = 5000
"""Of all datasets that are looked through while the admin waits."""


def forget_person(*, annotator: Annotator, reason: str, by: User) -> Forgotten:
    """Take the name off their answers, which are void from now on. Datasets follow by replace_all.

    A member of the project is taken out of it. Raises BadInput for no reason, Conflict where it was
    done already, or for the last admin.
    """
    reason = said_why(reason, gettext("Deleting a person's data needs a reason"))
    with transaction.atomic():
        # a dataset that is frozen meanwhile is there by now, or sees that they are forgotten
        lock_project(annotator.project)
        locked = Annotator.objects.select_for_update(no_key=True).get(pk=annotator.pk)
        if Forgotten.objects.filter(annotator=locked).exists():
            raise Conflict(gettext("The data of this person is deleted already."))
        member = Membership.objects.filter(project=locked.project_id, user=locked.user_id).first()
        if locked.user_id is not None and member is not None:
            remove_member(membership=member, by=by)
        made = Forgotten.objects.create(
            project=locked.project,
            annotator=locked,
            outside_digest=digest_of(locked.kind, locked.external_id),
            reason=reason,
            by=by,
        )
        locked.user, locked.external_id = None, ""
        locked.pseudonym = f"forgotten-{token_hex(5)}"
        locked.save(update_fields=["user", "external_id", "pseudonym"])
        Preference.objects.filter(annotator=locked).exclude(note="").update(note="")
        _ask_no_more(locked)
        record(
            action="person.forget",
            target=made,
            project=locked.project,
            actor=by,
            annotator=locked.pseudonym,
            reason=reason,
        )
        until = timezone.now() + timedelta(seconds=1)
        # with the name: whoever is cut off here is a stranger whose answers the next tick voids
        order = write_order(annotator=locked, since=EVER, until=until, reason=reason, by=by)
    annotator.refresh_from_db()
    carry_on(order, most=AT_ONCE)
    return made


def order_forgetting(*, annotator: Annotator, reason: str, by: User) -> Forgotten:
    """forget_person, and the datasets at once where that is quick; else the workers' next tick has
    them, and finished_at is None. Raises as forget_person does."""
    made = forget_person(annotator=annotator, reason=reason, by=by)
    if is_quick(made):
        replace_all(made.pk)
        made.refresh_from_db()
    else:
        wake_workers_on_commit()
    return made


def called(project: Project, said: str) -> list[Annotator]:
    """Annotators who are called exactly this, by pseudonym, user name or the id that they have in
    the dataset they came with: a pseudonym is one person's, an id may be of one of each kind."""
    there = Annotator.objects.filter(project=project, forgotten=None).select_related("user")
    names = Q(pseudonym=said) | Q(user__in=User.objects.filter(username=said))
    outside = Q(kind__in=AnnotatorKind.values, external_id=said) & ~Q(external_id="")
    return list(there.filter(names | outside).order_by("pk")[:MOST_CALLED]) if said else []


def unfinished() -> QuerySet[Forgotten]:
    """Those whose datasets are still to be replaced."""
    return Forgotten.objects.filter(finished_at=None).order_by("pk")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What forgetting somebody would do. snapshots, versions: None where it takes too long to look
    through the files while somebody waits."""

    answers: int
    snapshots: list[DatasetSnapshot] | None
    trained: list[ModelVersion]


def preview(annotator: Annotator) -> Preview:
    """Nothing is written."""
    answers = Preference.objects.filter(annotator=annotator).count()
    there = _there(annotator.project, 0)
    if sum(snapshot.rows for snapshot in there) > ROWS_AT_ONCE:
        return Preview(answers=answers, snapshots=None, trained=[])
    held = [snapshot for snapshot in there if _holds(snapshot, annotator)]
    trained = list(ModelVersion.objects.filter(snapshot__in=held).order_by("pk"))
    return Preview(answers=answers, snapshots=held, trained=trained)


def is_quick(made: Forgotten) -> bool:
    """Whether replacing the datasets takes no longer than somebody waits."""
    return sum(snapshot.rows for snapshot in _there(made.project, made.pk)) <= ROWS_AT_ONCE


def replace_all(forgotten_id: int) -> None:
    """Replace each dataset that holds data of a person, then delete what was exported from it.
    Safe to run twice."""
    made = Forgotten.objects.select_related("annotator", "project").get(pk=forgotten_id)
    if made.finished_at:
        return
    for snapshot in _there(made.project, made.pk):
        if _holds(snapshot, made.annotator):
            _bury(snapshot, made)
    _withdraw_exports(made)
    now = timezone.now()
    with transaction.atomic():
        if Forgotten.objects.filter(pk=made.pk, finished_at=None).update(finished_at=now):
            record(
                action="person.forgotten",
                target=made,
                project=made.project,
                actor=made.by,
                snapshots=[stone.snapshot.sha256 for stone in _stones(made)],
            )


def _ask_no_more(annotator: Annotator) -> None:
    """Take what they alone wrote out of the queue."""
    open_ones = Comparison.objects.filter(
        project=annotator.project_id, retired_at=None, entries__completion__in=_own(annotator)
    )
    Comparison.objects.filter(pk__in=list(open_ones.values_list("pk", flat=True))).update(
        retired_at=timezone.now()
    )


def _own(annotator: Annotator) -> list[int]:
    """Completions that nobody but them wrote."""
    own = Generation.objects.filter(annotator=annotator, origin=Origin.DEMONSTRATION)
    others = Generation.objects.filter(completion=OuterRef("completion")).exclude(
        annotator=annotator.pk, annotator__isnull=False
    )
    return list(own.filter(~Exists(others)).values_list("completion", flat=True))


def _stones(made: Forgotten) -> QuerySet[Tombstone]:
    return made.tombstones.select_related("snapshot").order_by("pk")


def _there(project: Project, since: int) -> list[DatasetSnapshot]:
    """Datasets that may hold somebody: not replaced, and frozen before that deletion (0 = all)."""
    found = DatasetSnapshot.objects.filter(project=project, tombstone=None).exclude(kind="prompts")
    return [
        one
        for one in found.order_by("pk")
        if not since or one.ledger_position.get("forgotten", 0) < since
    ]


def _holds(snapshot: DatasetSnapshot, annotator: Annotator) -> bool:
    """Whether the file names them, or holds an ideal answer that they wrote."""
    path = path_of(snapshot)
    if not path.is_file():
        return False
    if snapshot.kind == "comparisons":
        # as json.dumps writes it; a text that says so has its quotes escaped
        names = [f'"annotator": "{annotator.pk}"'.encode()]
        texts = [f'{{"id": "{pk}", "text": '.encode() for pk in _own(annotator)]
        return _says(path, [*names, *texts])
    written = Generation.objects.filter(annotator=annotator, origin=Origin.DEMONSTRATION)
    ids = written.filter(completion__prompt__project=annotator.project_id)
    return _says(
        path, [f'"id": "{pk}",'.encode() for pk in ids.values_list("completion", flat=True)]
    )


def _says(path: Path, words: list[bytes]) -> bool:
    with path.open("rb") as file:
        return any(word in line for line in file for word in words)


def _bury(snapshot: DatasetSnapshot, made: Forgotten) -> None:
    query = {**snapshot.query, "up_to": snapshot.ledger_position}
    try:
        successor = freeze(project=made.project, kind=snapshot.kind, query=query, by=made.by)
    except BadInput:  # its position can't be told again
        successor = None
    with transaction.atomic():
        _stone, is_new = Tombstone.objects.get_or_create(
            snapshot=snapshot, defaults={"successor": successor, "forgotten": made}
        )
        if is_new:
            record(
                action="snapshot.bury",
                target=snapshot,
                project=made.project,
                actor=made.by,
                sha256=snapshot.sha256,
                successor=successor.sha256 if successor else None,
                reason=made.reason,
            )
    path_of(snapshot).unlink(missing_ok=True)


def _withdraw_exports(made: Forgotten) -> None:
    """Of exports from buried datasets, and of all raw ones of before, the data files go; manifest
    and card stay and say so by what is missing."""
    buried = set(
        Tombstone.objects.filter(snapshot__project=made.project_id).values_list(
            "snapshot__sha256", flat=True
        )
    )
    for manifest in exports_of(made.project):
        of_before = int(manifest["position"].get("forgotten", 0)) < made.pk
        if manifest["snapshot"]["sha256"] in buried or (manifest["format"] == "raw" and of_before):
            folder = export_folder(made.project, manifest["id"])
            for path in _data_files(folder):
                path.unlink(missing_ok=True)


def _data_files(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield from (path for path in folder.iterdir() if path.name not in (MANIFEST, CARD))
