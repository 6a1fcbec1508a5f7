"""Makes each mutant in a copy of the tree and runs the test that must fail.

It leaves the mutants to `tests.mutants.catalogue`.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.catalogue import Mutant

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("hub", "serving", "finetune", "registry", "marketplace_ui", "examples", "benchmarks", "tests")
FILES = ("setup.cfg", "pyproject.toml")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "node_modules", "dist", "*.sqlite3")
LIMIT_S = 300
FAILED = 1
"""pytest's exit status where tests ran and failed; every other one says nothing about the mutant."""


class UnusableMutantError(Exception):
    """The mutant does not fit the code any more, or its test does not run."""


@dataclass(frozen=True)
class Verdict:
    """Whether a mutant was noticed, and how long that took."""

    mutant: Mutant
    killed: bool
    seconds: float


@contextmanager
def copy_tree(place: Path) -> Iterator[Path]:
    """Yield a copy of the tree in which edits hurt nobody."""
    for name in COPIED:
        shutil.copytree(ROOT / name, place / name, ignore=LEFT_OUT)
    for name in FILES:
        shutil.copy(ROOT / name, place / name)
    yield place


def check_sound(tree: Path, mutants: Sequence[Mutant]) -> None:
    """Pass if every test passes without a mutant.

    Raises:
        UnusableMutantError: one fails anyway, so its failing would prove nothing.
    """
    status, printed = _run_tests(tree, sorted({mutant.test for mutant in mutants}))
    if status != 0:
        raise UnusableMutantError(f"the tests fail without any mutant:\n{printed[-2000:]}")


def try_mutant(tree: Path, mutant: Mutant) -> Verdict:
    """Make the edit, run the test, take the edit back.

    Raises:
        UnusableMutantError: the text to replace does not stand once in the file, or the test did not run.
    """
    path = tree / mutant.file
    source = path.read_text()
    if source.count(mutant.old) != 1:
        raise UnusableMutantError(f"{mutant.name}: its text stands {source.count(mutant.old)} times in {mutant.file}")
    path.write_text(source.replace(mutant.old, mutant.new))
    begin = time.monotonic()
    try:
        status, printed = _run_tests(tree, [mutant.test])
    finally:
        path.write_text(source)
    if status not in (0, FAILED):
        raise UnusableMutantError(f"{mutant.name}: pytest ended with {status}:\n{printed[-2000:]}")
    return Verdict(mutant, status == FAILED, time.monotonic() - begin)


def _run_tests(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
    # No byte code is written: an edit within the same second must not meet the old one's.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    return done.returncode, done.stdout + done.stderr
