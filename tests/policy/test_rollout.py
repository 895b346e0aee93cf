"""Rollouts of real tiny models, GPT-2 and Llama: layout, T9, micro-batches, baseline, files."""

import json
import math
from collections import Counter

import pytest
import torch

from policy.backbone import forward_logits, load_causal_lm
from policy.baseline import ReferenceAnswers, ReferenceBaseline, missing_end
from policy.config import BadInput
from policy.losses import token_logprobs
from policy.ppo_config import PPOConfig
from policy.ppo_models import draw
from policy.reader import Reader
from policy.rollout import (
    PromptTokens,
    Rollouts,
    distinct_n,
    pad,
    recompute,
    response_logits,
    rows_of,
    write_shard,
)
from policy.sampling import Sampled, sample
from policy.texts import EXTREMES, MOST, chosen, write_texts
from policy.update import minibatches, policy_gradient, targets_of, value_gradient
from policy.value import value_model_from

TEMPERATURE = 0.7
CONFIG = PPOConfig(temperature=TEMPERATURE, minibatches=3, epochs=2, max_response_tokens=9)


def prompt(number: int, tokenizer) -> PromptTokens:
    content = " ".join("abcdefghij"[(3 * number + k) % 10] for k in range(1 + number % 5))
    messages = [{"role": "user", "content": content}]
    ids = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return PromptTokens(f"p{number}", messages, tokenizer(ids, add_special_tokens=False).input_ids)


@pytest.fixture(params=["gpt2", "llama"])
def models(request, tiny_policy):
    """(policy, reference, value model, tokenizer); policy and reference differ."""
    policy, tokenizer = load_causal_lm(tiny_policy(request.param, seed=1, name="policy"))
    reference, _ = load_causal_lm(tiny_policy(request.param, seed=2, name="reference"))
    value = value_model_from(
        tiny_policy(request.param, seed=3, name="value"), tokenizer=tokenizer, max_tokens=32
    )
    with torch.no_grad():
        value.score.weight.normal_(generator=torch.Generator().manual_seed(4))
    return policy, reference, value, tokenizer


def rollouts_of(models, count: int = 12) -> Rollouts:
    """Ragged rollouts with random scores, everything recomputed."""
    policy, reference, value, tokenizer = models
    prompts = [prompt(number, tokenizer) for number in range(count)]
    samples = sample(
        policy,
        tokenizer,
        [one.ids for one in prompts],
        temperature=TEMPERATURE,
        max_new_tokens=CONFIG.max_response_tokens,
        seeds=range(count),
    )
    rollouts = Rollouts.of(
        step=1,
        prompts=prompts,
        samples=samples,
        seeds=list(range(count)),
        pad_id=tokenizer.pad_token_id,
        scores=torch.randn(count, generator=torch.Generator().manual_seed(5)),
        baselines=torch.zeros(count),
        missing_end=torch.zeros(count),
        device="cpu",
    )
    recompute(
        rollouts,
        policy=Reader(policy),
        reference=Reader(reference),
        value=Reader(value),
        temperature=TEMPERATURE,
        max_tokens=64,
    )
    assert len({len(one.tokens) for one in samples}) > 2, "rows must be ragged"
    return rollouts


def test_rows_are_padded_on_the_right_and_know_which_place_chose_which_token():
    padded = pad([[1, 2, 3], [4]], [[5], [6, 7, 8]], pad_id=0)
    assert padded.forest.ids.tolist() == [[1, 2, 3, 5], [4, 6, 7, 8]]
    assert padded.forest.mask.all()
    assert padded.sources.tolist() == [2, 4, 5, 6]
    assert padded.response_ids.tolist() == [5, 6, 7, 8]
    assert padded.response_mask.int().tolist() == [[1, 0, 0], [1, 1, 1]]
    assert padded.in_rows(torch.tensor([1.0, 2, 3, 4])).tolist() == [[1, 0, 0], [2, 3, 4]]
    shorter = pad([[1, 2], [4]], [[5], [6]], pad_id=0)
    assert shorter.forest.ids.tolist() == [[1, 2, 5], [4, 6, 0]]
    assert shorter.forest.mask.int().tolist() == [[1, 1, 1], [1, 1, 0]]
    assert shorter.sources.tolist() == [1, 3]


