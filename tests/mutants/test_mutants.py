"""A few mutants are killed in every run, and all of them still fit the code."""

import subprocess
import sys

import pytest

from tests.mutants.catalogue import MUTANTS, SHORT
from tests.mutants.mutant import Mutant
from tests.mutants.running import ROOT


def test_there_are_enough_with_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_still_fits_the_code(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    place, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (ROOT / place).read_text()


@pytest.mark.timeout(900)
def test_the_short_list_is_killed() -> None:
    command = [sys.executable, "-m", "tests.mutants", *SHORT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert (done.returncode, done.stdout.count("killed ")) == (0, len(SHORT)), done.stdout + done.stderr
