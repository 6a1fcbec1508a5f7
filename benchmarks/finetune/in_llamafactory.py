"""Runs inside LLaMA-Factory's environment: fine-tunes once with the settings given, like `in_trl`.

python in_llamafactory.py '{"base": …, "train": …, "out": …, "settings": {…}}'
"""

import json
import sys
import time
from pathlib import Path

import torch
from llamafactory.train.tuner import run_exp
from transformers import TrainerCallback


class Stopwatch(TrainerCallback):
    """Wall and processor seconds from the first step's beginning to the last step's end."""

    def on_train_begin(self, *_args, **_kwargs):
        self.began_s, self.began_cpu_s = time.monotonic(), time.process_time()

    def on_train_end(self, _args, state, *_more, **_kwargs):
        self.loop_s, self.cpu_s = time.monotonic() - self.began_s, time.process_time() - self.began_cpu_s
        self.steps = state.global_step


def main(asked: dict) -> None:
    torch.set_num_threads(asked["threads"])
    folder = Path(asked["train"]).parent
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    described = {
        "file_name": Path(asked["train"]).name,
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": tags,
    }
    (folder / "dataset_info.json").write_text(json.dumps({"rows": described}))
    watch = Stopwatch()
    run_exp(
        {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": asked["base"],
            "dataset_dir": str(folder),
            "dataset": "rows",
            "finetuning_type": "lora",
            "lora_rank": asked["rank"],
            "lora_alpha": asked["alpha"],
            "lora_target": "all",
            "cutoff_len": 1024,
            "output_dir": asked["out"],
            "overwrite_cache": True,
            "num_train_epochs": asked["epochs"],
            "learning_rate": asked["learning_rate"],
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
            "warmup_steps": asked["warmup_steps"],
            "seed": asked["seed"],
            "save_strategy": "no",
            "report_to": "none",
            "logging_steps": 10,
            "disable_tqdm": True,
            "use_cpu": True,
            **asked["settings"],
        },
        callbacks=[watch],
    )
    (Path(asked["out"]) / "run.json").write_text(
        json.dumps({"loop_s": watch.loop_s, "cpu_s": watch.cpu_s, "steps": watch.steps})
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
