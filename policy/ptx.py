"""Pretraining mixed into PPO, so that what text taught is not unlearned (PPO-ptx, arXiv:2203.02155,
equation 2): each optimizer step also descends the next-token loss of some windows of text.
"""

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from policy.backbone import context_of, forward_logits
from policy.config import require
from policy.corpus import read_documents
from policy.packing import stream, windows
from policy.ppo_config import PPOConfig
from policy.processes import ALONE, Processes
from policy.run import generator_for


class Pretraining:
    """Windows of a file's documents, one behind the other, each with its end token."""

    def __init__(self, path: Path | str, tokenizer: Any, config: PPOConfig, policy: Any) -> None:
        """path: as `policy pretrain` reads it. Raises BadInput for a file shorter than a window."""
        self.config = config
        self.length = min(config.ptx_tokens, context_of(policy))
        tokens = stream(document.encode(tokenizer) for document in read_documents(path))
        self.windows = windows(tokens, self.length)  # (W, length + 1)
        require(
            len(self.windows) > 0,
            f"{path} holds {len(tokens)} tokens, ptx_tokens wants windows of {self.length + 1}",
        )

    def gradient(
        self, policy: Any, *, step: int, update: int, processes: Processes = ALONE
    ) -> float:
        """Add ptx_coef x the mean loss of some windows to the policy's gradient; the loss, nats per
        token. Which windows follows from the seed, the step and the number of its update.

        processes: each adds its share of the windows to its own gradient; the loss is of all.
        """
        config = self.config
        generator = generator_for(config.seed, step, "ptx", update)
        rows = torch.randint(len(self.windows), (config.ptx_windows,), generator=generator)
        mine = processes.share(rows.tolist(), lambda _: self.length)
        rows = torch.tensor(mine, dtype=torch.long)
        total = 0.0
        at_once = max(1, config.micro_batch_tokens // self.length)
        for part in rows.split(at_once) if mine else ():
            ids = self.windows[part].to(policy.device)  # (n, length + 1)
            read, foretold = ids[:, :-1], ids[:, 1:]
            logits = forward_logits(policy, read, torch.ones_like(read, dtype=torch.bool))
            loss = cross_entropy(logits.flatten(0, 1), foretold.flatten(), reduction="sum")
            loss = loss / (config.ptx_windows * self.length)
            (config.ptx_coef * loss).backward()
            total += float(loss.detach())
        return processes.sum([total])[0]
