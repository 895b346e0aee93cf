"""rewardmodel.forward: precision, memory and recomputation change how, not what."""

import dataclasses
import random

import pytest
import torch

from policy.backbone import score_model_from
from policy.comparisons import Comparison, PairTable, Vote
from policy.optim import adamw
from rewardmodel.batches import Example
from rewardmodel.config import RewardConfig
from rewardmodel.forward import Forward
from rewardmodel.objective import Objective
from rewardmodel.step import train_step
from rewardmodel.survey import Survey
from rewardmodel.targets import PLAIN

CONFIG = RewardConfig(max_grad_norm=1e9)


def examples(count: int) -> list[Example]:
    """Comparisons of two to four, each with a prompt of its own."""
    draw = random.Random(0)
    made = []
    for _ in range(count):
        prompt = [draw.randrange(6, 250) for _ in range(draw.randint(3, 20))]
        rows = [
            [*prompt, *(draw.randrange(6, 250) for _ in range(draw.randint(1, 9)))]
            for _ in range(draw.randint(2, 4))
        ]
        votes = [Vote(tuple((at,) for at in range(len(rows))))]
        comparison = Comparison(
            id="c",
            split=None,
            group="g",
            prompt=(),
            completion_ids=tuple(map(str, range(len(rows)))),
            texts=tuple(map(str, range(len(rows)))),
            votes=tuple(votes),
            table=PairTable.of(votes),
        )
        made.append(Example(tuple(rows), comparison.table, PLAIN.targets(comparison)))
    return made


EXAMPLES = examples(6)


def stepped(tiny_lm, watch=None, **changes):
    """(figures, gradient, forward) of one step on EXAMPLES."""
    model, _ = score_model_from(tiny_lm, seed=0)
    config = dataclasses.replace(CONFIG, **changes)
    forward = Forward(model, config, max_tokens=64)
    if watch:
        watch(model.base_model)
    optimizer = adamw(model, lr=0.0, weight_decay=0.0)
    objective = Objective(config, Survey(), PLAIN)
    stats = forward.within_memory(
        lambda: train_step(forward, EXAMPLES, optimizer, config, objective)
    )
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return stats, gradient, forward


def test_bf16_is_near_fp32_and_the_loss_is_fp32(tiny_lm):
    stats, gradient, _ = stepped(tiny_lm)
    seen = []
    rough, near, forward = stepped(
        tiny_lm,
        lambda trunk: trunk.layers[0].mlp.register_forward_hook(
            lambda module, args, out: seen.append(out.dtype)
        ),
        precision="bf16",
    )
    assert set(seen) == {torch.bfloat16}
    assert forward.described()["bf16"] == 1
    assert forward.scores(next(forward.batches(EXAMPLES))).dtype == torch.float32
    assert {p.dtype for p in forward.model.parameters()} == {torch.float32}
    assert rough.loss == pytest.approx(stats.loss, abs=0.01)
    assert torch.nn.functional.cosine_similarity(near, gradient, dim=0) > 0.999


def test_layers_computed_again_give_the_same_gradient(tiny_lm, whole_last_block):
    calls = []

    def watch(trunk):
        trunk.layers[0].self_attn.register_forward_hook(lambda *args: calls.append(1))

    stats, gradient, _ = stepped(tiny_lm, watch)
    once = len(calls)
    again, same, forward = stepped(tiny_lm, watch, gradient_checkpointing=True)
    assert len(calls) - once == 2 * once
    assert not forward.model.training
    assert again == stats
    torch.testing.assert_close(same, gradient, rtol=1e-6, atol=1e-9)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}, {"loss": "davidson"}])
def test_two_lanes_make_the_step_that_one_makes(tiny_lm, two_threads, monkeypatch, changes):
    two = [stepped(tiny_lm, **changes) for _ in range(2)]
    monkeypatch.setattr("rewardmodel.forward.num_lanes", lambda model: 1)
    stats, gradient, alone = stepped(tiny_lm, **changes)
    assert [len(forward.lanes) for *_, forward in (*two, (alone,))] == [2, 2, 1]
    first, second = two[0][2].shares(EXAMPLES)
    assert first
    assert second
    for figure, value in dataclasses.asdict(two[0][0]).items():
        if figure != "pad_share":
            assert value == pytest.approx(getattr(stats, figure), rel=1e-5), figure
    torch.testing.assert_close(two[0][1], gradient, rtol=1e-4, atol=1e-7)
    assert torch.equal(two[0][1], two[1][1])  # whoever was faster


def test_two_lanes_gather_the_objectives_gradient(tiny_lm, two_threads):
    model, _ = score_model_from(tiny_lm, seed=0)
    config = dataclasses.replace(CONFIG, loss="davidson")
    found = []
    for lanes in (2, 1):
        torch.set_num_threads(lanes)
        objective = Objective(config, Survey(), PLAIN)
        forward = Forward(model, config, max_tokens=64)
        assert len(forward.lanes) == lanes
        optimizer = adamw(model, lr=0.0, weight_decay=0.0)
        train_step(forward, EXAMPLES, optimizer, config, objective)
        found.append(objective.log_nu.grad.item())
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] != 0


def test_where_memory_runs_out_a_step_is_cut_smaller_and_its_gradient_stays(
    tiny_lm, whole_last_block
):
    stats, gradient, forward = stepped(tiny_lm)
    assert len(forward.pieces(EXAMPLES)) <= 2

    def small_memory(trunk):
        def refuse(module, args, out):
            if out.shape[:2].numel() > 80:
                raise torch.OutOfMemoryError("no memory left")

        trunk.layers[0].register_forward_hook(refuse)

    cut, same, forward = stepped(tiny_lm, small_memory)
    assert forward.tokens_per_forward < CONFIG.tokens_per_forward
    assert cut.loss == pytest.approx(stats.loss, rel=1e-6)
    torch.testing.assert_close(same, gradient, rtol=1e-5, atol=1e-8)


def test_what_is_too_much_by_itself_is_said(tiny_lm):
    def no_memory(trunk):
        def refuse(module, args, out):
            raise torch.OutOfMemoryError("no memory left")

        trunk.layers[0].register_forward_hook(refuse)

    with pytest.raises(torch.OutOfMemoryError):
        stepped(tiny_lm, no_memory)


def test_a_compiled_trunk_is_called_with_the_same_words_and_leaves_the_model_alone(
    tiny_lm, monkeypatch, whole_last_block
):
    calls = []

    class Compiled:
        def __init__(self, trunk):
            self.trunk = trunk

        def __call__(self, **words):
            calls.append(set(words))
            return self.trunk(**words)

        def __len__(self):  # as torch.compile's has: of no length, and so of no truth value
            raise TypeError("does not support len()")

    def fake_compile(trunk, dynamic):
        return Compiled(trunk)

    monkeypatch.setattr("policy.compute.torch.compile", fake_compile)
    monkeypatch.setattr("policy.compute.shutil.which", lambda name: "/usr/bin/" + name)
    stats, gradient, _ = stepped(tiny_lm)
    assert not calls
    same, other, forward = stepped(tiny_lm, compile=True)
    assert calls
    assert same == stats
    assert torch.equal(gradient, other)
    forward.warm_up(EXAMPLES)
    assert all(p.grad is None for p in forward.model.parameters())
