"""The data funnel: every vote of a project falls in exactly one bucket of a dataset.

Pure: facts about a vote and a query in, a bucket out. What an earlier line of `bucket_of` takes, a
later one never sees, so the buckets of any set of votes sum to its size.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from annotation.errors import BadInput
from annotation.group_shares import GroupShare
from annotation.models import AnnotatorKind, Outcome, Purpose, Split

NEVER_USED = (Purpose.GOLD, Purpose.QUALIFICATION, Purpose.REPEAT)
USABLE = (Purpose.PRODUCTION, Purpose.LIVE, Purpose.EVALUATION)


class Bucket(StrEnum):
    """Where a vote went. Only the first three give rows to learn from or to measure on."""

    TRAINED = "trained"
    DEV = "dev"
    TEST = "test"
    EVALUATION = "evaluation"
    """Asked for evaluation, on a train prompt: measured people's choices, never trained on."""
    GOLD = "gold"
    QUALIFICATION = "qualification"
    REPEAT = "repeat"
    SUPERSEDED = "superseded"
    VOIDED = "voided"
    NO_STRICT_PAIR = "no_strict_pair"
    """Answered with ties alone."""
    BOTH_BAD = "both_bad"
    CANNOT_TELL = "cannot_tell"
    DECIDED = "decided"
    """A reviewer's decision stands in the vote's place, or says that there is none."""
    NOT_TEXT = "not_text"
    """Its prompt has typed parts (images ...), which nothing that trains can read."""
    OTHER_GROUPS = "other_groups"
    """On a train prompt whose group the judge learns from and not the reward model, or the other
    way round."""
    FILTERED_KIND = "filtered_kind"
    FILTERED_LANGUAGE = "filtered_language"
    FILTERED_PURPOSE = "filtered_purpose"
    FILTERED_SPLIT = "filtered_split"
    FILTERED_DATE = "filtered_date"
    FILTERED_SCHEME = "filtered_scheme"
    FILTERED_GUIDELINE = "filtered_guideline"
    FILTERED_SOURCE = "filtered_source"
    FILTERED_LICENCE = "filtered_licence"
    FILTERED_AXIS = "filtered_axis"
    FILTERED_TAG = "filtered_tag"
    FILTERED_ACCURACY = "filtered_accuracy"
    """Of an annotator whose hidden checks are too few, or too few of them right."""
    FILTERED_AGREEMENT = "filtered_agreement"
    """The votes on its comparison lie too far apart, or there is but one."""
    FORGOTTEN = "forgotten"
    """Of somebody whose data was deleted (services.forgetting)."""


OFF, INSTEAD = "off", "instead"
DECISIONS = (OFF, INSTEAD)
"""What becomes of reviewers' decisions: nothing, or they stand in place of the votes."""
WEIGHTS = ("none", "dawid_skene", "bradley_terry")
"""What votes weigh: all the same, or as services.weights estimates their annotators."""
BUCKET_OF_SPLIT = {Split.TRAIN: Bucket.TRAINED, Split.DEV: Bucket.DEV, Split.TEST: Bucket.TEST}
IN_THE_FILE = tuple(BUCKET_OF_SPLIT.values())
NARROWING = {
    "since": Bucket.FILTERED_DATE,
    "until": Bucket.FILTERED_DATE,
    "schemes": Bucket.FILTERED_SCHEME,
    "guidelines": Bucket.FILTERED_GUIDELINE,
    "sources": Bucket.FILTERED_SOURCE,
    "licences": Bucket.FILTERED_LICENCE,
    "axes": Bucket.FILTERED_AXIS,
    "tags": Bucket.FILTERED_TAG,
    "accuracy": Bucket.FILTERED_ACCURACY,
    "checks": Bucket.FILTERED_ACCURACY,
    "agreement": Bucket.FILTERED_AGREEMENT,
}
"""Options that stand in a query where they are asked for alone, and the bucket of what they leave
out: it is counted by such queries alone, so that the others' manifests stay what they were."""
WITHOUT_PAIRS = (Bucket.NO_STRICT_PAIR, Bucket.BOTH_BAD, Bucket.CANNOT_TELL)


