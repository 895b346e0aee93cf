"""Gates: may a new version take the place of the one in force?

A verdict is numbers and a yes or no, kept in version.metrics["gate"]. A project that promotes by
itself puts a version that passed in force in the same transaction; else an admin decides, with the
numbers at hand. Everything is measured on dev: test is sealed.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from django.conf import settings
from django.db import transaction

from annotation import verdicts
from annotation.errors import BadInput
from annotation.models import (
    JobKind,
    ModelVersion,
    Project,
    Prompt,
    Slot,
    Split,
)
from annotation.services import audit, versions
from annotation.services.retraining import votes_that_train
from annotation.services.snapshots import freeze
from policy.comparisons import Comparison, read_comparisons
from policy.config import BadInput as BadLaboratoryInput
from policy.config import config_from
from policy.intervals import Mean, bootstrap_mean
from policy.losses import token_logprobs
from policy.ppo_config import PPOConfig
from policy.rollout import pad, response_logits
from policy.run import seed_for
from policy.score_scale import FEWEST_GROUPS
from policy.scoring import batches_by_length
from rewardmodel.bootstrap import PairRow
from rewardmodel.evaluate import evaluate_pairs
from workers.generation import MODELS, Sampling, Written, text_messages, write_completions
from workers.judging import judge_figures
from workers.launch import OUT_OF_REACH
from workers.looks import (
    BETTER,
    MARGIN_NATS,
    NOT_WORSE,
    UNDECIDED,
    WORSE,
    Difference,
    find,
    level_of_look,
)
from workers.statistics import paired_difference, paired_rows, weighted_mean

MAX_GATE_PROMPTS = 64
SAMPLES_PER_PROMPT = 2
TOKENS_PER_FORWARD = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a gate found. verdict: passed, failed, first (nothing in force to compare with), or
    unjudged: it passes, for there are too few answers to say anything by; undecided: it passes, for
    nothing shows it to be worse, and it is not shown to be as good."""

    passed: bool
    verdict: str
    why: str
    numbers: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "why": self.why,
            "numbers": dict(self.numbers),
        }


def judge_version(version_id: int) -> Verdict | None:
    """Run the gate of a version and keep its verdict; None if that was done already."""
    version = ModelVersion.objects.select_related(
        "job__project", "snapshot", "reference", "reward"
    ).get(pk=version_id)
    if "gate" in version.metrics or version.job is None:
        return None
    project = version.job.project
    slot = SLOTS.get(version.stage, Slot.POLICY)
    try:
        verdict = JUDGES[JobKind(version.stage)](version, project)
    except (BadInput, BadLaboratoryInput) as error:
        verdict = Verdict(passed=False, verdict="failed", why=str(error), numbers={})
    except OUT_OF_REACH:
        raise  # the next tick sends it again
    except Exception as error:
        # Kept as a verdict, or every tick would try and crash again; and raised for the log.
        why = verdicts.GATE_FAILED % {"error": f"{type(error).__name__}: {error}"}
        _keep(version, project, slot, Verdict(passed=False, verdict="failed", why=why, numbers={}))
        raise
    try:
        return verdict if _keep(version, project, slot, verdict) else None
    except OUT_OF_REACH:
        raise
    except Exception as error:
        # What was measured stands, and an admin may promote by it.
        failure = {"why": verdict.why, "error": f"{type(error).__name__}: {error}"}
        why = verdicts.PROMOTING_FAILED % failure
        _keep(version, project, slot, replace(verdict, why=why), promote=False)
        raise


def _keep(
    version: ModelVersion, project: Project, slot: str, verdict: Verdict, *, promote: bool = True
) -> bool:
    """Store a verdict and promote on a pass, together; False if another was quicker."""
    with transaction.atomic():
        locked = ModelVersion.objects.select_for_update().get(pk=version.pk)
        if "gate" in locked.metrics:
            return False
        locked.metrics = {**locked.metrics, "gate": verdict.as_json()}
        locked.save(update_fields=["metrics"])
        audit.record(
            action="version.gate",
            target=locked,
            project=project,
            actor=None,
            verdict=verdict.verdict,
            why=verdict.why,
        )
        project.refresh_from_db()
        first_policy = slot == Slot.POLICY and verdict.verdict == "first"
        at_once = first_policy or slot == Slot.JUDGE  # which steers nothing
        wanted = promote and verdict.passed and (project.auto_promote or at_once)
        if wanted and versions.in_force(project, slot) != locked:  # else an admin was quicker
            versions.promote(
                project=project,
                slot=slot,
                version=locked,
                verdict=verdict.verdict,
                numbers=verdict.as_json(),
            )
    return True