def test_answers_to_one_prompt_share_it_and_what_they_begin_with():
    prompts, answers = [[1, 2], [1, 2], [3], [3], [1, 2]], [[7, 8, 9], [5, 6], [4], [], [7, 8]]
    padded = pad(prompts, answers, pad_id=0, shared=True)
    # sorted: [1 2 5 6] and, from the 2 on, [7 8 9]; only what stands side by side shares a line
    assert padded.forest.ids.tolist() == [
        [1, 2, 5, 6, 7, 8, 9],
        [3, 4, 0, 0, 0, 0, 0],
        [1, 2, 7, 8, 0, 0, 0],
    ]
    assert padded.sources.tolist() == [1, 4, 5, 1, 2, 7, 15, 16]
    assert padded.response_ids.tolist() == [7, 8, 9, 5, 6, 4, 7, 8]


def test_logits_of_response_tokens_are_those_of_the_whole_forward(models):
    policy, *_ = models
    padded = pad([[6, 7], [8]], [[9, 2], [10]], pad_id=0)
    with torch.no_grad():
        found = response_logits(policy, padded)
        whole = forward_logits(policy, padded.forest.ids, padded.forest.mask)
        again = forward_logits(policy, padded.forest.ids, padded.forest.mask)
    expected = torch.stack([whole[0, 1], whole[0, 2], whole[1, 0]])
    torch.testing.assert_close(found, expected)
    assert torch.equal(whole, again), "the head must be as it was"


def test_log_probs_in_pieces_have_the_value_and_the_gradient_of_one_plain_forward(models):  # T19
    policy, *_ = models
    prompts, answers = [[6, 7], [8], [9, 10, 6]], [[9, 2], [10], [7, 7, 2]]

    def gradients(total):
        policy.zero_grad(set_to_none=True)
        total.backward()
        return [p.grad.clone() for p in policy.parameters() if p.grad is not None]

    pieces = [pad([one], [answer], pad_id=0) for one, answer in zip(prompts, answers, strict=True)]
    found = torch.cat(
        [
            token_logprobs(
                response_logits(policy, piece), piece.response_ids, temperature=TEMPERATURE
            )
            for piece in pieces
        ]
    )
    plain = []
    for one, answer in zip(prompts, answers, strict=True):
        logits = policy(input_ids=torch.tensor([one + answer])).logits[0, len(one) - 1 : -1]
        never = torch.arange(logits.shape[-1]) == policy.config.pad_token_id
        logprobs = (logits / TEMPERATURE).masked_fill(never, -math.inf).log_softmax(-1)
        plain.append(logprobs[range(len(answer)), answer])
    expected = torch.cat(plain)
    torch.testing.assert_close(found, expected)
    weights = torch.linspace(-1, 2, len(expected))
    got = gradients((weights * found).sum())
    wanted = gradients((weights * expected).sum())
    assert any(grad.abs().max() > 0.1 for grad in wanted)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_log_probs_and_values_are_those_of_each_row_alone_without_padding(models):
    policy, reference, value, _ = models
    rollouts = rollouts_of(models)
    for i, one in enumerate(rollouts.samples):
        start, length = len(rollouts.prompts[i].ids), len(one.tokens)
        ids = torch.tensor([rollouts.prompts[i].ids + one.tokens])
        with torch.no_grad():
            for model, found in ((policy, rollouts.logprobs), (reference, rollouts.ref_logprobs)):
                logits = model(input_ids=ids).logits[0, start - 1 : -1] / TEMPERATURE
                logits[:, model.config.pad_token_id] = -math.inf
                expected = logits.log_softmax(-1)[range(length), one.tokens]
                torch.testing.assert_close(found[i, :length], expected, atol=1e-5, rtol=0)
            hidden = value.base_model(input_ids=ids).last_hidden_state[0, start - 1 : -1]
            expected = hidden @ value.score.weight[0]
        torch.testing.assert_close(rollouts.values[i, :length], expected, atol=1e-5, rtol=0)
        assert rollouts.logprobs[i, length:].eq(0).all()
        assert rollouts.values[i, length:].eq(0).all()


