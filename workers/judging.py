"""What the judge in force says of a policy, beside the reward model that the policy learned from.

The gate weighs it (workers/policy_gate.py). A gain that the judge sees too is no trick on the
reward model; one that the reward model alone sees may be (arXiv:2210.10760).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation.models import ModelVersion, Project, Slot
from annotation.services import versions
from annotation.services.judges import has_other_trunk, saw_other_groups
from policy.config import BadInput as BadLaboratoryInput
from policy.data import Message
from policy.intervals import bootstrap_mean
from workers.generation import MODELS, Written
from workers.looks import Difference, by_group


def judge_figures(
    project: Project,
    reward: ModelVersion,
    conversations: Sequence[Sequence[Message]],
    groups: Sequence[str],
    policy: Sequence[Written],
    reference: Callable[[], Sequence[Written]],
    level: float,
) -> dict[str, Any]:
    """Mean scores of the policy's and the reference's answers to the same prompts by both models;
    {} without a judge in force.

    Both are on one scale, the project's anchors, so that the gains can be compared. `other_groups`:
    whether it is certain that no train group taught both; `other_trunk`: that they began with
    other random weights. reference: writes its answers. level: of
    the look, for the judge's gain alone, since that may refuse.
    """
    judge = versions.in_force(project, Slot.JUDGE)
    if judge is None:
        return {}
    figures: dict[str, Any] = {
        "name": judge.name,
        "other_groups": saw_other_groups(judge, reward),
        "other_trunk": has_other_trunk(judge, reward),
    }
    gains: dict[str, NDArray[np.float64]] = {}  # (N,) of each answer
    texts = [[one.text for one in rows] for rows in (policy, reference())]
    try:
        for name, version in (("proxy", reward), ("judge", judge)):
            scorer = MODELS.scorer(version)
            scored = [scorer.scored_cut(conversations, rows) for rows in texts]
            of_policy, of_reference = ([one.score for one in rows] for rows in scored)
            gains[name] = np.subtract(of_policy, of_reference)
            figures[name] = {
                "policy": float(np.mean(of_policy)),
                "reference": float(np.mean(of_reference)),
                "gain": _mean_of(groups, gains[name]),
                "num_read_cut": sum(one.was_cut for rows in scored for one in rows),
            }
        at_look = Difference.of(by_group(groups, gains["judge"]))
        figures["judge"]["gain_at_look"] = {
            "mean": at_look.mean,
            "interval": list(at_look.interval(level)),
            "groups": at_look.groups,
        }
        figures["proxy_over_judge"] = _mean_of(groups, gains["proxy"] - gains["judge"])
    except BadLaboratoryInput as error:  # of a judge without room for any, say: the gate goes on
        figures["error"] = str(error)
    return {"judge": figures}


def _mean_of(groups: Sequence[str], gains: NDArray[np.float64]) -> dict[str, Any]:
    return bootstrap_mean(
        [(g, float(x), 1.0) for g, x in zip(groups, gains, strict=True)]
    ).as_json()
