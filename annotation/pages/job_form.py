"""A job set up with every setting of its kind: defaults, meaning, limits, and a look before."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.http.request import QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.errors import BadInput, Conflict
from annotation.funnel import DECISIONS, WEIGHTS
from annotation.job_schemas import Setting, meaning_in_words, settings_of
from annotation.models import (
    AnnotatorKind,
    JobKind,
    Lane,
    Membership,
    ModelVersion,
    Project,
    TrainingJob,
    VersionKind,
)
from annotation.pages.dev_answers import warning_of
from annotation.pages.export_words import BUCKETS
from annotation.pages.job_presets import PRESETS, USUAL, Preset
from annotation.pages.shell import project_page, project_template, user_of
from annotation.permissions import ADMINISTER
from annotation.services.dryrun import DryRun, dry_run
from annotation.services.inputs import MAX_COMPARISONS, MAX_PROCESSES, NO_INIT, NOTES
from annotation.services.jobs import data_files
from annotation.services.versions import versions_of
from annotation.services.wishes import ask_for_training
from annotation.storable import fault_of

PREFIX = "set-"
"""Before a setting's name in the form."""
EDGES = {
    JobKind.SFT: ("init",),
    JobKind.REWARD: ("init",),
    JobKind.JUDGE: ("init",),
    JobKind.PPO: ("init", "reference", "reward"),
    JobKind.SAMPLE: ("init",),
}
"""Versions that a kind of job takes."""
INPUTS = {
    JobKind.PRETRAIN: ("paths",),
    JobKind.SFT: ("paths",),
    JobKind.REWARD: (
        *(
            "paths",
            "annotators",
            "decisions",
            "weights",
            "judge_share",
            "processes",
            "from_nothing",
        ),
    ),
    JobKind.JUDGE: ("annotators", "decisions", "weights", "processes", "from_nothing"),
    JobKind.PPO: ("paths",),
    JobKind.SAMPLE: ("comparisons",),
}
START_WORDS = {
    "init": gettext_lazy("Starts from"),
    "reference": gettext_lazy("KL is measured from"),
    "reward": gettext_lazy("Rewarded by"),
}


