"""Jobs that set two versions against each other, and what became of each prompt they drew."""

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from annotation.models import Generation, JobKind, ModelVersion, Project, Prompt, Split, TrainingJob
from annotation.standings import Battle
from annotation.trials import ALIKE, BLANK, ByItself


@dataclass(frozen=True, slots=True)
class Meeting:
    """One such job.

    drawn: of each prompt that it drew and has answered, in the order drawn, what the texts are
    by themselves, or None where people are asked. asked: the texts put to people.
    """

    job: int
    since: datetime
    pair: tuple[str, str]
    """In the order of their names."""
    drawn: list[ByItself | None] = field(default_factory=list)
    asked: list[frozenset[int]] = field(default_factory=list)


def player_of(name: str, pk: int) -> str:
    """What a version is called among players."""
    return f"{name} #{pk}"


def meetings_of(project: Project) -> list[Meeting]:
    """The project's, the earliest first.

    A prompt to which an earlier job of the same two gave the same texts is no new trial, for the
    question that it would be is asked once. Who wrote nothing but blanks loses to any text.
    """
    jobs = TrainingJob.objects.filter(
        project=project, kind=JobKind.SAMPLE, init__isnull=False, inputs__has_key="against"
    ).order_by("pk")
    rows = list(jobs.values_list("pk", "requested_at", "init_id", "inputs"))
    versions = {pk for _, _, init, inputs in rows for pk in (init, inputs["against"])}
    names = dict(ModelVersion.objects.filter(pk__in=versions).values_list("pk", "name"))
    groups = dict(
        Prompt.objects.filter(project=project, split=Split.DEV).values_list("pk", "split_group")
    )
    wrote = _wrote(project)
    seen: set[Hashable] = set()
    found = []
    for job, since, init, inputs in rows:
        both = (init, inputs["against"])
        left, right = sorted(both, key=lambda pk: player_of(names[pk], pk))
        pair = (player_of(names[left], left), player_of(names[right], right))
        meeting = Meeting(job, since, pair)
        for prompt, propensity in _drawn(inputs, len(groups)):
            texts = wrote[job, prompt]
            blank = inputs.get("blank", {}).get(str(prompt), [])
            if prompt not in groups or not {left, right} <= {*texts, *blank}:
                continue  # not answered yet, or not to be read by a policy
            key = (*both, prompt, *(texts.get(version) for version in both))
            if key in seen:
                continue
            seen.add(key)
            if not blank and texts[left] != texts[right]:
                meeting.asked.append(frozenset((texts[left], texts[right])))
                meeting.drawn.append(None)
                continue
            score = 0.5 + ((right in blank) - (left in blank)) / 2
            battle = _by_itself(pair, score, groups[prompt], propensity)
            meeting.drawn.append(ByItself(battle, BLANK if blank else ALIKE))
        found.append(meeting)
    return found


def _drawn(inputs: dict[str, Any], num_dev: int) -> list[tuple[int, float]]:
    """(prompt, how likely it was drawn), in the order drawn; of jobs that kept no such note, by
    the dev prompts of today."""
    planned = inputs.get("planned", [])
    propensities = inputs.get("propensities") or [len(planned) / max(num_dev, 1)] * len(planned)
    return list(zip(planned, propensities, strict=True))


def _by_itself(pair: tuple[str, str], score: float, group: str, propensity: float) -> Battle:
    """A battle that nobody was asked about; it weighs what the answered ones of its job weigh."""
    return Battle(
        left=pair[0],
        right=pair[1],
        score=score,
        group=group,
        annotator=None,
        weight=1 / propensity,
    )


def _wrote(project: Project) -> dict[tuple[int, int], dict[int, int]]:
    """(job, prompt) -> version -> completion."""
    rows = Generation.objects.filter(
        completion__prompt__project=project,
        completion__prompt__split=Split.DEV,
        model_version__isnull=False,
        job__inputs__has_key="against",
    ).order_by("pk")
    found: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for job, prompt, version, completion in rows.values_list(
        "job_id", "completion__prompt_id", "model_version_id", "completion_id"
    ).iterator():
        found[job, prompt].setdefault(version, completion)
    return found
