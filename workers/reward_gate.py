"""The gates of reward models and judges: their scores against the dev answers of people."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings

from annotation import verdicts
from annotation.models import JobKind, ModelVersion, Project, Slot, Split
from annotation.services import versions
from annotation.services.gates import BEFORE, count_looks
from annotation.services.retraining import votes_that_train
from annotation.services.snapshots import freeze
from policy.comparisons import Comparison, read_comparisons
from policy.intervals import bootstrap_mean
from policy.score_scale import FEWEST_GROUPS
from rewardmodel.bootstrap import PairRow
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
from workers.reward_figures import Seen, examined
from workers.statistics import paired_difference, paired_rows, weighted_mean
from workers.verdict import Verdict


def judge_reward(version: ModelVersion, project: Project) -> Verdict:
    """Accuracy and log loss on the dev answers of its snapshot, against the version in force."""
    in_force = versions.in_force(project, Slot.REWARD)
    comparisons = dev_comparisons(version, project)
    new = Seen.of(versions.directory_of(version), comparisons)
    if in_force is None:
        return examined(first_reward(new.rows), new)
    old = Seen.of(versions.directory_of(in_force), comparisons)
    look = looks_before(version, project) + 1
    return examined(reward_against(new.rows, old.rows, in_force.name, look=look), new, old)


def first_reward(rows: Sequence[PairRow]) -> Verdict:
    """A first reward model passes if it does better than a coin, as PPO wants it."""
    return against_a_coin(rows, verdicts.FIRST_REWARD, verdicts.FIRST_REWARD_TOO_FEW)


def judge_judge(version: ModelVersion, project: Project) -> Verdict:
    """The newest judge takes the place of the one before, for it saw the most answers, unless it
    does no better than a coin."""
    seen = Seen.of(versions.directory_of(version), dev_comparisons(version, project))
    verdict = against_a_coin(seen.rows, verdicts.JUDGE, verdicts.JUDGE_TOO_FEW)
    if verdict.verdict == "first":
        verdict = replace(verdict, verdict="passed")
    return examined(verdict, seen)


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
    return count_looks(version, project, JobKind.REWARD, "log_loss_difference")


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
        "old_accuracy": weighted_mean(old, "correct"),
        "old_log_loss": weighted_mean(old, "log_loss"),
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
    return Verdict(passed=verdict == "passed", verdict=verdict, why=why, numbers=numbers)


SAID = {
    BETTER: (verdicts.REWARD_BETTER, "passed"),
    NOT_WORSE: (verdicts.REWARD_NOT_WORSE, "passed"),
    WORSE: (verdicts.REWARD_WORSE, "failed"),
    UNDECIDED: (verdicts.REWARD_UNDECIDED, "undecided"),
}
"""(sentence, verdict) by what a look found."""


def dev_comparisons(version: ModelVersion, project: Project) -> list[Comparison]:
    """Dev rows of the snapshot that the version was trained from; of the project's votes now where
    it has none, or where it was undecided on that one and is looked at again."""
    snapshot, job = version.snapshot, version.job
    if snapshot is None or version.metrics.get(BEFORE):
        assert job is not None
        query = {"splits": [Split.DEV.value], "annotators": votes_that_train(job.inputs)}
        snapshot = freeze(project=project, kind="comparisons", query=query, by=None)
    path = Path(settings.ARTIFACTS_DIR) / snapshot.path
    config = job.config if job else {}
    learned = config.get("axis") or config.get("axes")  # judged on these
    return [row for row in read_comparisons(path, axis=learned) if row.in_split("dev")]
