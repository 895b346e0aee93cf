"""`python -m policy COMMAND`: see each module; this only wires them."""

import sys

from policy import commands

COMMANDS = {
    "pretrain": ("pretrain", "a tokenizer and a tiny GPT from text"),
    "sft": ("sft", "learn from demonstrations"),
    "sample": ("sample", "write completions for prompts"),
    "ppo": ("ppo", "improve a policy against a reward model"),
    "dpo": ("dpo", "learn from comparisons without a reward model"),
    "online-dpo": ("online_dpo", "learn from its own answers, ordered by a reward model"),
    "best-of-n": ("best_of_n", "the best of n answers by a reward model, and what n is worth"),
    "evaluate": (
        "evaluate",
        "figures of a policy's answers to held-out prompts, and a page to read",
    ),
    "bundle": ("bundle", "all that a finished model is made of, in one folder"),
    "rebuild": ("rebuild", "a bundle's model made again, verified hash by hash"),
    "sweep": ("sweep", "a training command over settings, seeds and sizes, with a table"),
}


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run the command; its exit code."""
    return commands.run("policy", "The policy laboratory.", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
