"""Two versions answer the same held-out prompts, and people are asked blindly which did better.

A sample job whose inputs name another version (`against`), or "people": their own answers to the
prompts are the other side. Prompts are drawn uniformly from dev or test (`split`), from which
nothing learns, and among them from those that people answered where these are met. Where both
write the same text nobody is asked: the two generations of the one completion are the tie. Nor
where one or both write nothing: the job notes who.
"""

import random
from collections import Counter
from typing import Any

from annotation.errors import BadInput
from annotation.models import (
    Completion,
    ModelVersion,
    Project,
    Prompt,
    Purpose,
    Source,
    Split,
    TrainingJob,
    VersionKind,
)
from annotation.services import jobs, ledger
from annotation.services.human_answers import human_answers
from annotation.services.meetings import PEOPLE, split_of
from annotation.services.versions import versions_of
from policy.config import SampleConfig, config_from
from policy.run import seed_for
from workers.beating import Beating
from workers.generation import (
    MODELS,
    Sampling,
    Written,
    record_written,
    text_messages,
    write_completions,
)

PROMPTS_AT_ONCE = 16
USUAL_PROMPTS = 50
SOURCE = "written by policies"
SELECTOR = "uniform-{split}-1"


Sides = tuple[ModelVersion, ModelVersion | None]
"""The version, and the other; None stands for people."""


def write_versus(job: TrainingJob, beating: Beating) -> dict[str, int]:
    """Do such a job; returns what it did. Interrupted is raised between batches."""
    project = job.project
    sides = _sides(job)
    versions = [one for one in sides if one is not None]
    config = config_from(SampleConfig, job.config)
    planned = _planned(job, config.seed)
    sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
    source, _ = Source.objects.get_or_create(project=project, name=SOURCE)
    done: Counter[str] = Counter(comparisons=0, identical=0, blank=0)
    for start in range(0, len(planned), PROMPTS_AT_ONCE):
        beating.progress(start, len(planned), "sample")
        part = planned[start : start + PROMPTS_AT_ONCE]
        prompts = Prompt.objects.filter(project=project).in_bulk(part)
        asked = [pk for pk in part if pk in prompts and text_messages(prompts[pk]) is not None]
        human = _human(job, asked)
        if None in sides:  # an answer may be void by now
            asked = [pk for pk in asked if pk in human]
        wrote = [_answers(job, one, asked, prompts, config.seed, sampling) for one in versions]
        beating.progress(start, len(planned), "sample")
        blank: dict[str, list[int]] = {}
        for pk, texts in zip(asked, zip(*wrote, strict=True), strict=True):
            completions = [
                record_written(job, version, prompts[pk], source, one, sampling)
                for version, one in zip(versions, texts, strict=True)
                if not _is_blank(one)
            ]
            if len(completions) < len(versions):
                both = zip(versions, texts, strict=True)
                blank[str(pk)] = [version.pk for version, one in both if _is_blank(one)]
                done["blank"] += 1
                continue
            completions += [human[pk]] if pk in human else []
            done[_ask(job, sides, source, prompts[pk], completions)] += 1
        if blank:
            _note(job, blank={**job.inputs.get("blank", {}), **blank})
    beating.progress(len(planned), len(planned), "sample")
    return dict(done)


def _sides(job: TrainingJob) -> Sides:
    against = job.inputs["against"]
    if against == PEOPLE and job.init is not None:
        return job.init, None
    found = versions_of(job.project).filter(kind=VersionKind.POLICY)
    other = None if against == PEOPLE else found.filter(pk=against).first()
    if job.init is None or other is None or job.init == other:
        raise BadInput(f"A head to head wants two policies: {job.init} and {other}.")
    return job.init, other


