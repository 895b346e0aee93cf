"""The audit log in words: what was done, and the page of what it was done to."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from django.db.models import Model
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import (
    Annotator,
    AuditEntry,
    Batch,
    FileImport,
    ModelVersion,
    Project,
    Source,
    Tag,
    TrainingJob,
    User,
)

WORDS = {
    "annotator.sensitive": gettext_lazy("chose about sensitive questions"),
    "batch.change": gettext_lazy("changed a batch"),
    "annotator.fail": gettext_lazy("an annotator did not pass the qualification"),
    "annotator.lift": gettext_lazy("let a stopped annotator work on"),
    "annotator.pass": gettext_lazy("an annotator is qualified"),
    "annotator.recover": gettext_lazy("an annotator is above the bar again"),
    "annotator.stop": gettext_lazy("an annotator was stopped"),
    "annotator.try": gettext_lazy("gave an annotator another try"),
    "annotator.warn": gettext_lazy("an annotator fell below the bar"),
    "batch.pause": gettext_lazy("paused a batch"),
    "batch.resume": gettext_lazy("resumed a batch"),
    "import.start": gettext_lazy("had a file taken in"),
    "ledger.import": gettext_lazy("imported a raw export"),
    "comparison.ask_again": gettext_lazy("asked for one more answer"),
    "study.request": gettext_lazy("asked what votes contributed"),
    "review.send": gettext_lazy("sent comparisons to review"),
    "comparison.reopen": gettext_lazy("put a comparison back into the queue"),
    "comparison.retire": gettext_lazy("retired a comparison"),
    "comparison.tag": gettext_lazy("tagged comparisons"),
    "comparison.untag": gettext_lazy("took a tag from comparisons"),
    "decision.make": gettext_lazy("decided a comparison"),
    "decision.void": gettext_lazy("voided a decision"),
    "demo.load": gettext_lazy("loaded the demo"),
    "export.make": gettext_lazy("made an export"),
    "file.import": gettext_lazy("imported a file"),
    "gold.make": gettext_lazy("made a gold question"),
    "gold.retire": gettext_lazy("took a gold question out"),
    "gold.start_over": gettext_lazy("let experts answer a gold question anew"),
    "gold.vote": gettext_lazy("answered a gold question as an expert"),
    "guideline.new": gettext_lazy("wrote a guideline"),
    "invitation.accept": gettext_lazy("joined by an invitation"),
    "invitation.make": gettext_lazy("made an invitation"),
    "invitation.revoke": gettext_lazy("revoked an invitation"),
    "job.cancel": gettext_lazy("asked a job to stop"),
    "job.cancelled": gettext_lazy("a job was stopped"),
    "job.done": gettext_lazy("a job is done"),
    "job.failed": gettext_lazy("a job failed"),
    "job.lost": gettext_lazy("a job's worker vanished"),
    "job.request": gettext_lazy("asked for a job"),
    "live.setup": gettext_lazy("changed who answers in the chat"),
    "member.add": gettext_lazy("added a member"),
    "member.pool": gettext_lazy("changed a member's languages or skills"),
    "member.remove": gettext_lazy("removed a member"),
    "member.role": gettext_lazy("changed a member's role"),
    "person.forget": gettext_lazy("asked for a person's data to be deleted"),
    "person.forgotten": gettext_lazy("a person's data was deleted"),
    "preference.revise": gettext_lazy("revised an answer"),
    "preference.void": gettext_lazy("voided an answer"),
    "project.checks": gettext_lazy("changed how annotators are checked"),
    "project.create": gettext_lazy("made the project"),
    "project.loop": gettext_lazy("changed how the loop runs"),
    "project.retrain_rule": gettext_lazy("changed when it trains"),
    "project.sensitive": gettext_lazy("capped sensitive questions"),
    "report.decide": gettext_lazy("answered a report"),
    "review.bar": gettext_lazy("set the bar of review"),
    "question.answer": gettext_lazy("answered a question"),
    "question.ask": gettext_lazy("asked a question"),
    "question.close": gettext_lazy("closed a question"),
    "question.publish": gettext_lazy("published an answer in the FAQ"),
    "range_void.done": gettext_lazy("voided an annotator's answers"),
    "range_void.order": gettext_lazy("ordered an annotator's answers voided"),
    "scheme.new": gettext_lazy("made a scheme"),
    "send_back.declined": gettext_lazy("left an answer as it is, with words"),
    "send_back.new": gettext_lazy("sent an answer back"),
    "send_back.withdrawn": gettext_lazy("took a send-back back"),
    "snapshot.bury": gettext_lazy("put a tombstone in place of a dataset"),
    "snapshot.freeze": gettext_lazy("froze a dataset"),
    "snapshot.override": gettext_lazy("let non-commercial rows into a model that ships"),
    "source.change": gettext_lazy("changed a source"),
    "source.licence": gettext_lazy("noted a source's licence"),
    "test.look": gettext_lazy("looked at figures of the test split"),
    "version.gate": gettext_lazy("a version was judged"),
    "version.promote": gettext_lazy("put a version in force"),
    "version.register": gettext_lazy("registered a version"),
    "version.look_again": gettext_lazy("had an undecided version judged again"),
    "version.roll_back": gettext_lazy("went back to an earlier version"),
}
"""What a project's log can hold; a test looks for actions that are missing here."""