def test_sampler_and_trainer_agree(models):
    rollouts = rollouts_of(models)
    apart = (rollouts.sampler_logprobs - rollouts.logprobs)[rollouts.mask].abs()
    assert apart.exp().mean() <= 1.0001
    assert apart.max() < 1e-5


def test_first_minibatch_has_ratio_one_and_nothing_clipped(models):  # T9
    policy, *_ = models
    rollouts = rollouts_of(models)
    targets = targets_of(rollouts, CONFIG, kl_coef=0.1)
    rows = next(minibatches(len(rollouts), CONFIG, step=1))
    assert len(rows) == 4
    loss = policy_gradient(Reader(policy), rollouts, targets, rows, CONFIG)
    tokens = int(rollouts.mask[rows].sum())
    assert float(loss.ratio_sum) / tokens == pytest.approx(1.0, abs=1e-6)
    assert float(loss.approx_kl_sum) / tokens == pytest.approx(0.0, abs=1e-9)
    assert int(loss.num_clipped) == 0
    # with every ratio 1 the loss is minus the mean advantage of the minibatch
    expected = -targets.advantages[rows][rollouts.mask[rows]].mean()
    assert loss.loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_size_of_micro_batches_changes_neither_loss_nor_gradient(models):  # T14
    policy, _, value, _ = models
    rollouts = rollouts_of(models)
    targets = targets_of(rollouts, CONFIG, kl_coef=0.1)
    rows = list(range(len(rollouts)))

    def gradients(max_tokens: int):
        config = PPOConfig(temperature=TEMPERATURE, micro_batch_tokens=max_tokens)
        for model in (policy, value):
            model.zero_grad(set_to_none=True)
        losses = (
            policy_gradient(Reader(policy), rollouts, targets, rows, config).loss.item(),
            value_gradient(Reader(value), rollouts, targets, rows, config),
        )
        grads = [p.grad.clone() for m in (policy, value) for p in m.parameters() if p.requires_grad]
        return losses, grads

    (whole, whole_grads), (parts, parts_grads) = gradients(10_000), gradients(20)
    # The value loss is 12, of which 1e-6 is ten roundings of fp32.
    assert parts == pytest.approx(whole, rel=1e-6, abs=1e-6)
    assert any(grad.abs().max() > 1e-3 for grad in whole_grads)
    for part, full in zip(parts_grads, whole_grads, strict=True):
        torch.testing.assert_close(part, full, atol=1e-6, rtol=1e-4)


def test_a_file_row_holds_what_was_sampled(models, tmp_path):
    *_, tokenizer = models
    rollouts = rollouts_of(models)
    path = write_shard(tmp_path, rollouts, lambda ids: tokenizer.decode(ids))
    assert path == tmp_path / "rollouts" / "step-00001.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["prompt_id"] for row in rows] == [one.id for one in rollouts.prompts]
    for i, row in enumerate(rows):
        length = len(rollouts.samples[i].tokens)
        assert row["tokens"][row["response_start"] :] == rollouts.samples[i].tokens
        assert row["tokens"][: row["response_start"]] == rollouts.prompts[i].ids
        assert len(row["logprobs"]) == len(row["ref_logprobs"]) == len(row["values"]) == length
        expected = sum(row["logprobs"]) - sum(row["ref_logprobs"])
        assert row["kl"] == pytest.approx(expected, abs=1e-5)
        assert row["kl_k3"] > 0
        assert row["score"] == rollouts.scores[i].item()
        assert (row["step"], row["seed"]) == (1, i)
        assert row["finish"] == rollouts.samples[i].finish
        assert row["text"] == tokenizer.decode(rollouts.samples[i].tokens)
    assert rows == list(rows_of(rollouts, lambda ids: tokenizer.decode(ids)))


