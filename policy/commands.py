"""A package's commands: each a module with `add_arguments`, `run_command` and a docstring."""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

from policy.run import main_guard


def run(
    package: str,
    description: str,
    commands: Mapping[str, tuple[str, str]],
    argv: Sequence[str] | None,
) -> int:
    """Parse the command line and run the command; its exit code. commands: name -> (module, line).

    Only the module of the command that is asked for is imported: together they load libraries for
    plots, statistics and adapters, seconds before the first line of a command that has no use of
    them.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    asked = words[0] if words and words[0] in commands else None
    module = importlib.import_module(f"{package}.{commands[asked][0]}") if asked else None
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=description)
    parsers = parser.add_subparsers(dest="command", required=True)
    for name, (_, line) in commands.items():
        each = parsers.add_parser(name, help=line)
        if name == asked and module is not None:
            each.description = module.__doc__
            module.add_arguments(each)
    args = parser.parse_args(words)
    assert module is not None, "without a command the parser has ended it"
    return main_guard(lambda: int(module.run_command(args)))
