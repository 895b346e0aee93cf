"""python -m rewardmodel train | evaluate | score"""

import argparse
import sys

from policy.run import main_guard
from rewardmodel import evaluate, score, train

COMMANDS = {
    "train": (train, "learn scores from comparisons"),
    "evaluate": (evaluate, "agreement of a model's scores with votes, as JSON"),
    "score": (score, "a score for every completion of a file"),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rewardmodel", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(subparser)
        subparser.set_defaults(run_command=module.run_command)
    args = parser.parse_args(arguments)
    return main_guard(lambda: args.run_command(args))


if __name__ == "__main__":
    sys.exit(main())
