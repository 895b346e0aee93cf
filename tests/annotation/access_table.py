"""Who may do what at every address: written by hand, and the one place where it is written.

`test_access_matrix.py` walks the URL map and asks every address with every method as everybody.
Whoever adds an address adds its line here:

    "reviews/<int:review_id>/decide/": act(REVIEW),             a button for reviewers and admins
    "drafts/<int:draft_id>/": look(LABEL, own=LABEL),           each role sees its own rows alone
    "answers/<int:answer_id>/": look(ALL, own={LABELER}),       a labeler their own, others all

and, where the address has a new kind of id, a row of that kind to `access_world.rows_of`. What is
asked with is empty unless the line says otherwise; a refused request must write nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

LABELER, REVIEWER, ADMIN, RESEARCHER = "labeler", "reviewer", "admin", "researcher"
ALL = frozenset({LABELER, REVIEWER, ADMIN, RESEARCHER})
LABEL = frozenset({LABELER, REVIEWER, ADMIN})
REVIEW = frozenset({REVIEWER, ADMIN})
RESEARCH = frozenset({RESEARCHER, ADMIN})
WATCH = frozenset({REVIEWER, RESEARCHER, ADMIN})
ADMINS = frozenset({ADMIN})
SIGNED_IN = ALL | {"outsider"}
"""Of addresses outside a project: members of something and of nothing."""
EVERYBODY = SIGNED_IN | {"nobody"}
ROOT = frozenset({"root"})
STAFF = frozenset({"root", "staff"})


@dataclass(frozen=True)
class May:
    """Who may use one method of an address.

    own: those of them for whom the rows that the address names must be theirs. scope: what a token
    must be for. sent: with what it is asked, beyond nothing.
    """

    who: frozenset[str]
    own: frozenset[str] = frozenset()
    scope: str = "read"
    sent: Mapping[str, Any] = field(default_factory=dict)


Line = Mapping[str, May]
"""By method; HEAD is asked wherever GET is, and what is not named must be 405."""


SCOPES = ("read", "label", "review", "export", "administer")
USUAL_SCOPE = {LABEL: "label", REVIEW: "review", RESEARCH: "export", ADMINS: "administer"}
"""What a token must be for to do what these roles may do; nothing but `read` to look."""


def look(who: frozenset[str], own: Collection[str] = (), scope: str = "read") -> dict[str, May]:
    """GET."""
    return {"GET": May(who, frozenset(own), scope)}


def act(
    who: frozenset[str],
    own: Collection[str] = (),
    method: str = "POST",
    scope: str = "",
    **sent: Any,
) -> dict[str, May]:
    """POST, or another method that changes something."""
    return {method: May(who, frozenset(own), scope or USUAL_SCOPE.get(who, "administer"), sent)}


PAGES_OF_A_PROJECT: dict[str, Line] = {
    "": look(ALL),
    "live/": look(ALL),
    "health/": look(ADMINS),
    "rule/": act(ADMINS, after_preferences=7),
    "auto-promote/": act(ADMINS),
    "label/": look(LABEL),
    "label/prefetch/": act(LABEL),
    "label/<int:assignment_id>/submit/": act(LABEL, own=LABEL),
    "label/<int:assignment_id>/skip/": act(LABEL, own=LABEL, reason="hard"),
    "label/<int:assignment_id>/renew/": act(LABEL, own=LABEL),
    "label/<int:assignment_id>/ask/": act(LABEL, own=LABEL, text="May it?", then="aside"),
    "sent-back/": look(LABEL),
    "sent-back/<int:send_back_id>/decline/": act(LABEL, own=LABEL, reply="It stands."),
    "sent-back/<int:send_back_id>/withdraw/": act(REVIEW),
    "preferences/<int:preference_id>/send-back/": act(REVIEW, comment="Look again."),
    "questions/": look(LABEL),
    "questions/<int:question_id>/": look(LABEL, own={LABELER}),
    "questions/<int:question_id>/answer/": act(REVIEW, text="Yes."),
    "questions/<int:question_id>/close/": act(LABEL, own={LABELER}),
    "questions/<int:question_id>/publish/": act(REVIEW, **{"question-en": "May it?"}),
    "label/<int:assignment_id>/differences/": look(LABEL, own=LABEL),
    "sensitive/": act(LABEL, refuses="on"),
    "sensitive/cap/": act(ADMINS, per_day=3),
    "chat/": look(LABEL),
    "chat/start/": act(LABEL, message="Hello?", key="k"),
    "chat/<int:thread_id>/": look(LABEL, own=LABEL),
    "chat/<int:thread_id>/say/": act(LABEL, own=LABEL, message="And?", key="k"),
    "chat/<int:thread_id>/again/": act(LABEL, own=LABEL),
    "chat/<int:thread_id>/end/": act(LABEL, own=LABEL),
    "chat/<int:thread_id>/<int:number>/choose/": act(LABEL, own=LABEL),
    "chat/<int:thread_id>/<int:number>/stream/": look(LABEL, own=LABEL),
    "conversations/": look(REVIEW),
    "conversations/<int:thread_id>/": look(REVIEW),
    "conversations/setup/": act(ADMINS),
    "analysis/": look(WATCH),
    "analysis/numbers.csv": look(WATCH),
    "analysis/votes/": look(WATCH),
    "analysis/contributions/": look(WATCH),
    "analysis/contributions/ask/": act(RESEARCH),
    "analysis/contributions/votes/": look(WATCH),
    "analysis/contributions.csv": look(WATCH),
    "analysis/disagreements/": look(WATCH),
    "analysis/disagreements/send/": act(REVIEW),
    "analysis/disagreements.csv": look(WATCH),
    "votes/": look(WATCH),
    "asking/": look(WATCH),
    "asking/save/": act(ADMINS),
    "asking/numbers.csv": look(WATCH),
    "search/": look(WATCH),
    "search/act/": act(REVIEW),
    "batches/": look(REVIEW),
    "batches/<int:batch_id>/": look(REVIEW),
    "batches/<int:batch_id>/change/": act(ADMINS),
    "batches/<int:batch_id>/pause/": act(ADMINS),
    "comparisons/<int:comparison_id>/retire/": act(REVIEW, reason="broken"),
    "comparisons/<int:comparison_id>/reopen/": act(REVIEW, reason="mended"),
    "jobs/": look(WATCH),
    "jobs/start/": act(ADMINS, kind="sample", lane="loop"),
    "jobs/new/": look(ADMINS),
    "jobs/new/ask/": act(ADMINS, kind="sample", lane="loop"),
    "jobs/pair/": look(WATCH),
    "jobs/pair/numbers.csv": look(WATCH),
    "jobs/<int:job_id>/": look(WATCH),
    "jobs/<int:job_id>/live/": look(WATCH),
    "jobs/<int:job_id>/cancel/": act(ADMINS),
    "jobs/<int:job_id>/metrics.csv": look(WATCH),
    "jobs/<int:job_id>/rollouts/": look(WATCH),
    "jobs/<int:job_id>/rollouts/<int:step>.csv": look(WATCH),
    "head-to-head/": look(WATCH),
    "head-to-head/test/": act(ADMINS),
    "head-to-head/ask/": act(ADMINS),
    "head-to-head/numbers.csv": look(WATCH),
    "versions/": look(WATCH),
    "versions/<int:version_id>/": look(WATCH),
    "versions/<int:version_id>/promote/": act(ADMINS, slot="reward"),
    "versions/<int:version_id>/judge-again/": act(ADMINS),
    "slots/<slug:slot>/roll-back/": act(ADMINS),
    "reviews/": look(REVIEW),
    "reviews/next/": look(REVIEW),
    "reviews/catch/": act(ADMINS, catch_leaks="1"),
    "reviews/bar/": act(ADMINS, below="0.5"),
    "reviews/<int:comparison_id>/": look(REVIEW) | act(REVIEW),
    "decisions/<int:decision_id>/void/": act(REVIEW, reason="spam"),
    "quality/": look(WATCH),
    "forget/": look(ADMINS),
    "forget/order/": act(ADMINS, reason="asked to be"),
    "void-range/": look(REVIEW),
    "void-range/order/": act(REVIEW, reason="spam"),
    "preferences/": look(ALL),
    "preferences/<int:preference_id>/": look(ALL, own={LABELER}),
    "preferences/<int:preference_id>/void/": act(REVIEW, reason="spam"),
    "preferences/<int:preference_id>/edit/": look(LABEL, own=LABEL) | act(LABEL, own=LABEL),
    "preferences/<int:preference_id>/report/": act(LABEL, own=LABEL, words="It is wrong."),
    "practice/": look(LABEL),
    "practice/<int:item_id>/": look(LABEL) | act(LABEL),
    "practice/<int:item_id>/contest/": act(LABEL, words="It is wrong."),
    "gold/": look(REVIEW),
    "comparisons/<int:comparison_id>/gold/": act(REVIEW, use="hidden"),
    "gold/checks/": act(ADMINS, gold_every=5),
    "gold/<int:item_id>/": look(REVIEW) | act(REVIEW),
    "gold/<int:item_id>/retire/": act(REVIEW, reason="wrong"),
    "gold/people/<int:annotator_id>/": act(REVIEW, act="pass"),
    "gold/reports/<int:report_id>/": act(REVIEW, ruling="decline", reply="It is right."),
    "timesheet/": look(LABEL),
    "timesheet.csv": look(LABEL),
    "imports/": look(RESEARCH),
    "imports/upload/": act(RESEARCH),
    "imports/<int:import_id>/": look(RESEARCH),
    "imports/<int:import_id>/live/": look(RESEARCH),
    "imports/<int:import_id>/look/": act(RESEARCH),
    "imports/<int:import_id>/start/": act(RESEARCH),
    "imports/<int:import_id>/discard/": act(RESEARCH),
    "export/": look(RESEARCH),
    "export/make/": act(RESEARCH, format="raw"),
    "export/live/": look(RESEARCH),
    "export/compare/": look(RESEARCH),
    "export/<int:snapshot_id>/override/": act(ADMINS, reason="agreed"),
    "members/": look(ADMINS),
    "members/add/": act(ADMINS, username="nobody-there", role=LABELER),
    "members/<int:member_id>/change/": act(ADMINS, role=REVIEWER),
    "members/<int:member_id>/remove/": act(ADMINS),
    "invitations/": look(ADMINS) | act(ADMINS, role=LABELER, uses=1, days=7),
    "invitations/<int:invitation_id>/revoke/": act(ADMINS),
    "guideline/": look(ALL),
    "guideline/save/": act(REVIEW, **{"text-en": "Be fair."}),
    "guideline/preview/": act(REVIEW, **{"text-en": "Be fair."}),
    "guideline/history/": look(ALL),
    "guideline/<int:guideline_id>/read/": act(LABEL),
    "guideline/<int:guideline_id>/faq/<int:entry_id>/": act(REVIEW, withdraw="1"),
    "scheme/": act(ADMINS, axes="overall"),
    "scheme/preview/": act(ADMINS, axes="overall"),
}
"""Below /p/<slug:slug>/."""

API_OF_A_PROJECT: dict[str, Line] = {
    "": look(ALL),
    "members/": look(ADMINS) | act(ADMINS),
    "members/<int:member_id>/": act(ADMINS, method="PATCH") | act(ADMINS, method="DELETE"),
    "invitations/": look(ADMINS) | act(ADMINS, role=LABELER),
    "invitations/<int:invitation_id>/revoke": act(ADMINS),
    "claim": act(LABEL),
    "assignments/<int:assignment_id>/submit": act(LABEL, own=LABEL),
    "assignments/<int:assignment_id>/skip": act(LABEL, own=LABEL),
    "assignments/<int:assignment_id>/renew": act(LABEL, own=LABEL),
    "assignments/<int:assignment_id>/release": act(LABEL, own=LABEL),
    "sensitive": look(LABEL) | act(LABEL, refuses=True),
    "sensitive/cap": act(ADMINS, per_day=3),
    "preferences/": look(LABEL),
    "preferences/<int:preference_id>/": look(LABEL, own={LABELER}),
    "preferences/<int:preference_id>/void": act(REVIEW, reason="spam"),
    "preferences/<int:preference_id>/send-back": act(REVIEW, comment="Look again."),
    "preferences/<int:preference_id>/revise": act(LABEL, own=LABEL),
    "send-backs/": look(LABEL),
    "send-backs/<int:send_back_id>/decline": act(LABEL, own=LABEL, reply="It stands."),
    "send-backs/<int:send_back_id>/withdraw": act(REVIEW),
    "questions/": look(LABEL) | act(LABEL),
    "questions/<int:question_id>/": look(LABEL, own={LABELER}),
    "questions/<int:question_id>/answer": act(REVIEW, text="Yes."),
    "questions/<int:question_id>/close": act(LABEL, own={LABELER}),
    "questions/<int:question_id>/publish": act(REVIEW),
    "guidelines/": look(ALL) | act(REVIEW, texts={"en": "Be fair."}),
    "guidelines/<int:guideline_id>/read": act(LABEL),
    "range-voids/": look(REVIEW) | act(REVIEW),
    "range-voids/preview": act(REVIEW),
    "deletions/": look(ADMINS) | act(ADMINS),
    "deletions/preview": act(ADMINS),
    "chats/": look(LABEL) | act(LABEL, message="Hello?", key="k"),
    "chats/<int:thread_id>/": look(LABEL, own=LABEL),
    "chats/<int:thread_id>/say": act(LABEL, own=LABEL),
    "chats/<int:thread_id>/end": act(LABEL, own=LABEL),
    "chats/<int:thread_id>/<int:number>/": look(LABEL, own=LABEL),
    "chats/<int:thread_id>/<int:number>/stream": look(LABEL, own=LABEL),
    "chats/<int:thread_id>/<int:number>/choose": act(LABEL, own=LABEL),
    "chats/<int:thread_id>/<int:number>/again": act(LABEL, own=LABEL),
    "chat-setup": look(ADMINS) | act(ADMINS, method="PATCH", max_turns=3),
    "search/": look(WATCH),
    "tags/": look(WATCH) | act(REVIEW) | act(REVIEW, method="DELETE"),
    "ask-again": act(REVIEW),
    "batches/": look(REVIEW),
    "batches/<int:batch_id>/": look(REVIEW) | act(ADMINS, method="PATCH"),
    "comparisons/<int:comparison_id>/retire": act(REVIEW, reason="broken"),
    "comparisons/<int:comparison_id>/reopen": act(REVIEW, reason="mended"),
    "reviews/": look(REVIEW),
    "reviews/<int:comparison_id>/": look(REVIEW),
    "reviews/<int:comparison_id>/decide": act(REVIEW),
    "decisions/": look(REVIEW),
    "decisions/<int:decision_id>/void": act(REVIEW, reason="spam"),
    "gold/": look(REVIEW) | act(REVIEW),
    "gold/<int:item_id>/": look(REVIEW),
    "gold/<int:item_id>/vote": act(REVIEW),
    "gold/<int:item_id>/retire": act(REVIEW, reason="wrong"),
    "checks": look(REVIEW) | act(ADMINS, method="PATCH", gold_every=5),
    "accuracy": look(LABEL),
    "preferences/<int:preference_id>/report": act(LABEL, own=LABEL, words="It is wrong."),
    "reports/": look(REVIEW),
    "reports/<int:report_id>/decide": act(REVIEW, ruling="decline", reply="It is right."),
    "jobs/": look(WATCH) | act(ADMINS, kind="sample"),
    "jobs/<int:job_id>/": look(WATCH),
    "jobs/<int:job_id>/cancel": act(ADMINS),
    "versions/": look(WATCH),
    "versions/<int:version_id>/": look(WATCH),
    "versions/<int:version_id>/promote": act(ADMINS),
    "versions/<int:version_id>/download": look(RESEARCH, scope="export"),
    "promotions/": look(WATCH),
    "slots/<slug:slot>/rollback": act(ADMINS),
    "loop": look(RESEARCH) | act(ADMINS, method="PATCH", open_target=3),
    "snapshots/": look(RESEARCH),
    "snapshots/count/": act(RESEARCH),
    "snapshots/<int:snapshot_id>/override": act(ADMINS, reason="agreed"),
    "snapshots/<int:before_id>/diff/<int:after_id>/": look(RESEARCH),
    "imports/": look(RESEARCH) | act(RESEARCH),
    "imports/<int:import_id>/": look(RESEARCH) | act(RESEARCH, method="DELETE"),
    "imports/<int:import_id>/look": act(RESEARCH),
    "imports/<int:import_id>/start": act(RESEARCH),
    "exports/": look(RESEARCH) | act(RESEARCH, format="raw"),
    "exports/orders/<int:order_id>": look(RESEARCH),
    "exports/<slug:export_id>": look(RESEARCH),
    "exports/<slug:export_id>.tar": look(RESEARCH, scope="export"),
    "exports/<slug:export_id>/<str:file>": look(RESEARCH, scope="export"),
}
"""Below /api/projects/<slug:slug>/."""

ELSEWHERE: dict[str, Line] = {
    "healthz": look(EVERYBODY),
    "readyz": look(EVERYBODY),
    "": look(SIGNED_IN),
    "sign-in/": look(EVERYBODY) | act(EVERYBODY),
    "sign-out/": act(EVERYBODY),
    "password/": look(SIGNED_IN) | act(SIGNED_IN),
    "language/": act(EVERYBODY, language="en"),
    "tokens/": look(SIGNED_IN) | act(SIGNED_IN, name="script"),
    "tokens/<int:token_id>/revoke/": act(SIGNED_IN, own=SIGNED_IN),
    "projects/new/": look(ADMINS) | act(ADMINS, name="New", slug="new", axes="overall"),
    "api/projects/": look(SIGNED_IN) | act(ADMINS, name="New", slug="new"),
    "api/schema/": look(EVERYBODY),
    "api/docs/": look(EVERYBODY),
}
"""Addresses of a person or of nobody in particular."""

ADMIN_SITE: dict[str, Line] = {
    "": look(STAFF),
    "login/": look(EVERYBODY) | act(EVERYBODY),
    "logout/": act(EVERYBODY),
    "password_change/": look(STAFF) | act(STAFF),
    "password_change/done/": look(STAFF),
    "autocomplete/": look(STAFF),
    "jsi18n/": look(STAFF),
    "TABLE/": look(ROOT),
    "TABLE/add/": look(ROOT),
    "TABLE/ROW/": look(STAFF),  # which leads to .../change/
    "TABLE/ROW/change/": look(ROOT),
    "TABLE/ROW/history/": look(ROOT),
    "TABLE/ROW/delete/": look(ROOT),
    "TABLE/ROW/password/": look(ROOT),
}
"""Below /admin/, the same for every table: what a superuser may look at, nobody else may."""

WITHOUT_A_LINE = {
    "join/<str:secret>/": "opens to whoever holds the secret: tests/annotation/test_invitations.py",
    "admin/r/<path:content_type_id>/<path:object_id>/": "needs get_absolute_url, which no row has",
    "admin/(?P<url>.*)$": "catches every other address with a 404",
    "admin/^(?P<app_label>annotation)/$": "the index of one app, with the rights of each table",
}
"""With the reason. Static files are not in the URL map: WhiteNoise serves them, and no secret is
among them."""


def line_of(route: str) -> Line | None:
    """The line of a route as the URL map spells it; None where the table has none."""
    for prefix, lines in (
        ("p/<slug:slug>/", PAGES_OF_A_PROJECT),
        ("api/projects/<slug:slug>/", API_OF_A_PROJECT),
        ("admin/", ADMIN_SITE),
    ):
        if route.startswith(prefix):
            return lines.get(_without_table(route.removeprefix(prefix)))
    return ELSEWHERE.get(route)


def _without_table(route: str) -> str:
    parts = route.split("/", 2)
    if parts[0] != "annotation":
        return route
    rest = parts[2].replace("<path:object_id>", "ROW").replace("<id>", "ROW")
    return f"TABLE/{rest}"