class WorksOn(forms.Form):
    """What a job works on: versions and inputs. What is left out is chosen when it starts."""

    lane = forms.ChoiceField(label=gettext_lazy("Lane"), choices=Lane.choices)
    init = forms.ModelChoiceField(ModelVersion.objects.none(), required=False)
    reference = forms.ModelChoiceField(ModelVersion.objects.none(), required=False)
    reward = forms.ModelChoiceField(ModelVersion.objects.none(), required=False)
    paths = forms.MultipleChoiceField(
        label=gettext_lazy("Files to read instead of the ledger"), required=False
    )
    annotators = forms.MultipleChoiceField(
        label=gettext_lazy("Votes of"), choices=AnnotatorKind.choices, required=False
    )
    decisions = forms.ChoiceField(
        label=gettext_lazy("Reviewers' decisions"),
        choices=[
            ("", "–"),
            (DECISIONS[0], gettext_lazy("beside the votes")),
            (DECISIONS[1], gettext_lazy("instead of the votes")),
        ],
        required=False,
    )
    weights = forms.ChoiceField(
        label=gettext_lazy("Votes weigh"),
        choices=[
            ("", "–"),
            (WEIGHTS[0], gettext_lazy("all the same")),
            (WEIGHTS[1], gettext_lazy("by reliability (Dawid-Skene)")),
            (WEIGHTS[2], gettext_lazy("by reliability (Bradley-Terry)")),
        ],
        required=False,
    )
    judge_share = forms.FloatField(
        label=gettext_lazy("Share of groups kept for a judge"), required=False, min_value=0
    )
    processes = forms.IntegerField(
        label=gettext_lazy("Processes"), required=False, min_value=1, max_value=MAX_PROCESSES
    )
    comparisons = forms.IntegerField(
        label=gettext_lazy("Comparisons to write"),
        required=False,
        min_value=0,
        max_value=MAX_COMPARISONS,
    )
    from_nothing = forms.BooleanField(
        label=gettext_lazy("Start from random weights"), required=False
    )
    reason = forms.CharField(
        label=gettext_lazy("Why, for those who read it later"), required=False, max_length=200
    )

    def __init__(self, *args: Any, project: Project, kind: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        edges = EDGES.get(JobKind(kind), ())
        wanted = {"lane", "reason", *edges, *INPUTS[JobKind(kind)]}
        for name in [name for name in self.fields if name not in wanted]:
            del self.fields[name]
        for edge in edges:
            of_kind = VersionKind.REWARD if edge == "reward" else VersionKind.POLICY
            field = self.fields[edge]
            field.label = START_WORDS[edge]
            field.queryset = versions_of(project).filter(kind=of_kind)  # type: ignore[attr-defined]
            field.empty_label = _("what is right when it starts")  # type: ignore[attr-defined]
            field.label_from_instance = _named  # type: ignore[attr-defined]
        if "paths" in self.fields:
            known = [(name, name) for name in data_files()]
            self.fields["paths"].choices = known  # type: ignore[attr-defined]

    def inputs(self) -> dict[str, Any]:
        """TrainingJob.inputs, of what was said."""
        said = self.cleaned_data
        found = {
            name: said[name] for name in ("annotators", "decisions", "weights") if said.get(name)
        }
        numbers = ("judge_share", "processes", "comparisons")
        found |= {name: said[name] for name in numbers if said.get(name) is not None}
        found |= {"data": said["paths"]} if said.get("paths") else {}
        return found | ({"init": NO_INIT} if said.get("from_nothing") else {})

    def wish(self) -> dict[str, Any]:
        """What ask_for_training takes, but for the config."""
        edges = {edge: self.cleaned_data.get(edge) for edge in START_WORDS}
        return {
            **{edge: version for edge, version in edges.items() if version},
            "lane": self.cleaned_data["lane"],
            "reason": self.cleaned_data["reason"],
            "inputs": self.inputs(),
        }


def _named(version: ModelVersion) -> str:
    return f"{version.name} #{version.pk}"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One setting as the form shows it."""

    setting: Setting
    typed: str
    """As it stands in the form; empty is the default."""
    default: str
    """What an empty one means: the project's default, or the class's."""
    is_projects: bool
    fault: str = ""

    @property
    def name(self) -> str:
        return self.setting.name

    @property
    def meaning(self) -> list[tuple[str, bool]]:
        """(text, whether it is code), of what stands in backquotes and between."""
        parts = meaning_in_words(self.setting.meaning).split("`")
        return [(part, place % 2 == 1) for place, part in enumerate(parts)]

    @property
    def choices(self) -> list[str]:
        """All values, where they are a few words."""
        if self.setting.types == ("boolean",):
            return ["true", "false"]
        return [text_of(one) for one in self.setting.choices]

    @property
    def limits(self) -> str:
        """In words; empty where there are none."""
        one = self.setting
        said = [
            _("at least %(limit)s") % {"limit": one.least} if one.least is not None else "",
            _("above %(limit)s") % {"limit": one.above} if one.above is not None else "",
            _("at most %(limit)s") % {"limit": one.most} if one.most is not None else "",
            _("below %(limit)s") % {"limit": one.below} if one.below is not None else "",
        ]
        return ", ".join(filter(None, said))


def text_of(value: Any) -> str:
    """A setting's value as it is typed."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def value_of(setting: Setting, typed: str) -> Any:
    """What was typed, as JSON where it is that and the setting wants no text."""
    if "string" in setting.types:
        return None if typed == "null" and "null" in setting.types else typed
    try:
        return json.loads(typed)
    except (ValueError, RecursionError):
        return typed


def read_config(
    kind: str, posted: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Line]]:
    """The config that was typed, and the lines to show it again, with their faults."""
    config, lines = {}, []
    for name, setting in settings_of(kind).items():
        typed = str(posted.get(PREFIX + name, "")).strip()
        fault = ""
        if typed:
            value = value_of(setting, typed)
            fault = setting.fault_of(value) or str(fault_of(value) or "")
            config[name] = value
        lines.append(
            Line(
                setting=setting,
                typed=typed,
                default=text_of(defaults.get(name, setting.default)),
                is_projects=name in defaults,
                fault=_("It must be %(fault)s.") % {"fault": fault} if fault else "",
            )
        )
    return config, lines


def _kind_of(given: Mapping[str, Any]) -> str:
    kind = given.get("kind", JobKind.REWARD)
    if kind not in JobKind.values:
        raise BadInput(
            _("kind must be one of %(kinds)s: %(kind)s.")
            % {"kinds": ", ".join(JobKind.values), "kind": f"{kind!r:.80}"}
        )
    return str(kind)


