"""The policy in force writes completions, and they become comparisons.

Most are written for train prompts and put to annotators as production work; a stated share is
written for dev and test prompts, drawn uniformly, and serves evaluation alone. What to write is
planned once and kept in the job's row, and every seed follows from it: a job that is run again
writes the same texts, which the ledger knows already.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from django.db.models import Max

from annotation import leaks
from annotation.errors import BadInput
from annotation.models import (
    Batch,
    ModelVersion,
    Project,
    Promotion,
    Prompt,
    Purpose,
    Slot,
    Source,
    Split,
    TrainingJob,
)
from annotation.services import jobs, ledger, versions
from policy.config import SampleConfig, config_from
from policy.data import Message
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
from workers.topup import open_comparisons, plan_prompts, propensities

ROUNDS = 4
"""Times that a prompt's missing completions are drawn before it is given up."""
PROMPTS_AT_ONCE = 32
DROPPED = {"": "identical_dropped", leaks.LEAK: "leaks_caught", leaks.ALIKE: "alike_caught"}
"""Why a text was not taken -> its count in the job's result."""
SOURCE = "written by policies"
SELECTOR = "uniform-1"
"""How prompts are chosen (topup.plan_prompts), with its version."""
HIGHEST_PRIORITY = 32_767
"""Of a smallint."""


def write_comparisons(job: TrainingJob, beating: Beating) -> dict[str, int]:
    """Do a sample job; returns what it did. Interrupted is raised between batches."""
    project = job.project
    policy = job.init or versions.in_force(project, Slot.POLICY)
    if policy is None:
        raise BadInput("This job needs a policy in force to write with, and the project has none.")
    _store(job, init=policy)  # first: a job that fails below counts against this policy's next
    config = config_from(SampleConfig, job.config)
    planned = _planned(job, config.seed)
    sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
    model = MODELS.policy(policy)
    done: Counter[str] = Counter()
    for start in range(0, len(planned), PROMPTS_AT_ONCE):
        beating.progress(start, len(planned), "sample")
        part = planned[start : start + PROMPTS_AT_ONCE]
        prompts = Prompt.objects.filter(project=project).in_bulk(part)
        with_text = {
            pk: messages
            for pk in part
            if pk in prompts and (messages := text_messages(prompts[pk])) is not None
        }
        texts, dropped = distinct_completions(
            model,
            with_text,
            fault=partial(_fault, project),
            wanted=project.completions_per_comparison,
            seed=seed_for(config.seed, job.pk, "sample"),
            sampling=sampling,
        )
        done += dropped
        done["without_text"] += len(prompts) - len(with_text)
        beating.progress(start, len(planned), "sample")
        for pk, written in texts.items():
            done += _open(job, policy, prompts[pk], written, sampling)
    beating.progress(len(planned), len(planned), "sample")
    return {
        **dict.fromkeys(("comparisons", "completions", "evaluation", "too_few_distinct"), 0),
        **dict.fromkeys(DROPPED.values(), 0),
        **done,
    }


def _store(job: TrainingJob, **chosen: Any) -> None:
    """Write what was chosen into the row, and into the job at hand."""
    for name, value in chosen.items():
        setattr(job, name, value)
    jobs.store_inputs(job_id=job.pk, attempt=job.attempt, chosen=chosen)


def _planned(job: TrainingJob, seed: int) -> list[int]:
    """The prompts of the job, chosen at its first start and kept in its row."""
    if "planned" not in job.inputs:
        wanted = job.inputs.get("comparisons")
        if wanted is None:
            wanted = max(0, job.project.open_target - open_comparisons(job.project))
        planned = plan_prompts(job.project, count=wanted, seed=seed_for(seed, job.pk, "plan"))
        chances = propensities(job.project, planned, count=wanted)
        _store(job, inputs={**job.inputs, "planned": planned, "propensities": chances})
    return list(job.inputs["planned"])


def distinct_completions(
    model: tuple[Any, Any],
    conversations: dict[int, list[Message]],
    *,
    fault: Callable[[str, Collection[str]], str],
    wanted: int,
    seed: int,
    sampling: Sampling,
) -> tuple[dict[int, list[Written]], Counter[str]]:
    """`wanted` different texts per prompt, or as many as a few rounds give; and how many were
    dropped, by their fault.

    fault: says why a text is not taken beside those that were, empty where it is.
    """
    found: dict[int, dict[str, Written]] = {pk: {} for pk in conversations}
    dropped: Counter[str] = Counter()
    for turn in range(ROUNDS):
        rows = [(pk, place) for pk, texts in found.items() for place in range(len(texts), wanted)]
        if not rows:
            break
        written = write_completions(
            model,
            [conversations[pk] for pk, _ in rows],
            seeds=[seed_for(seed, pk, turn, place) for pk, place in rows],
            sampling=sampling,
        )
        for (pk, _), one in zip(rows, written, strict=True):
            if wrong := fault(one.text, found[pk]):
                dropped[wrong] += 1
            else:
                found[pk][one.text] = one
    return {pk: list(texts.values()) for pk, texts in found.items()}, dropped


def _fault(project: Project, text: str, others: Collection[str]) -> str:
    """Blank, no text at all (NUL), said already, or what the project wants caught; "" if none."""
    if not text.strip() or "\x00" in text or text in others:
        return DROPPED[""]
    found = leaks.fault_of(
        text, list(others), leaks=project.catch_leaks, likeness=project.catch_alike
    )
    return DROPPED[found] if found else ""


def _open(
    job: TrainingJob,
    policy: ModelVersion,
    prompt: Prompt,
    written: Sequence[Written],
    sampling: Sampling,
) -> Counter[str]:
    """Put one prompt's completions into the ledger, and a comparison where there are enough."""
    project = job.project
    source, _ = Source.objects.get_or_create(project=project, name=SOURCE)
    completions = [record_written(job, policy, prompt, source, one, sampling) for one in written]
    if len(completions) < project.completions_per_comparison:
        return Counter(completions=len(completions), too_few_distinct=1)
    purpose = Purpose.PRODUCTION if prompt.split == Split.TRAIN else Purpose.EVALUATION
    _, created = ledger.open_comparison(
        batch=_batch(project, policy, source, purpose),
        prompt=prompt,
        completions=completions,
        answers_wanted=project.answers_wanted,
        selector=SELECTOR,
        propensity=_propensity(job, prompt),
    )
    return Counter(
        completions=len(completions),
        comparisons=int(created),
        evaluation=int(created and purpose == Purpose.EVALUATION),
    )


def _propensity(job: TrainingJob, prompt: Prompt) -> float | None:
    """With which the plan chose the prompt; None for a job that was planned without it."""
    chances = job.inputs.get("propensities", ())
    return dict(zip(job.inputs["planned"], chances, strict=False)).get(prompt.pk)


def _batch(project: Project, policy: ModelVersion, source: Source, purpose: str) -> Batch:
    """One batch per policy version and purpose; the newest policy's questions are asked first, and
    as a lead decided for the batch before it.

    The promotions up to the policy's own are counted: its job may run after the next promotion.
    """
    promotions = Promotion.objects.filter(project=project, slot=Slot.POLICY)
    own = promotions.filter(version=policy).aggregate(newest=Max("pk"))["newest"]
    rank = promotions.filter(pk__lte=own or 0).count()
    before = Batch.objects.filter(project=project, source=source, purpose=purpose)
    return ledger.batch_for(
        project=project,
        name=f"{policy.name[:80]} #{policy.pk}: {purpose}",
        source=source,
        purpose=purpose,
        priority=min(rank, HIGHEST_PRIORITY),
        like=before.order_by("-pk").first(),
    )
