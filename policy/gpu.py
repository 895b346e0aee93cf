"""What a run's GPU does, for whoever watches it."""

from types import ModuleType
from typing import Any

import torch

MEGABYTE = 1e6


def gpu_now(cuda: ModuleType | Any = torch.cuda) -> dict[str, float]:
    """Memory that this process holds on its GPU (allocated, and reserved by torch; MB), and the
    share of time in which the GPU computed (percent, of the driver's last sample, whoever used it).

    Empty where this process has not touched a GPU; a figure that cannot be read is left out.
    """
    if not cuda.is_initialized():
        return {}
    found: dict[str, float] = {}
    for name, read, unit in (
        ("gpu_memory_mb", cuda.memory_allocated, MEGABYTE),
        ("gpu_reserved_mb", cuda.memory_reserved, MEGABYTE),
        ("gpu_percent", cuda.utilization, 1.0),
    ):
        try:
            found[name] = round(read() / unit, 1)
        except Exception:  # of a driver, whose errors have many classes: a figure to look at
            continue
    return found
