"""The gate of policies: their answers to dev prompts, scored, beside those of what is in force."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from annotation import verdicts
from annotation.errors import BadInput
from annotation.models import JobKind, ModelVersion, Project, Prompt, Slot, Split
from annotation.services import versions
from annotation.services.gates import BEFORE, count_looks
from policy.config import config_from
from policy.intervals import Mean, bootstrap_mean
from policy.losses import token_logprobs
from policy.ppo_config import PPOConfig
from policy.rollout import pad, response_logits
from policy.run import seed_for
from policy.scoring import batches_by_length
from workers.generation import MODELS, Sampling, Written, text_messages, write_completions
from workers.judging import judge_figures
from workers.looks import (
    BETTER,
    NOT_WORSE,
    UNDECIDED,
    WORSE,
    Difference,
    by_group,
    find,
    level_of_look,
)
from workers.verdict import Verdict

GATE_PROMPTS, MOST_GATE_PROMPTS = 64, 512
"""Of a first look; of one more, where the one before said how many would tell."""
MARGIN_SCORE = 0.05
"""A policy whose score is at most so much lower is not worse; in deviations of the score."""
MUCH_LONGER = 0.2
"""Share of the length before by which answers may grow without a warning."""
SAMPLES_PER_PROMPT = 2
TOKENS_PER_FORWARD = 4096


def judge_policy(version: ModelVersion, project: Project) -> Verdict:
    """Mean score of its answers to dev prompts, KL to the root, length, and the judge's word."""
    job, reward, root = version.job, version.reward, version.reference
    assert job is not None
    if reward is None or root is None:
        raise BadInput(f"{version} was made without a reward model or a reference.")
    baseline = versions.in_force(project, Slot.POLICY) or root
    config = config_from(PPOConfig, job.config)
    sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_response_tokens)
    prompts, where = _gate_prompts(project, prompts_wanted(version))
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
    gain = by_group(groups, np.subtract(scores["new"], scores["old"]))
    lengths = {name: [len(one.sampled.tokens) for one in rows] for name, rows in written.items()}
    longer = bootstrap_mean(by_group(groups, np.subtract(lengths["new"], lengths["old"])))
    kl_nats = kl_of_each(MODELS.policy(root)[0], written["new"], sampling.temperature)
    kl = bootstrap_mean(by_group(groups, kl_nats))
    numbers: dict[str, Any] = {
        "against": baseline.name,
        "reward_model": reward.name,
        "prompts": f"{len(prompts)} of {where}",
        "score": float(np.mean(scores["new"])),
        "old_score": float(np.mean(scores["old"])),
        "score_gain": bootstrap_mean(gain).as_json(),
        "kl_nats": kl.mean,
        "kl_interval": list(kl.interval) if kl.interval else None,
        "kl_budget_nats": project.kl_budget_nats,
        "length_gain": longer.as_json(),
        **{
            f"{name}_{key}": value
            for name, rows in written.items()
            for key, value in shape_of(rows).items()
        },
        **{f"{name}_num_read_cut": sum(one.was_cut for one in scored[name]) for name in scored},
    }
    look = count_looks(version, project, JobKind.PPO, "score_gain") + 1
    numbers |= judge_figures(
        project,
        reward,
        conversations,
        groups,
        written["new"],
        lambda: written["old"] if baseline == root else answers(root),
        level_of_look(look),
    )
    return policy_verdict(Difference.of(gain), numbers, where=where, look=look)