def _planned(job: TrainingJob, seed: int) -> list[int]:
    """Prompts of the job, chosen at its first start and kept in its row, in an order that knows
    nothing of what will become of them; and of people the one answer to each that is shown."""
    if "propensities" not in job.inputs:
        split = split_of(job.inputs)
        human = _texts_of_people(job, split, seed)
        known = _prompts_of(job.project, split)
        if human is not None:
            known = [pk for pk in known if pk in human]
        wanted = min(job.inputs.get("comparisons", USUAL_PROMPTS), len(known))
        drawn = random.Random(seed_for(seed, job.pk, "versus")).sample(known, wanted)
        chosen = job.inputs.get("planned", drawn)
        notes = {} if human is None else {"human": {str(pk): human[pk] for pk in chosen}}
        chances = [len(chosen) / max(len(known), 1)] * len(chosen)
        _note(job, planned=chosen, propensities=chances, **notes)
    if not job.inputs["planned"]:
        raise BadInput(
            f"A head to head wants prompts of the {split_of(job.inputs)} split"
            f"{' that people answered' if job.inputs['against'] == PEOPLE else ''}, and the "
            "project has none."
        )
    return list(job.inputs["planned"])


def _prompts_of(project: Project, split: str) -> list[int]:
    prompts = Prompt.objects.filter(project=project, split=split).order_by("pk")
    return list(prompts.values_list("pk", flat=True))


def _texts_of_people(job: TrainingJob, split: str, seed: int) -> dict[int, int] | None:
    """Prompt -> one of the completions that people wrote to it, drawn; None where another version
    is met."""
    if job.inputs["against"] != PEOPLE:
        return None
    found: dict[int, list[int]] = {}
    rows = human_answers(job.project, split).order_by("completion_id")
    for prompt, completion in rows.values_list("completion__prompt_id", "completion_id"):
        found.setdefault(prompt, []).append(completion)
    return {
        prompt: random.Random(seed_for(seed, job.pk, prompt, "human")).choice(own)
        for prompt, own in found.items()
    }


def _human(job: TrainingJob, asked: list[int]) -> dict[int, Completion]:
    """Prompt -> the answer of people that the job chose, where it stands still."""
    chosen = {pk: job.inputs.get("human", {}).get(str(pk)) for pk in asked}
    standing = human_answers(job.project, split_of(job.inputs)).filter(
        completion__in=[pk for pk in chosen.values() if pk is not None]
    )
    texts = Completion.objects.in_bulk(list(standing.values_list("completion", flat=True)))
    return {pk: texts[one] for pk, one in chosen.items() if one in texts}


def _note(job: TrainingJob, **notes: Any) -> None:
    job.inputs = {**job.inputs, **notes}
    jobs.store_inputs(job_id=job.pk, attempt=job.attempt, chosen={"inputs": job.inputs})


def _is_blank(one: Written) -> bool:
    """Nothing that could be read; a text with a NUL can't be stored."""
    return not one.text.strip() or "\x00" in one.text


def _answers(
    job: TrainingJob,
    version: ModelVersion,
    asked: list[int],
    prompts: dict[int, Prompt],
    seed: int,
    sampling: Sampling,
) -> list[Written]:
    """One text per prompt. Each version draws with seeds of its own, or two that are alike in all
    but their numbers would write the same."""
    return write_completions(
        MODELS.policy(version),
        [text_messages(prompts[pk]) or [] for pk in asked],
        seeds=[seed_for(seed, job.pk, version.pk, pk, "versus") for pk in asked],
        sampling=sampling,
    )


def _ask(
    job: TrainingJob,
    sides: Sides,
    source: Source,
    prompt: Prompt,
    completions: list[Completion],
) -> str:
    """Put the two texts to people; what became of them, as the job's result counts it."""
    if completions[0].pk == completions[1].pk:
        return "identical"
    names = [PEOPLE if one is None else f"{one.name[:60]} #{one.pk}" for one in sides]
    split = split_of(job.inputs)
    batch = ledger.batch_for(
        project=job.project,
        name=" / ".join(names) + (f" ({split})" if split != Split.DEV else ""),
        source=source,
        purpose=Purpose.EVALUATION,
    )
    ledger.open_comparison(
        batch=batch,
        prompt=prompt,
        completions=completions,
        answers_wanted=job.project.answers_wanted,
        selector=SELECTOR.format(split=split),
        propensity=job.inputs["propensities"][0],
    )
    return "comparisons"
