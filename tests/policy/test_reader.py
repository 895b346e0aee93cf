"""How PPO's models read: shared prompts, lanes, bf16; and steps that are written out."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from policy.backbone import load_causal_lm
from policy.decoding import ByForward, ByReplay, ByStep, decoding_of
from policy.lora import add_adapters
from policy.ppo_config import PPOConfig
from policy.reader import Reader
from policy.rollout import PromptTokens, Rollouts, recompute
from policy.sampling import sample
from policy.stepping import step_of
from policy.update import minibatches, policy_gradient, targets_of, value_gradient
from policy.value import ValueHead, value_model_from

GROUPS = PPOConfig(
    advantage="grpo",
    rollouts_per_step=12,
    answers_per_prompt=4,
    minibatches=1,
    temperature=1.0,
    micro_batch_tokens=60,  # several parts for each of two lanes
)
PROMPTS = [[4, 7, 8, 9, 2, 5], [4, 10, 5], [4, 7, 8, 9, 2, 6]]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["gpt2", "llama"])
def models(request, tiny_policy, letters):
    """(policy, value model), both with opinions."""
    policy, _ = load_causal_lm(tiny_policy(request.param, seed=1))
    value = value_model_from(
        tiny_policy(request.param, seed=3, name="value"), tokenizer=letters, max_tokens=32
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
        value.score.weight.normal_(generator=torch.Generator().manual_seed(4))
    return policy, value


def rollouts_of(policy, letters, precision="fp32") -> Rollouts:
    """Four answers to each of three prompts, as the sampler left them."""
    prompts = [PromptTokens(str(ids), [], ids) for ids in PROMPTS for _ in range(4)]
    samples = sample(
        policy, letters, [one.ids for one in prompts],
        temperature=1.0, max_new_tokens=9, seeds=range(12), precision=precision,
    )  # fmt: skip
    return Rollouts.of(
        step=1, prompts=prompts, samples=samples, seeds=list(range(12)), pad_id=0,
        scores=torch.randn(12, generator=torch.Generator().manual_seed(5)),
        baselines=torch.zeros(12), missing_end=torch.zeros(12), device="cpu",
    )  # fmt: skip


def looked_at(rollouts, policy, reference, value, max_tokens=64):
    recompute(
        rollouts, policy=policy, reference=reference, value=value, temperature=1.0,
        max_tokens=max_tokens,
    )  # fmt: skip
    return {name: getattr(rollouts, name).clone() for name in ("logprobs", "entropy", "values")}


def gradients(readers, rollouts, config):
    """Of the policy's loss and of the value model's, over all rollouts."""
    policy, value = readers
    for reader in readers:
        reader.modules.zero_grad(set_to_none=True)
    targets = targets_of(rollouts, config, kl_coef=0.1)
    rows = list(range(len(rollouts)))
    losses = [
        policy_gradient(policy, rollouts, targets, rows, config).loss.item(),
        value_gradient(value, rollouts, targets, rows, config),
    ]
    return losses, [p.grad for reader in readers for p in reader.modules.parameters()]


def test_shared_prompts_and_lanes_change_neither_numbers_nor_gradients(
    models, letters, two_threads
):
    policy, value = models
    rollouts = rollouts_of(policy, letters)
    found = {}
    for name, shared, threads in (("alone", False, 1), ("shared", True, 2)):
        torch.set_num_threads(threads)
        readers = [Reader(policy), Reader(value)]
        for reader in readers:
            assert reader.shared, "the models of this test share exactly"
            assert reader.num_lanes == threads
            reader.shared = shared
        lines = rollouts.lines(range(12), readers[0], 10_000)
        assert len(lines) == (3 if shared else 12)
        assert len(rollouts.padded(range(12), readers[0]).forest.ids) == len(lines)
        seen = readers[0].read(lambda *given: given[2], lines, rollouts.num_tokens_of, 60)
        assert sorted(row for part in seen for row in part) == list(range(12))
        assert len(seen) > 2
        numbers = looked_at(rollouts, readers[0], readers[0], readers[1])
        found[name] = numbers, *gradients(readers, rollouts, GROUPS)
    (alone, losses, grads), (shared, other_losses, other_grads) = found.values()
    for name, expected in alone.items():
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(shared[name], expected, atol=2e-5, rtol=0)
    assert other_losses == pytest.approx(losses, abs=1e-5)
    assert any(grad is not None and grad.abs().max() > 1e-3 for grad in grads)
    for one, other in zip(grads, other_grads, strict=True):
        torch.testing.assert_close(other, one, atol=2e-5, rtol=1e-3)


def test_a_head_learns_in_every_lane(models, letters, two_threads):
    policy, _ = models
    config = PPOConfig(value="head", temperature=1.0, rollouts_per_step=12, micro_batch_tokens=60)
    head = ValueHead.on(policy)
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(4))
    rollouts = rollouts_of(policy, letters)
    grads = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        reader = Reader(policy, head=head)
        looked_at(rollouts, reader, reader, None)
        reader.modules.zero_grad(set_to_none=True)
        targets = targets_of(rollouts, config, kl_coef=0.1)
        policy_gradient(reader, rollouts, targets, list(range(12)), config)
        grads.append(head.weight.grad.clone())
    assert grads[0].abs().max() > 1e-3
    torch.testing.assert_close(grads[1], grads[0], atol=1e-5, rtol=1e-4)


def test_bf16_is_close_and_its_first_ratios_are_near_one(models, letters):
    policy, value = models
    exact = rollouts_of(policy, letters)
    looked_at(exact, Reader(policy), Reader(policy), None)
    rounded = rollouts_of(policy, letters, precision="bf16")
    reader = Reader(policy, precision="bf16")
    numbers = looked_at(rounded, reader, reader, Reader(value, precision="bf16"))
    assert all(each.dtype is torch.float32 for each in numbers.values())
    apart = (rounded.sampler_logprobs - rounded.logprobs)[rounded.mask].abs()
    assert 0 < apart.max() < 0.2
    assert apart.exp().mean() < 1.03  # weights of 0.3: sharper than what is trained
    targets = targets_of(rounded, GROUPS, kl_coef=0.1)
    loss = policy_gradient(reader, rounded, targets, list(range(12)), GROUPS)
    assert float(loss.ratio_sum) / int(rounded.mask.sum()) == pytest.approx(1.0, abs=1e-3)


def test_answers_to_a_prompt_stay_in_one_minibatch_where_whole_prompts_make_them():
    two = PPOConfig(
        advantage="rloo", answers_per_prompt=4, rollouts_per_step=32, minibatches=2, epochs=3
    )
    parts = list(minibatches(32, two, step=1))
    assert [sorted(one + other) for one, other in zip(parts[::2], parts[1::2], strict=True)] == [
        list(range(32))
    ] * 3
    for part in parts:
        assert {at // 4 * 4 + answer for at in part for answer in range(4)} == set(part)
    assert len({tuple(part) for part in parts}) == 6, "shuffled"
    three = PPOConfig(
        advantage="rloo", answers_per_prompt=4, rollouts_per_step=32, minibatches=3, epochs=1
    )
    assert sorted(at for part in minibatches(32, three, step=1) for at in part) == list(range(32))


def wide(model):
    """With opinions, biases and norms of its own."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