# --- the gates --------------------------------------------------------------------------------


def judge_sft(version: ModelVersion, project: Project) -> Verdict:
    """The first policy of a project goes in force at once; a later one is an admin's choice."""
    in_force = versions.in_force(project, Slot.POLICY)
    if in_force is None:
        return Verdict(passed=True, verdict="first", why=verdicts.FIRST_POLICY, numbers={})
    why = verdicts.SFT_BY_ADMIN % {"name": in_force.name}
    return Verdict(passed=False, verdict="failed", why=why, numbers={})


def judge_reward(version: ModelVersion, project: Project) -> Verdict:
    """Accuracy and log loss on the dev answers of its snapshot, against the version in force."""
    in_force = versions.in_force(project, Slot.REWARD)
    comparisons = _dev_comparisons(version, project)
    new = evaluate_pairs(versions.directory_of(version), comparisons)
    if in_force is None:
        return first_reward(new)
    old = evaluate_pairs(versions.directory_of(in_force), comparisons)
    return reward_against(new, old, in_force.name, look=looks_before(version, project) + 1)


def first_reward(rows: Sequence[PairRow]) -> Verdict:
    """A first reward model passes if it does better than a coin, as PPO wants it."""
    return against_a_coin(rows, verdicts.FIRST_REWARD, verdicts.FIRST_REWARD_TOO_FEW)


def judge_judge(version: ModelVersion, project: Project) -> Verdict:
    """The newest judge takes the place of the one before, for it saw the most answers, unless it
    does no better than a coin."""
    rows = evaluate_pairs(versions.directory_of(version), _dev_comparisons(version, project))
    verdict = against_a_coin(rows, verdicts.JUDGE, verdicts.JUDGE_TOO_FEW)
    return replace(verdict, verdict="passed") if verdict.verdict == "first" else verdict


def against_a_coin(rows: Sequence[PairRow], why: str, too_few: str) -> Verdict:
    """Passes if the whole interval of the accuracy lies above one half, or dev is too small to
    say. why, too_few: the sentences for either."""
    groups = len({row.group for row in rows})
    right = bootstrap_mean([(row.group, row.correct, row.weight) for row in rows])
    numbers = {
        "groups": groups,
        "accuracy": weighted_mean(rows, "correct"),
        "accuracy_interval": list(right.interval) if right.interval else None,
        "log_loss": weighted_mean(rows, "log_loss"),
    }
    if groups < FEWEST_GROUPS:
        said = too_few % {"groups": groups}
        return Verdict(passed=True, verdict="unjudged", why=said, numbers=numbers)
    passed = right.lies_above(0.5)
    return Verdict(
        passed=passed,
        verdict="first" if passed else "failed",
        why=why % {"accuracy": right, "groups": groups},
        numbers=numbers,
    )


def looks_before(version: ModelVersion, project: Project) -> int:
    """How often dev was asked already whether a reward model of this project is better."""
    asked = ModelVersion.objects.filter(job__project=project, stage=JobKind.REWARD)
    return (
        asked.filter(metrics__gate__numbers__has_key="log_loss_difference")
        .exclude(pk=version.pk)
        .count()
    )


