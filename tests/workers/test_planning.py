"""workers.planning: for which prompts the next comparisons are written, and of what."""

from collections import Counter

import pytest

from annotation.services import versions
from annotation.services.ledger import (
    add_completion,
    batch_for,
    open_comparison,
    record_generation,
)
from tests.annotation.making import make_comparisons, make_prompts
from tests.annotation.voting import cast
from workers.planning import plan

pytestmark = pytest.mark.django_db


@pytest.fixture
def put_in_force(project, artifacts):
    """Puts a new policy in force."""

    def put(name):
        folder = artifacts / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(name.encode())
        version = versions.register_version(kind="policy", stage="registered", directory=folder)
        versions.promote(project=project, slot="policy", version=version, verdict="first")
        return version

    return put


@pytest.fixture
def writer(put_in_force):
    return put_in_force("w")


def prompts_of(planned):
    """Their ids, in the order planned."""
    return [one.prompt for one in planned]


def ask(project, number, split="train"):
    """That many prompts."""
    return make_prompts(project, [split] * number)


@pytest.fixture
def prompts(project):
    return {split: ask(project, 200, split) for split in ("train", "dev", "test")}


def test_a_stated_share_is_planned_on_dev_and_test(project, writer, prompts):
    project.heldout_share = 0.2
    planned = prompts_of(plan(project, writer=writer, count=200, seed=3))
    assert len(set(planned)) == 200
    of = {prompt.pk: split for split, those in prompts.items() for prompt in those}
    counts = Counter(of[pk] for pk in planned)
    heldout = counts["dev"] + counts["test"]
    assert 20 <= heldout <= 60  # binomial(200, 0.2): five standard deviations are 28
    assert counts["dev"] > 0 < counts["test"]


