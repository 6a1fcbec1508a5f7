"""A warm process that forks a twin trainer per request: `warm_twin.py SOCKET`. Checks of data are the real ones.

It is asked for a run as the real one is.
"""

import sys
from pathlib import Path

import finetune.check
from finetune.__main__ import main as run_real
from finetune.spec import Kind, RunSpec
from serving.launch import forks
from tests.hub.runs import twin_trainer

_USED_BY_CHECKS = finetune.check  # imported before the forks, as the real one imports its libraries


def run_spec(arguments: list[str]) -> int:
    """Run one specification: a check for real, all else by the twin."""
    spec = RunSpec.from_json(Path(arguments[0]).read_text())
    if spec.kind is Kind.CHECK:
        return run_real(arguments)
    return twin_trainer.main(Path(arguments[0]), Path(arguments[1]))


if __name__ == "__main__":
    forks.serve(forks.listen(Path(sys.argv[1])))
    sys.exit(run_spec(sys.argv[1:]))
