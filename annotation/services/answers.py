"""A whole answer: the order on each axis, and what else the scheme asks for.

`rankings` knows what an order may look like; here it is held against the scheme's options, and the
judgments of single completions, the reason and the ideal answer with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from django.utils.translation import gettext

from annotation.errors import BadInput, BadRanking
from annotation.models import Completion, CompletionJudgment, Origin, Outcome, Preference, Scheme
from annotation.services import rankings as ranking_rules
from annotation.services.ledger import add_completion, record_generation
from annotation.services.rankings import AxisRanking
from annotation.services.schemes import Options
from annotation.storable import require_storable

MAX_NOTE = 10_000
MAX_IDEAL = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgment:
    """What an annotator says of one completion by itself."""

    completion: int
    ratings: Mapping[str, int] = field(default_factory=dict)
    """Attribute -> whole number."""
    flags: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What submit_preference stores."""

    rankings: Sequence[AxisRanking]
    judgments: Sequence[Judgment] = ()
    note: str = ""
    ideal: str = ""
    """How the answer should have been; becomes a demonstration."""


def checked(answer: Answer, *, scheme: Scheme, presented_order: Sequence[int]) -> Answer:
    """The answer as it is stored. Raises BadRanking or BadInput with the value seen."""
    options = Options.of(scheme.options)
    rankings = ranking_rules.checked(
        answer.rankings, scheme=scheme, presented_order=presented_order
    )
    for one in rankings:
        _check_strength(one, options, len(presented_order))
        _check_partial(one, options, presented_order)
        if one.acceptable is not None and not options.acceptability:
            raise BadRanking(f"Axis {one.axis!r}: the scheme asks for no acceptability line.")
    _check_note(answer.note, options)
    _check_ideal(answer.ideal, options)
    judgments = _checked_judgments(answer.judgments, options, presented_order)
    return replace(answer, rankings=rankings, judgments=judgments)


def store(preference: Preference, answer: Answer) -> None:
    """The rows of a checked answer."""
    ranking_rules.store(preference, answer.rankings)
    CompletionJudgment.objects.bulk_create(
        CompletionJudgment(
            preference=preference,
            completion_id=one.completion,
            ratings=dict(one.ratings),
            flags=list(one.flags),
        )
        for one in answer.judgments
    )
    if answer.ideal:
        add_ideal(preference, answer.ideal)


def add_ideal(preference: Preference, text: str) -> None:
    """Keep how the answer should have been, whether or not the scheme asks for it.

    Raises BadInput for a blank or endless text.
    """
    _require_ideal(text)
    preference.ideal = _demonstration(preference, text)
    preference.save(update_fields=["ideal"])


def judgments_of(preference: Preference) -> list[Judgment]:
    """What was said of single completions."""
    return [
        Judgment(completion=one.completion_id, ratings=one.ratings, flags=one.flags)
        for one in preference.judgments.all()
    ]


def says(preference: Preference, answer: Answer) -> bool:
    """Whether the rows of a preference hold just this checked answer."""
    rankings = [
        AxisRanking(
            axis=one.axis,
            outcome=one.outcome,
            groups=one.groups,
            strengths=one.strengths,
            acceptable=one.acceptable,
        )
        for one in preference.rankings.all()
    ]
    judgments = {one.completion: (one.ratings, list(one.flags)) for one in answer.judgments}
    stored = {one.completion: (one.ratings, list(one.flags)) for one in judgments_of(preference)}
    return (
        {one.axis: one for one in rankings} == {one.axis: one for one in answer.rankings}
        and stored == judgments
        and preference.note == answer.note
        and ideal_of(preference) == answer.ideal
    )


def ideal_of(preference: Preference) -> str:
    """The ideal answer's text, or nothing."""
    return preference.ideal.text if preference.ideal else ""


def _demonstration(preference: Preference, text: str) -> Completion:
    prompt = preference.comparison.prompt
    completion, _ = add_completion(prompt=prompt, source=prompt.source, text=text)
    record_generation(
        completion=completion,
        origin=Origin.DEMONSTRATION,
        annotator=preference.annotator,
        writer=preference.annotator.pseudonym,
    )
    return completion