def test_every_prompt_is_drawn_once_before_any_is_drawn_again():
    prompts = [PromptTokens(str(i), [], [i]) for i in range(10)]
    steps = [draw(prompts, 4, seed=7, step=step) for step in range(1, 6)]
    drawn = [one.id for step in steps for one in step]
    assert Counter(drawn[:10]) == Counter(drawn[10:]) == Counter(str(i) for i in range(10))
    assert drawn[:10] != drawn[10:]
    assert draw(prompts, 4, seed=7, step=3) == steps[2]
    assert draw(prompts, 4, seed=8, step=3) != steps[2]


def test_distinct_bigrams():
    assert distinct_n([[1, 2, 1, 2], [1, 2], [3]], 2) == pytest.approx(2 / 4)
    assert distinct_n([[1]], 2) == 0.0


# The reference's own answers


class Recorder:
    """A reference that answers in letters made from its seed, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], int]] = []

    def sample(self, prompt_ids, seeds):
        self.asked += list(zip(prompt_ids, seeds, strict=True))
        return [Sampled([seed % 10, 2], [-1.0, -1.0], "end") for seed in seeds]

    def score(self, prompts, samples):
        pairs = zip(prompts, samples, strict=True)
        return [100.0 * one.ids[0] + float(answer.tokens[0]) for one, answer in pairs]

    def baseline(self, folder, shared=None, **key) -> ReferenceBaseline:
        return ReferenceBaseline(
            sample=self.sample,
            score=self.score,
            answers_per_prompt=3,
            folder=folder,
            shared=shared,
            key=key,
        )


ONE, TWO = PromptTokens("one", [], [1]), PromptTokens("two", [], [2])


def test_each_prompt_is_answered_m_times_and_once_only(tmp_path):
    reference = Recorder()
    baseline = reference.baseline(tmp_path)
    first = baseline.answers([ONE, TWO, ONE], step=1)
    assert [one for one, _ in reference.asked] == [[1]] * 3 + [[2]] * 3
    assert len({seed for _, seed in reference.asked}) == 6
    assert first[0] == first[2]
    assert all(100 <= score < 110 for score in first[0].scores)
    assert all(200 <= score < 210 for score in first[1].scores)
    assert baseline.answers([TWO], step=2) == [first[1]]
    assert len(reference.asked) == 6


def test_prompts_cut_to_the_same_ids_have_each_their_own_scores(tmp_path):
    said = [[{"role": "user", "content": text}] for text in ("a b c", "j b c")]
    cut = [PromptTokens(str(n), messages, [1], 1) for n, messages in enumerate(said)]
    reference = Recorder()
    reference.baseline(tmp_path).answers(cut, step=1)
    assert len(reference.asked) == 6  # the reward model may read more of them than the policy


def test_answers_survive_in_the_run_and_for_the_next_run(tmp_path):
    reference = Recorder()
    shared = tmp_path / "shared"
    first = reference.baseline(tmp_path / "a", shared, reward="x").answers([ONE, TWO], step=1)
    asked = len(reference.asked)
    again = reference.baseline(tmp_path / "a", reward="x").answers([ONE, TWO], step=9)
    other_run = reference.baseline(tmp_path / "b", shared, reward="x").answers([TWO, ONE], step=1)
    assert again == first
    assert other_run == first[::-1]
    assert len(reference.asked) == asked
    reference.baseline(tmp_path / "c", shared, reward="y").answers([ONE], step=1)
    assert len(reference.asked) == asked + 3  # another reward model: its scores are not known


def test_a_line_torn_by_a_kill_is_answered_again(tmp_path):
    reference = Recorder()
    baseline = reference.baseline(tmp_path / "a", tmp_path / "shared")
    first = baseline.answers([ONE, TWO], step=1)
    assert baseline.shared is not None
    whole = baseline.shared.read_text()
    baseline.shared.write_text(whole[:-20])
    torn = reference.baseline(tmp_path / "b", tmp_path / "shared")
    assert torn.answers([ONE, TWO], step=1) == first
    assert reference.asked[6:] == [([2], seed) for _, seed in reference.asked[3:6]]
    later = reference.baseline(tmp_path / "c", tmp_path / "shared")
    assert later.answers([ONE, TWO], step=1) == first
    assert len(reference.asked) == 9


def test_an_unreadable_cache_is_bad_input_with_its_name(tmp_path):
    (tmp_path / "step-00001.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"step-00001\.jsonl cannot be read"):
        Recorder().baseline(tmp_path)


@pytest.mark.parametrize(
    ("rule", "finish", "expected"),
    [
        ("off", "length", 0.0),
        ("subtract", "end", 0.0),
        ("subtract", "length", -1.5),
        ("replace", "end", 0.0),
        ("replace", "length", -1.5 - 4.0),  # 4 becomes -1.5
    ],
)
def test_missing_end_costs_what_the_rule_says(rule, finish, expected):
    score = PPOConfig().missing_end_score if rule == "off" else 1.5
    config = PPOConfig(missing_end=rule, missing_end_score=score)
    own = Sampled([1], [0.0], finish)
    assert missing_end(config, own, 4.0, None) == pytest.approx(expected)


def test_the_reference_is_held_to_the_same_rule():
    cut = Sampled([1], [0.0], "length")
    answers = ReferenceAnswers([[1], [1]], ["length", "end"], [2.0, 8.0])
    subtract = PPOConfig(missing_end="subtract", missing_end_score=1.0)
    assert missing_end(subtract, cut, 4.0, answers) == pytest.approx(-1.0 + 0.5)
    replace = PPOConfig(missing_end="replace", missing_end_score=1.0)
    # own 4 -> -1 is -5; the reference's 2 -> -1 is -3, half of it in the mean
    assert missing_end(replace, cut, 4.0, answers) == pytest.approx(-5.0 + 1.5)


def test_a_row_of_text_holds_what_a_reader_wants_and_no_arrays(models, tmp_path):
    *_, tokenizer = models
    rollouts = rollouts_of(models)
    rollouts.seen = {"spread": [math.nan, *[0.5] * (len(rollouts) - 1)]}
    path = write_texts(tmp_path, rollouts, lambda ids: tokenizer.decode(ids))
    assert path == tmp_path / "texts" / "step-00001.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    full = list(rows_of(rollouts, lambda ids: tokenizer.decode(ids)))
    same = ("step", "prompt_id", "text", "score", "baseline", "kl", "finish")
    assert [[row[key] for key in same] for row in rows] == [
        [row[key] for key in same] for row in full
    ]
    assert [row["prompt"] for row in rows] == [list(one.messages) for one in rollouts.prompts]
    assert [row["tokens"] for row in rows] == [len(one.tokens) for one in rollouts.samples]
    assert [row["seen"]["spread"] for row in rows] == [None, *[0.5] * (len(rollouts) - 1)]


def test_of_a_large_step_the_extremes_are_kept_and_the_first_others():
    scores = [float(row % 997) for row in range(1000)]
    scores[990], scores[991] = -5.0, 5000.0
    kept = chosen(scores)
    assert len(kept) == MOST == len(set(kept))
    assert {990, 991} <= set(kept)
    lowest = sorted(range(1000), key=lambda row: scores[row])
    assert {*lowest[:EXTREMES], *lowest[-EXTREMES:]} <= set(kept)
    assert kept == sorted(kept)
    assert kept[:200] == list(range(200))
    assert chosen([1.0, 0.0]) == [0, 1]
