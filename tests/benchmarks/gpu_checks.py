"""Whether a GPU says what a CPU says: samples, log-probs, a gradient.

    python tests/benchmarks/gpu_checks.py FOLDER [--device cuda]

FOLDER is ppo_speed.py's after a run with --device cuda, by default var/benchmark. Prints a line for
each check.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from policy.backbone import load_causal_lm  # noqa: E402
from policy.decoding import ByForward, Decoding, decoding_of  # noqa: E402
from policy.losses import token_logprobs  # noqa: E402
from policy.reader import Reader  # noqa: E402
from policy.rollout import pad, response_logits  # noqa: E402
from policy.sampling import Sampled, sample  # noqa: E402
from policy.stepping import step_of  # noqa: E402

ROWS, LONGEST = 16, 64
NEARLY_TIED = 1e-3
"""Logits: two that are this near may fall either way by the order in which sums are rounded."""


def checks(folder: Path, device: str) -> None:
    """Print how samples, log-probs and gradients on `device` differ from what they ought to be."""
    torch.backends.cuda.matmul.allow_tf32 = False
    model, tokenizer = load_causal_lm(folder / "policy", device=device)
    prompts = json.loads((folder / "ids.json").read_text(encoding="utf-8"))[:ROWS]
    greedy = sample(
        model, tokenizer, prompts, temperature=0, max_new_tokens=LONGEST, seeds=range(ROWS)
    )
    same, ties = against_generate(model, tokenizer, prompts, greedy)
    print(
        f"- Greedy in fp32: {same} of {ROWS} answers are `generate`'s token by token, {ties} leave "
        f"it where two logits are within {NEARLY_TIED}."
    )
    for precision in ("fp32", "bf16"):
        drawn = sample(
            model, tokenizer, prompts, temperature=1.0, max_new_tokens=LONGEST,
            seeds=range(ROWS), precision=precision,
        )  # fmt: skip
        apart = against_forward(model, tokenizer, prompts, drawn, precision)
        print(
            f"- Log-probs of the sampler in {precision} and of a fresh forward differ by at most "
            f"{apart.max():.1e}, mean exp of the difference {apart.exp().mean():.5f}."
        )
        alone = sample(
            model, tokenizer, prompts[3:4], temperature=1.0, max_new_tokens=LONGEST,
            seeds=[3], precision=precision,
        )  # fmt: skip
        print(f"  Row 3 sampled alone is the same: {alone[0].tokens == drawn[3].tokens}.")
    print(f"- Rows that leave: logits differ by at most {after_leaving(model, prompts):.1e}.")
    print(f"- Steps by {type(decoding_for(model, prompts)).__name__}.")
    on_cpu, _ = load_causal_lm(folder / "policy")
    theirs, ours = (gradient(each, tokenizer, prompts[:4], greedy[:4]) for each in (on_cpu, model))
    print(
        f"- Gradient of an answer's log-probs: differs from the CPU's by "
        f"{(ours - theirs).norm() / theirs.norm():.1e} of its norm.\n"
    )


def against_generate(
    model: Any, tokenizer: Any, prompts: list[list[int]], greedy: list[Sampled]
) -> tuple[int, int]:
    """(how many answers are the library's, how many leave it at a near tie)."""
    same = ties = 0
    for prompt, answer in zip(prompts, greedy, strict=True):
        ids = torch.tensor([prompt], device=model.device)
        made = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
            max_new_tokens=LONGEST, pad_token_id=tokenizer.pad_token_id,
            suppress_tokens=[tokenizer.pad_token_id], output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        theirs = made.sequences[0, len(prompt) :].tolist()
        if theirs == answer.tokens:
            same += 1
            continue
        at = next(i for i, (a, b) in enumerate(zip(theirs, answer.tokens, strict=False)) if a != b)
        logits = made.logits[at][0]
        ties += bool((logits[theirs[at]] - logits[answer.tokens[at]]).abs() <= NEARLY_TIED)
    return same, ties


def against_forward(
    model: Any, tokenizer: Any, prompts: list[list[int]], drawn: list[Sampled], precision: str
) -> torch.Tensor:
    """Absolute differences of each token's log-prob, nats."""
    reader = Reader(model, precision=precision)
    apart: list[torch.Tensor] = []

    def look(model: Any, _: Any, rows: list[int]) -> None:
        padded = pad(
            [prompts[row] for row in rows],
            [drawn[row].tokens for row in rows],
            pad_id=tokenizer.pad_token_id,
            device=model.device,
        )
        logits = response_logits(model, padded)
        logprobs = token_logprobs(logits, padded.response_ids, temperature=1.0)
        given = [each for row in rows for each in drawn[row].logprobs]
        apart.append((logprobs.cpu() - torch.tensor(given)).abs())

    reader.read(look, [[row] for row in range(len(drawn))], lambda rows: LONGEST * 3, 16_384)
    return torch.cat(apart)


def decoding_for(model: Any, prompts: list[list[int]]) -> Decoding:
    step = step_of(model, torch.float32)
    return decoding_of(model, [tuple(each) for each in prompts], room=LONGEST, step=step)


def after_leaving(model: Any, prompts: list[list[int]]) -> float:
    """The largest difference from the model's own forward over 30 steps, of which half the rows
    leave before the tenth and half of those before the twentieth."""
    own = decoding_for(model, prompts)
    other = ByForward(model, [tuple(each) for each in prompts], room=LONGEST, autocast=None)
    apart = 0.0
    for turn in range(30):
        apart = max(apart, (own.logits - other.logits)[:, 6:].abs().max().item())
        if turn in (10, 20):
            kept = torch.arange(0, len(own.logits), 2, device=model.device)
            own.keep(kept)
            other.keep(kept)
        tokens = own.logits.argmax(-1)
        own.append(tokens)
        other.append(tokens)
    return apart


def gradient(
    model: Any, tokenizer: Any, prompts: list[list[int]], answers: list[Sampled]
) -> torch.Tensor:
    """Of the sum of the answers' log-probs, all parameters in one vector."""
    model.requires_grad_(True)
    padded = pad(
        prompts,
        [each.tokens for each in answers],
        pad_id=tokenizer.pad_token_id,
        device=model.device,
    )
    token_logprobs(
        response_logits(model, padded), padded.response_ids, temperature=1.0
    ).sum().backward()
    return torch.cat([each.grad.flatten().cpu() for each in model.parameters()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("var/benchmark"))
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    checks(args.folder, args.device)


if __name__ == "__main__":
    main()
