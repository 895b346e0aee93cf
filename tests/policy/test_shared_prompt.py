"""policy.shared_prompt: read together, rows give the scores and gradients that they give alone."""

import random

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BloomConfig,
    BloomForSequenceClassification,
    Gemma2Config,
    Gemma2ForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
    MixtralConfig,
    MixtralForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from policy.scoring import pad_right, scores_at_last_token, scores_of_forest
from policy.shared_prompt import Forest, Tree, alike, shares_exactly

VOCABULARY = 50
SMALL = {"vocab_size": VOCABULARY, "num_labels": 1, "pad_token_id": 0}
LAYERS = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip


def gpt2(**settings):
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
    return GPT2ForSequenceClassification(GPT2Config(**SMALL, **still, **sizes, **settings))


def llama():
    return LlamaForSequenceClassification(LlamaConfig(**SMALL, **LAYERS))


def mistral():
    return MistralForSequenceClassification(MistralConfig(**SMALL, **LAYERS, sliding_window=5))


def qwen2():
    window = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
    return Qwen2ForSequenceClassification(Qwen2Config(**SMALL, **LAYERS, **window))


def gemma2():
    return Gemma2ForSequenceClassification(
        Gemma2Config(**SMALL, **LAYERS, head_dim=8, sliding_window=5)
    )


def eager():
    return gpt2(attn_implementation="eager")


def mixtral():
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    return MixtralForSequenceClassification(MixtralConfig(**SMALL, **LAYERS, **experts))


EXACT = [gpt2, llama, mistral, qwen2, gemma2, eager, mixtral]


def made(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def drawn_rows(seed: int, completions: int, prompts: int = 1) -> list[list[int]]:
    """Ragged completions of one prompt, which `prompts` different cuts of it stand before."""
    draw = random.Random(seed)

    def ids(count):
        return [draw.randrange(1, VOCABULARY) for _ in range(count)]

    prompt = ids(12)
    cuts = [[prompt[0], *prompt[1 + 4 * number :]] for number in range(prompts)]
    return [cuts[at % prompts] + ids(draw.randint(1, 14)) for at in range(completions)]


COMPARISONS = [
    drawn_rows(0, completions=2),
    drawn_rows(1, completions=4),
    drawn_rows(2, completions=3, prompts=2),
    drawn_rows(3, completions=5, prompts=3),
    [[7, 8, 9], [7, 8], [7, 8, 9, 3], [7, 8]],  # one begins another, and one is there twice
    [[4, 5], [6]],  # nothing is shared
]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def gradient_of(model, scores) -> torch.Tensor:
    """Of a sum in which each score counts for something else."""
    model.zero_grad()
    weights = torch.linspace(-1.0, 1.5, len(scores))
    (weights * scores).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("make", EXACT)
def test_scores_and_gradients_are_those_of_one_row_per_completion(make):
    model = made(make)
    forest = Forest.of([Tree.of(rows) for rows in COMPARISONS], 0)
    together = scores_of_forest(model, forest)
    gradient = gradient_of(model, together)
    ids, mask = pad_right([row for rows in COMPARISONS for row in rows], 0)
    alone = scores_at_last_token(model, ids, mask)
    expected = gradient_of(model, alone)
    assert alone.std() > 0.01
    close(together.detach(), alone.detach())
    close(gradient, expected)


@pytest.mark.parametrize("make", [each for each in EXACT if each is not mixtral])
def test_the_last_mlp_reads_what_is_scored_and_no_more(make):
    model = made(make)
    trunk = model.base_model
    blocks = trunk.h if hasattr(trunk, "h") else trunk.layers
    read = []
    for block in blocks:
        name = "act" if hasattr(block.mlp, "act") else "act_fn"
        setattr(block.mlp, name, Noting(getattr(block.mlp, name), read))
    scores_of_forest(model, Forest.of([Tree.of([[1, 2]])], 0))  # the first time it is tried
    for rows, ends in (([[1, 2, 3], [1, 2, 4], [1, 2, 4]], 2), ([[1, 2, 3, 4, 5, 6]], 1)):
        read.clear()
        forest = Forest.of([Tree.of(rows)], 0)
        scores_of_forest(model, forest)
        assert read == [forest.ids.numel(), ends]


class Noting(torch.nn.Module):
    """An activation that writes down how many ids went through it."""

    def __init__(self, inner, read):
        super().__init__()
        self.inner, self.read = inner, read

    def forward(self, x):
        self.read.append(x.shape[:-1].numel())
        return self.inner(x)


class MixesBehindTheLastMlp(LlamaForSequenceClassification):
    """What stands behind the blocks takes the mean of all ids so far."""

    def __init__(self, config):
        super().__init__(config)
        self.model.norm.register_forward_hook(
            lambda module, args, out: (
                out.cumsum(1) / torch.arange(1, out.shape[1] + 1)[None, :, None]
            )
        )


def test_a_model_that_mixes_ids_behind_its_last_mlp_reads_them_all():
    model = made(lambda: MixesBehindTheLastMlp(LlamaConfig(**SMALL, **LAYERS)))
    assert not shares_exactly(model, 64)
    as_transformers(model)


def test_a_model_whose_mlp_takes_more_than_its_input_is_read_as_transformers_reads_it():
    bloom = BloomConfig(**SMALL, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.2)
    as_transformers(made(lambda: BloomForSequenceClassification(bloom)))


def as_transformers(model):
    rows = drawn_rows(4, completions=3)
    found = scores_of_forest(model, Forest.of([Tree.of([row]) for row in rows], 0))
    expected = [model(input_ids=torch.tensor([row])).logits.squeeze() for row in rows]
    close(found.detach(), torch.stack(expected).detach())


def test_blocks_that_are_recomputed_read_everything_and_give_the_same_gradient():
    model = made(llama)
    forest = Forest.of([Tree.of(rows) for rows in COMPARISONS], 0)
    expected = gradient_of(model, scores_of_forest(model, forest))
    kept = {"use_reentrant": False}
    model.activation_checkpointing_enable(activation_checkpointing_kwargs=kept)
    model.train()  # there is no dropout in it
    close(gradient_of(model, scores_of_forest(model, forest)), expected)


def test_each_id_stands_once_behind_the_ids_of_its_own_row():
    tree = Tree.of([[1, 2, 5, 6], [1, 2, 3], [1, 2, 5, 7], [9]])
    assert tree.ids == (1, 2, 3, 5, 6, 7, 9)
    assert tree.depths == (0, 1, 2, 2, 3, 3, 0)
    assert tree.ends == (4, 2, 5, 6)
    (sees,) = Forest.of([tree], 0).sees.int().tolist()
    assert sees == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0],
        [1, 1, 0, 1, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]


