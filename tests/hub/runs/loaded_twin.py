"""What scenes start for a trainer, loaded once and forked for each run: `loaded_twin.py SPEC OUT` is one alone.

Checks of data are the real ones, shut in as every trainer is; all else is the twin's. Forking is `serving.launch`'s.
"""

import socket
import sys
from pathlib import Path

import finetune.check
from finetune.__main__ import run_confined
from finetune.spec import Kind, RunSpec
from serving.launch import forks
from tests.hub.runs import twin_trainer
from tests.hub.runs.twin_launch import FORK_AT

_USED_BY_CHECKS = finetune.check  # imported before the forks, as the warm trainer imports its libraries


def main(arguments: list[str]) -> int:
    """Run one specification; with `--fork-at DESCRIPTOR` one in each fork."""
    if arguments[:1] == [FORK_AT]:
        forks.serve(socket.socket(fileno=int(arguments[1])))
        arguments = sys.argv[1:]
    spec_path, out = arguments
    if RunSpec.from_json(Path(spec_path).read_text(encoding="utf-8")).kind is Kind.CHECK:
        return run_confined([spec_path, out])
    return twin_trainer.main(Path(spec_path), Path(out))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
