"""A policy that learns adapters or its upper layers only, and what lies in memory once."""

import pytest
import torch

from policy.backbone import forward_logits, load_causal_lm
from policy.checkpoint import tensors_of
from policy.config import BadInput
from policy.ppo import Trainer
from policy.ppo_config import PPOConfig
from policy.ppo_models import Models, prompt_tokens
from policy.run import Run

LORA = {"lora_rank": 2}
FROZEN = {"frozen_layers": 1}


def says_sevens(prompts, completions):
    return [float(ids.count(7)) for ids in completions]


@pytest.fixture
def trained(tiny_policy, tmp_path):
    """A function that makes one update on a policy of one layer; the trainer, and its rollouts."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "p", "prompt": "a b"}\n')

    def make(kind="gpt2", reference=None, **settings) -> Trainer:
        init = tiny_policy(kind)
        config = PPOConfig(
            steps=4, rollouts_per_step=8, max_response_tokens=6, baseline_samples=0,
            warmup_steps=0, lr_peak=1e-2, **settings,
        )  # fmt: skip
        inputs = {"init": init, "reference": reference or init}
        models = Models.load(config, inputs, score_fn=says_sevens, device="cpu")
        drawn_from = prompt_tokens(prompts, models.tokenizer, config, context=32)
        run = Run(tmp_path / "out", command="ppo", config=config, inputs=inputs)
        with run:
            trainer = Trainer(run, models, drawn_from, config)
            trainer.update(trainer.collect(1))
        return trainer

    return make


def logits_of(model) -> torch.Tensor:
    ids = torch.arange(2, 16)[None]
    with torch.no_grad():
        return forward_logits(model, ids, torch.ones_like(ids, dtype=torch.bool))


def places(*models) -> dict[int, int]:
    """Where parameters lie -> how many numbers."""
    return {p.data_ptr(): p.numel() for model in models for p in model.parameters()}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_adapters_learn_over_one_base_and_are_published_merged(
    trained, tiny_policy, tmp_path, kind
):
    trainer = trained(kind, **LORA)
    models = trainer.models
    began, _ = load_causal_lm(tmp_path / "init")
    torch.testing.assert_close(logits_of(models.reference), logits_of(began), rtol=0, atol=0)
    assert (logits_of(models.policy) - logits_of(began)).abs().max() > 1e-3
    models.save(tmp_path / "saved")
    saved, _ = load_causal_lm(tmp_path / "saved")
    assert tensors_of(saved).keys() == tensors_of(began).keys()
    torch.testing.assert_close(logits_of(saved), logits_of(models.policy), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits_of(models.reference), logits_of(began), rtol=0, atol=0)


def test_one_base_serves_policy_reference_and_the_copies_that_are_kept(trained):
    trainer = trained(**LORA)
    policy, reference = trainer.models.policy, trainer.models.reference
    adapters = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert 0 < adapters < 0.3 * sum(places(reference).values())
    kept = [trainer.budget.within, trainer.best.model]
    together = sum(places(policy, reference, *kept).values())
    assert together == sum(places(reference).values()) + 3 * adapters


def test_frozen_layers_are_the_references_own(trained, tmp_path):
    trainer = trained(**FROZEN)
    policy, reference = trainer.models.policy, trainer.models.reference
    began = tensors_of(load_causal_lm(tmp_path / "init")[0])
    after = tensors_of(policy)
    moved = {name for name in began if not torch.equal(began[name], after[name])}
    assert moved == {"transformer.ln_f.weight", "transformer.ln_f.bias"}  # the head is tied
    assert all(torch.equal(began[name], it) for name, it in tensors_of(reference).items())
    own = places(policy).keys() - places(reference).keys()
    assert len(own) == 2


def test_another_reference_is_a_copy_of_its_own(trained, tiny_policy):
    trainer = trained(reference=tiny_policy(seed=9, name="root"), **LORA)
    assert not places(trainer.models.policy).keys() & places(trainer.models.reference).keys()


def test_more_frozen_layers_than_there_are_is_refused(trained):
    with pytest.raises(BadInput, match="frozen_layers must be at most 1, the policy's layers: 2"):
        trained(frozen_layers=2)


def test_adapters_and_frozen_layers_exclude_each_other():
    with pytest.raises(BadInput, match="lora_rank 2 or frozen_layers 1, not both"):
        PPOConfig(**LORA, **FROZEN)
