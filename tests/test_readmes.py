"""Links and commands of the pages that people read first: each leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
READMES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("*/README.md")),
    ROOT / "tests/benchmarks/README.md",
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
SCRIPT = re.compile(
    r"\b((?:tests|policy|rewardmodel|annotation|workers|fixtures)/[\w/]+\.(?:py|toml|md))\b"
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them: lower case, hyphens for spaces, no other signs."""
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    titles = re.findall(r"(?m)^#+ (.+)$", prose)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    lost = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        found = target.exists()
        if found and anchor:
            found = anchor in anchors(target.read_text(encoding="utf-8"))
        if not found:
            lost.append(link)
    return lost


@pytest.mark.parametrize("page", READMES, ids=name)
def test_every_link_leads_somewhere(page):
    assert broken(page) == []


@pytest.mark.parametrize("page", READMES, ids=name)
def test_every_file_that_is_named_is_there(page):
    named = SCRIPT.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_figures_at_a_glance_name_scripts_that_are_there():
    glance = (ROOT / "README.md").read_text(encoding="utf-8")
    glance = glance.split("## Figures at a glance")[1].split("\n## ")[0]
    scripts = re.findall(r"`(\w+\.py)\b", glance)
    assert len(scripts) > 10
    assert [one for one in scripts if not (ROOT / "tests/benchmarks" / one).exists()] == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(
        "# A heading: two\n[a](#a-heading-two) [b](#none) [c](gone.md) [d](https://x.y)\n"
    )
    assert broken(page) == ["#none", "gone.md"]