def policy_verdict(
    gain: Difference, numbers: Mapping[str, Any], *, where: str, look: int
) -> Verdict:
    """The rule of the policy gate, apart from the measuring.

    Better, not worse by MARGIN_SCORE, worse, or undecided, by the score at the level of this look.
    KL beyond the budget refuses, and so does a judge that finds it worse than the root at the level
    of this look; length, and a gain that the judge does not see, warn at a plain 95 %.
    """
    found = find(replace(gain, mean=-gain.mean), look=look, margin=MARGIN_SCORE)
    verdict, sentence = SAID[found.finding]
    if found.finding == UNDECIDED and found.more_groups is None:
        sentence = verdicts.POLICY_NEVER_DECIDED
    kl_nats, budget_nats = numbers["kl_nats"], numbers["kl_budget_nats"]
    if not kl_nats <= budget_nats:  # NaN is within no budget
        verdict, sentence = "failed", verdicts.POLICY_BEYOND_BUDGET
    why = sentence % {
        "name": numbers["against"],
        "groups": gain.groups,
        "where": where,
        "gain": Mean(**numbers["score_gain"]),
        "look": look,
        "margin": MARGIN_SCORE,
        "more": found.more_groups,
        "kl_nats": f"{kl_nats:.2f}",
        "budget_nats": f"{budget_nats:g}",
    }
    judge_gain = _gain_by(numbers, "judge")
    claimed = _gain_by(numbers, "judge", "gain_at_look")
    if claimed is not None and claimed.lies_below(0.0):
        verdict, why = "failed", verdicts.JUDGE_FINDS_WORSE % {"why": why, "gain": claimed}
    return Verdict(
        passed=verdict == "passed",
        verdict=verdict,
        why=why,
        numbers={**numbers, "look": found.as_json()},
        warnings=_warnings(numbers, judge_gain),
    )


SAID = {
    BETTER: ("passed", verdicts.POLICY_BETTER),
    NOT_WORSE: ("passed", verdicts.POLICY_NOT_WORSE),
    WORSE: ("failed", verdicts.POLICY_WORSE),
    UNDECIDED: ("undecided", verdicts.POLICY_UNDECIDED),
}
"""(verdict, sentence) by what a look found."""


def _gain_by(numbers: Mapping[str, Any], who: str, which: str = "gain") -> Mean | None:
    """Over the root, by the judge or by the reward model that it is held against; which: with a
    plain interval, or the judge's with that of the look."""
    found = numbers.get("judge", {}).get(who)
    return Mean(**found[which]) if found else None


def _warnings(numbers: Mapping[str, Any], judge_gain: Mean | None) -> list[str]:
    found = []
    longer, before = Mean(**numbers["length_gain"]), numbers["old_mean_tokens"]
    if longer.lies_above(MUCH_LONGER * before):
        lengths = {"new": f"{numbers['new_mean_tokens']:.1f}", "old": f"{before:.1f}"}
        found.append(verdicts.MUCH_LONGER % {**lengths, "gain": longer})
    proxy_gain = _gain_by(numbers, "proxy")
    seen = proxy_gain is not None and proxy_gain.lies_above(0.0)
    if seen and judge_gain is not None and not judge_gain.lies_above(0.0):
        gains = {"proxy": proxy_gain, "judge": judge_gain}
        found.append(verdicts.JUDGE_SEES_NO_GAIN % gains)
    return found


# --- measuring ----------------------------------------------------------------------------------


@torch.inference_mode()
def kl_of_each(root: Any, written: Sequence[Written], temperature: float) -> list[float]:
    """Of each response the sum of log p_new - log p_root, nats; both tempered alike.

    The sampler's own log-probabilities against the root's on the same tokens (k1, unbiased).
    """
    lengths = [len(one.prompt_ids) + len(one.sampled.tokens) for one in written]
    found = [0.0] * len(written)
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
        of_root = logprobs.split([len(row.sampled.tokens) for row in rows])
        for at, row, own in zip(batch, rows, of_root, strict=True):
            found[at] = sum(row.sampled.logprobs) - float(own.sum())
    return found


def shape_of(written: Sequence[Written]) -> dict[str, float]:
    """Length and the share without end token: what a policy that games its score changes first."""
    return {
        "mean_tokens": float(np.mean([len(one.sampled.tokens) for one in written])),
        "share_without_end": float(np.mean([one.sampled.finish != "end" for one in written])),
    }


def prompts_wanted(version: ModelVersion) -> int:
    """GATE_PROMPTS, or as many as the look before said would tell, MOST_GATE_PROMPTS at most."""
    before = version.metrics.get(BEFORE, [])
    if not before:
        return GATE_PROMPTS
    look = before[-1]["numbers"]
    wanted = look["score_gain"]["groups"] + (look["look"]["more_groups"] or GATE_PROMPTS)
    return min(max(wanted, GATE_PROMPTS), MOST_GATE_PROMPTS)


def _gate_prompts(project: Project, count: int) -> tuple[list[Prompt], str]:
    """Up to `count` prompts of dev, shuffled, and where they are from.

    The same for every candidate while the split holds the same prompts; once it has grown, others.
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
            return found[:count], f"{split.value} prompts"
    return [], "no prompts"