def test_the_plan_follows_from_its_seed(project, writer, prompts):
    plans = [tuple(plan(project, writer=writer, count=10, seed=seed)) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


def test_prompts_that_wait_for_an_answer_come_last(project, writer, prompts):
    project.heldout_share = 0.0
    busy = {c.prompt_id for c in make_comparisons(project, 30) if c.prompt.split == "train"}
    planned = prompts_of(plan(project, writer=writer, count=200 + len(busy), seed=0))
    assert set(planned[:200]) == {prompt.pk for prompt in prompts["train"]}
    assert set(planned[200:]) == busy


def test_a_project_with_few_prompts_plans_each_once(project, writer, prompts):
    project.heldout_share = 0.0
    assert len(plan(project, writer=writer, count=1000, seed=0)) == 200


@pytest.mark.parametrize(
    ("split", "share", "planned"),
    [("train", 0.1, 5), ("dev", 0.1, 5), ("train", 0.0, 5), ("train", 1.0, 0), ("dev", 0.0, 0)],
)
def test_prompts_of_one_kind_are_planned_unless_its_share_is_zero(
    project, writer, split, share, planned
):
    ask(project, 9, split)
    project.heldout_share = share
    for seed in range(20):
        assert len(plan(project, writer=writer, count=5, seed=seed)) == planned


def test_propensities_are_how_often_the_plan_chooses_a_prompt_for_a_pairing(project, writer):
    """Two dev and three train prompts, one of each waiting for an answer; 4 draws, 300 plans."""
    project.heldout_share = 0.3
    project.asking = {"same": 0.6, "reference": 0.4}
    made = make_prompts(project, ["dev"] * 2 + ["train"] * 3)
    for prompt in (made[0], made[2]):
        open_on(project, prompt)
    for prompt in (made[1], made[2], made[3]):
        give_reference(prompt)
    number: Counter = Counter()
    told: dict = {}
    for seed in range(300):
        for one in plan(project, writer=writer, count=4, seed=seed):
            number[one.prompt, one.pairing] += 1
            name = (one.prompt, one.pairing)
            assert told.setdefault(name, one.propensity) == one.propensity
    assert len(told) == 5 + 3
    heldout = {prompt.pk for prompt in made[:2]}
    of_prompt: Counter = Counter()
    for (prompt, _pairing), times in number.items():
        of_prompt[prompt] += times
    for (prompt, pairing), p in told.items():
        # a held-out prompt's is that of the prompt, whatever stands beside
        times = of_prompt[prompt] if prompt in heldout else number[prompt, pairing]
        assert abs(times / 300 - p) <= 5 * (p * (1 - p) / 300) ** 0.5
    assert told[made[1].pk, "same"] > told[made[0].pk, "same"]
    assert told[made[3].pk, "reference"] > told[made[2].pk, "reference"]


def open_on(project, prompt):
    """A comparison on a prompt that wants an answer; its texts were judged by nobody."""
    source = project.sources.get()
    texts = [add_completion(prompt=prompt, source=source, text=t)[0] for t in ("Yes.", "No.")]
    batch = batch_for(project=project, name="open", source=source)
    return open_comparison(batch=batch, prompt=prompt, completions=texts, answers_wanted=1)[0]


def give_reference(prompt, text="As it should be.", origin="demonstration"):
    """A text that a person wrote, or that came with the dataset."""
    completion, _ = add_completion(prompt=prompt, source=prompt.source, text=text)
    record_generation(completion=completion, origin=origin, writer="a file")
    return completion


def test_the_shares_of_a_mix_are_kept(project, writer, put_in_force):
    put_in_force("x")
    project.heldout_share = 0.5
    project.asking = {"same": 0.5, "in_force": 0.2, "reference": 0.3}
    for prompt in make_prompts(project, ["dev"] * 400 + ["train"] * 400):
        give_reference(prompt)
    planned = plan(project, writer=writer, count=600, seed=5)
    number = Counter(one.pairing for one in planned)
    # binomial(600, share): five standard deviations are 61, 49 and 56
    assert abs(number["same"] - 300) < 61
    assert abs(number["in_force"] - 120) < 49
    assert abs(number["reference"] - 180) < 56
    assert sum(number.values()) == 600
    assert not any(one.matched for one in planned)


def test_held_out_prompts_are_drawn_uniformly_whatever_the_mix(project, writer):
    """Ten of forty have a reference: each is as likely as any other, and so says its propensity."""
    project.heldout_share = 1.0
    project.asking = {"same": 0.5, "reference": 0.5}
    made = make_prompts(project, ["dev"] * 40)
    for prompt in made[:10]:
        give_reference(prompt)
    drawn: Counter = Counter()
    pairings: Counter = Counter()
    for seed in range(100):
        for one in plan(project, writer=writer, count=10, seed=seed):
            has_one = one.prompt in {prompt.pk for prompt in made[:10]}
            drawn[has_one] += 1
            pairings[has_one, one.pairing] += 1
            assert one.propensity == pytest.approx(10 / 40)
    # hypergeometric: of 1000 drawn 250 have one, five standard deviations of 100 plans are 60
    assert sum(drawn.values()) == 1000
    assert abs(drawn[True] - 250) < 60
    assert abs(pairings[True, "reference"] - drawn[True] / 2) < 40
    assert pairings[False, "reference"] == 0


def test_what_a_pairing_lacks_the_others_take_over(project, writer):
    """No version stood before the writer, nothing was judged, one prompt has a reference."""
    project.heldout_share = 0.0
    project.asking = {"same": 0.5, "in_force": 0.2, "reference": 0.2, "anchor": 0.1}
    made = ask(project, 3)
    reference = give_reference(made[0])
    assert reference.prompt == made[0]
    seen = set()
    for seed in range(40):
        for one in plan(project, writer=writer, count=3, seed=seed):
            seen.add((one.pairing, one.prompt))
    assert seen == {("same", one.pk) for one in made} | {("reference", made[0].pk)}


def test_where_a_mix_has_nothing_that_can_be_had_the_policy_meets_itself(project, writer):
    project.heldout_share = 0.0
    project.asking = {"in_force": 0.5, "anchor": 0.5}
    ask(project, 3)
    assert [one.pairing for one in plan(project, writer=writer, count=3, seed=1)] == ["same"] * 3


def test_an_anchor_is_a_text_that_people_judged(project, writer):
    project.heldout_share = 0.0
    project.asking = {"anchor": 1}
    judged, unjudged = ask(project, 2)
    cast(open_on(project, judged))
    open_on(project, unjudged)
    assert {one.prompt for one in plan(project, writer=writer, count=9, seed=1)} == {judged.pk}


def test_a_stated_share_of_what_models_learn_from_is_matched_in_length(project, writer, prompts):
    project.heldout_share = 0.2
    project.asking = {"length_matched": 0.5}
    planned = plan(project, writer=writer, count=200, seed=3)
    train = {prompt.pk for prompt in prompts["train"]}
    matched = sum(one.matched for one in planned)
    assert abs(matched - 80) < 33  # binomial(200, 0.8 x 0.5): five standard deviations are 35
    assert all(one.prompt in train for one in planned if one.matched)
