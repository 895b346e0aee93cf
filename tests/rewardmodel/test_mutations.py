"""tests/mutations.py: every line of the table is still there, and a few mutations do die."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHOLE = tomllib.loads((ROOT / "tests" / "mutations.toml").read_text("utf-8"))
TABLE = WHOLE["mutation"]


def test_each_line_of_the_table_stands_once_in_its_file_and_its_test_exists():
    for each in TABLE:
        assert (ROOT / each["file"]).read_text("utf-8").count(each["line"]) == 1, each["line"]
        path, _, name = each["test"].partition("::")
        assert f"def {name}" in (ROOT / path).read_text("utf-8")
        assert each["becomes"] != each["line"]


def test_every_known_answer_is_said_and_has_a_line_that_it_holds():
    held = {name for each in TABLE for name in each.get("known", "").split()}
    assert held == set(WHOLE["known"]) == {f"T{number}" for number in range(1, 29)}


def test_broken_lines_are_noticed_and_a_harmless_change_lives(tmp_path):
    fields = {
        "half = difference / 2": ["half = difference", "half = 0.5 * difference"],
        "nats = total - chosen": ["nats = chosen - total"],
    }
    table = tmp_path / "table.toml"
    test = "tests/rewardmodel/test_losses.py"
    table.write_text(
        "".join(
            f"[[mutation]]\nfile = 'rewardmodel/losses.py'\nline = '{line}'\n"
            f"becomes = '{becomes}'\ntest = '{test}'\n"
            for line, all_becomes in fields.items()
            for becomes in all_becomes
        ),
        "utf-8",
    )
    command = [sys.executable, str(ROOT / "tests" / "mutations.py"), "--table", str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "killed rewardmodel/losses.py: half = difference",
        "LIVES  rewardmodel/losses.py: half = 0.5 * difference",
        "killed rewardmodel/losses.py: nats = chosen - total",
        "2 / 3 killed",
    ]
    assert done.returncode == 1
