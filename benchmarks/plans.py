"""How fast and how lean a plan is: `python -m benchmarks.plans [--rows N …]` prints rows/s and peak memory by rows.

It leaves what a plan says to the tests. Each plan is made by the real trainer process for a tiny base whose tokenizer
was trained on rows of the same kind, so that a row has as many tokens as with a base in use.
"""

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
from itertools import islice
from pathlib import Path

from benchmarks.datasets import list_rows, run_trainer
from finetune.spec import Base, Data, Kind, RunSpec
from tests.finetune.tiny_base import build_base

_HELD_ROWS = 500
_TOKENIZER_ROWS, _TOKENS = 5_000, 8_000


def measure(base: Path, rows: int, folder: Path) -> dict[str, object]:
    """Plan so many rows in a process of its own."""
    train, valid = folder / "train.jsonl", folder / "valid.jsonl"
    with train.open("w", encoding="utf-8") as stream, valid.open("w", encoding="utf-8") as held:
        for number, (_, question, answer) in enumerate(list_rows(rows + _HELD_ROWS)):
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer or "无"}]
            target = held if number < _HELD_ROWS else stream
            target.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    spec = RunSpec(kind=Kind.PLAN, run_id="bench", base=Base(str(base)), data=Data(train=str(train), valid=str(valid)))
    out = folder / f"out-{rows}"
    figures = run_trainer(spec, out, rows=rows)
    plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    return figures | {"tokens_per_row": round(plan["tokens_per_epoch"] / rows, 1), "steps": plan["steps"]}


def main() -> int:
    """Print one line per number of rows and one JSON object last; exit 1 if a plan needed more than 1 GiB."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000], help="training rows, a plan each")
    chosen = options.parse_args()
    found = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        texts = (f"{question}{answer}" for _, question, answer in islice(list_rows(_TOKENIZER_ROWS), _TOKENIZER_ROWS))
        base = build_base(folder / "base", texts=texts, tokens=_TOKENS)
        for rows in chosen.rows:
            found.append(measure(base, rows, folder))
            print(found[-1], flush=True)
    load = os.getloadavg()
    print(json.dumps({"plans": found, "cores": os.cpu_count(), "load": load, "python": platform.python_version()}))
    return 0 if all(one["within_1_gib"] for one in found) else 1


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
