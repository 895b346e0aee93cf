"""Languages and scores: what a project is made of, line by line, and the votes behind each line."""

from collections.abc import Iterable

from django.http import Http404, QueryDict
from django.utils.translation import gettext as _

from annotation.intervals import Statistic
from annotation.languages import language_name
from annotation.models import ModelVersion, Project, Slot
from annotation.pages.behind import Behind
from annotation.pages.sheets import Figure, Line, Sheet, box_of, query_of, share_bar
from annotation.services.mixes import (
    MOST_COUNTED,
    QUANTILES,
    languages_of,
    name_of_writer,
    newest_of,
    score_spreads,
    scored_by,
    votes_of_kinds,
    votes_on_scored,
)
from annotation.services.versions import in_force


def language_sheet(project: Project, kinds: Iterable[str], asked: QueryDict) -> Sheet:
    """Shares of prompts, comparisons and votes by language."""
    found, there_are_more = languages_of(project, kinds)
    totals = [
        sum(getattr(one, what) for one in found) for what in ("prompts", "comparisons", "votes")
    ]
    lines = [
        Line(
            label=name_of(one.language),
            figures=[
                Figure(
                    statistic := Statistic(count / total if total else None, count),
                    query_of(part="languages", language=one.language) if place == 2 else "",
                    share_bar(statistic, zero=0.0),
                )
                for place, (count, total) in enumerate(
                    zip((one.prompts, one.comparisons, one.votes), totals, strict=True)
                )
            ],
        )
        for one in found
    ]
    return Sheet(
        of=_("Language"),
        columns=[
            ("prompts", _("Prompts")),
            ("comparisons", _("Comparisons")),
            ("votes", _("Votes")),
        ],
        lines=lines,
        lead=_("Where votes part from prompts, some language waits for people who read it."),
        notes=[_("Only the newest %(most)s of each are counted.") % {"most": MOST_COUNTED}]
        if there_are_more
        else [],
        empty=_("The project has no prompts yet."),
    )


def language_votes(project: Project, kinds: Iterable[str], asked: QueryDict) -> Behind:
    """Valid votes on comparisons of one language, among the newest."""
    language = asked.get("language", "")
    newest, _more = newest_of(votes_of_kinds(project, kinds))
    votes = newest.filter(comparison__language=language)
    heading = _("Language: %(name)s") % {"name": name_of(language)}
    return Behind(heading=heading, ids=votes, num_votes=votes.count())


def name_of(language: str) -> str:
    """A language in its own words."""
    return language_name(language) if language else _("not said")


def reward_of(project: Project, asked: QueryDict) -> ModelVersion | None:
    """The reward model that is asked for, else the one in force, else the newest with scores."""
    known = {str(one.pk): one for one in scored_by(project)}
    if (wanted := asked.get("reward", "")) in known:
        return known[wanted]
    now = in_force(project, Slot.REWARD)
    if now is not None and str(now.pk) in known:
        return now
    return next(iter(known.values()), None)


def score_sheet(project: Project, kinds: Iterable[str], asked: QueryDict) -> Sheet:
    """Quantiles of the scores of each writer's texts."""
    reward = reward_of(project, asked)
    spreads, there_are_more = score_spreads(project, reward) if reward else ([], False)
    ends = [value for one in spreads for value in one.quantiles.values()]
    span = (min(ends), max(ends)) if ends else (0.0, 1.0)
    lines = [
        Line(
            label=one.writer,
            figures=[
                Figure(
                    Statistic(one.quantiles[quantile], one.n),
                    query_of(
                        part="scores",
                        reward=reward.pk if reward else None,
                        version=one.version,
                        writer=one.writer if one.version is None else None,
                    ),
                    says_n=quantile == 0.5,
                )
                for quantile in QUANTILES
            ],
            box=box_of([one.quantiles[quantile] for quantile in QUANTILES], span),
        )
        for one in spreads
    ]
    notes = [_("Test prompts are left out.")]
    if there_are_more:
        notes.append(_("Only the newest scores are counted."))
    return Sheet(
        of=_("Written by"),
        columns=[
            (f"quantile_{round(100 * quantile)}", _("median") if quantile == 0.5 else name)
            for quantile, name in ((one, f"{round(100 * one)} %") for one in QUANTILES)
        ],
        lines=lines,
        lead=_("Scores of %(name)s, which has 0 and 1 at the mean and deviation of its anchors.")
        % {"name": reward.name}
        if reward
        else "",
        notes=notes if lines else [],
        empty=_(
            "No reward model has scored anything yet. Measuring contributions scores what was "
            "answered."
        ),
    )


def score_votes(project: Project, kinds: Iterable[str], asked: QueryDict) -> Behind:
    """Valid votes on comparisons with a scored text of one writer. Raises Http404 for a version
    that wrote nothing here, as for one that is not: its name is its own project's."""
    reward = reward_of(project, asked)
    number, writer = asked.get("version", ""), asked.get("writer", "")
    version = int(number) if number.isascii() and number.isdigit() and len(number) < 18 else None
    heading = _("Scores: %(name)s") % {"name": writer}
    if version is not None:
        name = name_of_writer(project, version)
        if name is None:
            raise Http404
        heading = _("Scores: %(name)s") % {"name": name}
    if reward is None:
        return Behind(heading=heading, ids=[], num_votes=0)
    votes = votes_on_scored(project, kinds, reward, version=version, writer=writer)
    return Behind(heading=heading, ids=votes, num_votes=votes.count())
