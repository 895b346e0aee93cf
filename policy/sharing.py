"""A policy that learns few of its weights, and the reference that has all the others from it.

What stands still lies in memory once: in the policy, in its reference and in the copies that are
kept of it.
"""

import copy
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn import Parameter

from policy.config import require
from policy.lora import add_adapters, merge_adapters
from policy.ppo_config import PPOConfig


def copy_sharing(model: Any, shared: Iterable[Parameter]) -> Any:
    """A copy of the model that holds these parameters themselves, the others as copies."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in shared})


def copy_of_learning(policy: Any) -> Any:
    """A copy to keep weights in; it shares what does not learn."""
    frozen = [parameter for parameter in policy.parameters() if not parameter.requires_grad]
    return copy_sharing(policy, frozen).requires_grad_(False)


def let_learn(policy: Any, config: PPOConfig) -> Any | None:
    """Leave adapters alone, or the layers above the frozen ones, to learn; in place. Returns the
    policy as it began, which shares all that stands still; None where all of it learns."""
    if config.lora_rank:
        began = copy_sharing(policy, policy.parameters())
        add_adapters(policy, rank=config.lora_rank, seed=config.seed, head_learns=False)
        return began.requires_grad_(False)
    if config.frozen_layers:
        freeze_lowest(policy, config.frozen_layers)
        return copy_of_learning(policy)
    return None


def freeze_lowest(model: Any, count: int) -> None:
    """Embeddings and the lowest `count` layers stand still; so does a head tied to the embeddings.

    Raises BadInput for a model with fewer layers.
    """
    layers = next(
        module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)
    )
    require(
        count <= len(layers),
        f"frozen_layers must be at most {len(layers)}, the policy's layers: {count}",
    )
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    for module in (*embeddings, *layers[:count]):
        module.requires_grad_(False)


def whole(policy: Any, config: PPOConfig) -> Any:
    """The policy as it is published: adapters merged into a copy, for others share its weights."""
    return merge_adapters(copy.deepcopy(policy)) if config.lora_rank else policy
