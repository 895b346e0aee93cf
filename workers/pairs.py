"""The policy in force writes completions, and they become comparisons.

Most are written for train prompts and put to annotators as production work; a stated share is
written for dev and test prompts, drawn uniformly, and serves evaluation alone. The project's mix
(annotation/asking.py) says beside whose text they stand. What to write is planned once and kept in
the job's row, and every seed follows from it: a job that is run again writes the same texts, which
the ledger knows already.
"""

import logging
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db.models import Max

from annotation import leaks
from annotation.asking import LengthMatch, Pairing, selector_of
from annotation.errors import BadInput
from annotation.models import (
    Batch,
    Completion,
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
from annotation.services.opponents import names_its_maker, still_there, texts_for
from policy.config import BadInput as BadLaboratoryInput
from policy.config import SampleConfig, config_from
from policy.data import Message
from policy.run import seed_for
from workers.beating import Beating
from workers.distinct import Distinct, Wish, distinct_completions
from workers.generation import MODELS, Sampling, Written, record_written, text_messages
from workers.planning import Planned, opponent_of, plan
from workers.topup import open_comparisons

logger = logging.getLogger(__name__)
PROMPTS_AT_ONCE = 32
BLANK = "blank_dropped"
DROPPED = {"": "identical_dropped", leaks.LEAK: "leaks_caught", leaks.ALIKE: "alike_caught"}
"""Why a text was not taken -> its count in the job's result."""
SOURCE = "written by policies"
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
    planned = _planned(job, policy, config.seed)
    sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
    opponent = ModelVersion.objects.filter(pk=job.inputs.get("opponent")).first()
    seed = seed_for(config.seed, job.pk, "sample")
    writing = _Writing(job, policy, opponent, sampling, seed)
    done: Counter[str] = Counter()
    for start in range(0, len(planned), PROMPTS_AT_ONCE):
        beating.progress(start, len(planned), "sample")
        part = planned[start : start + PROMPTS_AT_ONCE]
        asked, left_out = writing.questions(part)
        texts, dropped = writing.texts(asked)
        done += left_out + dropped
        beating.progress(start, len(planned), "sample")
        for question in asked:
            done += writing.open(question, texts.get(question.name))
    beating.progress(len(planned), len(planned), "sample")
    return {
        **dict.fromkeys(("comparisons", "completions", "evaluation", "too_few_distinct"), 0),
        **dict.fromkeys((*DROPPED.values(), BLANK, "length_matched", "length_missed"), 0),
        "not_planned": job.inputs.get("not_planned", 0),
        **done,
    }


def _store(job: TrainingJob, **chosen: Any) -> None:
    """Write what was chosen into the row, and into the job at hand."""
    for name, value in chosen.items():
        setattr(job, name, value)
    jobs.store_inputs(job_id=job.pk, attempt=job.attempt, chosen=chosen)


def _planned(job: TrainingJob, policy: ModelVersion, seed: int) -> list[dict[str, Any]]:
    """What the job is to ask, chosen at its first start and kept in its row: `planned` holds the
    prompts, and `asked`, in the same order, what else was chosen."""
    if "planned" not in job.inputs:
        wanted = job.inputs.get("comparisons")
        if wanted is None:
            wanted = max(0, job.project.open_target - open_comparisons(job.project))
        chosen = plan(job.project, writer=policy, count=wanted, seed=seed_for(seed, job.pk, "plan"))
        opponent = opponent_of(job.project, policy)
        notes = {
            "planned": [one.prompt for one in chosen],
            "propensities": [one.propensity for one in chosen],
            "asked": _with_opponents(job, chosen, seed),
            "not_planned": wanted - len(chosen),
            **({"opponent": opponent.pk} if opponent else {}),
        }
        _store(job, inputs={**job.inputs, **notes})
    prompts = job.inputs["planned"]
    # a job that was planned by an older version has prompts alone, or no note of how likely each is
    chances = job.inputs.get("propensities") or [None] * len(prompts)
    asked = job.inputs.get("asked") or [{}] * len(prompts)
    return [
        {**more, "prompt": prompt, "propensity": chance}
        for prompt, chance, more in zip(prompts, chances, asked, strict=True)
    ]


def _with_opponents(job: TrainingJob, chosen: Sequence[Planned], seed: int) -> list[dict[str, Any]]:
    """Pairing and match of each, and the text that stands beside the policy's, drawn where there
    are several: a job that is run again asks about the same."""
    texts = {
        pairing: texts_for(
            job.project, pairing, [one.prompt for one in chosen if one.pairing == pairing]
        )
        for pairing in (Pairing.REFERENCE, Pairing.ANCHOR)
    }
    asked = []
    for one in chosen:
        known = texts.get(one.pairing, {}).get(one.prompt)
        drawn = random.Random(seed_for(seed, job.pk, one.prompt, "beside"))
        asked.append(
            {
                "pairing": one.pairing.value,
                "matched": one.matched,
                **({"beside": drawn.choice(known)} if known else {}),
            }
        )
    return asked


Name = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    """One planned comparison whose prompt can be read."""

    name: Name
    """Its prompt, and its pairing where that is across: what its seeds follow from."""
    prompt: Prompt
    messages: list[Message]
    pairing: Pairing
    matched: bool
    propensity: float | None
    beside: Completion | None


def _name_of(prompt: Prompt, pairing: Pairing) -> Name:
    return (prompt.pk,) if pairing == Pairing.SAME else (prompt.pk, pairing.value)


@dataclass(frozen=True, slots=True)
class _Answered:
    """The texts for a question: what the policy wrote, and what the other version did."""

    own: Distinct
    other: Written | None = None


@dataclass(frozen=True, slots=True)
class _Writing:
    """A sample job at work."""

    job: TrainingJob
    policy: ModelVersion
    opponent: ModelVersion | None
    """Chosen with the plan; None where no question wants one."""
    sampling: Sampling
    seed: int

    def questions(self, part: Sequence[dict[str, Any]]) -> tuple[list[_Question], Counter[str]]:
        """Those of the planned that can be asked; and how many can't, by why."""
        project, found, left_out = self.job.project, [], Counter[str]()
        prompts = Prompt.objects.filter(project=project).in_bulk([one["prompt"] for one in part])
        beside = self._beside(part)
        for one in part:
            prompt, pairing = prompts.get(one["prompt"]), Pairing(one.get("pairing", "same"))
            if prompt is None:
                continue
            messages = text_messages(prompt)
            if messages is None:
                left_out["without_text"] += 1
            elif pairing in beside and prompt.pk not in beside[pairing]:
                left_out["opponent_gone"] += 1
            elif pairing in beside and names_its_maker(project, beside[pairing][prompt.pk].text):
                left_out["leaks_caught"] += 1
            else:
                found.append(
                    _Question(
                        name=_name_of(prompt, pairing),
                        prompt=prompt,
                        messages=messages,
                        pairing=pairing,
                        matched=bool(one.get("matched")),
                        propensity=one["propensity"],
                        beside=beside.get(pairing, {}).get(prompt.pk),
                    )
                )
        return found, left_out

    def _beside(self, part: Sequence[dict[str, Any]]) -> dict[Pairing, dict[int, Completion]]:
        """Pairing -> prompt -> the text that was chosen to stand there, where it still may."""
        chosen = {
            (Pairing(one["pairing"]), one["prompt"]): one.get("beside")
            for one in part
            if one.get("pairing") in (Pairing.REFERENCE, Pairing.ANCHOR)
        }
        there = still_there(self.job.project, [pk for pk in chosen.values() if pk is not None])
        found: dict[Pairing, dict[int, Completion]] = {Pairing.REFERENCE: {}, Pairing.ANCHOR: {}}
        for (pairing, prompt), pk in chosen.items():
            if pk in there:
                found[pairing][prompt] = there[pk]
        return found

    def texts(self, asked: Sequence[_Question]) -> tuple[dict[Name, _Answered], Counter[str]]:
        """What is written for each, the other version's texts first; a question that it had nothing
        to say to is missing. And how many texts were dropped, by why."""
        met = [one for one in asked if one.pairing == Pairing.IN_FORCE]
        others, dropped = dict[Name, Distinct](), Counter[str]()
        if self.opponent and met:
            try:
                others, dropped = self._write(self.opponent, met)
            except (BadLaboratoryInput, OSError) as error:
                # its files are gone, or it has no room: what asks for nothing of it goes on
                logger.warning("%s writes nothing: %s", self.opponent, error)
        ready = {
            one.name: (one.beside.text if one.beside else None)
            for one in asked
            if one.pairing != Pairing.IN_FORCE
        }
        ready |= {name: found.written[0].text for name, found in others.items() if found.written}
        able = [one for one in asked if one.name in ready]
        own, more = self._write(self.policy, able, beside=ready)
        return {
            name: _Answered(found, others[name].written[0] if name in others else None)
            for name, found in own.items()
        }, dropped + more

    def _write(
        self,
        version: ModelVersion,
        asked: Sequence[_Question],
        beside: Mapping[Name, str | None] | None = None,
    ) -> tuple[dict[Name, Distinct], Counter[str]]:
        """beside: what stands beside each text already, then all that is lacking is written;
        without it one text for each, as the other version's."""
        in_all = self.job.project.completions_per_comparison
        wishes = {}
        for one in asked:
            text = beside[one.name] if beside is not None else None
            wishes[one.name] = Wish(
                messages=one.messages,
                seeds=one.name if beside is not None else (*one.name, "other"),
                wanted=in_all - (text is not None) if beside is not None else 1,
                beside=text,
                matched=one.matched and beside is not None,
            )
        return distinct_completions(
            MODELS.policy(version),
            wishes,
            fault=partial(_fault, self.job.project),
            seed=self.seed,
            sampling=self.sampling,
        )

    def open(self, question: _Question, answered: _Answered | None) -> Counter[str]:
        """Put a question's texts into the ledger, and the comparison where there are enough."""
        project, prompt = self.job.project, question.prompt
        if answered is None:
            return Counter(opponent_gone=1)
        source, _ = Source.objects.get_or_create(project=project, name=SOURCE)
        new = [(self.policy, one) for one in answered.own.written]
        new += [(self.opponent, answered.other)] if self.opponent and answered.other else []
        completions = [
            record_written(self.job, version, prompt, source, one, self.sampling)
            for version, one in new
        ]
        counts = Counter(completions=len(completions))
        completions += [question.beside] if question.beside else []
        if len(completions) < project.completions_per_comparison:
            return counts + Counter(too_few_distinct=1)
        purpose = Purpose.PRODUCTION if prompt.split == Split.TRAIN else Purpose.EVALUATION
        matched = answered.own.matched
        length = (
            LengthMatch.MATCHED
            if matched
            else LengthMatch.UNLIKE
            if question.matched
            else LengthMatch.ANY
        )
        _, created = ledger.open_comparison(
            batch=_batch(project, self.policy, source, purpose),
            prompt=prompt,
            completions=completions,
            answers_wanted=project.answers_wanted,
            selector=selector_of(question.pairing, length),
            propensity=question.propensity,
        )
        if created:
            counts["comparisons"] += 1
            counts["evaluation"] += purpose == Purpose.EVALUATION
            counts[f"asked_{question.pairing.value}"] += 1
            counts["length_matched"] += matched
            counts["length_missed"] += question.matched and not matched
        return counts


def _fault(project: Project, text: str, others: Collection[str]) -> str:
    """Blank, no text at all (NUL), said already, or what the project wants caught; "" if none."""
    if not text.strip() or "\x00" in text:
        return BLANK
    if text in others:
        return DROPPED[""]
    found = leaks.fault_of(
        text, list(others), leaks=project.catch_leaks, likeness=project.catch_alike
    )
    return DROPPED[found] if found else ""


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
