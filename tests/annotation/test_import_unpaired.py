"""Exports of single judgments and of conversations back in."""

import json
from collections import Counter

import pytest
from django.core.management import call_command

from annotation.exporters.folder import make_export
from annotation.importers.formats import fitting_formats
from annotation.importers.lines import BadRow, RawRow
from annotation.importers.rows import Refused
from annotation.importers.unpaired import parse, put_together
from annotation.models import Comparison, Preference, Ranking
from annotation.services.answers import add_ideal
from tests.annotation.making import make_project
from tests.annotation.voting import cast, compare, make_voter

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


def row(prompt, completion, label, **more):
    return {"prompt": prompt, "completion": completion, "label": label} | more


def together(*rows):
    raws = (RawRow(n, json.dumps(one).encode()) for n, one in enumerate(rows, start=1))
    return [(one.line, json.loads(one.data)["rows"]) for one in put_together(raws)]


def test_rows_of_one_comparison_come_together():
    rows = [
        row("Q?", "A.", True, comparison="7"),
        row("Q?", "B.", False, comparison="7"),
        row("Q?", "A.", True, comparison="8"),
        row("R?", "A.", True),
        row("R?", "B.", False),
    ]
    found = together(*rows)
    assert [(line, len(some)) for line, some in found] == [(1, 2), (3, 1), (4, 2)]


def test_what_cannot_be_read_stands_where_it_stood():
    raws = [
        RawRow(1, json.dumps(row("Q?", "A.", True)).encode()),
        BadRow(2, "bad"),
        RawRow(3, b"{"),
        RawRow(4, json.dumps(row("Q?", "B.", False)).encode()),
    ]
    assert [one.line for one in put_together(iter(raws))] == [1, 2, 3, 4]


def parsed(*rows):
    return parse({"rows": list(rows)})


@pytest.mark.parametrize(
    ("rows", "ranking"),
    [
        ([("A.", True, "line"), ("B.", False, "line")], ("ranked", [[0], [1]], 1)),
        ([("A.", False, "line"), ("B.", True, "line")], ("ranked", [[1], [0]], 1)),
        ([("A.", True, "line"), ("B.", True, "line")], ("equal", [[0, 1]], 1)),
        ([("A.", False, "line"), ("B.", False, "line")], ("equal", [[0, 1]], 0)),
        ([("A.", True, "order"), ("B.", False, "order")], ("ranked", [[0], [1]], None)),
        ([("A.", False, "both_bad"), ("B.", False, "both_bad")], ("both_bad", [], None)),
        ([("A.", True, None), ("B.", False, None)], ("ranked", [[0], [1]], 1)),
    ],
)
def test_labels_become_a_ranking(rows, ranking):
    found = parsed(*(row("Q?", text, label, **{"from": by}) for text, label, by in rows))
    (vote,) = found.votes
    (said,) = vote.rankings
    assert (said.outcome, said.groups, said.acceptable) == ranking


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([row("Q?", "A.", True)], "by itself holds no comparison"),
        ([row("Q?", "A.", "yes"), row("Q?", "B.", False)], 'label must be true or false: "yes"'),
        (
            [row("Q?", "A.", True), row("Q?", "A.", False), row("Q?", "B.", False)],
            "labelled true and false",
        ),
        ([row("Q?", [{"role": "user", "content": "A."}], True)], "one answer of the assistant"),
        (
            [row("Q?", "A.", True, annotator="x"), row("Q?", "B.", False, annotator="y")],
            "labels one completion alone",
        ),
    ],
)
def test_what_compares_nothing_is_refused_with_a_reason(rows, says):
    with pytest.raises(Refused, match=says):
        parsed(*rows)


def _lines(path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def said_in(folder) -> Counter:
    """What an unpaired export says, without numbers and pseudonyms of its installation."""
    kept = ("prompt", "completion", "label", "from", "split", "axis", "weight")
    rows = (json.loads(line) for path in folder.glob("*.jsonl") for line in _lines(path))
    return Counter(json.dumps([one[name] for name in kept]) for one in rows)


@pytest.mark.parametrize("files", ["jsonl", "parquet"])
def test_an_unpaired_export_goes_back_in_and_says_the_same(files):
    there, here = make_project("there"), make_project("here")
    for k in (2, 4):
        comparison = compare(there, k=k)
        for order in ([[0], [1]], [[1], [0]], None):
            cast(comparison, order=order)
        cast(comparison, outcome="both_bad")
        lined = cast(compare(there, k=k, split="dev"))
        Ranking.objects.filter(preference=lined).update(acceptable=1)
        safe = cast(compare(there, k=k))
        first, *_, last = (group for group in safe.rankings.get().groups)
        Ranking.objects.create(
            preference=safe, axis="safe", outcome="ranked", groups=[last, first], acceptable=1
        )
    out = make_export(project=there, format="unpaired")
    again = make_export(project=there, format="unpaired", files=files)
    paths = sorted(one for one in again.iterdir() if one.suffix == f".{files}")
    assert fitting_formats(paths[0]) == ["unpaired"]
    wish = {"project": "here", "format": "unpaired", "licence": "MIT", "source": "there"}
    call_command("import_preferences", *paths, **wish)
    assert said_in(make_export(project=here, format="unpaired")) == said_in(out)
    before = Preference.objects.filter(project=here).count()
    call_command("import_preferences", *paths, **wish)
    assert Preference.objects.filter(project=here).count() == before
    assert Comparison.objects.filter(project=here).count() == 6


def test_an_sft_export_goes_back_in_and_says_the_same():
    there, here = make_project("there"), make_project("here")
    for n in range(3):
        vote = cast(compare(there), make_voter(there))
        add_ideal(vote, f"As I would say it, {n}.")
        vote.save()
    out = make_export(project=there, format="sft")
    assert fitting_formats(out / "train.jsonl")[0] == "demonstrations"
    call_command("import_demonstrations", out / "train.jsonl", project="here")

    def told(folder):
        rows = (json.loads(line) for line in _lines(folder / "train.jsonl"))
        return sorted(json.dumps(one["messages"]) for one in rows)

    assert told(make_export(project=here, format="sft")) == told(out)
