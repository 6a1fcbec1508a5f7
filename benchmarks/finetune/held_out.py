"""Prints the held-out loss of a base with one adapter: `python -m benchmarks.finetune.held_out BASE ADAPTER ROWS`.

Who trained the adapter makes no difference here; the same code scores all of them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from peft import PeftModel

from finetune.base import load_model
from finetune.evaluate import measure_losses
from finetune.loss import AnswerLoss
from finetune.token_rows import tokenize_file
from finetune.tokens import load_tokenizer


def main(base: Path, adapter: Path, rows_path: Path) -> None:
    """Print mean loss per answer token in nats."""
    tokenizer = load_tokenizer(base)
    rows = tokenize_file(tokenizer, rows_path)
    model: Any = PeftModel.from_pretrained(load_model(base, "cpu"), str(adapter)).eval()
    found = measure_losses(AnswerLoss(model), rows, batch_tokens=4096, pad_id=tokenizer.eos_token_id, device="cpu")
    print(found.mean)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
