"""The data funnel: every vote of a project falls in exactly one bucket of a dataset.

Pure: facts about a vote and a query in, a bucket out. What an earlier line of `bucket_of` takes, a
later one never sees, so the buckets of any set of votes sum to its size.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from annotation.errors import BadInput
from annotation.group_shares import GroupShare
from annotation.models import AnnotatorKind, Outcome, Purpose, Ranking, Split

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


OFF, INSTEAD = "off", "instead"
DECISIONS = (OFF, INSTEAD)
"""What becomes of reviewers' decisions: nothing, or they stand in place of the votes."""
WEIGHTS = ("none", "dawid_skene", "bradley_terry")
"""What votes weigh: all the same, or as services.weights estimates their annotators."""
BUCKET_OF_SPLIT = {Split.TRAIN: Bucket.TRAINED, Split.DEV: Bucket.DEV, Split.TEST: Bucket.TEST}
IN_THE_FILE = tuple(BUCKET_OF_SPLIT.values())
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

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "VoteQuery":
        """Options as people write them. Raises BadInput for an unknown key or value."""
        known = {
            "annotators": AnnotatorKind.values,
            "languages": None,
            "purposes": [str(purpose) for purpose in USABLE],
            "splits": Split.values,
        }
        lists = {k: value for k, value in options.items() if k not in ONE_OF and k != "groups"}
        groups = GroupShare.of(options.get("groups"))
        checked = checked_options(lists, known)
        return cls(groups=groups, **checked, **_one_of(options))  # type: ignore[arg-type]

    def as_json(self) -> dict[str, Any]:
        """An option of one value stands here only where it is not the default, groups where they
        are not all: queries of before stay what they were."""
        found = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }
        defaults = {key: values[0] for key, values in ONE_OF.items()} | {"groups": None}
        return {k: v for k, v in found.items() if k not in defaults or v != defaults[k]}


ONE_OF: Mapping[str, tuple[str, ...]] = {"decisions": DECISIONS, "weights": WEIGHTS}
"""Options of one value, the default first."""


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
    decided: bool = False
    """A reviewer's decision on its comparison is in force."""
    answered: Bucket | None
    """What `answered` says of its rankings: None = it orders at least one pair."""


def answered(rankings: Iterable[Ranking]) -> Bucket | None:
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
    if not vote.text_alone:
        return Bucket.NOT_TEXT
    if vote.split == Split.TRAIN and query.groups and not query.groups.holds(vote.group):
        return Bucket.OTHER_GROUPS
    if vote.decided and query.decisions == INSTEAD:
        return Bucket.DECIDED
    return vote.answered or BUCKET_OF_SPLIT[Split(vote.split)]