def _check_strength(one: AxisRanking, options: Options, count: int) -> None:
    graded = options.levels and count == 2 and one.outcome == Outcome.RANKED
    if not graded:
        if one.strengths:
            raise BadRanking(
                f"Axis {one.axis!r}: no strength is asked for here; seen: {one.strengths}."
            )
        return
    if len(one.strengths) != 1 or one.strengths[0] not in range(1, options.levels + 1):
        raise BadRanking(
            gettext(
                "Axis %(axis)r: how much better is a whole number from 1 to %(most)s; seen: "
                "%(seen)s."
            )
            % {"axis": one.axis, "most": options.levels, "seen": one.strengths}
        )


def _check_partial(one: AxisRanking, options: Options, presented_order: Sequence[int]) -> None:
    if options.allow_partial or one.outcome not in ranking_rules.WITH_GROUPS:
        return
    placed = {identity for group in one.groups for identity in group}
    if left_out := [identity for identity in presented_order if identity not in placed]:
        raise BadRanking(
            gettext("Axis %(axis)r: every completion needs a place; without one: %(seen)s.")
            % {"axis": one.axis, "seen": left_out}
        )


def _check_note(note: str, options: Options) -> None:
    if len(note) > MAX_NOTE:
        raise BadInput(
            gettext("A note has at most %(most)s characters, not %(seen)s.")
            % {"most": MAX_NOTE, "seen": len(note)}
        )
    require_storable(note)
    if options.reason == "off" and note:
        raise BadInput(gettext("The scheme asks for no reason: %(seen)r.") % {"seen": note[:60]})
    if options.reason == "required" and not note.strip():
        raise BadInput(gettext("The scheme asks for a reason, and it is empty."))


def _check_ideal(ideal: str, options: Options) -> None:
    if not ideal:
        return
    if not options.ideal:
        raise BadInput(
            gettext("The scheme asks for no ideal answer: %(seen)r.") % {"seen": ideal[:60]}
        )
    _require_ideal(ideal)


def _require_ideal(ideal: str) -> None:
    if not ideal.strip() or len(ideal) > MAX_IDEAL:
        raise BadInput(
            gettext(
                "An ideal answer has 1 to %(most)s characters that are no blanks, not %(seen)s."
            )
            % {"most": MAX_IDEAL, "seen": len(ideal)}
        )
    require_storable(ideal)


def _checked_judgments(
    judgments: Sequence[Judgment], options: Options, presented_order: Sequence[int]
) -> list[Judgment]:
    """In the order shown; empty ones left out; with ratings, every completion has all of them."""
    by_completion: dict[int, Judgment] = {}
    for one in judgments:
        if one.completion not in presented_order:
            raise BadRanking(f"Completion {one.completion!r} was not shown.")
        if one.completion in by_completion:
            raise BadRanking(f"Completion {one.completion} is judged twice.")
        _check_flags(one, options)
        by_completion[one.completion] = one
    found = []
    for completion in presented_order:
        one = by_completion.get(completion, Judgment(completion=completion))
        _check_ratings(one, options)
        if one.ratings or one.flags:
            found.append(one)
    return found


def _check_flags(one: Judgment, options: Options) -> None:
    for flag in one.flags:
        if flag not in options.flags:
            known = ", ".join(options.flags) or "none"
            raise BadRanking(f"There is no flag {flag!r}; the flags are {known}.")
        if list(one.flags).count(flag) > 1:
            raise BadRanking(f"Completion {one.completion} has the flag {flag!r} twice.")


def _check_ratings(one: Judgment, options: Options) -> None:
    names = [attribute.name for attribute in options.ratings]
    if unknown := [name for name in one.ratings if name not in names]:
        known = ", ".join(names) or "none"
        raise BadRanking(f"There is no rating {unknown[0]!r}; the ratings are {known}.")
    for attribute in options.ratings:
        value = one.ratings.get(attribute.name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value not in range(attribute.low, attribute.high + 1):
            raise BadRanking(
                gettext(
                    "Completion %(number)s needs a %(name)r from %(low)s to %(high)s: %(seen)r."
                )
                % {
                    "number": one.completion,
                    "name": attribute.name,
                    "low": attribute.low,
                    "high": attribute.high,
                    "seen": value,
                }
            )
