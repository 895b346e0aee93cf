"""Asking: what the next questions are made of, what came of those before, what to ask next."""

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.asking import Asking, Pairing, label_of
from annotation.intervals import Statistic
from annotation.models import (
    Comparison,
    JobKind,
    Lane,
    Membership,
    ModelVersion,
    Project,
    Purpose,
    Slot,
    Strategy,
)
from annotation.pages.asking_next import Facts, Next, what_next
from annotation.pages.head_to_head import Bar
from annotation.pages.sheets import query_of, share_bar
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER, WATCH
from annotation.services import asked
from annotation.services.asked import Came, what_came, what_was_drawn
from annotation.services.heldout import heldout_of
from annotation.services.loop import change_loop
from annotation.services.versions import in_force

PERCENT = (*Pairing.values, "length_matched", "heldout_share")
"""Fields of the form that are shares."""
PLAIN = (
    *("open_target", "completions_per_comparison", "answers_wanted"),
    *("catch_leaks", "catch_alike"),
)
ROUNDED = 0.001
"""Thirds that are written with two decimals are 99.99 percent."""
DROPPED = {
    "identical_dropped": gettext_lazy("texts the same as another"),
    "alike_caught": gettext_lazy("texts nearly the same as another"),
    "leaks_caught": gettext_lazy("texts that name their maker"),
    "blank_dropped": gettext_lazy("blank texts"),
    "too_few_distinct": gettext_lazy("questions with too few texts that differ"),
    "opponent_gone": gettext_lazy("questions whose other text could not be had"),
    "without_text": gettext_lazy("prompts that hold more than text"),
    "not_planned": gettext_lazy("questions that the mix had no prompt left for"),
}


class Percent(forms.FloatField):
    """A share, as percent to whoever fills it in."""

    def __init__(self, label: Any, help_text: Any = "") -> None:
        super().__init__(
            label=label,
            help_text=help_text,
            min_value=0,
            max_value=100,
            widget=forms.NumberInput(attrs={"step": "any", "inputmode": "decimal"}),
        )

    def clean(self, value: Any) -> Any:
        return round(super().clean(value) / 100, 8)

    def prepare_value(self, value: Any) -> Any:
        # a stored share; what somebody typed is text and stays as it is
        return f"{100 * value:.10g}" if isinstance(value, int | float) else value


class AskingForm(forms.Form):
    """The mix, and how much is asked."""

    same = Percent(
        gettext_lazy("The same policy"),
        gettext_lazy("Both texts by the policy that writes."),
    )
    in_force = Percent(
        gettext_lazy("The version in force"),
        gettext_lazy("The one before it, where it writes itself."),
    )
    reference = Percent(
        gettext_lazy("A person or the dataset"),
        gettext_lazy("What a person wrote to the prompt, else what came with it."),
    )
    anchor = Percent(
        gettext_lazy("The prompt's anchor"),
        gettext_lazy("The first text of it that people judged, the same for all versions."),
    )
    length_matched = Percent(
        gettext_lazy("Of one length"),
        gettext_lazy("Share of the training questions whose texts differ by a tenth at most."),
    )
    heldout_share = Percent(
        gettext_lazy("Held out"),
        gettext_lazy("Share on dev and test prompts, drawn uniformly; no model learns from it."),
    )
    open_target = forms.IntegerField(
        label=gettext_lazy("Keep open"),
        help_text=gettext_lazy("Below three quarters of it new ones are written; 0 writes none."),
        min_value=0,
        max_value=100_000,
    )
    completions_per_comparison = forms.IntegerField(
        label=gettext_lazy("Texts in a question"), min_value=2, max_value=9
    )
    answers_wanted = forms.IntegerField(
        label=gettext_lazy("People asked"), min_value=1, max_value=1000
    )
    catch_alike = forms.BooleanField(
        label=gettext_lazy("Drop texts that are nearly the same"), required=False
    )
    catch_leaks = forms.BooleanField(
        label=gettext_lazy("Drop texts that name their maker"), required=False
    )

    def clean(self) -> dict[str, Any]:
        """The shares are 100 percent together, but for what was rounded."""
        data = super().clean() or {}
        shares = {name: data[name] for name in Pairing.values if name in data}
        total = sum(shares.values())
        if len(shares) == len(Pairing) and abs(total - 1) > ROUNDED:
            raise forms.ValidationError(
                _("The four shares are %(total)s percent together, and not 100.")
                % {"total": f"{100 * total:.6g}"}
            )
        if len(shares) < len(Pairing) or abs(total - 1) < 1e-9:
            return data
        return data | {name: share / total for name, share in shares.items()}

    def changes(self) -> dict[str, Any]:
        """As services.loop takes them."""
        data = dict(self.cleaned_data)
        shares = {name: data.pop(name) for name in (*Pairing.values, "length_matched")}
        return {**data, "asking": shares}


@dataclass(frozen=True)
class Cell:
    """A share with its interval and picture."""

    statistic: Statistic
    bar: Bar | None


@dataclass(frozen=True)
class Row:
    """What came of one way to ask."""

    came: Came
    label: str
    query: str
    """Of the search that finds them."""
    of_all: float
    cells: list[Cell]


