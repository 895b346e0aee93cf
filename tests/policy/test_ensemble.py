"""policy.ensemble: three rules by hand, and a directory of members that scores as one."""

import json
from statistics import fmean, pstdev

import pytest
import torch

from policy.backbone import save_model, score_model_from
from policy.config import BadInput
from policy.data import content_hash
from policy.ensemble import Ensemble, Member, combine, standard_of
from policy.score_scale import ScoreScale
from policy.scoring import load_scorer
from policy.value import value_model_from

PROMPTS = [[{"role": "user", "content": letter}] for letter in "abc"]
COMPLETIONS = ["b c", "j i h g", "a"]


def described(number, mean, deviation, nats=1.0):
    return Member(
        directory=f"member-{number}", mean=mean, deviation=deviation, nats=nats, sha256=""
    )


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Columns (1, 2, 3), (-1, -1, -1), (4, 0, -4): means 2, -1, 0; variances 2/3, 0, 32/3.
        ("mean", [2.0, -1.0, 0.0]),
        ("worst", [1.0, -1.0, -4.0]),
        ("uncertainty", [2 - 0.3 * 2 / 3, -1.0, -0.3 * 32 / 3]),
    ],
)
def test_the_three_rules_on_a_table_made_by_hand(rule, expected):
    standard = torch.tensor([[1.0, -1, 4], [2, -1, 0], [3, -1, -4]])
    found = combine(standard, rule, uncertainty_weight=0.3)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rule", ["mean", "worst", "uncertainty"])
def test_members_that_agree_give_their_own_score_by_every_rule(rule):
    ensemble = Ensemble(
        rule=rule,
        uncertainty_weight=2.0,
        members=(described(0, 0.0, 1.0), described(1, 0.0, 1.0)),
        scale=ScoreScale(),
    )
    scored = ensemble.combine(torch.tensor([[0.5, -2.0], [0.5, -2.0]]))
    assert [each.score for each in scored] == pytest.approx([0.5, -2.0])
    assert [each.spread for each in scored] == [0.0, 0.0]


def test_a_member_with_another_zero_and_scale_has_no_more_to_say_than_the_others():
    # The second says what the first says, 10 x as loud and 100 higher; deviations 2 and 20.
    ensemble = Ensemble(
        rule="worst",
        uncertainty_weight=0.0,
        members=(described(0, 1.0, 2.0), described(1, 110.0, 20.0)),
        scale=ScoreScale(),
    )
    scored = ensemble.combine(torch.tensor([[3.0, -1.0], [130.0, 90.0]]))
    # z = +1 and -1 for both; put on the mean scale (2 + 20) / 2 = 11.
    assert [each.score for each in scored] == pytest.approx([11.0, -11.0])
    assert [each.spread for each in scored] == pytest.approx([0.0, 0.0])


def test_spread_is_the_deviation_over_the_members_in_the_scores_units():
    members = (described(0, 0.0, 3.0), described(1, 0.0, 3.0), described(2, 0.0, 3.0))
    ensemble = Ensemble(rule="mean", uncertainty_weight=0.0, members=members, scale=ScoreScale())
    (scored,) = ensemble.combine(torch.tensor([[1.0], [2.0], [6.0]]))
    assert scored.score == pytest.approx(fmean([1, 2, 6]))
    assert scored.spread == pytest.approx(pstdev([1, 2, 6]))
    assert scored.members == pytest.approx((1.0, 2.0, 6.0))


def test_the_result_is_on_the_ensembles_own_scale():
    # As combined: (z + z') / 2 x (2 x 3 + 4 x 1) / 2 nats, that is 5 and -10 here.
    ensemble = Ensemble(
        rule="mean",
        uncertainty_weight=0.0,
        members=(described(0, 0.0, 2.0, nats=3.0), described(1, 0.0, 4.0, nats=1.0)),
        scale=ScoreScale(mean=1.0, deviation=4.0),
    )
    scored = ensemble.combine(torch.tensor([[2.0, -2.0], [4.0, -12.0]]))
    assert [each.score for each in scored] == pytest.approx([(5 - 1) / 4, (-10 - 1) / 4])
    assert scored[1].spread == pytest.approx(pstdev([-5, -15]) / 4)
    assert scored[1].members == pytest.approx(((-5 - 1) / 4, (-15 - 1) / 4))


