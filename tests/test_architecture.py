"""Which package may import which, held by walking every import statement."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("annotation", "policy", "rewardmodel", "workers", "fixtures")
FORBIDDEN = {
    "annotation": {"torch", "transformers", "celery", "policy", "rewardmodel", "workers"},
    "policy": {"django", "rest_framework", "celery", "annotation", "rewardmodel", "workers"},
    "rewardmodel": {"django", "rest_framework", "celery", "annotation", "workers"},
    "workers": set(),
    "fixtures": {"torch", "transformers", "django", "celery", *PACKAGES} - {"fixtures"},
}

CLIENT = "annotation.client"
"""Of the API, by HTTP: one file that imports nothing of Concord, so whoever wants may import it."""

LATE = {"scipy", "peft", "pyarrow"}
"""Half a second to import and seldom needed: may be imported where it is used. pyarrow writes an
export's Parquet files; the web process begins without it."""


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, top-level package) of every import in a file, also those inside functions."""
    return [
        (node.lineno, name)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in sorted(imported(node))
    ]


def imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The top-level packages that one statement names; a relative import is named by its dots."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if node.module == CLIENT:
        return {CLIENT}
    return {(node.module or "").split(".")[0]} if node.level == 0 else {"." * node.level}


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package):
    assert files(package), package
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files(package)
        for line, name in imports(path)
        if name in FORBIDDEN[package]
    ]
    assert not broken, broken


def test_the_client_can_be_copied_by_itself():
    path = ROOT / f"{CLIENT.replace('.', '/')}.py"
    assert {name for _, name in imports(path)} <= sys.stdlib_module_names


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_stand_at_the_top(package):
    """An import inside a function marks a cycle to undo."""
    inside = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files(package)
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and not imported(node) <= LATE
    ]
    assert not inside, inside


def test_the_web_process_loads_no_laboratory():
    """Start Django, load every route, and look at what came along."""
    code = (
        "import sys, django; django.setup()\n"
        "from django.urls import get_resolver; get_resolver().url_patterns\n"
        "import annotation.asgi\n"
        "heavy = {'torch', 'transformers', 'celery', 'policy', 'rewardmodel', 'workers', 'scipy', "
        "'pyarrow'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": ""},
    )
    assert done.stdout.strip() == "[]"


def test_the_environment_is_read_in_one_place_per_package():
    """annotation/environment.py reads it for settings.py; nothing else in annotation does."""
    readers = {
        str(path.relative_to(ROOT))
        for path in files("annotation")
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    }
    assert readers <= {"annotation/environment.py", "annotation/asgi.py", "annotation/wsgi.py"}
