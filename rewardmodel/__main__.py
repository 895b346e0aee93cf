"""`python -m rewardmodel COMMAND`: see each module; this only wires them."""

import sys

from policy import commands

COMMANDS = {
    "train": ("train", "learn scores from comparisons"),
    "ensemble": ("ensemble", "one model from several that were trained before"),
    "features": ("features", "what a frozen model's head sees of a file's completions"),
    "refit": ("refit", "a new head for a frozen model, from its features"),
    "contributions": ("contributions", "what each annotator or batch did for dev log loss"),
    "evaluate": ("examine", "how good a model is, as JSON and as a report"),
    "score": ("score", "a score for every completion of a file"),
    "curve": ("curve", "accuracy by the amount of data"),
    "anchors": ("anchors", "freeze the texts that scores are normalised on"),
}


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run the command; its exit code."""
    return commands.run("rewardmodel", "Scores from votes.", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
