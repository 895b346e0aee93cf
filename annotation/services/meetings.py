"""Jobs that set two versions, or one and people, against each other, prompt by prompt."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from annotation.models import Generation, JobKind, ModelVersion, Project, Prompt, Split, TrainingJob
from annotation.standings import Battle
from annotation.trials import ALIKE, BLANK, ByItself

PEOPLE = "people"
"""Who wrote a demonstration."""


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


Side = int | str
"""A version's id, or PEOPLE."""


def player_of(name: str, pk: int) -> str:
    """What a version is called among players."""
    return f"{name} #{pk}"


def split_of(inputs: Mapping[str, Any]) -> str:
    """From which split such a job draws its prompts."""
    return str(inputs.get("split", Split.DEV))


def meetings_of(project: Project, split: str = Split.DEV) -> list[Meeting]:
    """The project's on prompts of a split, the earliest first.

    A prompt to which an earlier job of the same two gave the same texts, whoever of them was named
    first, is no new trial; nor is a question that any earlier job put, whose answers are that
    job's: here nobody would ever answer it. Who wrote nothing but blanks loses to any text.
    """
    jobs = TrainingJob.objects.filter(
        project=project, kind=JobKind.SAMPLE, init__isnull=False, inputs__has_key="against"
    ).order_by("pk")
    rows = [
        row
        for row in jobs.values_list("pk", "requested_at", "init_id", "inputs")
        if split_of(row[-1]) == split
    ]
    if not rows:
        return []
    sides = {side for _, _, init, inputs in rows for side in (init, inputs["against"])} - {PEOPLE}
    named = ModelVersion.objects.filter(pk__in=sides).values_list("pk", "name")
    players: dict[Side, str] = {PEOPLE: PEOPLE} | {pk: player_of(name, pk) for pk, name in named}
    groups = dict(
        Prompt.objects.filter(project=project, split=split).values_list("pk", "split_group")
    )
    wrote = _wrote([pk for pk, *_ in rows])
    seen: set[Hashable] = set()
    asked: set[frozenset[int]] = set()
    found = []
    for job, since, init, inputs in rows:
        left, right = sorted((init, inputs["against"]), key=players.__getitem__)
        pair = (players[left], players[right])
        meeting = Meeting(job, since, pair)
        for prompt, propensity in _drawn(inputs, len(groups)):
            texts = wrote[job, prompt] | _human(inputs, prompt)
            blank = inputs.get("blank", {}).get(str(prompt), [])
            if prompt not in groups or not {left, right} <= {*texts, *blank}:
                continue  # not answered yet, or not to be read by a policy
            key = (left, right, prompt, texts.get(left), texts.get(right))
            if key in seen:
                continue
            seen.add(key)
            if not blank and texts[left] != texts[right]:
                question = frozenset((texts[left], texts[right]))
                if question not in asked:
                    asked.add(question)
                    meeting.asked.append(question)
                    meeting.drawn.append(None)
                continue
            score = 0.5 + ((right in blank) - (left in blank)) / 2
            battle = _by_itself(pair, score, groups[prompt], propensity)
            meeting.drawn.append(ByItself(battle, BLANK if blank else ALIKE))
        found.append(meeting)
    return found


def _drawn(inputs: dict[str, Any], num_prompts: int) -> list[tuple[int, float]]:
    """(prompt, how likely it was drawn), in the order drawn; of jobs that kept no such note, by
    the prompts of today."""
    planned = inputs.get("planned", [])
    usual = [len(planned) / max(num_prompts, 1)] * len(planned)
    return list(zip(planned, inputs.get("propensities") or usual, strict=True))


def _human(inputs: dict[str, Any], prompt: int) -> dict[Side, int]:
    """The people's own answer that a job chose for a prompt."""
    chosen = inputs.get("human", {}).get(str(prompt))
    return {} if chosen is None else {PEOPLE: chosen}


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


def _wrote(jobs: Sequence[int]) -> dict[tuple[int, int], dict[Side, int]]:
    """(job, prompt) -> version -> completion."""
    rows = Generation.objects.filter(job__in=jobs, model_version__isnull=False).order_by("pk")
    found: dict[tuple[int, int], dict[Side, int]] = defaultdict(dict)
    for job, prompt, version, completion in rows.values_list(
        "job_id", "completion__prompt_id", "model_version_id", "completion_id"
    ).iterator():
        found[job, prompt].setdefault(version, completion)
    return found
