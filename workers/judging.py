"""What the judge in force says of a policy, beside the reward model that the policy learned from.

Reported and nothing more. A gain that the judge sees too is no trick on the reward model; one that
the reward model alone sees may be (arXiv:2210.10760).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from annotation.models import ModelVersion, Project, Slot
from annotation.services import versions
from annotation.services.judges import has_other_trunk, saw_other_groups
from policy.config import BadInput as BadLaboratoryInput
from policy.data import Message
from policy.intervals import bootstrap_mean
from workers.generation import MODELS, Written


def judge_figures(
    project: Project,
    reward: ModelVersion,
    conversations: Sequence[Sequence[Message]],
    groups: Sequence[str],
    policy: Sequence[Written],
    reference: Callable[[], Sequence[Written]],
) -> dict[str, Any]:
    """Mean scores of the policy's and the reference's answers to the same prompts by both models;
    {} without a judge in force.

    Both are on one scale, the project's anchors, so that the gains can be compared. `other_groups`:
    whether it is certain that no train group taught both; `other_trunk`: that they began with
    other random weights. reference: writes its answers.
    """
    judge = versions.in_force(project, Slot.JUDGE)
    if judge is None:
        return {}
    figures: dict[str, Any] = {
        "name": judge.name,
        "other_groups": saw_other_groups(judge, reward),
        "other_trunk": has_other_trunk(judge, reward),
    }
    texts = [[one.text for one in rows] for rows in (policy, reference())]
    try:
        for name, version in (("proxy", reward), ("judge", judge)):
            scorer = MODELS.scorer(version)
            scored = [scorer.scored_cut(conversations, rows) for rows in texts]
            of_policy, of_reference = ([one.score for one in rows] for rows in scored)
            pairs = zip(groups, of_policy, of_reference, strict=True)
            figures[name] = {
                "policy": float(np.mean(of_policy)),
                "reference": float(np.mean(of_reference)),
                "gain": bootstrap_mean([(g, a - b, 1.0) for g, a, b in pairs]).as_json(),
                "num_read_cut": sum(one.was_cut for rows in scored for one in rows),
            }
    except BadLaboratoryInput as error:  # of a judge without room for any, say: the gate goes on
        figures["error"] = str(error)
    return {"judge": figures}
