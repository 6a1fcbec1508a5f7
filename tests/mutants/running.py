"""Makes each mutant in a copy of the tree and runs the test that must fail, in a process forked from a warm one.

It leaves the mutants to `tests.mutants.catalogue`. What others wrote is imported once; our own modules are imported
anew by each child from the copy, compiled before but for the one that was edited.
"""

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("hub", "serving", "finetune", "registry", "marketplace_ui", "examples", "benchmarks", "tests")
FILES = ("setup.cfg", "pyproject.toml")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "node_modules", "dist", "*.sqlite3")
SHARED = ("sqlalchemy.orm", "sqlalchemy.dialects.postgresql.psycopg", "hypothesis.stateful", "safetensors.numpy")
SHARED += ("flask_openapi3.openapi", "alembic.command", "typer.testing")
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


def import_shared() -> None:
    """Import what every child needs of others' code, so that no child does."""
    for name in SHARED:
        importlib.import_module(name)


def check_sound(tree: Path, mutants: Sequence[Mutant]) -> None:
    """Pass if every test passes without a mutant; leaves the compiled modules for the children to come.

    Raises:
        UnusableMutantError: one fails anyway, so its failing would prove nothing.
    """
    for postgresql in (False, True):
        tests = sorted({mutant.test for mutant in mutants if mutant.postgresql is postgresql})
        status, printed = _run_tests(tree, tests, postgresql=postgresql, compiling=True) if tests else (0, "")
        if status != 0:
            raise UnusableMutantError(f"the tests fail without any mutant:\n{printed[-2000:]}")


def try_mutant(tree: Path, mutant: Mutant) -> Verdict:
    """Make the edit, run the test, take the edit back.

    Raises:
        UnusableMutantError: the text to replace does not stand once in the file, or the test did not run.
    """
    path = tree / mutant.file
    source, times = path.read_text(), path.stat()
    if source.count(mutant.old) != 1:
        raise UnusableMutantError(f"{mutant.name}: its text stands {source.count(mutant.old)} times in {mutant.file}")
    begin = time.monotonic()
    try:
        path.write_text(source.replace(mutant.old, mutant.new))
        # Another second than that of the compiled module, so that Python reads the source.
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 10**10))
        status, printed = _run_tests(tree, [mutant.test], postgresql=mutant.postgresql, compiling=False)
    finally:
        path.write_text(source)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    if status not in (0, FAILED):
        raise UnusableMutantError(f"{mutant.name}: pytest ended with {status}:\n{printed[-2000:]}")
    return Verdict(mutant, status == FAILED, time.monotonic() - begin)


def _run_tests(tree: Path, tests: Sequence[str], *, postgresql: bool, compiling: bool) -> tuple[int, str]:
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            _become_pytest(tree, tests, output.fileno(), postgresql=postgresql, compiling=compiling)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode(errors="replace")


def _become_pytest(tree: Path, tests: Sequence[str], output: int, *, postgresql: bool, compiling: bool) -> None:
    status = -1
    try:
        signal.alarm(LIMIT_S)  # ends the process: a test that hangs is no verdict
        for stream in (1, 2):
            os.dup2(output, stream)
        for name in [name for name in sys.modules if name.partition(".")[0] in COPIED]:
            del sys.modules[name]
        sys.path[:] = [str(tree), *(entry for entry in sys.path if entry and Path(entry).resolve() != ROOT)]
        sys.dont_write_bytecode = not compiling
        os.chdir(tree)
        quiet = ["-x", "-q", "-p", "no:cacheprovider", "--no-header"]
        words = [*quiet, "-W", "ignore::pytest.PytestAssertRewriteWarning", *tests]
        status = int(pytest.main(words if postgresql else [*words, "-k", "not postgresql"]))
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  the child must never return into the parent's code
        traceback.print_exc()
    finally:
        os._exit(status if status >= 0 else 70)