@project_page(*ADMINISTER)
def new(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The form of a kind: empty, with a preset, or like another job."""
    project = membership.project
    if number := request.GET.get("from", ""):
        if not number.isdecimal() or len(number) > 18:
            raise BadInput(_("“from” must be a job's number: %(seen)s.") % {"seen": number[:40]})
        like = get_object_or_404(project.jobs, pk=int(number))
        posted = {PREFIX + name: text_of(value) for name, value in like.config.items()}
        works_on = WorksOn(initial=_like(like), project=project, kind=like.kind)
        return _page(request, membership, like.kind, posted, works_on, like=like)
    kind = _kind_of(request.GET)
    preset = next((one for one in PRESETS[kind] if one.key == request.GET.get("preset")), None)
    config = preset.config if preset else {}
    posted = {PREFIX + name: text_of(value) for name, value in config.items()}
    works_on = WorksOn(project=project, kind=kind)
    return _page(request, membership, kind, posted, works_on, preset=preset)


def _like(job: TrainingJob) -> dict[str, Any]:
    inputs = {name: value for name, value in job.inputs.items() if name not in NOTES}
    return {
        **inputs,
        "paths": inputs.get("data"),
        "from_nothing": inputs.get("init") == NO_INIT,
        "init": job.init_id,
        "reference": job.reference_id,
        "reward": job.reward_id,
        "lane": job.lane,
    }


@project_page(*ADMINISTER, methods=("POST",))
def ask(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Look what the job would do, or queue it; what cannot be stays as it was typed."""
    project = membership.project
    kind = _kind_of(request.POST)
    works_on = WorksOn(request.POST, project=project, kind=kind)
    config, lines = read_config(kind, request.POST, project.job_defaults.get(kind, {}))
    if not works_on.is_valid() or any(line.fault for line in lines):
        messages.error(request, _("Nothing is queued: look at what is marked below."))
        return _page(request, membership, kind, request.POST, works_on, status=422)
    wish: dict[str, Any] = {"kind": kind, "config": config} | works_on.wish()
    by = user_of(request)
    try:
        if "look" in request.POST:
            found = dry_run(project=project, by=by, **wish)
            return _page(request, membership, kind, request.POST, works_on, found=found)
        key = key_of(request.POST)
        job = ask_for_training(project=project, by=by, key=key, **wish)
    except (BadInput, Conflict) as error:
        messages.error(request, error.detail)
        posted = request.POST.copy()
        if isinstance(error, Conflict):
            posted.pop("key", None)  # it has its job; what stands in the form now may be asked anew
        return _page(request, membership, kind, posted, works_on, status=422)
    messages.success(request, _("Job %(number)s is queued.") % {"number": job.pk})
    return redirect("job", slug=project.slug, job_id=job.pk)


def new_key() -> str:
    """Of a form that asks for a job: sent twice, it asks once."""
    return str(uuid.uuid4())


def key_of(posted: QueryDict) -> str | None:
    """The form's own key; None where it was not sent by ours."""
    try:
        return str(uuid.UUID(posted.get("key", "")))
    except ValueError:
        return None


def _page(
    request: HttpRequest,
    membership: Membership,
    kind: str,
    posted: Mapping[str, Any],
    works_on: WorksOn,
    *,
    preset: Preset | None = None,
    like: TrainingJob | None = None,
    found: DryRun | None = None,
    status: int = 200,
) -> HttpResponse:
    _config, lines = read_config(kind, posted, membership.project.job_defaults.get(kind, {}))
    by_name = {line.name: line for line in lines}
    given = [line.name for line in lines if line.typed and line.name not in USUAL[kind]]
    first = [*USUAL[kind], *given]
    context = {
        "kind": JobKind(kind),
        "kinds": JobKind,
        "works_on": works_on,
        "usual": [by_name[name] for name in first],
        "rest": [line for line in lines if line.name not in first],
        "presets": PRESETS[kind],
        "preset": preset,
        "like": like,
        "key": (key_of(posted) if isinstance(posted, QueryDict) else None) or new_key(),
        "plan": _plan(found, kind) if found else None,
    }
    return project_template(request, membership, "pages/job_new.html", context, status)


def _plan(found: DryRun, kind: str) -> dict[str, Any]:
    """A dry run in the words of the page."""
    funnel = found.funnel
    return {
        "run": found,
        "learns_tokenizer": "init" not in dict(found.starts),
        "unmeasured": warning_of(found.num_dev),
        "starts": [(START_WORDS[edge], version) for edge, version in found.starts],
        "buckets": [
            (BUCKETS.get(name, name), now, before, None if before is None else now - before)
            for name, now, before in (funnel.buckets if funnel else ())
        ],
        "minutes": None if found.seconds is None else max(1, round(found.seconds / 60)),
        "config": [
            (name, text_of(value), text_of(settings_of(kind)[name].default))
            for name, value in found.config.items()
            if name in settings_of(kind)
        ],
    }
