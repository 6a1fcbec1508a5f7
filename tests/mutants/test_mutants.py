"""A few mutants are killed in every run, and all of them still fit the code."""

from pathlib import Path

import pytest

from tests.mutants.catalogue import MUTANTS, SHORT, Mutant
from tests.mutants.running import ROOT, copy_tree, try_mutant


def test_there_are_enough_with_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_still_fits_the_code(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    place, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (ROOT / place).read_text()


@pytest.mark.timeout(900)
def test_the_short_list_is_killed(tmp_path: Path) -> None:
    with copy_tree(tmp_path / "tree") as tree:
        killed = [try_mutant(tree, mutant).killed for mutant in MUTANTS if mutant.name in SHORT]
    assert killed == [True] * len(SHORT)