@dataclass(frozen=True, kw_only=True, slots=True)
class VoteQuery:
    """Which votes a dataset of comparisons takes; all fields sorted, so that equal queries are
    equal JSON. languages: empty = any."""

    annotators: tuple[str, ...] = (AnnotatorKind.OUTSIDE, AnnotatorKind.PERSON)
    languages: tuple[str, ...] = ()
    purposes: tuple[str, ...] = tuple(sorted(USABLE))
    splits: tuple[str, ...] = tuple(sorted(Split.values))
    decisions: str = OFF
    weights: str = "none"
    groups: GroupShare | None = None
    """Of train prompts; None = all."""
    since: str = ""
    until: str = ""
    """Of votes, in ISO 8601, UTC where nothing else is said; until is not included."""
    schemes: tuple[str, ...] = ()
    guidelines: tuple[str, ...] = ()
    """Versions that the vote followed."""
    sources: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    """Of the prompt's source, by name; licences also of the sources of its completions and of the
    vote, where they state one."""
    axes: tuple[str, ...] = ()
    """A vote says something on one of them, and its other axes stay out of the row."""
    tags: tuple[str, ...] = ()
    """Of the comparison: one of them."""
    accuracy: float = 0.0
    """Least share of hidden checks that the annotator answered as the experts do, of at least so
    many `checks`; 0 = no matter."""
    checks: int = 0
    agreement: float = 0.0
    """Least accord (annotation/accord.py) of the valid votes on the comparison, of the kinds of
    annotators that are asked for; 0 = no matter."""

    @property
    def narrowing(self) -> list[Bucket]:
        """Buckets that this query may fill and one without its filters never does."""
        return [bucket for name, bucket in NARROWING.items() if getattr(self, name)]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "VoteQuery":
        """Options as people write them. Raises BadInput for an unknown key or value."""
        known = {
            "annotators": AnnotatorKind.values,
            "languages": None,
            "purposes": [str(purpose) for purpose in USABLE],
            "splits": Split.values,
            **dict.fromkeys(("schemes", "guidelines", "sources", "licences", "axes", "tags")),
        }
        times = {key: _moment(key, options.get(key)) for key in ("since", "until")}
        options = {key: value for key, value in options.items() if key not in times}
        if times["until"] and times["since"] >= times["until"]:
            raise BadInput(f"since lies before until: {times['since']}, {times['until']}.")
        lists = {
            key: value
            for key, value in options.items()
            if key not in ONE_OF and key not in NUMBERS and key != "groups"
        }
        groups = GroupShare.of(options.get("groups"))
        checked = checked_options(lists, known)
        return cls(groups=groups, **checked, **_one_of(options), **_numbers(options), **times)  # type: ignore[arg-type]

    def as_json(self) -> dict[str, Any]:
        """An option of one value stands here only where it is not the default, groups where they
        are not all: queries of before stay what they were."""
        found = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }
        defaults = {key: values[0] for key, values in ONE_OF.items()} | {"groups": None}
        return {
            key: value
            for key, value in found.items()
            if not (key in NARROWING and not value)
            and (key not in defaults or value != defaults[key])
        }


ONE_OF: Mapping[str, tuple[str, ...]] = {"decisions": DECISIONS, "weights": WEIGHTS}
"""Options of one value, the default first."""
NUMBERS = ("accuracy", "checks", "agreement")
FEWEST_CHECKS = 10
"""Where a query asks for accuracy and not of how many."""
MOST_CHECKS = 100_000


def _numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Shares from 0 to 1, and a number of checks, which says nothing without an accuracy."""
    found: dict[str, Any] = {}
    for key in ("accuracy", "agreement"):
        value = options.get(key) or 0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise BadInput(f"{key} lies from 0 to 1: {value!r:.80}.")
        found[key] = float(value)
    checks = options.get("checks") or (FEWEST_CHECKS if found["accuracy"] else 0)
    if isinstance(checks, bool) or not isinstance(checks, int) or not 0 <= checks <= MOST_CHECKS:
        raise BadInput(f"checks is a whole number from 0 to {MOST_CHECKS:,}: {checks!r:.80}.")
    if checks and not found["accuracy"]:
        raise BadInput(f"checks says of how many an accuracy must be, and there is none: {checks}.")
    return found | {"checks": checks}


def _moment(key: str, value: Any) -> str:
    """A time as all queries have it, so that one asked in two ways is one query; "" for none.
    Raises BadInput."""
    if value in (None, ""):
        return ""
    try:
        found = datetime.fromisoformat(value)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):  # the last one: in UTC it lies before year 1
        raise BadInput(f"{key} is a date or time like 2026-01-31: {value!r:.80}.") from None
    return found.isoformat()


def _one_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Those that are given. Raises BadInput with the value seen."""
    found = {key: options[key] for key in ONE_OF if options.get(key) is not None}
    for key, value in found.items():
        if value not in ONE_OF[key]:
            raise BadInput(f"{key} is one of {', '.join(ONE_OF[key])}: not {value!r:.80}.")
    return found


