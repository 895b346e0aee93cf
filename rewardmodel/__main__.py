"""`python -m rewardmodel COMMAND`: see each module; this only wires them."""

import argparse
import sys

from policy.run import main_guard
from rewardmodel import anchors, curve, ensemble, examine, features, refit, score, train

COMMANDS = {
    "train": (train, "learn scores from comparisons"),
    "ensemble": (ensemble, "one model from several that were trained before"),
    "features": (features, "what a frozen model's head sees of a file's completions"),
    "refit": (refit, "a new head for a frozen model, from its features"),
    "evaluate": (examine, "how good a model is, as JSON and as a report"),
    "score": (score, "a score for every completion of a file"),
    "curve": (curve, "accuracy by the amount of data"),
    "anchors": (anchors, "freeze the texts that scores are normalised on"),
}


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m rewardmodel", description="Scores from votes.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, summary) in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=summary, description=module.__doc__))
    args = parser.parse_args(argv)
    return main_guard(lambda: COMMANDS[args.command][0].run_command(args))


if __name__ == "__main__":
    sys.exit(main())
