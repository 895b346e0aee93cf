"""policy.score_scale: mean 0 and deviation 1 in the weights, so that any library says the same."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXForSequenceClassification,
    OPTConfig,
    OPTForSequenceClassification,
)

from policy.backbone import save_model, score_model_from
from policy.score_scale import ScoreScale, fold, forget
from policy.scoring import Scorer, load_scorer

ROWS = [[1, 6, 7, 2], [1, 8, 2], [1, 9, 9, 9, 9, 2], [1, 12, 3, 2], [1, 5, 2]]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 1}


def made(kind, tiny_policy, letters):
    """A reward model whose scores lie far from zero and wide apart."""
    shared = SHAPE | {"vocab_size": len(letters), "pad_token_id": letters.pad_token_id}
    with torch.random.fork_rng():
        torch.manual_seed(4)
        if kind in ("gpt2", "llama"):
            model, _ = score_model_from(tiny_policy(kind), seed=0)
        elif kind == "neox":
            model = GPTNeoXForSequenceClassification(GPTNeoXConfig(intermediate_size=64, **shared))
        elif kind == "opt":
            model = OPTForSequenceClassification(
                OPTConfig(ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=32, **shared)
            )
        else:
            model = BertForSequenceClassification(BertConfig(intermediate_size=64, **shared))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, 0.3, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0.4, 0.3, generator=generator)
    return model.eval()


def own_scores(model):
    """Scores by the class's own forward, one row at a time."""
    with torch.no_grad():
        return [model(torch.tensor([row])).logits[0, 0].item() for row in ROWS]


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("gpt2", "layer_norm"),
        ("neox", "layer_norm"),
        ("opt", "layer_norm"),
        ("bert", "bias"),
        ("llama", "config"),
    ],
)
def test_scores_are_normalised_and_those_of_transformers(
    kind, where, tiny_policy, letters, tmp_path
):
    model = made(kind, tiny_policy, letters)
    before = torch.tensor(own_scores(model), dtype=torch.float64)
    mean, deviation = before.mean(), before.std(correction=0)
    assert abs(mean) > 0.05  # or a forgotten shift would not show
    probe = Scorer(model, letters, max_tokens=32)
    scale = fold(model, probe.score_ids(ROWS), lambda: probe.score_ids(ROWS[:2]))
    scale.keep_in(model)
    save_model(model, letters, tmp_path / "saved")

    wanted = ((before - mean) / deviation).tolist()
    scorer = load_scorer(tmp_path / "saved")
    assert scorer.scale == scale
    assert scale.folded == where
    assert (scale.mean, scale.deviation) == pytest.approx((mean.item(), deviation.item()), rel=1e-5)
    assert scorer.score_ids(ROWS) == pytest.approx(wanted, abs=1e-4)
    theirs = own_scores(AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved"))
    if where == "config":  # an RMSNorm holds no shift: exactly that constant is between the two
        assert scale.shift == pytest.approx(-(mean / deviation).item(), rel=1e-5)
        theirs = [score + scale.shift for score in theirs]
    else:
        assert scale.shift == 0
    assert theirs == pytest.approx(scorer.score_ids(ROWS), abs=1e-5)


def test_a_model_that_says_the_same_of_everything_is_left_as_it_is(tiny_policy, letters):
    model = made("gpt2", tiny_policy, letters)
    with torch.no_grad():
        model.score.weight.zero_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    probe = Scorer(model, letters, max_tokens=32)
    assert fold(model, probe.score_ids(ROWS), lambda: probe.score_ids(ROWS)) == ScoreScale()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_head_that_is_bent_behind_its_matrix_is_left_as_it_is(tiny_policy, letters):
    model = made("gpt2", tiny_policy, letters)
    before = model.score.weight.clone()
    probe = Scorer(model, letters, max_tokens=32)

    def bent():
        return [score**3 for score in probe.score_ids(ROWS)]

    scale = fold(model, bent(), bent)
    assert scale == ScoreScale()
    assert torch.equal(model.score.weight, before)


def test_a_model_without_a_record_is_read_as_it_is_and_a_record_can_be_dropped(
    tiny_policy, letters
):
    model = made("llama", tiny_policy, letters)
    assert ScoreScale.of(model) == ScoreScale()
    ScoreScale(shift=2.0, folded="config").keep_in(model)
    assert Scorer(model, letters, max_tokens=32).score_ids(ROWS) == pytest.approx(
        [score + 2.0 for score in own_scores(model)], abs=1e-5
    )
    forget(model)
    assert ScoreScale.of(model) == ScoreScale()


@pytest.mark.parametrize(
    ("dev", "weak"),
    [
        (None, False),
        ({"accuracy": 0.6, "accuracy_interval": [0.51, 0.7], "num_groups": 40}, False),
        ({"accuracy": 0.6, "accuracy_interval": [0.5, 0.7], "num_groups": 40}, True),
        ({"accuracy": 0.6, "accuracy_interval": [0.5, 0.7], "num_groups": 20}, True),
        ({"accuracy": 0.2, "accuracy_interval": [0.1, 0.3], "num_groups": 19}, False),
        ({"accuracy": 0.2, "accuracy_interval": None, "num_groups": 1}, False),
    ],
)
def test_a_model_is_weak_if_dev_could_not_show_that_it_beats_a_coin(dev, weak):
    assert (ScoreScale(dev=dev).why_weak() is not None) is weak
