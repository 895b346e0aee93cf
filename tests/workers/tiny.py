"""Tiny real models for the tests of the workers: a GPT of one layer and its reward model."""

from pathlib import Path
from typing import Any

from annotation.models import ModelVersion
from annotation.services import versions
from policy.backbone import GPTShape, new_gpt, save_model, score_model_from
from policy.ensemble import Ensemble, Member
from policy.score_scale import ScoreScale
from policy.tokenizer import train_tokenizer

TEXTS = ("Where is the red cat?", "The red cat is in the house.", "The dog eats a small fish.")


def tiny_policy(folder: Path, *, seed: int = 0) -> Path:
    """A directory with a random GPT that talks bytes."""
    tokenizer = train_tokenizer(TEXTS, vocab_size=300, context=64)
    shape = GPTShape(width=16, layers=1, heads=1, context=64)
    folder.mkdir(parents=True)
    save_model(new_gpt(tokenizer, shape, seed=seed), tokenizer, folder)
    return folder


def slow_policy(folder: Path, *, seed: int = 0) -> Path:
    """One that takes seconds for an answer, with room for hundreds of tokens."""
    tokenizer = train_tokenizer(TEXTS, vocab_size=300, context=2048)
    shape = GPTShape(width=256, layers=6, heads=4, context=2048)
    folder.mkdir(parents=True)
    save_model(new_gpt(tokenizer, shape, seed=seed), tokenizer, folder)
    return folder


def tiny_reward(folder: Path, policy: Path, *, seed: int = 0) -> Path:
    """A directory with a reward model on the policy's trunk and a random head."""
    model, tokenizer = score_model_from(policy, seed=seed)
    model.score.weight.data.normal_(std=1.0)
    folder.mkdir(parents=True)
    save_model(model, tokenizer, folder)
    return folder


def tiny_ensemble(folder: Path) -> Path:
    """A directory of two reward models that disagree."""
    for number in range(2):
        policy = tiny_policy(folder.with_name(f"{folder.name}-policy-{number}"), seed=number)
        tiny_reward(folder / f"member-{number}", policy, seed=number)
    members = tuple(
        Member(directory=f"member-{number}", mean=0.0, deviation=1.0, nats=1.0, sha256="")
        for number in range(2)
    )
    Ensemble(rule="mean", uncertainty_weight=0.0, members=members, scale=ScoreScale()).save(folder)
    return folder


def save_again(version: ModelVersion, model: Any, tokenizer: Any) -> None:
    """Change the files of a version, and the hash by which loaded models are kept."""
    directory = versions.directory_of(version)
    save_model(model, tokenizer, directory)
    version.sha256 = versions.sha256_of_directory(directory)
    version.save()
