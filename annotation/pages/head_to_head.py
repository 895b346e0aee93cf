"""Head to head: who answers better by people's word, how sure that is, and what more it takes."""

import csv
import io
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.models import (
    JobKind,
    Lane,
    Membership,
    ModelVersion,
    Project,
    Split,
    VersionKind,
)
from annotation.pages.job_form import key_of, new_key
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER, WATCH
from annotation.sequential import answers_for, running_interval
from annotation.services.battles import MOST_QUESTIONS
from annotation.services.boards import board_at
from annotation.services.meetings import PEOPLE, player_of
from annotation.services.sealed import look_at_test, looks_at_test
from annotation.services.versions import versions_of
from annotation.services.wishes import ask_for_training
from annotation.standings import Board
from annotation.trials import ALIKE, BLANK, Trial

WIDTH, MARGIN = 220, 6
"""Of a bar, SVG user units."""
USUAL_HALF_WIDTH = 0.05
MOST_PROMPTS = 2000
HELD_OUT = (Split.DEV, Split.TEST)


class AskForm(forms.Form):
    """Which version people compare with which, or with people, on how many prompts of a split."""

    one = forms.ModelChoiceField(ModelVersion.objects.none(), label=gettext_lazy("Version"))
    other = forms.ChoiceField(label=gettext_lazy("Against"))
    split = forms.ChoiceField(
        label=gettext_lazy("Prompts of"),
        choices=[
            (Split.DEV.value, gettext_lazy("dev")),
            (Split.TEST.value, gettext_lazy("test (sealed)")),
        ],
        initial=Split.DEV.value,
    )
    prompts = forms.IntegerField(
        label=gettext_lazy("How many prompts"), min_value=1, max_value=MOST_PROMPTS, initial=50
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        policies = versions_of(project).filter(kind=VersionKind.POLICY)
        one, other = self.fields["one"], self.fields["other"]
        assert isinstance(one, forms.ModelChoiceField)
        assert isinstance(other, forms.ChoiceField)
        one.queryset = policies
        one.label_from_instance = lambda obj: player_of(obj.name, obj.pk)  # type: ignore[method-assign]
        names = [(str(pk), player_of(name, pk)) for pk, name in policies.values_list("pk", "name")]
        self.num_versions = len(names)
        other.choices = [("", "---------"), (PEOPLE, name_of(PEOPLE)), *names]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("one") and str(data["one"].pk) == data.get("other"):
            raise forms.ValidationError(_("Choose two different versions."))
        return data


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval as a picture: where its ends, its middle and the line to compare with lie."""

    low: float
    middle: float
    high: float
    zero: float
    width: int = WIDTH


def bar_of(
    low: float, middle: float, high: float, *, span: tuple[float, float], zero: float
) -> Bar:
    """Places within a span of values, which become the width of the picture."""
    least, most = span
    scale = (WIDTH - 2 * MARGIN) / ((most - least) or 1.0)

    def place(value: float) -> float:
        return round(MARGIN + (min(max(value, least), most) - least) * scale, 1)

    return Bar(place(low), place(middle), place(high), place(zero))


@dataclass(frozen=True, slots=True)
class Row:
    """One player of the board."""

    name: str
    points: int
    low: int
    high: int
    fair: int | None
    battles: int
    bar: Bar
    votes: str
    """Query of the page that lists them."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two players, by the trials between them."""

    one: str
    other: str
    trials: int
    ties: int
    alike: int
    blank: int
    """Of the trials, those that the texts decided by themselves: both one, or one or both blank."""
    share: float
    low: float
    high: float
    more: int | None
    """Trials until the interval is as narrow as wanted; 0 = it is, None = beyond a million."""
    bar: Bar
    votes: str
    """Query of the page that lists what people answered."""

    @property
    def verdict(self) -> str:
        """one, other or undecided: at any look, wrong in one of twenty at most."""
        if self.low > 0.5:
            return "one"
        return "other" if self.high < 0.5 else "undecided"


def name_of(player: Hashable) -> str:
    """What a player is called."""
    return _("People's own answers") if player == PEOPLE else str(player)


def rows_of(board: Board) -> list[Row]:
    """The board's lines, best first."""
    if not board.standings:
        return []
    span = (min(one.low for one in board.standings), max(one.high for one in board.standings))
    return [
        Row(
            name_of(one.player),
            round(one.points),
            round(one.low),
            round(one.high),
            None if one.at_equal_length is None else round(one.at_equal_length),
            one.battles,
            bar_of(one.low, one.points, one.high, span=span, zero=0.0),
            urlencode({"of": "met", "player": one.player}),
        )
        for one in board.standings
    ]


def pairs_of(trials: Sequence[Trial], half_width: float) -> list[Pair]:
    """Every pair that met, the most trials first."""
    met: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        met.setdefault((trial.left, trial.right), []).append(trial)
    found = []
    for (one, other), of_pair in met.items():
        scores = [trial.score for trial in of_pair]
        ways = [trial.how for trial in of_pair]
        interval = running_interval(scores)
        low, high = float(interval.low[-1]), float(interval.high[-1])
        share = sum(scores) / len(scores)
        deviation = (sum((score - share) ** 2 for score in scores) / len(scores)) ** 0.5
        wanted = answers_for(half_width, max(deviation, 0.1))
        found.append(
            Pair(
                *(name_of(one), name_of(other), len(scores)),
                *(scores.count(0.5), ways.count(ALIKE), ways.count(BLANK)),
                share,
                low,
                high,
                None if wanted is None else max(0, wanted - len(scores)),
                bar_of(low, share, high, span=(0.0, 1.0), zero=0.5),
                urlencode({"of": "met", "player": one, "other": other}),
            )
        )
    return sorted(found, key=lambda pair: -pair.trials)


def matrix_of(board: Board) -> list[tuple[str, list[str]]]:
    """(player, share of wins against each, in the board's order)."""
    players = [one.player for one in board.standings]
    return [
        (
            name_of(one),
            [
                f"{board.wins[one, other][0]:.0%} ({board.wins[one, other][1]})"
                if (one, other) in board.wins
                else ("·" if one == other else "–")
                for other in players
            ],
        )
        for one in players
    ]


def _half_width(request: HttpRequest) -> float:
    """Wanted by the reader, in share of wins; the usual one where it is no such number."""
    try:
        wanted = float(request.GET.get("width", USUAL_HALF_WIDTH))
    except ValueError:
        return USUAL_HALF_WIDTH
    return wanted if 0.005 <= wanted <= 0.5 else USUAL_HALF_WIDTH


@project_page(*WATCH)
def head_to_head(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The board of dev, the pairs, who beat whom; admins ask for more."""
    return _page(request, membership, AskForm(project=membership.project))


@project_page(*ADMINISTER, methods=("POST",))
def sealed_board(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The same of test, as a page or as CSV. It is recorded that somebody looked."""
    project = membership.project
    look_at_test(project=project, by=user_of(request), what="head to head")
    if request.POST.get("as") == "csv":
        return _csv_of(project, Split.TEST)
    return _page(request, membership, AskForm(project=project), split=Split.TEST)


def _page(
    request: HttpRequest,
    membership: Membership,
    form: AskForm,
    *,
    split: str = Split.DEV,
    status: int = 200,
) -> HttpResponse:
    project = membership.project
    met = board_at(project, split)
    half_width = _half_width(request)
    counts = dict(
        project.prompts.filter(split__in=HELD_OUT).values_list("split").annotate(Count("pk"))
    )
    context = {
        "rows": rows_of(met.board),
        "pairs": pairs_of(met.trials, half_width),
        "matrix": matrix_of(met.board),
        "half_width": half_width,
        "ask_form": form,
        "key": new_key(),
        "split": split,
        "num_dev": counts.get(Split.DEV, 0),
        "num_test": counts.get(Split.TEST, 0),
        "num_versions": form.num_versions,
        "looks": looks_at_test(project),
        "most": MOST_QUESTIONS if met.there_are_more else 0,
    }
    return project_template(request, membership, "pages/head_to_head.html", context, status)


@project_page(*ADMINISTER, methods=("POST",))
def ask(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Have two versions answer held-out prompts, or one that people answered, and ask people."""
    project = membership.project
    form = AskForm(request.POST, project=project)
    if not form.is_valid():
        for sentences in form.errors.values():
            messages.error(request, " ".join(str(one) for one in sentences))
        return _page(request, membership, form, status=422)
    asked = form.cleaned_data
    other = asked["other"]
    with told(request):
        job = ask_for_training(
            project=project,
            by=user_of(request),
            key=key_of(request.POST),
            kind=JobKind.SAMPLE,
            lane=Lane.EXPERIMENT,
            init=asked["one"],
            inputs={
                "against": other if other == PEOPLE else int(other),
                "split": asked["split"],
                "comparisons": asked["prompts"],
            },
        )
        messages.success(request, _("Job %(number)s is queued.") % {"number": job.pk})
        return redirect("job", slug=project.slug, job_id=job.pk)
    return redirect("head-to-head", slug=project.slug)


@project_page(*WATCH)
def numbers_csv(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Both tables of dev as CSV, in full digits."""
    return _csv_of(membership.project, Split.DEV)


def _csv_of(project: Project, split: str) -> HttpResponse:
    met = board_at(project, split)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["player", "against", "figure", "value", "low", "high", "n"])
    for one in met.board.standings:
        points = [one.points, one.low, one.high]
        writer.writerow([_plain(one.player), "", "points", *points, one.battles])
        if one.at_equal_length is not None:
            fair = [one.at_equal_length, "", ""]
            writer.writerow([_plain(one.player), "", "points at equal length", *fair, one.battles])
    for pair in pairs_of(met.trials, USUAL_HALF_WIDTH):
        share = [pair.share, pair.low, pair.high, pair.trials]
        writer.writerow([_plain(pair.one), _plain(pair.other), "share of wins", *share])
    name = f"head-to-head-{split}.csv"
    return HttpResponse(
        text.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _plain(player: Hashable) -> str:
    """A name that no spreadsheet takes for a formula."""
    name = name_of(player)
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name
