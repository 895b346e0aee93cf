"""How fast a model of 30 million weights is pretrained and fine-tuned, beside what this machine
multiplies.

    python tests/benchmarks/pretrain_speed.py [--quick] [--steps N] [--device cuda]

Random weights and random tokens, the step of `policy pretrain --set size=small` and of `policy sft`
(optimizer included) in fp32 and in bf16: the median of N steps after two that are not counted, the
ways in turn. The share is of what a plain product of the model's own sizes reaches in the same
precision; attention, elementwise work and padding are not counted as work.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from policy.backbone import GPTShape, new_gpt  # noqa: E402
from policy.config import SIZES, SFTConfig  # noqa: E402
from policy.lines import Lines  # noqa: E402
from policy.optim import adamw  # noqa: E402
from policy.reading import Reading, train_step  # noqa: E402
from policy.sft import Example, lines_of, packed_lines  # noqa: E402
from policy.tokenizer import train_tokenizer  # noqa: E402

CONTEXT = 256
VOCABULARY = 4096


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: str) -> float:
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def multiplied(dtype: torch.dtype, width: int, device: str) -> float:
    """FLOP/s of a product of the model's sizes, the best of several."""
    x = torch.randn(8 * CONTEXT, width, dtype=dtype, device=device)
    w = torch.randn(width, 3 * width, dtype=dtype, device=device)
    out = torch.empty(8 * CONTEXT, 3 * width, dtype=dtype, device=device)
    best = min(
        seconds_of(lambda: [torch.mm(x, w, out=out) for _ in range(10)], device) for _ in range(15)
    )
    return 10 * 2 * 8 * CONTEXT * width * 3 * width / best


def batches(rows: int, generator: torch.Generator) -> dict[str, Lines]:
    """A step of each way: windows; demonstrations of 40 to 200 tokens, half of them the answer."""
    windows = torch.randint(6, VOCABULARY, (rows, CONTEXT + 1), generator=generator)
    examples = []
    for length in torch.randint(40, 201, (2 * rows,), generator=generator).tolist():
        ids = torch.randint(6, VOCABULARY, (length,), generator=generator).tolist()
        examples.append(Example(ids, length // 2))
    examples.sort(key=lambda each: len(each.ids))
    return {
        "pretrain": Lines.next_tokens(windows),
        "sft": lines_of(examples, 0),
        "sft, packed": packed_lines(examples, 0, CONTEXT),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one step")
    args = parser.parse_args(argv)
    size = {"width": 32, "layers": 1, "heads": 2} if args.quick else SIZES["small"]
    shape = GPTShape(**{**size, "context": CONTEXT})
    tokenizer = train_tokenizer(["a"], vocab_size=300, context=CONTEXT)
    filler = [f"w{number}" for number in range(VOCABULARY - len(tokenizer))]
    tokenizer.add_tokens(filler)
    steps, rows = (1, 2) if args.quick else (args.steps, 8)
    model = new_gpt(tokenizer, shape, seed=0, device=args.device).train()
    head = model.get_output_embeddings().weight.numel()
    blocks = sum(p.numel() for p in model.parameters() if p.dim() > 1) - head
    optimizer = adamw(model, lr=1e-5, weight_decay=0.0)
    given = batches(rows, torch.Generator().manual_seed(0))
    taken: dict[tuple[str, str], list[float]] = {}
    for turn in range(steps + 2):
        for precision in ("fp32", "bf16"):
            # A model that was asked in bf16 attends another way there and not in fp32.
            reading = Reading(model, SFTConfig(precision=precision))
            for name, lines in given.items():
                step = lambda r=reading, l=lines: train_step(r, l, optimizer, max_grad_norm=1.0)  # noqa: E731, E741
                seconds = seconds_of(step, args.device)
                if turn >= 2 or args.quick:
                    taken.setdefault((name, precision), []).append(seconds)
    print(f"{(blocks + head) / 1e6:.0f} million weights, {torch.get_num_threads()} threads\n")
    print("| step | precision | tokens/s | GFLOP/s | of a product's | padding |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    peaks = {name: multiplied(dtype, shape.width, args.device) for name, dtype in dtypes.items()}
    for (name, precision), seconds in taken.items():
        lines = given[name]
        tokens = int(lines.mask.sum())
        # 2 FLOPs forward and 4 backward for each weight and token that it reads.
        rate = 6 * (blocks * tokens + head * lines.num_learned) / statistics.median(seconds)
        print(
            f"| {name} | {precision} | {tokens / statistics.median(seconds):.0f} "
            f"| {rate / 1e9:.0f} | {rate / peaks[precision]:.0%} of {peaks[precision] / 1e9:.0f} "
            f"| {1 - tokens / lines.mask.numel():.0%} |"
        )


if __name__ == "__main__":
    main()