@pytest.mark.parametrize("seed", range(20))
def test_in_a_tree_an_id_sees_its_row_and_nothing_else(seed):
    draw = random.Random(seed)
    rows = [[draw.randint(1, 2) for _ in range(draw.randint(1, 9))] for _ in range(6)]
    tree = Tree.of(rows)
    forest = Forest.of([Tree.of([[3] * 30]), tree], 0)
    for row, end in zip(rows, tree.ends, strict=True):
        seen = forest.sees[1, end].nonzero().flatten().tolist()
        by_position = sorted(seen, key=forest.positions[1].tolist().__getitem__)
        assert [forest.ids[1, place].item() for place in by_position] == row
    assert len(tree.ids) == len({tuple(row[: at + 1]) for row in rows for at in range(len(row))})


@pytest.mark.parametrize("make", EXACT)
def test_a_model_that_shares_exactly_is_known(make):
    assert shares_exactly(made(make), 64)


class IgnoresPositions(GPT2ForSequenceClassification):
    """Positions are those of the line, whatever it is told."""

    def __init__(self, config):
        super().__init__(config)
        self.transformer.register_forward_pre_hook(
            lambda module, args, kwargs: (args, kwargs | {"position_ids": None}), with_kwargs=True
        )


class MixesAlongTheLine(GPT2ForSequenceClassification):
    """A state that runs through the line, as in Mamba and its kin."""

    def __init__(self, config):
        super().__init__(config)
        self.transformer.h[0].register_forward_hook(lambda module, args, out: out.cumsum(1))


def test_a_model_that_does_not_share_exactly_is_known_too():
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
    config = GPT2Config(**SMALL, **sizes)
    assert not shares_exactly(made(lambda: IgnoresPositions(config)), 64)
    assert not shares_exactly(made(lambda: MixesAlongTheLine(config)), 64)
    bloom = BloomConfig(**SMALL, hidden_size=32, n_layer=1, n_head=2)
    assert not shares_exactly(made(lambda: BloomForSequenceClassification(bloom)), 64)
    bert = BertConfig(**SMALL, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    assert not shares_exactly(made(lambda: BertForSequenceClassification(bert)), 64)


def test_rows_are_alike_that_share_half_and_fit():
    rows = [[1, 2, 3, 4], [9, 9], [1, 2, 7, 8], [1, 5, 5, 5], [1, 2, 3, 6]]
    assert alike(rows, 100) == [[0, 4, 2], [3], [1]]
    assert alike(rows, 5) == [[0, 4], [2], [3], [1]]