def reward_against(
    new: Sequence[PairRow], old: Sequence[PairRow], name: str, *, look: int = 1
) -> Verdict:
    """Better, not worse by a margin, worse, or undecided, by log loss on dev, accuracy beside it.

    Paired by group: a group counts if both models could score the same comparisons of it. A worse
    accuracy refuses too, at the same level, unless the log loss is certainly better.
    """
    accuracy = paired_difference(new, old, "correct")
    log_loss = paired_difference(new, old, "log_loss")
    numbers: dict[str, Any] = {
        "against": name,
        "accuracy": weighted_mean(new, "correct"),
        "log_loss": weighted_mean(new, "log_loss"),
        "accuracy_difference": accuracy.as_json(),
        "log_loss_difference": log_loss.as_json(),
    }
    if accuracy.groups == 0:
        why = verdicts.UNJUDGED % {"name": name}
        del numbers["log_loss_difference"]  # dev was not asked
        return Verdict(passed=True, verdict="unjudged", why=why, numbers=numbers)
    found = find(Difference.of(paired_rows(new, old, "log_loss")), look=look)
    right = Difference.of(paired_rows(new, old, "correct"))
    if found.finding != BETTER and right.interval(level_of_look(look))[1] < 0:
        found = replace(found, finding=WORSE, more_groups=None)
    numbers["look"] = found.as_json()
    sentence, verdict = SAID[found.finding]
    if found.finding == UNDECIDED and found.more_groups is None:
        sentence = verdicts.REWARD_NEVER_DECIDED
    why = sentence % {
        "name": name,
        "groups": accuracy.groups,
        "accuracy": accuracy,
        "log_loss": log_loss,
        "look": look,
        "margin": MARGIN_NATS,
        "more": found.more_groups,
    }
    return Verdict(passed=found.finding != WORSE, verdict=verdict, why=why, numbers=numbers)


SAID = {
    BETTER: (verdicts.REWARD_BETTER, "passed"),
    NOT_WORSE: (verdicts.REWARD_NOT_WORSE, "passed"),
    WORSE: (verdicts.REWARD_WORSE, "failed"),
    UNDECIDED: (verdicts.REWARD_UNDECIDED, "undecided"),
}
"""(sentence, verdict) by what a look found."""


def judge_policy(version: ModelVersion, project: Project) -> Verdict:
    """Mean score of its answers to dev prompts up, and KL to the root within the budget."""
    job, reward, root = version.job, version.reward, version.reference
    assert job is not None
    if reward is None or root is None:
        raise BadInput(f"{version} was made without a reward model or a reference.")
    baseline = versions.in_force(project, Slot.POLICY) or root
    config = config_from(PPOConfig, job.config)
    sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_response_tokens)
    prompts, where = _gate_prompts(project)
    if not prompts:
        return Verdict(passed=False, verdict="failed", why=verdicts.NO_PROMPT, numbers={})
    trial = [(prompt, n) for prompt in prompts for n in range(SAMPLES_PER_PROMPT)]
    conversations = [text_messages(prompt) or [] for prompt, _ in trial]
    seeds = [seed_for("gate", version.pk, prompt.pk, n) for prompt, n in trial]

    def answers(one: ModelVersion) -> list[Written]:
        return write_completions(MODELS.policy(one), conversations, seeds=seeds, sampling=sampling)

    written = {name: answers(one) for name, one in (("new", version), ("old", baseline))}
    scorer = MODELS.scorer(reward)
    scored = {
        name: scorer.scored_cut(conversations, [one.text for one in rows])
        for name, rows in written.items()
    }
    scores = {name: [one.score for one in rows] for name, rows in scored.items()}
    groups = [prompt.split_group for prompt, _ in trial]
    gain = bootstrap_mean(
        [(g, a - b, 1.0) for g, a, b in zip(groups, scores["new"], scores["old"], strict=True)]
    )
    kl_nats = kl_to(MODELS.policy(root)[0], written["new"], sampling.temperature)
    numbers: dict[str, Any] = {
        "against": baseline.name,
        "reward_model": reward.name,
        "prompts": f"{len(prompts)} of {where}",
        "score": float(np.mean(scores["new"])),
        "score_gain": gain.as_json(),
        "kl_nats": kl_nats,
        "kl_budget_nats": project.kl_budget_nats,
        **{
            f"{name}_{key}": value
            for name, rows in written.items()
            for key, value in shape_of(rows).items()
        },
        **{f"{name}_num_read_cut": sum(one.was_cut for one in scored[name]) for name in scored},
    }
    numbers |= judge_figures(
        project,
        reward,
        conversations,
        groups,
        written["new"],
        lambda: written["old"] if baseline == root else answers(root),
    )
    return policy_verdict(gain, kl_nats, project.kl_budget_nats, baseline.name, where, numbers)


