"""Rows of a file taken together come to the same ledger and account as one by one."""

import json
import random
from functools import partial

import pytest
from django.core.exceptions import ObjectDoesNotExist

from annotation.importers import load
from annotation.importers.load import Load
from annotation.importers.rows import Refused
from annotation.importers.stores import PreferenceStore, preference_store, source_for
from annotation.models import (
    Comparison,
    CompletionJudgment,
    Generation,
    Preference,
    Prompt,
    Ranking,
    Review,
    SearchText,
)
from tests.annotation.making import make_project

pytestmark = pytest.mark.django_db


def vote(by: str, ranking, **more):
    return {"annotator": by, "ranking": ranking, "outcome": "ranked", "axis": "overall"} | more


def some_row(rng: random.Random) -> dict:
    """Of few prompts, texts and people, so that much comes twice; some of it cannot be taken."""
    texts = rng.sample(["Yes.", "No.", "Perhaps.", "Ask again.", " "], rng.choice([2, 2, 3]))
    ids = [str(place) for place in range(len(texts))]
    row = {
        "prompt": f"Question {rng.randrange(4)}?",
        "completions": [
            {"id": pk, "text": text, "model": rng.choice(["", "a", "b"])}
            for pk, text in zip(ids, texts, strict=True)
        ],
        "votes": [
            vote(who, [[pk] for pk in rng.sample(ids, len(ids))])
            for who in rng.sample(["ann", "bob", "cy"], rng.choice([1, 1, 2]))
        ],
        "judgments": [{"annotator": "ann", "completion": "0", "ratings": {"depth": 3}}],
    }
    if rng.random() < 0.4:
        row |= {"split": rng.choice(["train", "dev", "test"]), "group": rng.choice(["g", "h"])}
    if rng.random() < 0.1:
        row["votes"] = rng.choice([None, [], [vote("ann", [["9"]])]])
    return row


def imported(project, path):
    """What each row came to, and what then stands in the ledger."""
    rows = []
    Load(
        project=project,
        path=path,
        source=partial(source_for, project=project, name="set"),
        store_for=lambda source: preference_store(
            project=project, source=source, format="comparisons"
        ),
        on_row=rows.append,
    ).run()
    return rows, ledger(project)


def ledger(project):
    comparisons = Comparison.objects.filter(project=project).order_by("pk")
    asked = []
    for one in comparisons.select_related("prompt", "batch"):
        entries = [entry.completion for entry in one.entries.all()]
        names = {completion.pk: completion.text for completion in entries}
        votes = []
        for given in one.preferences.order_by("pk").select_related("annotator"):
            rankings = Ranking.objects.filter(preference=given)
            judged = CompletionJudgment.objects.filter(preference=given)
            votes.append(
                (
                    (given.annotator.external_id, given.annotator.kind, given.external_id),
                    (given.current, given.counted, given.source.name, given.scheme.version),
                    [
                        (r.axis, r.outcome, [[names[pk] for pk in g] for g in r.groups])
                        for r in rankings
                    ],
                    [(names[j.completion_id], j.ratings, j.flags) for j in judged],
                )
            )
        try:
            review = (one.review.state, one.review.accord, one.review.num_answers)
        except ObjectDoesNotExist:
            review = None
        fields = (one.batch.name, one.purpose, one.answers_wanted, one.open_slots, one.language)
        writers = Generation.objects.filter(completion__in=entries).order_by("completion", "pk")
        grams = SearchText.objects.get(comparison=one).grams
        said = (one.prompt.messages, one.prompt.split, one.prompt.split_group)
        acts = [(each.completion.text, each.origin, each.writer) for each in writers]
        asked.append((said, list(names.values()), fields, votes, review, grams, acts))
    prompts = Prompt.objects.filter(project=project).order_by("pk")
    return asked, [(one.messages, one.split, one.split_group) for one in prompts]


@pytest.mark.parametrize("seed", range(6))
def test_together_and_one_by_one_come_to_the_same(tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    lines = [json.dumps(some_row(rng)) for _ in range(24)]
    lines[rng.randrange(24)] = rng.choice(["{", "[]", '{"prompt": 3}'])
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(load, "CHUNK_ROWS", rng.choice([5, 24]))
    monkeypatch.setattr(load, "FEWEST_TOGETHER", 1 + seed % 3)
    together = imported(make_project("one", review_below=0.9), path)

    def refuses(self, rows):
        raise Refused("one by one")

    monkeypatch.setattr(PreferenceStore, "together", refuses)
    alone = imported(make_project("two", review_below=0.9), path)
    assert together == alone
    assert together[1][0]
    assert Preference.objects.count() > 10
    assert Review.objects.exists() or seed


def test_what_is_new_is_not_taken_one_by_one(tmp_path, monkeypatch, django_assert_max_num_queries):
    rows = [
        {"prompt": f"Question {n}?", "chosen": f"Yes {n}.", "rejected": f"No {n}."}
        for n in range(100)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    project = make_project("here")
    source = source_for(project=project, name="set")
    with django_assert_max_num_queries(60):
        made = Load(
            project=project,
            path=path,
            source=lambda: source,
            store_for=lambda one: preference_store(project=project, source=one, format="trl"),
        ).run()
    assert (made.imported, Preference.objects.count()) == (100, 100)


def test_a_file_with_a_row_for_each_vote_is_not_looked_at_again_and_again(tmp_path, monkeypatch):
    """Every second row's comparison is known: one try for the hundred, not fifty."""
    rows = [
        some_row(random.Random(1))
        | {
            "prompt": f"Question {n // 2}?",
            "completions": [{"id": "0", "text": "Yes."}, {"id": "1", "text": "No."}],
            "votes": [vote(f"p{n % 2}", [["0"], ["1"]])],
            "judgments": [],
        }
        for n in range(40)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tries = []
    together = PreferenceStore.together

    def counted(self, rows):
        tries.append(len(rows))
        return together(self, rows)

    monkeypatch.setattr(PreferenceStore, "together", counted)
    reports, (asked, _prompts) = imported(make_project("one"), path)
    assert (tries, len(asked), Preference.objects.count()) == ([40], 20, 40)
    assert {one.outcome for one in reports} == {load.Outcome.IMPORTED}
