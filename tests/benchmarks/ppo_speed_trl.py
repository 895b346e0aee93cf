"""TRL's side of ppo_speed.py: runs in TRL's environment and imports nothing of Concord.

    python ppo_speed_trl.py FOLDER ppo|grpo|rloo fp32|bf16 STEPS cpu|cuda

PPO is TRL 1.12's, the others TRL 1.16's; each without gradient checkpointing, which costs speed.
"""

import json
import resource
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

PER_STEP, MAX_RESPONSE = 32, 64


class Moments(TrainerCallback):
    """When each step was over."""

    def __init__(self):
        self.at = []

    def on_step_end(self, args, state, control, **kwargs):
        self.at.append(time.perf_counter())


def ppo(folder, common, tokenizer, ids, moments, steps):
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    scored = [
        AutoModelForSequenceClassification.from_pretrained(folder / "reward", num_labels=1)
        for _ in range(2)
    ]
    config = PPOConfig(
        **common,
        per_device_train_batch_size=PER_STEP,
        num_mini_batches=1,
        num_ppo_epochs=4,
        total_episodes=PER_STEP * steps,
        num_sample_generations=0,
        response_length=MAX_RESPONSE,
        stop_token="eos",
    )
    return PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(folder / "policy"),
        ref_model=AutoModelForCausalLM.from_pretrained(folder / "policy"),
        reward_model=scored[0],
        value_model=scored[1],
        train_dataset=Dataset.from_list([{"input_ids": row} for row in ids]),
        eval_dataset=Dataset.from_list([{"input_ids": row} for row in ids[:PER_STEP]]),
        callbacks=[moments],
    )


def grouped(kind, folder, common, tokenizer, ids, moments, steps):
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    kinds = {"grpo": (GRPOConfig, GRPOTrainer), "rloo": (RLOOConfig, RLOOTrainer)}
    make_config, make_trainer = kinds[kind]
    config = make_config(
        **common,
        per_device_train_batch_size=PER_STEP,
        num_generations=4,
        num_iterations=1,
        max_completion_length=MAX_RESPONSE,
        max_steps=steps,
        beta=0.05,
        temperature=0.7,
    )
    texts = [tokenizer.decode(row) for row in ids]  # it takes texts, and gets the same ids back
    return make_trainer(
        args=config,
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(folder / "policy"),
        reward_funcs=AutoModelForSequenceClassification.from_pretrained(
            folder / "reward", num_labels=1
        ),
        reward_processing_classes=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": text} for text in texts]),
        callbacks=[moments],
    )


def main() -> None:
    folder, case, precision, steps = Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])
    device = sys.argv[5]
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
    common = {
        "output_dir": str(folder / "trl-out"),
        "learning_rate": 1e-5,
        "bf16": precision == "bf16",
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": device == "cpu",
        "disable_tqdm": True,
        "optim": "adamw_torch_fused",
    }
    moments = Moments()
    given = (folder, common, tokenizer, ids, moments, steps)
    trainer = ppo(*given) if case == "ppo" else grouped(case, *given)
    began = time.perf_counter()
    trainer.train()
    at = [began, *moments.at]
    usual = statistics.median(b - a for a, b in pairwise(at[1:]))
    print(
        json.dumps(
            {
                "count": PER_STEP,
                "seconds": usual,
                "warm_up_seconds": at[1] - at[0] - usual,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                if device == "cpu"
                else torch.cuda.max_memory_allocated() / 2**20,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
