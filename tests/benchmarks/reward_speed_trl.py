"""TRL's side of reward_speed.py: runs in TRL's environment and imports nothing of Concord.

    python reward_speed_trl.py FOLDER CASE plain|defaults|tuned|compiled|quality|first-step

It gets the ids that Concord trains on, as TRL's own prepared columns. Gradient checkpointing is
left off except with its defaults: it costs a third of the speed.
"""

import json
import resource
import shutil
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import RewardConfig, RewardTrainer

TUNED = {
    "bf16": True,
    "gradient_checkpointing": False,
    "train_sampling_strategy": "group_by_length",
    "remove_unused_columns": False,  # the lengths would go with them
    "optim": "adamw_torch_fused",
}
SETTINGS = {
    "plain": {"bf16": False, "gradient_checkpointing": False},
    "defaults": {},
    "tuned": TUNED,
    "compiled": {**TUNED, "torch_compile": shutil.which("g++") is not None},
    "quality": {
        **TUNED,
        "train_sampling_strategy": "sequential",
        "lr_scheduler_type": "constant",
        "learning_rate": 1e-4,
    },
    "first-step": {"bf16": False, "gradient_checkpointing": False},
}


class FirstStepEnds(TrainerCallback):
    """Notes when the first step is over: compilation lies before."""

    at = 0.0

    def on_step_end(self, args, state, control, **kwargs):
        self.at = self.at or time.perf_counter()


def main() -> None:
    folder, case, setting = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    lines = (folder / f"{case}.jsonl").read_text(encoding="utf-8").splitlines()
    comparisons = [json.loads(line) for line in lines]
    rows = [
        {
            "chosen_ids": each["rows"][better],
            "rejected_ids": each["rows"][worse],
            "length": max(len(each["rows"][better]), len(each["rows"][worse])),
        }
        for each in comparisons
        for better, worse in each["pairs"]
    ]
    pieces = 1 if case != "rankings" else round(len(rows) / len(comparisons))  # 16 pairs in each
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    clock = FirstStepEnds()
    config = RewardConfig(
        output_dir=str(folder / "trl-out"),
        per_device_train_batch_size=16,
        gradient_accumulation_steps=pieces,
        num_train_epochs=1,
        max_length=512,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **SETTINGS[setting],
    )
    trainer = RewardTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    if setting == "first-step":
        batch = trainer.data_collator([trainer.train_dataset[at] for at in range(16)])
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        named = dict(trainer.model.named_parameters())
        names = sorted(name for name, p in named.items() if p.grad is not None)
        gradient = torch.cat([named[name].grad.flatten() for name in names])
        torch.save(gradient, folder / "first-step.pt")
        print(json.dumps({"loss": loss.item()}))
        return
    began = time.perf_counter()
    trainer.train()
    ended = time.perf_counter()
    if setting == "quality":
        trainer.save_model(folder / "trl-quality")
    steps = trainer.state.global_step
    compiled = bool(SETTINGS[setting].get("torch_compile"))
    per_usual_step = (ended - clock.at) / max(1, steps - 1)
    warm_up = clock.at - began - per_usual_step if compiled else 0.0
    print(
        json.dumps(
            {
                "comparisons": len(comparisons),
                "seconds": ended - began - warm_up,
                "warm_up_seconds": warm_up,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