def test_mean_and_deviation_are_those_of_the_whole_list():
    assert standard_of([1.0, 2.0, 6.0]) == pytest.approx((3.0, pstdev([1, 2, 6])))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rule": "median"}, "rule must be one of mean, worst, uncertainty: 'median'"),
        ({"scale": ScoreScale(deviation=0.0)}, "combined, the members give all anchors one score"),
        ({"uncertainty_weight": -1.0}, "uncertainty_weight must be >= 0: -1.0"),
        ({"members": (described(0, 0.0, 1.0),)}, "two members or more"),
        ({"members": (described(0, 0.0, 1.0), described(1, 0.0, 0.0))}, "member-1 gives all"),
        ({"members": (described(0, float("nan"), 1.0), described(1, 0.0, 1.0))}, "mean nan"),
    ],
)
def test_what_cannot_be_combined_is_refused(changes, said):
    fields = {"rule": "mean", "uncertainty_weight": 0.0}
    fields |= {"members": (described(0, 0.0, 1.0), described(1, 0.0, 1.0))}
    fields |= {"scale": ScoreScale()}
    with pytest.raises(BadInput, match=said):
        Ensemble(**(fields | changes))


@pytest.fixture
def ensemble(tiny_policy, tmp_path):
    """A directory of two reward models with weights of their own, combined by their worst."""
    folder = tmp_path / "ensemble"
    members = []
    for number, (mean, deviation) in enumerate([(0.25, 0.5), (-1.0, 2.0)]):
        model, tokenizer = score_model_from(tiny_policy(seed=number, name=f"p{number}"), seed=0)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.2, generator=generator)
        member = folder / f"member-{number}"
        save_model(model, tokenizer, member)
        members.append(
            Member(
                directory=member.name,
                mean=mean,
                deviation=deviation,
                nats=1.0,
                sha256=content_hash(member),
            )
        )
    Ensemble(rule="worst", uncertainty_weight=0.0, members=tuple(members), scale=ScoreScale()).save(
        folder
    )
    return folder


def test_a_directory_of_members_scores_as_its_definition_says(ensemble):
    first, second = (
        load_scorer(ensemble / name).score(PROMPTS, COMPLETIONS)
        for name in ("member-0", "member-1")
    )
    expected = [
        1.25 * min((a - 0.25) / 0.5, (b + 1.0) / 2.0) for a, b in zip(first, second, strict=True)
    ]
    scorer = load_scorer(ensemble)
    assert scorer.score(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-6)
    rows = [scorer.encode(*pair).ids for pair in zip(PROMPTS, COMPLETIONS, strict=True)]
    for scored, a, b in zip(scorer.scored_ids(rows), first, second, strict=True):
        assert scored.spread == pytest.approx(1.25 * pstdev([(a - 0.25) / 0.5, (b + 1) / 2]))
    assert scorer.scored_ids([]) == []


def test_a_single_model_has_no_spread(ensemble):
    scorer = load_scorer(ensemble / "member-0")
    (scored,) = scorer.scored_ids([scorer.encode(PROMPTS[0], "b").ids])
    assert (scored.spread, scored.members) == (None, ())


def test_members_with_different_tokenizers_are_refused(ensemble):
    path = ensemble / "member-1" / "chat_template.jinja"
    path.write_text(path.read_text() + "x")
    with pytest.raises(BadInput, match="member-1 of the ensemble has another tokenizer or chat"):
        load_scorer(ensemble)


def test_a_manifest_that_cannot_be_read_is_refused(ensemble):
    path = ensemble / "ensemble.json"
    path.write_text(json.dumps({"rule": "mean", "uncertainty_weight": 0.0}))
    with pytest.raises(BadInput, match=r"ensemble.json cannot be read: 'members'"):
        load_scorer(ensemble)


def test_the_hash_of_an_ensemble_follows_its_members(ensemble):
    before = content_hash(ensemble)
    path = ensemble / "ensemble.json"
    path.write_text(path.read_text().replace(content_hash(ensemble / "member-1"), "0" * 64))
    assert content_hash(ensemble) != before


def test_a_value_model_begins_at_the_first_member(ensemble, letters):
    value = value_model_from(ensemble, tokenizer=letters, max_tokens=16)
    member, _ = score_model_from(ensemble / "member-0", seed=0)
    assert torch.equal(value.transformer.wte.weight, member.transformer.wte.weight)
