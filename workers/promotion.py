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
from policy.config import BadInput as BadLaboratoryInput
from policy.config import config_from
from policy.losses import token_logprobs
from policy.ppo_config import PPOConfig
from policy.rollout import pad, response_logits
from policy.run import seed_for
from policy.score_scale import FEWEST_GROUPS
from policy.scoring import batches_by_length
from rewardmodel.bootstrap import PairRow
from rewardmodel.data import Comparison, read_comparisons
from rewardmodel.evaluate import evaluate_pairs
from workers.generation import MODELS, Sampling, Written, text_messages, write_completions
from workers.launch import OUT_OF_REACH

MAX_GATE_PROMPTS = 64
SAMPLES_PER_PROMPT = 2
RESAMPLES = 2000
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap over groups."""
TOKENS_PER_FORWARD = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a gate found. verdict: passed, failed, or first (nothing in force to compare with)."""

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
    slot = Slot.REWARD if version.stage == JobKind.REWARD else Slot.POLICY
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
        wanted = promote and verdict.passed and (project.auto_promote or first_policy)
        if wanted and versions.in_force(project, slot) != locked:  # else an admin was quicker
            versions.promote(
                project=project,
                slot=slot,
                version=locked,
                verdict=verdict.verdict,
                numbers=verdict.as_json(),
            )
    return True


# --- the three gates ----------------------------------------------------------------------------


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
    return reward_against(new, old, in_force.name)


def first_reward(rows: Sequence[PairRow]) -> Verdict:
    """A first reward model passes if its whole interval does better than a coin, as PPO wants it,
    or dev is too small to say."""
    groups = len({row.group for row in rows})
    right = bootstrap_mean([(row.group, row.correct, row.weight) for row in rows])
    numbers = {
        "groups": groups,
        "accuracy": _mean(rows, "correct"),
        "accuracy_interval": list(right.interval) if right.interval else None,
        "log_loss": _mean(rows, "log_loss"),
    }
    if groups < FEWEST_GROUPS:
        why = verdicts.FIRST_REWARD_TOO_FEW % {"groups": groups}
        return Verdict(passed=True, verdict="first", why=why, numbers=numbers)
    passed = right.lies_above(0.5)
    why = verdicts.FIRST_REWARD % {"accuracy": right, "groups": groups}
    return Verdict(passed=passed, verdict="first" if passed else "failed", why=why, numbers=numbers)


def reward_against(new: Sequence[PairRow], old: Sequence[PairRow], name: str) -> Verdict:
    """It passes unless accuracy or log loss is worse by more than the interval.

    Paired by group: the interval is of the difference, and a group counts if both models could
    score the same comparisons of it.
    """
    accuracy = paired_difference(new, old, "correct")
    log_loss = paired_difference(new, old, "log_loss")
    numbers: dict[str, Any] = {
        "against": name,
        "accuracy": _mean(new, "correct"),
        "log_loss": _mean(new, "log_loss"),
        "accuracy_difference": accuracy.as_json(),
        "log_loss_difference": log_loss.as_json(),
    }
    if accuracy.groups == 0:
        why = verdicts.UNJUDGED % {"name": name}
        return Verdict(passed=True, verdict="passed", why=why, numbers=numbers)
    passed = not accuracy.lies_below(0.0) and not log_loss.lies_above(0.0)
    why = verdicts.REWARD_AGAINST % {
        "name": name,
        "groups": accuracy.groups,
        "accuracy": accuracy,
        "log_loss": log_loss,
    }
    return Verdict(
        passed=passed, verdict="passed" if passed else "failed", why=why, numbers=numbers
    )


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
    written = {
        name: write_completions(MODELS.policy(one), conversations, seeds=seeds, sampling=sampling)
        for name, one in (("new", version), ("old", baseline))
    }
    scorer = MODELS.scorer(reward)
    scores = {
        name: scorer.score(conversations, [one.text for one in rows])
        for name, rows in written.items()
    }
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
    }
    return policy_verdict(gain, kl_nats, project.kl_budget_nats, baseline.name, where, numbers)