def gpt2(letters, **changes):
    config = GPT2Config(
        vocab_size=len(letters), n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, **changes,
    )  # fmt: skip
    return wide(GPT2LMHeadModel(config))


def of_groups(letters, **changes):
    """Llama with three layers, and four heads that share two of keys and values."""
    config = LlamaConfig(
        vocab_size=len(letters), hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, attention_bias=True, mlp_bias=True,
        **changes,
    )  # fmt: skip
    return wide(LlamaForCausalLM(config))


def neox(letters):
    config = GPTNeoXConfig(
        vocab_size=len(letters), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, hidden_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    return wide(GPTNeoXForCausalLM(config))


@pytest.mark.parametrize(
    ("make", "by"),
    [(gpt2, ByStep), (of_groups, ByStep), (gpt2, ByReplay), (of_groups, ByReplay), (neox, None)],
)
def test_what_is_appended_gets_the_logits_of_a_whole_forward(letters, make, by, monkeypatch):
    """Four rows of two prompts, read apart, and 40 tokens each: buffers grow, and rows leave.

    ByReplay runs as on a GPU, but for the recording of its steps.
    """
    monkeypatch.setattr("policy.decoding.TOKENS_AT_ONCE", {"cpu": 6})
    model = make(letters)
    step = step_of(model, torch.float32)
    rows = [[3, 7, 8, 9, 4], [5, 6], [3, 7, 8, 9, 4], [5, 6]]
    prompts = [tuple(row) for row in rows]
    if by is ByReplay:
        decoding = ByReplay(model, step, prompts, room=40)
    else:
        assert (step is not None) is (by is ByStep)
        decoding = decoding_of(model, prompts, room=40, step=step)
    draw = torch.Generator().manual_seed(0)
    for turn in range(40):
        if turn == 20:
            decoding.keep(torch.tensor([1, 2]))
            rows = rows[1:3]
        for row, logits in zip(rows, decoding.logits, strict=True):
            with torch.no_grad():
                expected = model(input_ids=torch.tensor([row])).logits[0, -1]
            torch.testing.assert_close(logits[1:], expected[1:], atol=1e-4, rtol=1e-4)
        tokens = torch.randint(3, len(letters), (len(rows),), generator=draw)
        rows = [[*row, int(token)] for row, token in zip(rows, tokens, strict=True)]
        decoding.append(tokens)


def test_no_recording_is_replayed_for_other_rows_than_its_own(letters):
    """It reads and writes where the rows of before were; the fake one here counts its replays."""
    model = gpt2(letters)
    step = step_of(model, torch.float32)
    prompts = [(3, 7, 8), (5, 6), (9, 4)]
    decoding = ByReplay(model, step, prompts, room=3)
    recording = Recording()
    decoding.append(torch.tensor([3, 4, 5]))
    decoding._recorded = recording
    decoding.append(torch.tensor([6, 7, 8]))
    assert (recording.replays, decoding._warm) == (1, True)
    decoding.keep(torch.tensor([0, 2]))
    assert not decoding._warm, "else the next step would be recorded before its kernels ran"
    before = decoding.logits.clone()
    decoding.append(torch.tensor([3, 4]))
    assert recording.replays == 1
    assert not torch.equal(decoding.logits, before)


class Recording:
    """In place of a CUDA graph: replayed, it does nothing."""

    replays = 0

    def replay(self):
        self.replays += 1


def test_a_model_with_adapters_steps_by_its_own_forward(letters):
    """Adapters begin at nothing: what is tried at the start would not show them."""
    model = of_groups(letters)
    assert step_of(model, torch.float32) is not None, "tried while it has none"
    add_adapters(model, rank=2, seed=0, head_learns=False)
    assert step_of(model, torch.float32) is None


def test_a_model_that_says_something_else_steps_by_its_own_forward(letters):
    assert step_of(gpt2(letters, scale_attn_by_inverse_layer_idx=True), torch.float32) is None
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    assert step_of(of_groups(letters, rope_parameters=rope), torch.float32) is None


def test_no_large_model_is_copied_for_its_steps(letters, monkeypatch):
    model = of_groups(letters)
    monkeypatch.setattr("policy.stepping.LARGEST_MODEL", 1000)
    copies = []
    monkeypatch.setattr("policy.stepping.linear", lambda *given, **more: copies.append(given))
    assert step_of(model, torch.bfloat16) is None
    assert not copies


def test_a_long_prompt_is_read_by_the_models_own_forward(letters, monkeypatch):
    model = gpt2(letters)
    step = step_of(model, torch.float32)
    monkeypatch.setattr("policy.decoding.LONGEST_SHORT_LINE", 4)
    assert type(decoding_of(model, [(5, 6, 7, 8)], room=3, step=step)) is ByStep
    assert type(decoding_of(model, [(5, 6, 7, 8, 9), (5,)], room=3, step=step)) is ByForward


def test_a_part_holds_what_it_was_cut_for_however_prompts_are_mixed(models, letters):
    """Rows of one prompt that do not stand together share a line all the same."""
    policy, _ = models
    rollouts, reader = rollouts_of(policy, letters), Reader(policy)
    rows = [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    lines = rollouts.lines(rows, reader, 10_000)
    assert [sorted(line) for line in lines] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    for limit in (20, 40, 60):
        cut = rollouts.lines(rows, reader, limit)
        for part in reader.read(lambda *given: given[2], cut, rollouts.num_tokens_of, limit):
            ids = rollouts.padded(part, reader).forest.ids
            assert ids.numel() <= limit or len(part) == 1
