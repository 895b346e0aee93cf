"""The commands of both laboratories: which are there, and that each loads no more than it needs."""

import importlib
import subprocess
import sys

import pytest

from policy.__main__ import COMMANDS as POLICY
from policy.__main__ import main as policy
from rewardmodel.__main__ import COMMANDS as REWARDMODEL
from rewardmodel.__main__ import main as rewardmodel


@pytest.mark.parametrize(
    ("main", "package", "name", "module"),
    [
        *((policy, "policy", name, module) for name, (module, _) in POLICY.items()),
        *((rewardmodel, "rewardmodel", name, module) for name, (module, _) in REWARDMODEL.items()),
    ],
)
def test_each_command_tells_what_it_is_and_takes(capsys, main, package, name, module):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    first = importlib.import_module(f"{package}.{module}").__doc__.split()[:3]
    assert said.startswith(f"usage: python -m {package} {name} ")
    assert " ".join(first) in " ".join(said.split())


@pytest.mark.parametrize("words", [[], ["improve"], ["--out", "x", "sft"]])
def test_what_is_no_command_ends_with_the_commands_there_are(capsys, words):
    with pytest.raises(SystemExit) as ended:
        policy(words)
    assert ended.value.code == 2
    assert "{pretrain,sft,sample,ppo," in capsys.readouterr().err


def test_no_command_loads_a_library_that_it_has_no_use_of():
    """Loading is most of a refit's time; training needs peft where adapters are asked for."""
    needless = ["matplotlib", "scipy.stats", "peft", "sklearn", "pandas"]
    code = (
        "import sys\nfrom rewardmodel.__main__ import main\n"
        "try:\n    main(['refit', '--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {needless} if name in sys.modules])\n"
        "import policy.ppo, policy.sft, rewardmodel.train\n"
        "print('peft' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", "False"]
