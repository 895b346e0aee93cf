"""The optimizers' small parts: AdamW groups, Muon beside it, the learning-rate curve, and the check
for finite."""

import math
from typing import Any

import torch
from torch import nn

from policy.config import Diverged


def adamw(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> torch.optim.AdamW:
    """AdamW over the parameters that want a gradient; matrices decay, biases and norms do not.

    PPO passes eps=1e-5 (arXiv:2403.17031: the PyTorch default makes early updates too large).
    """
    wanted = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in wanted if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in wanted if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), eps=eps, fused=True)


def optimizer_for(
    name: str, model: nn.Module, *, lr: float, weight_decay: float, beta2: float, eps: float = 1e-8
) -> "torch.optim.AdamW | MuonWithAdamW":
    """The optimizer of this name over the model's parameters; see adamw and MuonWithAdamW."""
    if name == "adamw":
        return adamw(model, lr=lr, weight_decay=weight_decay, beta2=beta2, eps=eps)
    return MuonWithAdamW(model, lr=lr, weight_decay=weight_decay, beta2=beta2, eps=eps)


class MuonWithAdamW:
    """Muon for the matrices of the layers, AdamW for embeddings, heads, biases and norms.

    Muon (Jordan 2024; arXiv:2502.16982) steps along the orthogonalised momentum, so that no
    direction of a matrix is left behind: a small model learns to compare two places of a text in
    about two thirds of AdamW's steps. Updates are scaled to the size of AdamW's (equation 4 there),
    so one learning rate serves both.
    """

    def __init__(
        self, model: nn.Module, *, lr: float, weight_decay: float, beta2: float, eps: float
    ) -> None:
        layers = {
            name: p
            for name, p in model.named_parameters()
            if p.requires_grad and p.dim() == 2 and any(part.isdigit() for part in name.split("."))
        }
        rest = [p for name, p in model.named_parameters() if p.requires_grad and name not in layers]
        self._parts = {
            "muon": torch.optim.Muon(
                layers.values(), lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            "adamw": torch.optim.AdamW(
                rest, lr=lr, weight_decay=0.0, betas=(0.9, beta2), eps=eps, fused=True
            ),
        }

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self._parts.values() for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self._parts.values():
            part.zero_grad(set_to_none)

    def step(self) -> None:
        for part in self._parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def lr_at(
    step: int,
    *,
    total: int,
    peak: float,
    warmup: int = 0,
    shape: str = "linear",
    final: float = 0.0,
    decay: int = 0,
) -> float:
    """Learning rate of optimizer step `step`, counted from 0 to total - 1.

    Rises linearly to `peak` at step `warmup`, then falls to `final`, which step `total` would have.
    shape: `cosine`, `linear`, `constant`, which never falls, or `wsd` (warm-up, stable, decay;
    arXiv:2404.06395), which stays at `peak` until the last `decay` steps and then falls as 1 -
    sqrt(share of them that is done), the best of the shapes that arXiv:2405.18392 compares.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if shape == "constant":
        return peak
    if shape == "wsd":
        fallen = max(0, step - (total - decay)) / max(1, decay)
        return final + (peak - final) * (1.0 - math.sqrt(fallen))
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    left = 1.0 - done if shape == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return final + (peak - final) * left


def set_lr(optimizer: "torch.optim.Optimizer | MuonWithAdamW", lr: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_grad_norm(model: nn.Module, max_norm: float) -> torch.Tensor:
    """Scale the gradients to a total norm of at most max_norm; the norm before, a scalar."""
    return nn.utils.clip_grad_norm_(model.parameters(), max_norm)


def require_finite(**numbers: Any) -> None:
    """Raise Diverged naming the first number that is NaN or infinite. Call before stepping."""
    for name, value in numbers.items():
        finite = (
            bool(torch.isfinite(value).all())
            if isinstance(value, torch.Tensor)
            else (math.isfinite(value))
        )
        if not finite:
            raise Diverged(f"{name} is not finite: {value}")
