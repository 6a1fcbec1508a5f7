"""Prints for each mutant whether its test noticed it; exits 1 where one survived.

python -m tests.mutants [NAME ...]
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant
from tests.mutants.running import UnusableMutantError, check_sound, copy_tree, import_shared, try_mutant


def main(names: list[str]) -> int:
    """Try the mutants of these names, or all."""
    wanted = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    began = time.monotonic()
    import_shared()
    with tempfile.TemporaryDirectory(prefix="guanmo-mutants-") as folder, copy_tree(Path(folder)) as tree:
        try:
            check_sound(tree, wanted)
            survivors = sum(_show(tree, mutant) for mutant in wanted)
        except UnusableMutantError as error:
            sys.stderr.write(f"tests.mutants: {error}\n")
            return 1
    spent = time.monotonic() - began
    killed = len(wanted) - survivors
    sys.stdout.write(f"{len(wanted)} mutants, {killed} killed, {survivors} survived, {spent:.0f} s\n")
    return 1 if survivors or not wanted else 0


def _show(tree: Path, mutant: Mutant) -> bool:
    verdict = try_mutant(tree, mutant)
    word = "killed" if verdict.killed else "SURVIVED"
    test = verdict.mutant.test.rpartition("/")[2]
    sys.stdout.write(f"{word:9}{verdict.seconds:6.1f} s  {verdict.mutant.name:40} {test}\n")
    sys.stdout.flush()
    return not verdict.killed


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
