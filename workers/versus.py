"""Two versions answer the same dev prompts, and people are asked blindly which did better.

A sample job whose inputs name another version (`against`). Prompts are drawn uniformly from dev,
from which nothing learns. Where both write the same text nobody is asked: the two generations of
the one completion are the tie. Nor where one or both write nothing: the job notes who.
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
SELECTOR = "uniform-dev-1"


def write_versus(job: TrainingJob, beating: Beating) -> dict[str, int]:
    """Do such a job; returns what it did. Interrupted is raised between batches."""
    project = job.project
    pair = _pair(job)
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
        wrote = [_answers(job, version, asked, prompts, config.seed, sampling) for version in pair]
        beating.progress(start, len(planned), "sample")
        blank: dict[str, list[int]] = {}
        for pk, texts in zip(asked, zip(*wrote, strict=True), strict=True):
            completions = [
                record_written(job, version, prompts[pk], source, one, sampling)
                for version, one in zip(pair, texts, strict=True)
                if not _is_blank(one)
            ]
            if len(completions) < 2:
                both = zip(pair, texts, strict=True)
                blank[str(pk)] = [version.pk for version, one in both if _is_blank(one)]
                done["blank"] += 1
                continue
            chance = job.inputs["propensities"][0]
            done[_ask(project, pair, source, prompts[pk], completions, chance)] += 1
        if blank:
            _note(job, blank={**job.inputs.get("blank", {}), **blank})
    beating.progress(len(planned), len(planned), "sample")
    return dict(done)


def _pair(job: TrainingJob) -> tuple[ModelVersion, ModelVersion]:
    found = versions_of(job.project).filter(pk=job.inputs["against"], kind=VersionKind.POLICY)
    other = found.first()
    if job.init is None or other is None or job.init == other:
        raise BadInput(f"A head to head wants two policies: {job.init} and {other}.")
    return job.init, other


def _planned(job: TrainingJob, seed: int) -> list[int]:
    """Dev prompts of the job, chosen at its first start and kept in its row, in an order
    that knows nothing of what will become of them."""
    if "propensities" not in job.inputs:
        dev = Prompt.objects.filter(project=job.project, split=Split.DEV).order_by("pk")
        known = list(dev.values_list("pk", flat=True))
        wanted = min(job.inputs.get("comparisons", USUAL_PROMPTS), len(known))
        drawn = random.Random(seed_for(seed, job.pk, "versus")).sample(known, wanted)
        chosen = job.inputs.get("planned", drawn)
        chances = [len(chosen) / max(len(known), 1)] * len(chosen)
        _note(job, planned=chosen, propensities=chances)
    if not job.inputs["planned"]:
        raise BadInput("A head to head wants prompts of the dev split, and the project has none.")
    return list(job.inputs["planned"])


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
    project: Project,
    pair: tuple[ModelVersion, ModelVersion],
    source: Source,
    prompt: Prompt,
    completions: list[Completion],
    propensity: float,
) -> str:
    """Put the two texts to people; what became of them, as the job's result counts it."""
    if completions[0].pk == completions[1].pk:
        return "identical"
    one, other = pair
    batch = ledger.batch_for(
        project=project,
        name=f"{one.name[:60]} #{one.pk} / {other.name[:60]} #{other.pk}",
        source=source,
        purpose=Purpose.EVALUATION,
    )
    ledger.open_comparison(
        batch=batch,
        prompt=prompt,
        completions=completions,
        answers_wanted=project.answers_wanted,
        selector=SELECTOR,
        propensity=propensity,
    )
    return "comparisons"
