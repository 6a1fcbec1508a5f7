"""Runs inside TRL's environment: fine-tunes once with the settings given and writes the adapter and its seconds.

    python in_trl.py '{"base": …, "train": …, "out": …, "settings": {…}}'

Only the loop between the trainer's begin and end is timed. Scoring the adapter is left to `held_out`.
"""

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer


class Stopwatch(TrainerCallback):
    """Wall and processor seconds from the first step's beginning to the last step's end."""

    def on_train_begin(self, *_args, **_kwargs):
        self.began_s, self.began_cpu_s = time.monotonic(), time.process_time()

    def on_train_end(self, *_args, **_kwargs):
        self.loop_s, self.cpu_s = time.monotonic() - self.began_s, time.process_time() - self.began_cpu_s


def main(asked: dict) -> None:
    torch.set_num_threads(asked["threads"])
    rows = [json.loads(line)["messages"] for line in Path(asked["train"]).read_text().splitlines()]
    data = Dataset.from_list([{"prompt": row[:-1], "completion": row[-1:]} for row in rows])
    watch = Stopwatch()
    settings = dict(asked["settings"])
    trainer = SFTTrainer(
        model=asked["base"],
        args=SFTConfig(
            output_dir=asked["out"],
            num_train_epochs=asked["epochs"],
            learning_rate=asked["learning_rate"],
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.1},
            warmup_steps=asked["warmup_steps"],
            seed=asked["seed"],
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            **settings,
        ),
        train_dataset=data,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=asked["rank"], lora_alpha=asked["alpha"], target_modules="all-linear"
        ),
        callbacks=[watch],
    )
    trainer.train()
    trainer.save_model(asked["out"])
    (Path(asked["out"]) / "run.json").write_text(
        json.dumps({"loop_s": watch.loop_s, "cpu_s": watch.cpu_s, "steps": trainer.state.global_step})
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