def policy_verdict(
    gain: Mean,
    kl_nats: float,
    budget_nats: float,
    against: str,
    where: str,
    numbers: Mapping[str, Any],
) -> Verdict:
    """The rule of the policy gate, apart from the measuring. A gain whose interval holds 0 passes
    as undecided: people's comparisons decide, and they are asked of what is in force."""
    passed = gain.mean > 0 and kl_nats <= budget_nats
    verdict = "passed" if gain.lies_above(0.0) else "undecided"
    why = verdicts.POLICY_AGAINST % {
        "name": against,
        "groups": gain.groups,
        "where": where,
        "gain": gain,
        "kl_nats": f"{kl_nats:.2f}",
        "budget_nats": f"{budget_nats:g}",
    }
    return Verdict(passed=passed, verdict=verdict if passed else "failed", why=why, numbers=numbers)


SLOTS: dict[str, Slot] = {JobKind.REWARD: Slot.REWARD, JobKind.JUDGE: Slot.JUDGE}
"""By stage; the others' is the policy's."""
JUDGES: dict[JobKind, Callable[[ModelVersion, Project], Verdict]] = {
    JobKind.SFT: judge_sft,
    JobKind.REWARD: judge_reward,
    JobKind.JUDGE: judge_judge,
    JobKind.PPO: judge_policy,
}


# --- measuring ----------------------------------------------------------------------------------


@torch.inference_mode()
def kl_to(root: Any, written: Sequence[Written], temperature: float) -> float:
    """Mean over responses of sum log p_new - log p_root, nats; both tempered alike.

    The sampler's own log-probabilities against the root's on the same tokens (k1, unbiased).
    """
    lengths = [len(one.prompt_ids) + len(one.sampled.tokens) for one in written]
    total = 0.0
    for batch in batches_by_length(lengths, TOKENS_PER_FORWARD):
        rows = [written[at] for at in batch]
        padded = pad(
            [row.prompt_ids for row in rows],
            [row.sampled.tokens for row in rows],
            pad_id=root.config.pad_token_id,
            device=root.device,
        )
        logprobs = token_logprobs(
            response_logits(root, padded), padded.response_ids, temperature=temperature
        )  # (N,) response tokens of all rows
        total -= float(logprobs.sum())
        total += sum(sum(row.sampled.logprobs) for row in rows)
    return total / len(written)


def shape_of(written: Sequence[Written]) -> dict[str, float]:
    """Length and the share without end token: what a policy that games its score changes first."""
    return {
        "mean_tokens": float(np.mean([len(one.sampled.tokens) for one in written])),
        "share_without_end": float(np.mean([one.sampled.finish != "end" for one in written])),
    }


def _dev_comparisons(version: ModelVersion, project: Project) -> list[Comparison]:
    """Dev rows of the snapshot that the version was trained from, or of the project's votes now."""
    snapshot = version.snapshot
    if snapshot is None:  # it was trained from a file of its own
        assert version.job is not None
        query = {"splits": [Split.DEV.value], "annotators": votes_that_train(version.job.inputs)}
        snapshot = freeze(project=project, kind="comparisons", query=query, by=None)
    path = Path(settings.ARTIFACTS_DIR) / snapshot.path
    config = version.job.config if version.job else {}
    learned = config.get("axis") or config.get("axes")  # judged on these
    return [row for row in read_comparisons(path, axis=learned) if row.in_split("dev")]


def _gate_prompts(project: Project) -> tuple[list[Prompt], str]:
    """Up to MAX_GATE_PROMPTS prompts of dev, the same each time, and where they are from.

    A project without dev prompts is tried on train prompts, and the numbers say so.
    """
    for split in (Split.DEV, Split.TRAIN):
        found = [
            prompt
            for prompt in Prompt.objects.filter(project=project, split=split).order_by("pk")
            if text_messages(prompt) is not None
        ]
        if found:
            random.Random(0).shuffle(found)
            return found[:MAX_GATE_PROMPTS], f"{split.value} prompts"
    return [], "no prompts"
