"""`python -m serving.gateway`: starts one gateway process.

Options are explained in `settings`, everything else in `server`.
"""

from __future__ import annotations

import gc
import resource
import sys

import uvloop

from serving.contract import ContractError
from serving.gateway.http_server import ListenError
from serving.gateway.journal_file import JournalError
from serving.gateway.local_pool import ReplicaError
from serving.gateway.logs import configure_logs
from serving.gateway.processes import find_left, run_processes
from serving.gateway.server import run_gateway
from serving.gateway.settings import read_settings
from serving.gateway.shared_table import TableFullError

# Requests leave few cycles behind; the default of 700 objects would look for them several times in each.
_GC_THRESHOLD = (20_000, 20, 50)
_OPEN_FILES = 65_536


def main(argv: list[str]) -> int:
    """Run until told to stop; 0 for a clean stop, 1 with one line for a failed start, 2 for usage."""
    settings = read_settings(argv)
    configure_logs(calls=settings.log_calls)
    if settings.processes > 1 or (not settings.shared_port and find_left(settings.journal_dir, settings.processes)):
        return run_processes(argv, settings.journal_dir, settings.processes)
    _allow_files()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD)
    try:
        uvloop.run(run_gateway(settings))
    except (ContractError, JournalError, ListenError, ReplicaError, TableFullError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 1
    return 0


def _allow_files() -> None:
    """Raise the soft limit of open files: each request holds two connections, and 1,024 are a usual default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
