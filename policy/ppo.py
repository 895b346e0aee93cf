"""PPO of a policy against a reward model (arXiv:1909.08593, 2203.02155, 2403.17031); RLOO and GRPO.

A step: draw prompts, sample an answer to each, score it, subtract the mean score of the reference's
own answers to the prompt, penalise the KL to the reference per token, estimate advantages, update
policy and value model. RLOO and GRPO sample several answers to each prompt and differ in the
advantage alone (policy/update.py): there is no value model, and the reference's answers, which
would cancel, are not asked for.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from policy import guard, texts
from policy.alarms import Alarms
from policy.backbone import context_of, save_model
from policy.baseline import ReferenceAnswers, ReferenceBaseline, missing_end
from policy.best import Best
from policy.checkpoint import Checkpoint, fingerprint, tensors_of
from policy.config import Diverged, load_config, require
from policy.kl import AdaptiveKL, FixedKL, KLController
from policy.kl_budget import KLBudget
from policy.optim import adamw, lr_at, require_finite, set_lr
from policy.ppo_config import PPOConfig
from policy.ppo_metrics import Clock, reward_metrics, rollout_metrics, value_metrics
from policy.ppo_models import Models, draw, prompt_tokens, require_text_fits
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
from policy.reward import REWARD_SETTINGS, Judged, names_and_weights
from policy.rollout import PromptTokens, Rollouts, ScoreFn, recompute, write_shard
from policy.run import Run, add_training_arguments, device_from, seed_for
from policy.sampling import Sampled, sample
from policy.sharing import whole
from policy.text import decode_completion, end_token_id
from policy.update import targets_of, update_policy, update_value

OnStep = Callable[[int, Mapping[str, float]], None]


def train(
    config: PPOConfig,
    *,
    init: Path | str,
    prompts: Path | str,
    out: Path | str,
    reward_model: Path | str | Sequence[Path | str] | None = None,
    score_fn: ScoreFn | None = None,
    reference: Path | str | None = None,
    value_init: Path | str | None = None,
    resume_from: Sequence[Path | str] = (),
    device: str = "cpu",
    processes: Processes = ALONE,
    on_step: OnStep | None = None,
) -> None:
    """Train and publish OUT, the policy, with OUT/value/ beside it where there is a value model.

    reward_model: a directory that policy.scoring reads, or several, weighed by
    config.reward_weights; or score_fn in their place. reference: where
    KL is measured from, `init` unless given. value_init: backbone of the value model; unless given
    the reward model's where it fits, else the policy's. processes: that train together; each runs
    this function, and on_step, which is called with each step's metrics.
    Raises BadInput, Stopped and Diverged as every training command does.
    """
    require(
        (reward_model is None) != (score_fn is None),
        "PPO wants a reward model or a score function, one of the two",
    )
    several = [reward_model] if isinstance(reward_model, Path | str) else reward_model or []
    names = [name for name, _ in names_and_weights(config, len(several))] if several else []
    named = {
        "init": init,
        "reference": reference or init,
        **dict(zip(names, several, strict=True)),
        "value_init": value_init,
        "ptx_data": config.ptx_data,
        "prompts": prompts,
    }
    inputs = {name: path for name, path in named.items() if path is not None}
    models = Models.load(config, inputs, score_fn=score_fn, device=device, processes=processes)
    drawn_from = prompt_tokens(prompts, models.tokenizer, config, context_of(models.policy))
    require_text_fits(
        models.scorers,
        models.tokenizer,
        (prompt.messages for prompt in drawn_from),
        config.max_response_tokens,
        "max_response_tokens",
    )
    with opened(
        processes,
        lambda: Run(
            out,
            command="ppo",
            config=config,
            inputs=inputs,
            resume_from=resume_from,
            carried=("rollouts", texts.FOLDER, "baselines", guard.FOLDER),
            num_processes=processes.count,
        ),
    ) as run:
        trainer = Trainer(run, models, drawn_from, config, processes)
        trainer.train(on_step)
        run.finish(trainer.publish, trainer.fingerprints())


class Trainer:
    """What changes from step to step, and the step itself.

    Of several processes each samples, scores and looks at its share of the prompts, and all are
    told of the whole rollout: advantages, figures and decisions are then computed by each from the
    same numbers. A gradient is summed over the processes, so that all take the same step.
    """

    def __init__(
        self,
        run: Run | Follower,
        models: Models,
        prompts: list[PromptTokens],
        config: PPOConfig,
        processes: Processes = ALONE,
    ) -> None:
        self.run = run
        self.processes = processes
        self.models = models
        self.prompts = prompts
        self.config = config
        precision = config.precision
        self.policy = Reader(models.policy, head=models.head, precision=precision)
        self.reference = Reader(models.reference, precision=precision)
        self.value: Reader | None = None
        self.policy_optimizer = adamw(
            models.policy,
            lr=config.lr_peak,
            weight_decay=config.weight_decay,
            eps=config.adam_eps,
        )
        self.value_optimizer: torch.optim.Optimizer | None = None
        if models.head is not None:
            self.policy_optimizer.add_param_group(
                {"params": list(models.head.parameters()), "weight_decay": 0.0}
            )
        elif models.value is not None:
            self.value = Reader(models.value, precision=precision)
            self.value_optimizer = adamw(
                models.value,
                lr=config.value_lr_peak,
                weight_decay=config.weight_decay,
                eps=config.adam_eps,
            )
        self.controller = kl_controller(config)
        limits: dict[str, Any] = {"limit_nats": config.kl_stop_nats, "past": config.kl_smoothing}
        self.budget = KLBudget(models.policy_and_head, **limits)
        self.best: Best | None = None
        if config.keep_best:
            self.best = Best(models.policy, **limits)
        self.watched = [model.name for model in models.reward.models if not model.weight]
        self.alarms = Alarms(config, watched=self.watched, tells=processes.is_first)
        self.guard = guard.Guard(run, most_in_a_row=config.skips_in_a_row)
        self.clock = Clock()
        self.baseline = self._baseline()
        if run.restored is not None:
            self.restore(run.restored)
            self.guard.restore(run.restored.state["guard"])

    def train(self, on_step: OnStep | None) -> None:
        """All steps that are left, then a look at the last policy; ends early at kl_stop_nats."""
        total, every = self.config.steps, self.config.checkpoint_every
        require_room(self.processes, self.run, self.modules(), total=total, every=every)
        if self.run.restored is None:
            cut = sum(prompt.dropped_turns > 0 for prompt in self.prompts)
            self.run.log_step(0, "prompts", prompts=len(self.prompts), prompts_cut=cut)
        for step in range(self.run.first_step + 1, total + 1):
            rollouts = None
            try:
                rollouts = self.collect(step)
                if self.budget.is_spent(rollouts.kl_nats):
                    self.run.log_step(step, "kl_stop", **self.budget.go_back())
                    return
                self.look_for_best(rollouts, steps_done=step - 1)
                metrics = self.update(rollouts)
            except Diverged as problem:
                self.skip(step, rollouts, problem)
            else:
                self.tell(rollouts, metrics)
                if on_step is not None:
                    on_step(step, metrics)
            self.run.progress(step, total, "ppo")
            due = step % every == 0 and not self.guard.in_a_row
            should_stop = self.processes.any(self.run.should_stop)
            if should_stop or due:  # a skipped step's would push out the good ones
                self.save(step)
            if should_stop:
                self.run.stop_here(step)
        final = self.collect(total + 1)
        if self.budget.is_spent(final.kl_nats):
            self.run.log_step(total + 1, "kl_stop", **self.budget.go_back())
            return
        self.look_for_best(final, steps_done=total)
        self.hold_best_against(final, steps_done=total)
        self.run.log_step(total, "final", **self.metrics_of(final))

    def tell(self, rollouts: Rollouts, metrics: dict[str, float]) -> None:
        """What a step did, in its shard, its metrics and its alarms."""
        self.guard.good_step()
        step = rollouts.step
        alarms = self.alarms.look(step, metrics, rollouts)
        if self.processes.is_first:
            write_shard(self.run.directory, rollouts, self.decode)
            texts.write_texts(self.run.directory, rollouts, self.decode)
        self.run.log_step(step, "ppo", **metrics, alarms=len(alarms))
        if alarms:
            self.run.log_step(step, "alarms", **{alarm.name: alarm.value for alarm in alarms})

    def skip(self, step: int, rollouts: Rollouts | None, problem: Diverged) -> None:
        """Leave the rest of this step out, or go back to the last checkpoint (policy/guard.py)."""
        for optimizer in self.optimizers():
            optimizer.zero_grad(set_to_none=True)
        prompts = self.prompts_of(step) if rollouts is None else rollouts.prompts
        data: dict[str, Any] = {"prompts": [prompt.id for prompt in prompts]}
        if rollouts is not None:
            data["answers"] = [self.decode(sample.tokens) for sample in rollouts.samples]
            data["scores"] = rollouts.scores.tolist()
        if (back := self.guard.skip(step, problem, data)) is not None:
            self.restore(back)

    def look_for_best(self, rollouts: Rollouts, *, steps_done: int) -> None:
        if self.best is None:
            return
        self.best.look(
            self.models.policy,
            steps_done=steps_done,
            score=self.score_for_best(rollouts),
            kl_nats=rollouts.kl_nats,
        )

    def score_for_best(self, answers: Rollouts | Judged) -> float:
        """By the watched reward model where there is one."""
        scores = answers.seen[self.watched[0]] if self.watched else answers.scores
        return statistics.fmean(map(float, scores))

    def hold_best_against(self, final: Rollouts, *, steps_done: int) -> None:
        """Ask the best policy what the last was asked, with the same seeds: each step has other
        prompts, and may have had easier ones. The last one is the best unless that scores higher.
        """
        best = self.best
        if best is None or best.score is None or best.step == steps_done:
            return
        if not best.is_within(final.kl_nats):
            return
        asked = [prompt.ids for prompt in final.prompts]
        samples = self.sample_from(best.model, asked, final.seeds)
        judged = self.models.reward.judge(final.prompts, self.whole(samples))
        score = self.score_for_best(final)
        if not self.score_for_best(judged) > score:
            kl_nats = final.kl_nats
            best.take(self.models.policy, steps_done=steps_done, score=score, kl_nats=kl_nats)

    def publish(self, directory: Path) -> None:
        """The policy and its value model, and the best policy where that is another one."""
        self.models.save(directory)
        if self.best is None or self.best.score is None:
            return
        best, last = tensors_of(self.best.model), tensors_of(self.models.policy)
        if not all(torch.equal(best[name], last[name]) for name in last):
            (directory / "best").mkdir()
            kept = {"kept_step": self.best.step, "score": self.best.score}
            self.run.log_step(self.config.steps, "kept", **kept, kl_nats=self.best.kl_nats)
            best_policy = whole(self.best.model, self.config)
            save_model(best_policy, self.models.tokenizer, directory / "best")

    def collect(self, step: int) -> Rollouts:
        """Sample, score, and look at the answers with every model; nothing is changed."""
        config, models = self.config, self.models
        self.clock.reset()
        prompts = self.prompts_of(step)
        seeds = [seed_for(config.seed, step, "rollout", row) for row in range(len(prompts))]
        with self.clock.timed("rollout"):
            samples = self.sample_from(models.policy, [prompt.ids for prompt in prompts], seeds)
        with self.clock.timed("score"):
            judged = self.models.reward.judge(prompts, self.whole(samples))
            scores = torch.tensor(judged.scores)
        require_finite(score=scores)
        with self.clock.timed("baseline"):
            answers = self.reference_answers(prompts, step)
        device = models.policy.device
        rollouts = Rollouts.of(
            step=step,
            prompts=prompts,
            samples=samples,
            seeds=seeds,
            pad_id=models.tokenizer.pad_token_id,
            scores=scores,
            baselines=torch.tensor([statistics.fmean(a.scores) if a else 0.0 for a in answers]),
            missing_end=torch.tensor(
                [
                    missing_end(config, sample, score, answer)
                    for sample, score, answer in zip(samples, scores.tolist(), answers, strict=True)
                ]
            ),
            device=device,
            parts=judged.parts,
            seen=judged.seen,
        )
        with self.clock.timed("forward"):
            recompute(
                rollouts,
                policy=self.policy,
                reference=self.reference,
                value=self.value,
                temperature=config.temperature,
                max_tokens=config.micro_batch_tokens,
                processes=self.processes,
            )
        require_finite(logprobs=rollouts.logprobs, ref_logprobs=rollouts.ref_logprobs)
        return rollouts

    def update(self, rollouts: Rollouts) -> dict[str, float]:
        """Both models' updates and the KL coefficient's; the step's metrics."""
        config, models, step = self.config, self.models, rollouts.step
        kl_coef = self.controller.value
        rate = self.rate_at(step, config.lr_peak, waits=config.value_warmup_steps)
        targets = targets_of(rollouts, config, kl_coef=kl_coef)
        metrics = self.metrics_of(rollouts) | reward_metrics(targets)
        metrics |= {"kl_coef": kl_coef, "lr": rate}
        if models.value is not None:
            metrics |= value_metrics(rollouts, targets)
        set_lr(self.policy_optimizer, rate)
        value_rate = self.rate_at(step, config.value_lr_peak)
        if models.head is not None:
            self.policy_optimizer.param_groups[-1]["lr"] = value_rate
        with self.clock.timed("update"):
            if step > config.value_warmup_steps:
                metrics |= update_policy(
                    *(self.policy, self.policy_optimizer, rollouts, targets, config, models.text),
                    processes=self.processes,
                ).metrics()
            if self.value is not None and self.value_optimizer is not None:
                set_lr(self.value_optimizer, value_rate)
                metrics |= update_value(
                    *(self.value, self.value_optimizer, rollouts, targets, config), self.processes
                )
        if rate > 0:  # else the policy stood where it was
            self.controller.update(metrics["kl_nats"], len(rollouts))
        return metrics | self.clock.metrics()

    def rate_at(self, step: int, peak: float, *, waits: int = 0) -> float:
        """waits: steps before the first that learns."""
        if step <= waits:
            return 0.0
        total, warmup = self.config.steps - waits, self.config.warmup_steps
        return lr_at(step - 1 - waits, total=total, peak=peak, warmup=warmup)

    def metrics_of(self, rollouts: Rollouts) -> dict[str, float]:
        return rollout_metrics(rollouts) | {"kl_smoothed": self.budget.smoothed or 0.0}

    # Parts of a step

    def prompts_of(self, step: int) -> list[PromptTokens]:
        """One for each rollout; those of one prompt stand together."""
        config, answers_each = self.config, self.config.answers_per_prompt
        num_prompts = config.rollouts_per_step // answers_each
        drawn = draw(self.prompts, num_prompts, seed=config.seed, step=step)
        return [prompt for prompt in drawn for _ in range(answers_each)]

    def sample_from(
        self, model: Any, prompt_ids: Sequence[list[int]], seeds: Sequence[int]
    ) -> list[Sampled]:
        def some(rows: list[int]) -> list[Sampled]:
            return sample(
                model,
                self.models.tokenizer,
                [prompt_ids[row] for row in rows],
                temperature=self.config.temperature,
                max_new_tokens=self.config.max_response_tokens,
                seeds=[seeds[row] for row in rows],
                precision=self.config.precision,
            )

        def prompt_tokens_of(rows: Sequence[int]) -> int:
            return len(rows) * len(prompt_ids[rows[0]])

        return self.processes.spread(neighbours(prompt_ids), some, prompt_tokens_of)

    def score(self, prompts: Sequence[PromptTokens], samples: Sequence[Sampled]) -> Sequence[float]:
        return self.models.reward(prompts, self.whole(samples))

    def whole(self, samples: Sequence[Sampled]) -> list[list[int]]:
        """The answers as they are scored; what is missing costs `missing_end` besides."""
        end = end_token_id(self.models.tokenizer)
        return [one.ended(end) for one in samples]

    def reference_answers(
        self, prompts: Sequence[PromptTokens], step: int
    ) -> Sequence[ReferenceAnswers | None]:
        if self.baseline is None:
            return [None] * len(prompts)
        return self.baseline.answers(prompts, step=step)

    def decode(self, ids: list[int]) -> str:
        return decode_completion(self.models.tokenizer, ids)

    def _baseline(self) -> ReferenceBaseline | None:
        config = self.config
        if config.compares_answers or not config.baseline_samples:
            return None
        identity: Any = self.run.identity
        inputs = identity["inputs"]
        return ReferenceBaseline(
            sample=lambda ids, seeds: self.sample_from(self.models.reference, ids, seeds),
            score=self.score,
            answers_per_prompt=config.baseline_samples,
            folder=self.run.directory / "baselines",
            shared=Path(config.baseline_cache) if config.baseline_cache else None,
            key={
                "reference": inputs["reference"],
                "reward_models": [
                    inputs[name] for name in inputs if name.startswith("reward_model")
                ]
                or "a function",
                **{name: getattr(config, name) for name in REWARD_SETTINGS},
                "temperature": config.temperature,
                "precision": config.precision,
                "max_response_tokens": config.max_response_tokens,
            },
            processes=self.processes,
        )

    # Checkpoints

    def save(self, step: int) -> None:
        self.run.save_checkpoint(step, modules=self.modules(), state=self.state())
        self.processes.wait()  # whoever goes back to it must find it

    def state(self) -> dict[str, Any]:
        """All that changes besides weights; draws are by counter and leave none."""
        return {
            "optimizers": [each.state_dict() for each in self.optimizers()],
            "kl_coef": self.controller.value,
            "kl_smoothed": self.budget.smoothed,
            "alarms": self.alarms.state(),
            "guard": self.guard.state(),
            "best": {} if self.best is None else self.best.state(),
        }

    def fingerprints(self) -> dict[str, str]:
        """sha256 of everything that a checkpoint would hold now, by name."""
        weights = {f"{name}_weights": tensors_of(each) for name, each in self.modules().items()}
        return {name: fingerprint(value) for name, value in (weights | self.state()).items()}

    def modules(self) -> dict[str, Any]:
        """All whose weights change."""
        named = {
            "policy": self.models.policy,
            "value": self.models.value,
            "within_budget": self.budget.within,
            "best": None if self.best is None else self.best.model,
        }
        return {name: module for name, module in named.items() if module is not None}

    def optimizers(self) -> list[torch.optim.Optimizer]:
        both = (self.policy_optimizer, self.value_optimizer)
        return [optimizer for optimizer in both if optimizer is not None]

    def restore(self, saved: Checkpoint) -> None:
        """Be as after the checkpoint's step; what was skipped since stays counted."""
        for name, module in self.modules().items():
            saved.restore(name, module)
        for optimizer, state in zip(self.optimizers(), saved.state["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.controller.value = saved.state["kl_coef"]
        self.budget.smoothed = saved.state["kl_smoothed"]
        self.alarms.restore(saved.state["alarms"])
        if self.best is not None:
            self.best.restore(saved.state["best"])


def kl_controller(config: PPOConfig) -> KLController:
    """Adaptive where the config names a target."""
    if config.kl_target_nats is None:
        return FixedKL(config.kl_coef)
    return AdaptiveKL(config.kl_coef, target_nats=config.kl_target_nats, horizon=config.kl_horizon)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m policy ppo`."""
    parser.add_argument("--init", required=True, metavar="DIR", help="policy to start from")
    parser.add_argument(
        "--reference", metavar="DIR", help="KL is measured from it; --init if absent"
    )
    parser.add_argument(
        "--reward-model",
        required=True,
        action="append",
        metavar="DIR",
        help="may be given again: weights are --set 'reward_weights=[1, 0.5]', 0 only watches",
    )
    parser.add_argument("--value-init", metavar="DIR", help="backbone of the value model")
    parser.add_argument("--prompts", required=True, type=Path, metavar="FILE")
    add_training_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    """`python -m policy ppo`."""
    config = load_config(PPOConfig, args.config, args.overrides)
    with joined(device_from(args.device)) as (processes, device):
        train(
            config,
            init=args.init,
            reference=args.reference,
            reward_model=args.reward_model,
            value_init=args.value_init,
            prompts=args.prompts,
            out=args.out,
            resume_from=args.resume_from,
            device=device,
            processes=processes,
        )
    return 0
