"""Position and length: which way answers lean, line by line, and the votes behind each line."""

from collections.abc import Callable, Iterable

from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import Project, Slot
from annotation.pages.behind import Behind, Choice
from annotation.pages.sheets import Figure, Line, Sheet, query_of, share_bar
from annotation.services.leanings import (
    RATIOS,
    StrictAnswer,
    StrictAnswers,
    bucket_number,
    by_length,
    first_shares,
    scores_of,
    strict_answers,
)
from annotation.services.versions import in_force

FIRST, LAST = "first", "last"
SCORED, DECIDED = "people", "model"
"""Answers whose two texts have scores, and those whose scores differ."""
EVERY = "all"
LONGER, SHORTER = "longer", "shorter"
WON = {
    FIRST: gettext_lazy("what was shown first won"),
    LAST: gettext_lazy("what was shown later won"),
    LONGER: gettext_lazy("the longer text won"),
    SHORTER: gettext_lazy("the shorter text won"),
}


def position_sheet(project: Project, kinds: Iterable[str], asked: QueryDict) -> Sheet:
    """Who prefers what is shown first, everybody in the first line."""
    found = strict_answers(project, kinds)
    lines = [
        Line(
            label=name or _("everybody"),
            figures=[Figure(one, query_of(part="position", annotator=name), share_bar(one))],
            is_whole=not name,
        )
        for name, _won, one in first_shares(found)
    ]
    return Sheet(
        of=_("Annotator"),
        columns=[("first_shown_wins", _("First shown wins"))],
        lines=lines,
        lead=_(
            "The order on the page is drawn for everybody anew, so over many answers what is shown "
            "first should win half of them."
        ),
        notes=_counted(found),
        empty=_("Nobody of these has put one answer above another yet."),
    )


def position_votes(project: Project, kinds: Iterable[str], asked: QueryDict) -> Behind:
    """The strict answers of one annotator, or of everybody; one of each vote."""
    name = asked.get("annotator", "")
    won = {FIRST: lambda one: one.pair.first_won, LAST: lambda one: not one.pair.first_won}
    found = strict_answers(project, kinds).one_of_each_vote
    answers = [one for one in found if name in ("", one.pseudonym)]
    heading = _("Position: %(name)s") % {"name": name or _("everybody")}
    return _behind(heading, answers, asked, won)


def length_sheet(project: Project, kinds: Iterable[str], asked: QueryDict) -> Sheet:
    """How often the longer text wins, by how much longer it is; the reward model beside people."""
    found = strict_answers(project, kinds, with_lengths=True)
    reward = in_force(project, Slot.REWARD)
    scores = scores_of(found, reward) if reward else None
    lines = []
    for bucket in by_length(found, scores or None):
        statistics = [bucket.people, bucket.scored, bucket.model]
        if bucket.people.n:
            figures = [
                None
                if one is None
                else Figure(
                    one,
                    query_of(part="length", bucket=bucket.number, scored=by or None),
                    share_bar(one),
                )
                for by, one in zip(("", SCORED, DECIDED), statistics, strict=True)
            ]
            lines.append(Line(_bucket_name(bucket.number), figures if scores else figures[:1]))
    columns = [("people", _("The longer one wins, by people"))]
    notes = _counted(found)
    if scores and reward:
        columns += [
            ("people_where_scored", _("people, where there are scores")),
            ("reward_model", _("%(name)s, on the same answers") % {"name": reward.name}),
        ]
        notes.append(_("Scores of test prompts stay sealed."))
    elif reward:
        notes.append(_("%(name)s has scored none of these answers yet.") % {"name": reward.name})
    return Sheet(
        of=_("Longer by, characters"),
        columns=columns,
        lines=lines,
        lead=_(
            "No bias by itself: longer may be better. A model that leans further than people do "
            "has learned length instead of what they wanted."
        ),
        notes=notes,
        empty=_("No answer chose between texts of different length yet."),
    )


def length_votes(project: Project, kinds: Iterable[str], asked: QueryDict) -> Behind:
    """The strict answers of one bucket, or of all; `scored`: those that have scores."""
    wanted = asked.get("bucket", "")
    number = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 3 else 0
    number = min(number, len(RATIOS))

    def longer(one: StrictAnswer) -> bool:
        return one.pair.winner_length > one.pair.loser_length

    won = {LONGER: longer, SHORTER: lambda one: not longer(one)}
    found = strict_answers(project, kinds, with_lengths=True)
    answers = [
        one
        for one in found.answers
        if one.pair.winner_length != one.pair.loser_length
        and (wanted == EVERY or bucket_number(one.ratio) == number)
    ]
    reward = in_force(project, Slot.REWARD)
    if (scored := asked.get("scored")) and reward is not None:
        scores = scores_of(found, reward)
        answers = [
            one
            for one in answers
            if one.winner in scores
            and one.loser in scores
            and (scored != DECIDED or scores[one.winner] != scores[one.loser])
        ]
    if wanted == EVERY:
        return _behind(_("Length"), answers, asked, won)
    heading = _("Length: longer by %(name)s") % {"name": _bucket_name(number)}
    return _behind(heading, answers, asked, won)


def _bucket_name(number: int) -> str:
    low = RATIOS[number - 1] if number else 1.0
    if number == len(RATIOS):
        return _("%(low)s times and more") % {"low": f"{low:g}"}
    return _("%(low)s to %(high)s times") % {"low": f"{low:g}", "high": f"{RATIOS[number]:g}"}


def _behind(
    heading: str,
    answers: list[StrictAnswer],
    asked: QueryDict,
    won: dict[str, Callable[[StrictAnswer], bool]],
) -> Behind:
    """All of the answers, or with `won` those of one side."""
    chosen = asked.get("won", "")
    kept = [one for one in answers if chosen not in won or won[chosen](one)]
    choices = [Choice("", _("all"), len(answers), chosen not in won)]
    choices += [
        Choice(name, str(WON[name]), sum(map(holds, answers)), name == chosen)
        for name, holds in won.items()
    ]
    ids = sorted({one.vote for one in kept}, reverse=True)
    return Behind(heading=heading, ids=ids, num_votes=len(ids), choices=choices)


def _counted(found: StrictAnswers) -> list[str]:
    """How many answers there are, as a sentence."""
    told = {"strict": len(found.answers), "votes": found.votes}
    notes = [
        _("%(strict)s strict answers in a known order of places, in %(votes)s first votes.") % told
    ]
    if found.there_are_more:
        notes.append(_("Only the newest votes are counted."))
    return notes
