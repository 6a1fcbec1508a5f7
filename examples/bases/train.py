"""Trains the demo bases from scratch and writes them in Hugging Face format: `python -m examples.bases.train OUT`.

Filing, importing and serving them are the hub's. A second run with the same sources reuses what is there.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from examples.bases.cache import BaseRecord, compute_key, find_trained, write_record
from examples.bases.recipes import DEMO_BASES, MORE_BASES, BaseRecipe

_ALL = DEMO_BASES + MORE_BASES


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the bases asked for, one after another; prints one JSON line for each."""
    parser = argparse.ArgumentParser(prog="python -m examples.bases.train", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the bases, one folder each")
    parser.add_argument("--name", choices=[recipe.name for recipe in _ALL], help="train this one only")
    options = parser.parse_args(arguments)
    for recipe in _ALL:
        if options.name == recipe.name or (options.name is None and recipe in DEMO_BASES):
            record = train_base(recipe, options.out)
            print(json.dumps(record.to_json(), ensure_ascii=False), flush=True)
    return 0


def train_base(recipe: BaseRecipe, out: Path) -> BaseRecord:
    """Train `recipe` into `out`/<folder name>, or reuse it when recipe, sources and weights are unchanged.

    A folder appears complete or not at all; a second process waits for the first.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / f".{recipe.folder_name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        key = compute_key(recipe)
        found = find_trained(recipe, out, key)
        if found is not None:
            print(f"{recipe.name}: reused from {found.path}", file=sys.stderr)
            return found
        return _train_fresh(recipe, out, key)


def _train_fresh(recipe: BaseRecipe, out: Path, key: str) -> BaseRecord:
    # Spinning OpenMP threads lose half of the speed as soon as anything else runs. Read once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from examples.bases.loop import train_model  # torch and transformers take seconds to import; a reuse needs neither

    began_s = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix=f".{recipe.folder_name}-", dir=out))
    try:
        trained = train_model(recipe, work)
        work.chmod(0o755)
        target = out / recipe.folder_name
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return write_record(
        recipe,
        out,
        key=key,
        parameters=trained.parameters,
        tokens=trained.tokens,
        loss=trained.loss,
        wall_s=time.monotonic() - began_s,
    )


if __name__ == "__main__":
    raise SystemExit(main())
