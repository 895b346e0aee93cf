"""The navigation of a project: its pages by role, in groups once they are more than a line holds.

Page    a row of PAGES: whose it is, in which group, what is marked as it
Entry   a link of the navigation
Menu    a group of links that opens
"""

from dataclasses import dataclass, field

from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from annotation.models import Membership
from annotation.pages.waiting import MOST_WAITING, questions_waiting, sent_back_waiting
from annotation.permissions import ADMINISTER, ANY, LABEL, RESEARCH, REVIEW, WATCH

MOST_IN_A_LINE = 7
"""Of more pages than this groups are made: a labeler has them all in sight."""


@dataclass(frozen=True)
class Page:
    """A page that a role has a use for."""

    name: str
    """Of its address."""
    label: str | Promise
    roles: tuple[str, ...]
    group: str | Promise = ""
    """The menu it stands in; none for what is used all day."""
    also: tuple[str, ...] = ()
    """Beginnings of further addresses (after the project's) where this page is marked."""


@dataclass(frozen=True)
class Entry:
    """One link of a project's navigation."""

    label: str
    url: str
    current: bool
    num_waiting: int = 0
    """How much waits there for this person, up to MOST_WAITING."""

    @property
    def waiting(self) -> str:
        """For the badge; empty where nothing waits."""
        return _badge(self.num_waiting)


@dataclass(frozen=True)
class Menu:
    """Links under one name."""

    label: str
    entries: list[Entry] = field(default_factory=list)

    @property
    def current(self) -> bool:
        """Whether the page that is looked at is one of them."""
        return any(entry.current for entry in self.entries)

    @property
    def waiting(self) -> str:
        """What waits behind all of them, so that a closed menu hides nothing."""
        return _badge(sum(entry.num_waiting for entry in self.entries))


WORK, CHECKS, DATA, TRAINING, PROJECT = (
    _("Work"),
    _("Review"),
    _("Data"),
    _("Training"),
    _("Project"),
)
PAGES = (
    Page("overview", _("Overview"), ANY),
    Page("label", _("Label"), LABEL),
    Page("batches", _("Batches"), REVIEW, WORK, also=("comparisons/",)),
    Page("questions", _("Questions"), LABEL, WORK),
    Page("sent-back", _("Sent back"), LABEL, WORK),
    Page("chats", _("Chat"), LABEL, WORK, also=("conversations/",)),
    Page("guideline", _("Guideline"), ANY, WORK),
    Page("reviews", _("Review queue"), REVIEW, CHECKS, also=("decisions/",)),
    Page("gold", _("Gold"), REVIEW, CHECKS),
    Page("quality", _("Quality"), WATCH, CHECKS, also=("void-range/",)),
    Page("preferences", _("Preferences"), ANY, DATA, also=("timesheet/", "practice/")),
    Page("search", _("Search"), WATCH, DATA),
    Page("analysis", _("Analysis"), WATCH, DATA),
    Page("imports", _("Import"), RESEARCH, DATA),
    Page("export", _("Export"), RESEARCH, DATA),
    Page("asking", _("Asking"), WATCH, TRAINING),
    Page("jobs", _("Jobs"), WATCH, TRAINING),
    Page("versions", _("Versions"), WATCH, TRAINING),
    Page("head-to-head", _("Head to head"), WATCH, TRAINING),
    Page("members", _("Members"), ADMINISTER, PROJECT, also=("invitations/", "forget/", "scheme/")),
    Page("health", _("Health"), ADMINISTER, PROJECT),
)
WAITING = {"questions": questions_waiting, "sent-back": sent_back_waiting}
"""Pages with a count."""
SELDOM = "sent-back"
"""A page that shows where something waits."""


def navigation(request: HttpRequest, membership: Membership) -> list[Entry | Menu]:
    """What stands above every page of a project: links, and menus of links where they are many.

    A group of which a role has one page is that page's link.
    """
    found = [(page, entry) for page in PAGES if (entry := _entry(request, membership, page))]
    if len(found) <= MOST_IN_A_LINE:
        return [entry for _page, entry in found]
    shown: list[Entry | Menu] = []
    menus: dict[str, Menu] = {}
    for page, entry in found:
        group = str(page.group)
        if sum(page.group == other.group for other, _entry in found) == 1 or not group:
            shown.append(entry)
        elif group in menus:
            menus[group].entries.append(entry)
        else:
            menus[group] = Menu(group, [entry])
            shown.append(menus[group])
    return shown


def _entry(request: HttpRequest, membership: Membership, page: Page) -> Entry | None:
    """A page's link for this person; None where they have no use for it."""
    roles = page.roles
    if page.name == "chats" and not membership.project.chat_open:
        roles = ADMINISTER  # who may open it
    if membership.role not in roles:
        return None
    url = reverse(page.name, args=[membership.project.slug])
    home = reverse("overview", args=[membership.project.slug])
    here = request.path == url or (
        url != home
        and request.path.startswith((url, *(f"{home}{beginning}" for beginning in page.also)))
    )
    waiting = WAITING[page.name](membership) if page.name in WAITING else 0
    if page.name == SELDOM and not waiting and not here:
        return None
    return Entry(str(page.label), url, here, waiting)


def _badge(num_waiting: int) -> str:
    if num_waiting >= MOST_WAITING:
        return f"{MOST_WAITING - 1}+"
    return str(num_waiting or "")