@project_page(*WATCH)
def asking(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The page; `use` names a suggestion that the form is filled with."""
    project = membership.project
    facts, reward = facts_of(project)
    suggestions = what_next(facts)
    use = request.GET.get("use", "")
    chosen = next((one for one in suggestions if one.name == use and one.changes), None)
    form = AskingForm(initial=_initial(project) | dict(chosen.changes or {} if chosen else {}))
    return _page(request, membership, form, facts, suggestions, reward=reward, chosen=chosen)


@project_page(*ADMINISTER, methods=("POST",))
def save(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Change the mix; what is refused stays in the form as it was typed."""
    project = membership.project
    form = AskingForm(request.POST)
    if form.is_valid():
        with told(request):
            change_loop(project=project, changes=form.changes(), by=user_of(request))
            messages.success(request, _("Saved; it holds for what is written from now on."))
            return redirect("asking", slug=project.slug)
    else:
        for name, sentences in form.errors.items():
            label = f"{form.fields[name].label}: " if name in form.fields else ""
            messages.error(request, label + " ".join(str(one) for one in sentences))
    facts, reward = facts_of(project)
    return _page(
        request, membership, form, facts, what_next(facts), reward=reward, chosen=None, status=422
    )


@project_page(*WATCH)
def numbers(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The table as CSV."""
    name = f"{membership.project.slug}-asking.csv"
    response = HttpResponse(
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
    writer = csv.writer(response)
    shares = ("undecided", "longer", "right")
    writer.writerow(
        ["pairing", "length", "asked", "open", "heldout"]
        + [f"{one}{end}" for one in shares for end in ("", "_low", "_high", "_n")]
    )
    for came in what_came(membership.project, in_force(membership.project, Slot.REWARD)):
        row: list[Any] = [
            came.pairing.value,
            came.length.value,
            came.asked,
            came.open,
            came.heldout,
        ]
        for one in shares:
            found = getattr(came, one)
            row += [found.value, found.low, found.high, found.n]
        writer.writerow(row)
    return response


def facts_of(project: Project) -> tuple[Facts, ModelVersion | None]:
    """What the rules look at, and the reward model in force."""
    reward = in_force(project, Slot.REWARD)
    by_chance = Comparison.objects.open().filter(
        project=project, purpose=Purpose.PRODUCTION, strategy=Strategy.RANDOM
    )
    facts = Facts(
        asking=Asking.of(project.asking),
        heldout_share=project.heldout_share,
        came=what_came(project, reward),
        drawn=what_was_drawn(project),
        to_be_had=asked.to_be_had(project),
        heldout=heldout_of(project),
        more_groups=_more_groups(project),
        has_reward=reward is not None,
        open_by_chance=by_chance.count(),
    )
    return facts, reward


def _more_groups(project: Project) -> int | None:
    """Of the newest reward model of the loop, where its gate is undecided."""
    newest = (
        ModelVersion.objects.filter(job__project=project, job__lane=Lane.LOOP, stage=JobKind.REWARD)
        .order_by("-pk")
        .first()
    )
    gate: Mapping[str, Any] = newest.metrics.get("gate") or {} if newest else {}
    if gate.get("verdict") != "undecided":
        return None
    return (gate.get("numbers") or {}).get("look", {}).get("more_groups")


def _initial(project: Project) -> dict[str, Any]:
    of_project = {name: getattr(project, name) for name in ("heldout_share", *PLAIN)}
    return asdict(Asking.of(project.asking)) | of_project


def _page(
    request: HttpRequest,
    membership: Membership,
    form: AskingForm,
    facts: Facts,
    suggestions: list[Next],
    *,
    reward: ModelVersion | None,
    chosen: Next | None,
    status: int = 200,
) -> HttpResponse:
    project = membership.project
    of_all = sum(one.asked for one in facts.came)
    rows = [
        Row(
            came,
            label_of(came.selector),
            query_of(made_as=came.selector),
            came.asked / of_all,
            [
                Cell(one, share_bar(one, zero=zero))
                for one, zero in ((came.undecided, 0.0), (came.longer, 0.5), (came.right, 0.5))
            ][: 3 if reward else 2],
        )
        for came in facts.came
    ]
    context = {
        "form": form,
        "shares": [(form[name], facts.to_be_had[Pairing(name)]) for name in Pairing.values],
        "others": [form[name] for name in ("length_matched", "heldout_share", *PLAIN[:3])],
        "switches": [form[name] for name in PLAIN[3:]],
        "changed": {
            name
            for name, value in ((chosen.changes or {}) if chosen else {}).items()
            if value != _initial(project)[name]
        },
        "suggestions": suggestions,
        "chosen": chosen,
        "rows": rows,
        "newest": asked.NEWEST,
        "drawn": facts.drawn,
        "dropped": [
            *((DROPPED[name], number) for name, number in facts.drawn.dropped.items()),
            (_("questions that found no texts of one length"), facts.drawn.missed),
        ],
        "reward": reward,
        "strategies": _strategies(project),
        "heldout_asked": sum(one.heldout for one in facts.came),
        "asked": of_all,
    }
    return project_template(request, membership, "pages/asking.html", context, status=status)


def _strategies(project: Project) -> list[tuple[str, int]]:
    """In which order open production questions are handed out, and how many each way."""
    counted = (
        Comparison.objects.open()
        .filter(project=project, purpose=Purpose.PRODUCTION)
        .order_by()
        .values_list("strategy")
        .annotate(Count("pk"))
    )
    return [(str(Strategy(name).label), number) for name, number in counted]
