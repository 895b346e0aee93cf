"""TRL's RewardTrainer and KTOTrainer on exports as they are: no column is touched.

    python trl_takes_export.py --model DIR [--trl EXPORT] [--unpaired EXPORT] [--steps N] [--rows N]

Runs in TRL's environment (trl 1.16 beside the torch and transformers of the lock file) and imports
nothing of Concord. EXPORT is a folder that `export_dataset` wrote, read by `load_dataset`; DIR a
causal LM whose tokenizer may lack a chat template: a plain one is used then. A line of JSON per
trainer goes to stdout: means over the first and over the last AT_ENDS steps of the loss, and of
what the trainer calls accuracy (reward model) or the margin of rewards (KTO).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import trl
from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PrinterCallback,
)
from trl import KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

PLAIN_TEMPLATE = (
    "{% for one in messages %}{{ one['role'] }}: {{ one['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
PER_STEP = 8
MAX_TOKENS = 512
SEED = 0
AT_ENDS = 5


def tokenizer_of(model: Path) -> PreTrainedTokenizerBase:
    """The model's, with a chat template and a padding token."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_TEMPLATE
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def train_split(export: Path, rows: int, cache: str) -> Any:
    """The export's train rows, with every column that it has."""
    found = load_dataset(str(export), split="train", cache_dir=cache)
    return found.select(range(min(rows, found.num_rows)))


def told(name: str, rows: int, log: list[dict[str, Any]], measured: tuple[str, ...]) -> None:
    """What a trainer logged, as one line."""
    steps = [one for one in log if "loss" in one]
    line: dict[str, Any] = {"trainer": name, "trl": trl.__version__, "rows": rows}
    line["steps"] = steps[-1]["step"]
    for key in ("loss", *measured):
        found = [one[key] for one in steps]
        line[key] = [round(fmean(some), 4) for some in (found[:AT_ENDS], found[-AT_ENDS:])]
    sys.stdout.write(json.dumps(line) + "\n")


def settings(folder: str, steps: int) -> dict[str, Any]:
    """What both trainers are told."""
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": PER_STEP,
        "max_length": MAX_TOKENS,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
        "bf16": False,
        "use_cpu": not torch.cuda.is_available(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--trl", type=Path, help="an export of format trl")
    parser.add_argument("--unpaired", type=Path, help="an export of format unpaired")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1000)
    asked = parser.parse_args()
    torch.manual_seed(SEED)
    tokenizer = tokenizer_of(asked.model)
    with tempfile.TemporaryDirectory() as folder:
        if asked.trl:
            scorer = AutoModelForSequenceClassification.from_pretrained(asked.model, num_labels=1)
            scorer.config.pad_token_id = tokenizer.pad_token_id
            data = train_split(asked.trl, asked.rows, folder)
            reward = RewardTrainer(
                model=scorer,
                args=RewardConfig(**settings(folder, asked.steps)),
                processing_class=tokenizer,
                train_dataset=data,
            )
            reward.remove_callback(PrinterCallback)
            reward.train()
            told("RewardTrainer", data.num_rows, reward.state.log_history, ("accuracy",))
        if asked.unpaired:
            data = train_split(asked.unpaired, asked.rows, folder)
            kto = KTOTrainer(
                model=AutoModelForCausalLM.from_pretrained(asked.model),
                ref_model=AutoModelForCausalLM.from_pretrained(asked.model),
                args=KTOConfig(**settings(folder, asked.steps)),
                processing_class=tokenizer,
                train_dataset=data,
            )
            kto.remove_callback(PrinterCallback)
            kto.train()
            told("KTOTrainer", data.num_rows, kto.state.log_history, ("rewards/margins",))


if __name__ == "__main__":
    main()
