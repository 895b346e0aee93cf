"""Break one line at a time and see which test notices: `python tests/mutations.py [WORD ...]`.

The table is mutations.toml beside this file, or that of `--table FILE`. Each mutation is made in a
temporary copy of the packages, where its test must fail. A WORD takes those mutations that have it
anywhere. Prints one line each and killed / total; exit code 1 if one lived, 2 if a line does not
stand once in its file any more, or its test cannot run or fails before. T1 to T28 are the known
answers of policy gradients and preference losses; the table says what each is.

Each test runs in a fork of this process, which has imported the slow libraries before and nothing
of Concord.
"""

import argparse
import os
import shutil
import sys
import tempfile
import tomllib
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest
import scipy.optimize
import torch.testing
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.llama import modeling_llama

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).with_name("mutations.toml")
PARTS = (
    *("policy", "rewardmodel", "fixtures"),
    *("tests/policy", "tests/rewardmodel", "tests/benchmarks"),
)
IMPORTED = (
    *(scipy.optimize, torch.testing, modeling_llama),
    *(AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer),
)
FAILED = 1
"""Pytest's exit code where tests ran and one failed; any other is no kill."""


@dataclass(frozen=True, slots=True)
class Mutation:
    file: str
    line: str
    """Text that stands in the file once."""
    becomes: str
    test: str
    """What must fail: a test of pytest."""
    known: str = ""
    """The known answers that break with it, by their numbers in the table."""


def read_table(path: Path = TABLE) -> list[Mutation]:
    return [Mutation(**row) for row in tomllib.loads(path.read_text("utf-8"))["mutation"]]


class Copy:
    """A copy of the packages in which lines are broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in PARTS:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)

    def kills(self, mutation: Mutation) -> bool:
        """Whether the test fails. Raises ValueError if the line or the test is not what it was."""
        path = self.folder / mutation.file
        text = path.read_text("utf-8")
        if (times := text.count(mutation.line)) != 1:
            raise ValueError(f"{mutation.file} has {times} times: {mutation.line}")
        path.write_text(text.replace(mutation.line, mutation.becomes), "utf-8")
        try:
            code = self.run(mutation.test)
        finally:
            path.write_text(text, "utf-8")
        if code not in (0, FAILED):
            raise ValueError(f"pytest ended with {code} for {mutation.test}: {mutation.becomes}")
        return code == FAILED

    def run(self, test: str) -> int:
        """Pytest's exit code. Tests on real data sets are left out."""
        sys.stdout.flush()
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        code = 3
        try:
            os.chdir(self.folder)
            sys.path[:] = [str(self.folder), *(each for each in sys.path if each != str(ROOT))]
            sys.dont_write_bytecode = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            options = ["-q", "-x", "-p", "no:cacheprovider", "--import-mode", "importlib"]
            options += ["-m", "not shared_data"]
            settings = ["-c", os.devnull, "--rootdir", "."]
            code = int(pytest.main([*options, *settings, test]))
        finally:
            os._exit(code)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Break lines, and see that tests notice.")
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--table", type=Path, default=TABLE)
    args = parser.parse_args(arguments)
    table = read_table(args.table)
    wanted = [
        each
        for each in table
        if not args.words or any(word in part for word in args.words for part in astuple(each))
    ]
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder) / "copy")
        for test in sorted({each.test for each in wanted}):
            if code := copy.run(test):
                print(f"pytest ends with {code} for {test} before anything is broken")
                return 2
        for each in wanted:
            try:
                found = copy.kills(each)
            except ValueError as problem:
                print(problem)
                return 2
            killed += found
            print(f"{'killed' if found else 'LIVES '} {each.file}: {each.becomes}")
    print(f"{killed} / {len(wanted)} killed")
    return 0 if killed == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
