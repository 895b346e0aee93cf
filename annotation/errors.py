"""What can go wrong, as a tree; each class carries the API's `code` and HTTP `status`.

ConcordError
├── BadInput                400  what the caller sent makes no sense; the message holds the value
│   └── BadRanking          400  an answer that does not fit the comparison that was shown
├── NotAllowed              403  a rule forbids it to this person
├── Conflict                409  it made sense once; the row has moved on
│   ├── LeaseLost           409  the lease is not this annotator's any more
│   ├── AlreadyRunning      409  one running job per project, kind and lane
│   └── ChangedMeanwhile    409  others set what the caller saw otherwise; `now` says to what
└── NothingToDo             404  no comparison to claim; `reason` says why
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal


class ConcordError(Exception):
    """Base of all errors that a person can cause or cure."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 400

    @property
    def detail(self) -> str:
        """One sentence for whoever caused it."""
        return str(self)


class BadInput(ConcordError):
    code = "bad_input"


class BadRanking(BadInput):
    code = "bad_ranking"


class NotAllowed(ConcordError):
    code = "not_allowed"
    status = 403


class Conflict(ConcordError):
    code = "conflict"
    status = 409


class LeaseLost(Conflict):
    code = "lease_lost"


class AlreadyRunning(Conflict):
    code = "already_running"


class ChangedMeanwhile(Conflict):
    """now: name -> what stands there now, of each field that is not as the caller saw it."""

    code = "changed_meanwhile"

    def __init__(self, sentence: str, now: Mapping[str, Any]) -> None:
        super().__init__(sentence)
        self.now = now


class NothingToDo(ConcordError):
    """No comparison can be claimed now.

    reason: "done" (all answered), "all_leased" (others hold the rest: try again after
    retry_after_seconds) or "none_for_you" (what is open is not for this annotator; `because` says
    where that is for their wish: "refused", they want no sensitive ones, or for the day's cap on
    these: "capped"; empty: languages, skills and past answers). Three more are
    about the annotator: "stopped" (below the bar of hidden checks), "not_qualified" (the
    qualification was not passed), "qualification_out" (no item of it is left for them now).
    """

    code = "nothing_to_do"
    status = 404

    def __init__(
        self,
        reason: Literal[
            "done",
            "all_leased",
            "none_for_you",
            "stopped",
            "not_qualified",
            "qualification_out",
        ],
        retry_after_seconds: int | None = None,
        because: Literal["", "refused", "capped"] = "",
    ) -> None:
        sentences = {
            "done": "Every comparison of this project has its answers.",
            "all_leased": "All open comparisons are with others; "
            f"try again in {retry_after_seconds} s.",
            "none_for_you": "No open comparison fits your languages, skills and past answers.",
            "stopped": "Your work here is paused: too many answers differ from what experts agree "
            "on. Talk to the lead of the project.",
            "not_qualified": "You have not passed the qualification of this project. The lead can "
            "grant another try.",
            "qualification_out": "The qualification of this project has no question left for you "
            "just now. Answer the one you have, or tell the lead of the project.",
        }
        of_sensitive = {
            "refused": "What is open for you is sensitive, and you want none of these.",
            "capped": "What is open for you is sensitive, and you had as many of these as the "
            "project gives out in a day.",
        }
        super().__init__(of_sensitive[because] if because else sentences[reason])
        self.reason = reason
        self.because = because
        self.retry_after_seconds = retry_after_seconds
