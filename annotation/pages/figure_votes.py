"""The votes behind figures that stand outside of Analysis: on Quality, head to head, a gate."""

from collections.abc import Callable

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import Membership, ModelVersion, Preference, Project, Purpose, Split
from annotation.pages.analysis import whose_of
from annotation.pages.behind import Behind, list_of
from annotation.pages.head_to_head import name_of
from annotation.pages.quality import BY_NAMES, WHOSE
from annotation.pages.shell import project_page, project_template
from annotation.permissions import WATCH
from annotation.services import battles
from annotation.services.lineage import votes_on
from annotation.services.quality import newest_answers, read_rows
from annotation.services.slices import BY, answers_of, answers_of_all
from annotation.services.versions import versions_of

LISTS = "lists"
MOST_NAME = 300


def agreement(project: Project, request: HttpRequest) -> Behind:
    """First answers that an axis's agreement is made of, whole or of one part of it."""
    asked, kinds = request.GET, WHOSE[whose_of(request)][1]
    by, axis, label = asked.get("by", ""), asked.get("axis", ""), asked.get("label", "")
    of_lists = asked.get("pairs") == LISTS
    rows = read_rows(project, kinds)
    heading = _("Agreement: %(name)s") % {"name": axis[:MOST_NAME]}
    if by in BY:
        counted = answers_of(rows, by, axis=axis, label=label, of_lists=of_lists)
        heading = f"{heading} · {BY_NAMES[by]}: {label[:MOST_NAME] or '–'}"
    else:
        counted = answers_of_all(rows, axis=axis, of_lists=of_lists)
    found, _votes, _more = newest_answers(project, kinds)
    answers = found.order_by("-pk").values_list("pk", "comparison", "annotator")
    ids = [pk for pk, unit, who in answers if (unit, who) in counted]
    return Behind(heading=heading, ids=ids, num_votes=len(ids))


def annotator(project: Project, request: HttpRequest) -> Behind:
    """First answers of one annotator."""
    name = request.GET.get("name", "")
    found, _votes, _more = newest_answers(project, WHOSE[whose_of(request)][1])
    votes = found.filter(annotator__pseudonym=name[:MOST_NAME])
    return Behind(
        heading=_("Answers: %(name)s") % {"name": name[:MOST_NAME]},
        ids=votes,
        num_votes=votes.count(),
    )


def met(project: Project, request: HttpRequest) -> Behind:
    """Answers on dev in which a player met another, or any other. Test stays sealed."""
    one, other = request.GET.get("player", ""), request.GET.get("other", "")
    votes = battles.votes_between(project, one, other)
    names = [name_of(player)[:MOST_NAME] for player in (one, other) if player]
    heading = _("Head to head: %(names)s") % {"names": " · ".join(names)}
    return Behind(heading=heading, ids=votes, num_votes=votes.count())


def gate(project: Project, request: HttpRequest) -> Behind:
    """Dev votes of the dataset that a reward model was made from, as they stand now. Raises Http404
    for a version without one here."""
    version = _version(project, request.GET.get("version", ""))
    if version.snapshot is None:
        raise Http404
    votes = Preference.objects.valid().filter(
        project=project,
        comparison__purpose__in=(Purpose.PRODUCTION, Purpose.LIVE),
        comparison__prompt__split=Split.DEV,
        pk__lte=version.snapshot.ledger_position.get("preference", 0),
        annotator__kind__in=version.snapshot.query["annotators"],
    )
    heading = _("Dev votes: %(name)s") % {"name": version.name}
    return Behind(heading=heading, ids=votes, num_votes=votes.count())


def written(project: Project, request: HttpRequest) -> Behind:
    """All answers to comparisons with a text of one version. Raises Http404 for one that is not
    the project's."""
    version = _version(project, request.GET.get("version", ""))
    votes = votes_on(version, project)
    heading = _("Compared: %(name)s") % {"name": version.name}
    return Behind(heading=heading, ids=votes, num_votes=votes.count())


def _version(project: Project, number: str) -> ModelVersion:
    is_id = number.isascii() and number.isdigit() and len(number) < 18
    found = versions_of(project).filter(pk=int(number)) if is_id else ModelVersion.objects.none()
    version = found.select_related("snapshot").first()
    if version is None:
        raise Http404
    return version


OF: dict[str, tuple[Callable[[Project, HttpRequest], Behind], str, str | Promise]] = {
    "agreement": (agreement, "quality", gettext_lazy("Quality")),
    "annotator": (annotator, "quality", gettext_lazy("Quality")),
    "met": (met, "head-to-head", gettext_lazy("Head to head")),
    "gate": (gate, "versions", gettext_lazy("Model versions")),
    "written": (written, "versions", gettext_lazy("Model versions")),
}
"""What is asked for -> its votes, and the page to go back to."""


@project_page(*WATCH)
def votes(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The votes that one figure is made of; `before` is the last id of the page before."""
    wanted = request.GET.get("of", "agreement")
    if wanted not in OF:
        raise Http404
    behind_of, back, back_name = OF[wanted]
    behind = behind_of(membership.project, request)
    context = {**list_of(behind, request.GET), "back": back, "back_name": back_name}
    return project_template(request, membership, "pages/analysis_votes.html", context)