def checked_options(
    options: Mapping[str, Any], known: Mapping[str, Sequence[str] | None]
) -> dict[str, tuple[str, ...]]:
    """Each option as a sorted tuple of texts, each once; None or a missing one is left out.

    known: option -> what may stand in it, None = any text. Raises BadInput with the value seen.
    """
    if unknown := sorted(set(options) - set(known)):
        raise BadInput(f"A query has {', '.join(known)}: not {unknown[0]!r}.")
    checked = {}
    for key, value in options.items():
        if value is None:
            continue
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
            raise BadInput(f"{key} must be a list of texts: {value!r:.80}.")
        allowed = known[key]
        if allowed is not None:
            if bad := sorted(set(values) - set(allowed)):
                raise BadInput(f"{key} may hold {', '.join(allowed)}: not {bad[0]!r:.80}.")
            if not values:
                raise BadInput(f"{key} must name one of {', '.join(allowed)}: it is empty.")
        checked[key] = tuple(sorted({str(v) for v in values}))
    return checked


@dataclass(frozen=True, kw_only=True, slots=True)
class VoteFacts:
    """What decides a vote's bucket, as of the dataset's position in the ledger."""

    superseded: bool
    voided: bool
    purpose: str
    split: str
    kind: str
    language: str
    text_alone: bool
    """As Prompt.text_alone has it."""
    group: str = ""
    """Its prompt's split_group."""
    forgotten: bool = False
    """Its annotator's data was deleted."""
    decided: bool = False
    """A reviewer's decision on its comparison is in force."""
    given_at: datetime | None = None
    scheme: str = ""
    guideline: str = ""
    source: str = ""
    licences: frozenset[str] = frozenset()
    """Of all that a row would hold of it (services.plans.licensed)."""
    tags: frozenset[str] = frozenset()
    """Those that the query asks for."""
    accurate: bool = True
    agreement: float | None = None
    says_axis: bool = True
    """It says something on one of the axes asked for."""
    """These are looked at by queries that narrow by them alone."""
    answered: Bucket | None
    """What `answered` says of its rankings: None = it orders at least one pair."""


class Orders(Protocol):
    """What a Ranking says."""

    @property
    def outcome(self) -> str: ...
    @property
    def groups(self) -> Any: ...


def answered(rankings: Iterable[Orders]) -> Bucket | None:
    """None if some axis puts one completion above another, else what the answer was instead."""
    outcomes = set()
    for ranking in rankings:
        if ranking.outcome == Outcome.RANKED and sum(bool(group) for group in ranking.groups) > 1:
            return None
        outcomes.add(ranking.outcome)
    if outcomes & {Outcome.EQUAL, Outcome.RANKED}:
        return Bucket.NO_STRICT_PAIR
    return Bucket.BOTH_BAD if Outcome.BOTH_BAD in outcomes else Bucket.CANNOT_TELL


def bucket_of(vote: VoteFacts, query: VoteQuery) -> Bucket:
    """The one bucket of a vote."""
    if vote.forgotten:
        return Bucket.FORGOTTEN
    if vote.superseded:
        return Bucket.SUPERSEDED
    if vote.voided:
        return Bucket.VOIDED
    if vote.purpose in NEVER_USED:
        return Bucket(vote.purpose)
    if vote.purpose == Purpose.EVALUATION and vote.split == Split.TRAIN:
        return Bucket.EVALUATION
    if vote.kind not in query.annotators:
        return Bucket.FILTERED_KIND
    if query.languages and vote.language not in query.languages:
        return Bucket.FILTERED_LANGUAGE
    if vote.purpose not in query.purposes:
        return Bucket.FILTERED_PURPOSE
    if vote.split not in query.splits:
        return Bucket.FILTERED_SPLIT
    if narrowed := _narrowed(vote, query):
        return narrowed
    if not vote.text_alone:
        return Bucket.NOT_TEXT
    if vote.split == Split.TRAIN and query.groups and not query.groups.holds(vote.group):
        return Bucket.OTHER_GROUPS
    if vote.decided and query.decisions == INSTEAD:
        return Bucket.DECIDED
    return vote.answered or BUCKET_OF_SPLIT[Split(vote.split)]


def _narrowed(vote: VoteFacts, query: VoteQuery) -> Bucket | None:
    """The bucket of what the query's filters leave out; None where they leave the vote in."""
    if query.since or query.until:
        given_at = vote.given_at.astimezone(UTC).isoformat() if vote.given_at else ""
        if given_at < query.since or (query.until and given_at >= query.until):
            return Bucket.FILTERED_DATE
    for name in ("scheme", "guideline", "source"):
        wanted = getattr(query, f"{name}s")
        if wanted and getattr(vote, name) not in wanted:
            return NARROWING[f"{name}s"]
    if query.licences and not vote.licences <= set(query.licences):
        return Bucket.FILTERED_LICENCE
    if not vote.says_axis:
        return Bucket.FILTERED_AXIS
    if query.tags and not vote.tags:
        return Bucket.FILTERED_TAG
    if query.accuracy and not vote.accurate:
        return Bucket.FILTERED_ACCURACY
    if query.agreement and (vote.agreement is None or vote.agreement < query.agreement):
        return Bucket.FILTERED_AGREEMENT
    return None