TABLES = {
    "annotator": gettext_lazy("annotator"),
    "batch": gettext_lazy("batch"),
    "comparison": gettext_lazy("comparison"),
    "datasetsnapshot": gettext_lazy("dataset"),
    "decision": gettext_lazy("decision"),
    "fileimport": gettext_lazy("file"),
    "forgotten": gettext_lazy("deletion"),
    "golditem": gettext_lazy("gold question"),
    "guideline": gettext_lazy("guideline"),
    "invitation": gettext_lazy("invitation"),
    "modelversion": gettext_lazy("version"),
    "preference": gettext_lazy("preference"),
    "project": gettext_lazy("project"),
    "question": gettext_lazy("question"),
    "rangevoid": gettext_lazy("order"),
    "report": gettext_lazy("report"),
    "scheme": gettext_lazy("scheme"),
    "sendback": gettext_lazy("send-back"),
    "source": gettext_lazy("source"),
    "study": gettext_lazy("study"),
    "tag": gettext_lazy("tag"),
    "trainingjob": gettext_lazy("job"),
    "user": gettext_lazy("user"),
}
"""What rows of a table are called; a test looks for tables that are missing here."""

NAMED: Mapping[str, tuple[type[Model], Callable[[Any], object]]] = {
    "annotator": (Annotator, attrgetter("pseudonym")),
    "batch": (Batch, attrgetter("name")),
    "fileimport": (FileImport, attrgetter("name")),
    "modelversion": (ModelVersion, attrgetter("name")),
    "project": (Project, attrgetter("name")),
    "source": (Source, attrgetter("name")),
    "tag": (Tag, attrgetter("name")),
    "trainingjob": (TrainingJob, lambda job: f"{job.get_kind_display()} #{job.pk}"),
    "user": (User, lambda user: user.get_username()),
}
"""Tables whose rows have a name that people know them by."""

PAGES = {
    "annotator": "gold-person",
    "batch": "batch",
    "fileimport": "import",
    "golditem": "gold-item",
    "modelversion": "version",
    "preference": "preference",
    "question": "question",
    "trainingjob": "job",
}
"""Tables whose rows have a page of their own."""

AMONG = {
    "datasetsnapshot": "export",
    "decision": "reviews",
    "forgotten": "forget",
    "guideline": "guideline-history",
    "invitation": "invitations",
    "rangevoid": "voids",
    "report": "gold",
    "scheme": "members",
    "sendback": "preferences",
    "source": "imports",
    "study": "analysis-contributions",
    "tag": "search",
    "user": "members",
}
"""Tables whose rows stand together on a page."""

OF_ACTIONS = {
    "comparison.ask_again": "search",
    "live.setup": "conversations",
    "project.checks": "gold",
    "project.retrain_rule": "overview",
    "project.sensitive": "batches",
    "review.bar": "reviews",
    "review.send": "reviews",
    "test.look": "head-to-head",
}
"""Pages of what was done to no row, or to the whole project."""


@dataclass(frozen=True)
class Line:
    """One entry as the overview shows it."""

    when: datetime
    who: str
    what: str
    target: str
    """What people call it: a name, or a word and a number, e.g. question 12."""
    url: str
    """The page where it is seen; empty where there is none."""


def lines(project: Project, entries: Sequence[AuditEntry]) -> list[Line]:
    """Entries of one project, in their order."""
    places = [entry.target.partition(":") for entry in entries]
    rows = _rows([(table, number) for table, _colon, number in places])
    return [
        Line(
            when=entry.created_at,
            who=entry.actor.get_username() if entry.actor else _("a worker or a command"),
            what=str(WORDS.get(entry.action, entry.action)),
            target=_named(table, number, rows),
            url=_page_of(project, entry.action, table, number, rows),
        )
        for entry, (table, _colon, number) in zip(entries, places, strict=True)
    ]


def _rows(places: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """(table, number) -> row, of tables whose rows have names: a query for each table."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for table, number in places:
        if table in NAMED and number.isdigit():
            wanted[table].add(int(number))
    return {
        (table, str(pk)): row
        for table, pks in wanted.items()
        for pk, row in NAMED[table][0]._default_manager.in_bulk(pks).items()
    }


def _named(table: str, number: str, rows: Mapping[tuple[str, str], Any]) -> str:
    row = rows.get((table, number))
    if row is not None and (name := str(NAMED[table][1](row))):
        return name
    return f"{TABLES.get(table, table)} {number}".strip()


def _page_of(
    project: Project, action: str, table: str, number: str, rows: Mapping[tuple[str, str], Any]
) -> str:
    """The row's own page, the page where it stands among others, or that of what was done."""
    if table in PAGES and number.isdigit() and (table not in NAMED or (table, number) in rows):
        return reverse(PAGES[table], args=[project.slug, int(number)])
    if name := OF_ACTIONS.get(action) or AMONG.get(table):
        return reverse(name, args=[project.slug])
    return ""
