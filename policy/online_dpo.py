"""`policy online-dpo`: DPO on the policy's own answers, ordered by a reward model as they come.

A step (arXiv:2402.04792, with a reward model as the annotator): draw prompts, sample K answers to
each from the policy as it is, score them, take the best and the worst of each prompt as a pair, one
step of DPO's loss against the reference. Answers of one score make no pair.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy.answer_figures import outcome
from policy.backbone import context_of, load_causal_lm, save_model
from policy.config import load_config, refuse_idle, require, require_all_positive
from policy.ensemble import Scored
from policy.kl import k1, k3
from policy.kl_budget import KLBudget
from policy.optim import adamw, lr_at, require_finite, set_lr
from policy.pairs import Example, PairConfig, train_step
from policy.ppo_models import (
    draw,
    plain,
    prompt_tokens,
    require_text_fits,
    scored_fn_of,
    scorers_of,
)
from policy.processes import (
    ALONE,
    Follower,
    Processes,
    joined,
    neighbours,
    opened,
    require_room,
)
from policy.reader import Reader
from policy.response_logprobs import response_logprobs
from policy.reward import ScoredFn
from policy.rollout import PromptTokens, ScoreFn, distinct_n, shard_path
from policy.run import Run, add_training_arguments, device_from, seed_for
from policy.sampling import Sampled, sample
from policy.scoring import Scorer
from policy.text import decode_completion, end_token_id

OnStep = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineDPOConfig(PairConfig):
    """Online DPO against a reward model."""

    temperature: float = 0.7
    """Of the sampler and of every log-probability, the reference's too."""
    steps: int = 60
    prompts_per_step: int = 32
    answers_per_prompt: int = 2
    """K: the best and the worst of them are the pair."""
    max_prompt_tokens: int | None = None
    """None: whatever the context leaves beside the response. Oldest turns go first."""
    max_response_tokens: int = 64
    missing_end_score: float = 1.0
    """What an answer that was cut loses of its score."""
    warmup_steps: int = 4
    kl_stop_nats: float | None = 12.0
    """Smoothed nats per response at which training ends with the last weights below it."""
    kl_smoothing: float = 0.5
    """Weight of the past in that smoothed KL; 0 = the step's own."""
    allow_weak_reward: bool = False
    """Train even if the reward model's record says that it may be no better than a coin."""
    checkpoint_every: int = 10

    def __post_init__(self) -> None:
        PairConfig.__post_init__(self)
        require_all_positive(self, "steps", "prompts_per_step", "max_response_tokens")
        require(
            self.answers_per_prompt >= 2,
            f"answers_per_prompt must be 2 or more: {self.answers_per_prompt}",
        )
        for name in ("missing_end_score", "warmup_steps"):
            require(getattr(self, name) >= 0, f"{name} must be >= 0: {getattr(self, name)}")
        for name in ("max_prompt_tokens", "kl_stop_nats"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be above 0 or null: {value}")
        require(0 <= self.kl_smoothing < 1, f"kl_smoothing must be in [0, 1): {self.kl_smoothing}")
        if self.kl_stop_nats is None:
            refuse_idle(self, "kl_smoothing", where="with kl_stop_nats null")


@dataclass(frozen=True, slots=True)
class Answers:
    """A step's answers: K to each prompt, one prompt's together."""

    prompts: list[PromptTokens]
    seeds: list[int]
    samples: list[Sampled]
    scores: list[float]
    """Less what a missing end token costs."""
    reference: list[Tensor]
    """(tokens,) log-probs under the reference."""
    num_read_cut: int = 0
    """Too long for a reward model with another tokenizer."""

    @property
    def kl_nats(self) -> list[float]:
        """Of each answer, k1."""
        return [float(k1(own, ref).sum()) for own, ref in self._logprobs()]

    @property
    def kl_k3_nats(self) -> list[float]:
        return [float(k3(own, ref).sum()) for own, ref in self._logprobs()]

    def _logprobs(self) -> list[tuple[Tensor, Tensor]]:
        own = [torch.tensor(one.logprobs) for one in self.samples]
        return list(zip(own, self.reference, strict=True))

    def pairs(self, each: int) -> list[tuple[int, int]]:
        """Places of the best and the worst answer to each prompt, where one is better."""
        found = []
        for start in range(0, len(self.samples), each):
            places = range(start, start + each)
            best = max(places, key=self.scores.__getitem__)
            worst = min(places, key=self.scores.__getitem__)
            if outcome(self.scores[best], self.scores[worst]) == 1.0:
                found.append((best, worst))
        return found

    def metrics(self) -> dict[str, float]:
        count = len(self.samples)
        tokens = [one.tokens for one in self.samples]
        return {
            "score": sum(self.scores) / count,
            "kl_nats": sum(self.kl_nats) / count,
            "kl_nats_k3": sum(self.kl_k3_nats) / count,
            "response_tokens": sum(map(len, tokens)) / count,
            "end_rate": sum(one.finish == "end" for one in self.samples) / count,
            "distinct_2": distinct_n(tokens, 2),
            "read_cut": self.num_read_cut / count,
        }


def train(
    config: OnlineDPOConfig,
    *,
    init: Path | str,
    prompts: Path | str,
    out: Path | str,
    reward_model: Path | str | None = None,
    score_fn: ScoreFn | None = None,
    reference: Path | str | None = None,
    resume_from: Sequence[Path | str] = (),
    device: str = "cpu",
    processes: Processes = ALONE,
    on_step: OnStep | None = None,
) -> None:
    """Train and publish OUT. reward_model, or score_fn in its place; reference: `init` by default.

    Raises BadInput, Stopped and Diverged (policy/config.py).
    """
    require(
        (reward_model is None) != (score_fn is None),
        "online DPO wants a reward model or a score function, one of the two",
    )
    inputs = {"init": init, "reference": reference or init, "prompts": prompts}
    if reward_model is not None:
        inputs["reward_model"] = reward_model
    policy, tokenizer = load_causal_lm(init, device=device)
    root, root_tokenizer = load_causal_lm(inputs["reference"], device=device)
    require(
        root_tokenizer.get_vocab() == tokenizer.get_vocab(),
        f"the reference {inputs['reference']} has another tokenizer than {init}",
    )
    scorers: list[Scorer] = []
    if score_fn is None:
        scorers = scorers_of(config, inputs, tokenizer, device=device)
        score = scored_fn_of(scorers[0], tokenizer)
    else:
        score = plain(score_fn)
    drawn_from = prompt_tokens(prompts, tokenizer, config, context_of(policy))
    require_text_fits(
        scorers,
        tokenizer,
        (prompt.messages for prompt in drawn_from),
        config.max_response_tokens,
        "max_response_tokens",
    )
    with opened(
        processes,
        lambda: Run(
            out,
            command="online-dpo",
            config=config,
            inputs=inputs,
            resume_from=resume_from,
            carried=("rollouts",),
            num_processes=processes.count,
        ),
    ) as run:
        _Loop(run, policy, root, tokenizer, score, drawn_from, config, processes).train(on_step)
        run.finish(lambda folder: save_model(policy.eval(), tokenizer, folder))


class _Loop:
    """What changes from step to step."""

    def __init__(
        self,
        run: Run | Follower,
        policy: Any,
        reference: Any,
        tokenizer: Any,
        score: ScoredFn,
        prompts: list[PromptTokens],
        config: OnlineDPOConfig,
        processes: Processes,
    ) -> None:
        self.run, self.policy, self.config, self.processes = run, policy, config, processes
        self.reader = Reader(policy)
        self.reference = Reader(reference.requires_grad_(False))
        self.tokenizer, self.score, self.prompts = tokenizer, score, prompts
        self.optimizer = adamw(policy, lr=config.lr_peak, weight_decay=config.weight_decay)
        limit, past = config.kl_stop_nats, config.kl_smoothing
        self.budget = KLBudget(policy, limit_nats=limit, past=past)
        if run.restored:
            run.restored.restore("policy", policy)
            run.restored.restore("within_budget", self.budget.within)
            self.optimizer.load_state_dict(run.restored.state["optimizer"])
            self.budget.smoothed = run.restored.state["kl_smoothed"]

    def train(self, on_step: OnStep | None) -> None:
        """All steps that are left, then a look at the last policy; ends early at kl_stop_nats."""
        total, run, every = self.config.steps, self.run, self.config.checkpoint_every
        require_room(self.processes, run, self.modules(), total=total, every=every)
        if run.restored is None:
            cut = sum(prompt.dropped_turns > 0 for prompt in self.prompts)
            run.log_step(0, "prompts", prompts=len(self.prompts), prompts_cut=cut)
        for step in range(run.first_step + 1, total + 1):
            answers = self.collect(step)
            if self.budget.is_spent(answers.metrics()["kl_nats"]):
                run.log_step(step, "kl_stop", **self.budget.go_back())
                return
            metrics = self.update(step, answers)
            self.write_shard(step, answers)
            run.log_step(step, "online-dpo", **metrics)
            run.progress(step, total, "online-dpo")
            if on_step is not None:
                on_step(step, metrics)
            should_stop = self.processes.any(run.should_stop)
            if should_stop or step % every == 0:
                self.save(step)
            if should_stop:
                run.stop_here(step)
        final = self.collect(total + 1)
        if self.budget.is_spent(final.metrics()["kl_nats"]):
            run.log_step(total + 1, "kl_stop", **self.budget.go_back())
            return
        run.log_step(total, "final", **final.metrics())

    def collect(self, step: int) -> Answers:
        """Sample, score, and look at the answers with the reference; nothing is changed. Each
        process does so for its share of the prompts."""
        config = self.config
        drawn = draw(self.prompts, config.prompts_per_step, seed=config.seed, step=step)
        prompts = [prompt for prompt in drawn for _ in range(config.answers_per_prompt)]
        seeds = [seed_for(config.seed, step, "rollout", row) for row in range(len(prompts))]
        found = self.processes.spread(
            neighbours([prompt.ids for prompt in prompts]),
            lambda rows: self._answered([prompts[i] for i in rows], [seeds[i] for i in rows]),
            lambda rows: len(rows) * len(prompts[rows[0]].ids),
        )
        samples, scored, reference = map(list, zip(*found, strict=True))
        scores = [
            one.score - (0.0 if sampled.finish == "end" else config.missing_end_score)
            for one, sampled in zip(scored, samples, strict=True)
        ]
        require_finite(score=torch.tensor(scores))
        num_read_cut = sum(one.was_cut for one in scored)
        return Answers(prompts, seeds, samples, scores, reference, num_read_cut)

    def _answered(
        self, prompts: Sequence[PromptTokens], seeds: Sequence[int]
    ) -> list[tuple[Sampled, Scored, Tensor]]:
        config, ids = self.config, [prompt.ids for prompt in prompts]
        samples = sample(
            self.policy,
            self.tokenizer,
            ids,
            temperature=config.temperature,
            max_new_tokens=config.max_response_tokens,
            seeds=seeds,
        )
        end = end_token_id(self.tokenizer)
        scored = self.score(prompts, [one.ended(end) for one in samples])
        reference = response_logprobs(
            self.reference,
            ids,
            [one.tokens for one in samples],
            temperature=config.temperature,
            max_tokens=config.micro_batch_tokens,
        )
        return list(zip(samples, scored, reference, strict=True))

    def update(self, step: int, answers: Answers) -> dict[str, float]:
        """DPO's step on the pairs of these answers; the metrics."""
        config = self.config
        lr = lr_at(step - 1, total=config.steps, peak=config.lr_peak, warmup=config.warmup_steps)
        set_lr(self.optimizer, lr)
        pairs = answers.pairs(config.answers_per_prompt)
        metrics = answers.metrics() | {"pairs": len(pairs), "lr": lr}
        if not pairs:
            return metrics
        examples = [
            Example(
                answers.prompts[best].ids,
                [answers.samples[best].tokens, answers.samples[worst].tokens],
                pairs=((0, 1),),
                targets=(1.0,),
                weights=(1.0,),
            )
            for best, worst in pairs
        ]
        reference = [
            torch.stack([answers.reference[best].sum(), answers.reference[worst].sum()])
            for best, worst in pairs
        ]
        return metrics | train_step(
            self.reader, self.optimizer, examples, reference, config, self.processes
        )

    def write_shard(self, step: int, answers: Answers) -> None:
        """The step's answers as rows of a file, in the run's folder."""
        rows = zip(
            *(answers.prompts, answers.samples, answers.seeds, answers.scores, answers.kl_nats),
            strict=True,
        )
        lines = [
            {
                "step": step,
                "prompt_id": prompt.id,
                "tokens": [*prompt.ids, *one.tokens],
                "response_start": len(prompt.ids),
                "logprobs": one.logprobs,
                "score": score,
                "kl": kl,
                "seed": seed,
                "finish": one.finish,
                "text": decode_completion(self.tokenizer, one.tokens),
            }
            for prompt, one, seed, score, kl in rows
        ]
        name = str(shard_path(Path(), step))
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        self.run.write_beside(name, text)

    def modules(self) -> dict[str, Any]:
        """All whose weights change."""
        return {"policy": self.policy, "within_budget": self.budget.within}

    def save(self, step: int) -> None:
        self.run.save_checkpoint(
            step,
            modules=self.modules(),
            state={"optimizer": self.optimizer.state_dict(), "kl_smoothed": self.budget.smoothed},
        )
        self.processes.wait()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--init", required=True, metavar="DIR", help="policy to start from")
    parser.add_argument("--reference", metavar="DIR", help="--init if absent")
    parser.add_argument("--reward-model", required=True, metavar="DIR")
    parser.add_argument("--prompts", required=True, type=Path, metavar="FILE")
    add_training_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    """`python -m policy online-dpo`."""
    config = load_config(OnlineDPOConfig, args.config, args.overrides)
    with joined(device_from(args.device)) as (processes, device):
        train(
            config,
            init=args.init,
            reference=args.reference,
            reward_model=args.reward_model,
            prompts=args.prompts,
            out=args.out,
            resume_from=args.resume_from,
            device=device,
            processes=processes,
        )
    return 0