def policy_verdict(
    gain: "Mean",
    kl_nats: float,
    budget_nats: float,
    against: str,
    where: str,
    numbers: Mapping[str, Any],
) -> Verdict:
    """The rule of the policy gate, apart from the measuring."""
    passed = gain.mean > 0 and kl_nats <= budget_nats
    why = verdicts.POLICY_AGAINST % {
        "name": against,
        "groups": gain.groups,
        "where": where,
        "gain": gain,
        "kl_nats": f"{kl_nats:.2f}",
        "budget_nats": f"{budget_nats:g}",
    }
    return Verdict(
        passed=passed, verdict="passed" if passed else "failed", why=why, numbers=numbers
    )


JUDGES: dict[JobKind, Callable[[ModelVersion, Project], Verdict]] = {
    JobKind.SFT: judge_sft,
    JobKind.REWARD: judge_reward,
    JobKind.PPO: judge_policy,
}


# --- measuring ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % percentile interval over groups; None where one group is all."""

    mean: float
    interval: tuple[float, float] | None
    groups: int

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.mean:+.4f}"
        return f"{self.mean:+.4f} [{self.interval[0]:+.4f}, {self.interval[1]:+.4f}]"

    def lies_below(self, value: float) -> bool:
        """The whole interval does."""
        return self.interval is not None and self.interval[1] < value

    def lies_above(self, value: float) -> bool:
        """The whole interval does."""
        return self.interval is not None and self.interval[0] > value

    def as_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "interval": list(self.interval) if self.interval else None,
            "groups": self.groups,
        }


def bootstrap_mean(rows: Sequence[tuple[str, float, float]], *, seed: int = 0) -> Mean:
    """Weighted mean of (group, value, weight) rows, its interval by drawing groups again.

    Answers to one prompt are not independent, so the group is the unit. 0 where there is no row.
    """
    names = sorted({group for group, _, _ in rows})
    place = {name: at for at, name in enumerate(names)}
    sums = np.zeros((len(names), 2))  # per group: weight x value, weight
    for group, value, weight in rows:
        sums[place[group]] += (weight * value, weight)
    if not len(sums):
        return Mean(0.0, None, 0)
    whole = sums.sum(0)
    mean = float(whole[0] / whole[1])
    if len(sums) < 2:
        return Mean(mean, None, len(sums))
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    again = sums[drawn].sum(1)  # (RESAMPLES, 2)
    low, high = np.percentile(again[:, 0] / again[:, 1], INTERVAL)
    return Mean(mean, (float(low), float(high)), len(sums))


def paired_difference(new: Sequence[PairRow], old: Sequence[PairRow], figure: str) -> Mean:
    """Mean of new - old, by groups of which both models scored as many comparisons."""
    sums = {"new": _group_sums(new, figure), "old": _group_sums(old, figure)}
    both = [
        group
        for group, (_, weight) in sums["new"].items()
        if group in sums["old"] and sums["old"][group][1] == weight
    ]
    rows = []
    for group in both:
        (total, weight), (old_total, _) = sums["new"][group], sums["old"][group]
        rows.append((group, (total - old_total) / weight, weight))
    return bootstrap_mean(rows)


def _group_sums(rows: Sequence[PairRow], figure: str) -> dict[str, tuple[float, float]]:
    sums: dict[str, tuple[float, float]] = {}
    for row in rows:
        total, weight = sums.get(row.group, (0.0, 0.0))
        sums[row.group] = (total + row.weight * getattr(row, figure), weight + row.weight)
    return sums


def _mean(rows: Sequence[PairRow], figure: str) -> float | None:
    weight = sum(row.weight for row in rows)
    return sum(row.weight * getattr(row, figure) for row in rows) / weight if rows else None


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
        ).to(root.device)
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
    axis = version.job.config.get("axis") if version.job else None  # judged on what it learned
    return [row for row in read_comparisons(path, axis=axis) if row.in_split("dev")]


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
