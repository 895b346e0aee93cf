"""Prompts, completions, generations and comparisons enter the ledger once, and split for ever."""

import pytest

from annotation.errors import BadInput, Conflict
from annotation.models import Comparison, Completion, Prompt
from annotation.services.ledger import (
    add_completion,
    add_prompt,
    batch_for,
    normalised_first_turn,
    open_comparison,
    record_generation,
    split_of_group,
)
from tests.annotation.making import make_comparisons, make_project

pytestmark = pytest.mark.django_db


def ask(text="Where is my parcel?"):
    return [{"role": "user", "content": text}]


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def add(project):
    def add(messages=None, **more):
        source = project.sources.get()
        return add_prompt(
            project=project, source=source, messages=ask() if messages is None else messages, **more
        )

    return add


def test_the_same_prompt_is_added_once_whatever_the_order_of_its_keys(add):
    first, created = add(metadata={"a": 1, "b": 2})
    again, created_again = add(
        [{"content": "Where is my parcel?", "role": "user"}], metadata={"b": 2, "a": 1}
    )
    assert (created, created_again) == (True, False)
    assert first == again


def test_a_system_prompt_or_metadata_makes_another_prompt(add):
    system = {"role": "system", "content": "Be brief."}
    prompts = {add()[0], add([system, *ask()])[0], add(metadata={"shop": 3})[0]}
    assert len(prompts) == 3
    assert len({prompt.split for prompt in prompts}) == 1  # one group: the same first user turn


def test_spelling_does_not_make_another_group():
    one = normalised_first_turn(ask("Where  is\nmy PARCEL?"))
    assert one == normalised_first_turn(ask("ｗhere is my parcel?")) == "where is my parcel?"


def test_the_split_depends_on_the_group_alone_and_is_about_80_10_10():
    splits = [split_of_group(f"thread {number}") for number in range(4000)]
    assert splits == [split_of_group(f"thread {number}") for number in range(4000)]
    shares = {split: splits.count(split) / 4000 for split in ("train", "dev", "test")}
    assert shares["train"] == pytest.approx(0.8, abs=0.03)
    assert shares["dev"] == pytest.approx(0.1, abs=0.02)
    # from sha256sum of "split thread 0" and so on; another rule would move prompts between splits
    known = {"thread 0": "train", "thread 3": "dev", "thread 16": "test"}
    assert {name: split_of_group(name) for name in known} == known


def test_the_split_is_the_same_in_every_project(add):
    other = make_project()
    for number in range(20):
        text = f"Question {number}?"
        theirs, _ = add_prompt(project=other, source=other.sources.get(), messages=ask(text))
        assert add(ask(text))[0].split == theirs.split


def test_an_imported_split_is_honoured_and_its_group_follows(add):
    text = next(t for t in map(str, range(99)) if split_of_group(t) == "train")
    imported, _ = add(ask(text), split="test")
    related, _ = add(ask(text), metadata={"n": 2})
    contrary, _ = add(ask(text), metadata={"n": 3}, split="dev")
    assert {imported.split, related.split, contrary.split} == {"test"}
    assert add(ask(text), metadata={"n": 3}, split="dev") == (contrary, False)
    assert add(ask(text), metadata={"n": 3}, split="test") == (contrary, False)


def test_a_thread_id_groups_prompts_and_a_long_one_is_hashed(add):
    one, _ = add(ask("First?"), split_group="thread " * 100)
    two, _ = add(ask("Second?"), split_group="thread " * 100)
    assert one.split_group == two.split_group
    assert one.split_group.startswith("sha256:")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], r"a list of messages: '\[\]'"),
        ("Hello", "a list of messages: 'Hello'"),
        ([{"role": "king", "content": "Hi"}], "needs a role .*king"),
        ([{"role": "user"}], "needs a text or typed parts as content: 'None'"),
        ([{"role": "user", "content": []}], "needs a text or typed parts"),
        ([{"role": "user", "content": ["Hi"]}], "needs a text or typed parts"),
        ([{"role": "user", "content": " \n"}], "last turn is empty"),
        ([*ask(), {"role": "assistant", "content": "Here."}], "not the assistant's"),
        (ask("a\x00b"), "NUL character at place 1"),
        (ask("a\ud800"), "not valid Unicode at place 1"),
    ],
)
def test_what_is_no_conversation_is_refused(add, messages, words):
    with pytest.raises(BadInput, match=words):
        add(messages)
    assert not Prompt.objects.exists()


def test_typed_parts_are_a_content(add):
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image", "url": "x.png"}]
    assert add([{"role": "user", "content": parts}])[0].messages[0]["content"] == parts


@pytest.mark.parametrize(
    "bad",
    [{"split": "valid"}, {"task": "x" * 41}, {"language": "x" * 13}, {"external_id": "x" * 201}],
)
def test_a_bad_field_is_refused(add, bad):
    with pytest.raises(BadInput):
        add(**bad)


def test_a_text_is_stored_once_per_prompt(add, project):
    prompt, _ = add()
    first = add_completion(prompt=prompt, source=project.sources.get(), text="Soon.")
    again = add_completion(prompt=prompt, source=project.sources.get(), text="Soon.")
    assert (first[1], again[1]) == (True, False)
    for blank in ("", " \n"):
        with pytest.raises(BadInput, match="can't be empty"):
            add_completion(prompt=prompt, source=project.sources.get(), text=blank)
    assert Completion.objects.count() == 1


def test_a_generation_is_recorded_once_per_writer(project):
    [comparison] = make_comparisons(project)
    completion = comparison.completions.first()
    for writer in ("a", "b", "a"):
        record_generation(completion=completion, origin="imported", writer=writer)
    assert completion.generations.count() == 2
    with pytest.raises(BadInput, match="names the version"):
        record_generation(completion=completion, origin="policy")


def test_one_question_is_opened_once_per_batch(project):
    [comparison] = make_comparisons(project, k=3, answers_wanted=2)
    completions = list(comparison.completions.all())
    again, created = open_comparison(
        batch=comparison.batch,
        prompt=comparison.prompt,
        completions=completions[::-1],
        answers_wanted=2,
    )
    assert (again, created) == (comparison, False)
    assert (comparison.open_slots, comparison.answers_wanted) == (2, 2)
    assert 0 <= comparison.sort_key < 1
    other = batch_for(project=project, name="second", source=project.sources.get())
    assert open_comparison(
        batch=other, prompt=comparison.prompt, completions=completions, answers_wanted=1
    )[1]


def test_a_comparison_needs_different_completions_of_its_prompt(project):
    mine, other = make_comparisons(project, 2)
    own, strange = list(mine.completions.all()), list(other.completions.all())
    bad = {
        "not 1": own[:1],
        "seen twice": [own[0], own[0]],
        "answers another prompt": [own[0], strange[0]],
        "not 10": own * 5,
    }
    for words, completions in bad.items():
        with pytest.raises(BadInput, match=words):
            open_comparison(
                batch=mine.batch, prompt=mine.prompt, completions=completions, answers_wanted=1
            )
    with pytest.raises(BadInput, match="0 to 1000 answers: -1"):
        open_comparison(batch=mine.batch, prompt=mine.prompt, completions=own, answers_wanted=-1)
    assert Comparison.objects.count() == 2


def test_a_batch_keeps_its_purpose(project):
    source = project.sources.get()
    batch_for(project=project, name="b", source=source, purpose="gold")
    with pytest.raises(Conflict, match="another source or purpose"):
        batch_for(project=project, name="b", source=source)
    with pytest.raises(BadInput, match="'fun'"):
        batch_for(project=project, name="c", source=source, purpose="fun")
