"""`python -m examples.city_year`: a simulated year of 300 firms, verified from the raw meter to the last fen.

    python -m examples.city_year [--firms N] [--months N] [--seed N] [--database URL] [--out FOLDER]

Prints what happened month by month, the verifier's lines, and one JSON object as its last line. Exits 1 where the
verifier or the ledger finds a fen amiss. `--out` keeps the export; without it nothing stays.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from examples.city_year.story import Plan, simulate
from hub.database import open_sessions
from hub.tables import import_tables, metadata


def main() -> int:
    """Simulate, verify, report."""
    parser = argparse.ArgumentParser(prog="python -m examples.city_year", description=__doc__)
    parser.add_argument("--firms", type=int, default=Plan.firms)
    parser.add_argument("--months", type=int, default=Plan.months)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--database", help="URL of an empty database; a fresh SQLite file if left out")
    parser.add_argument("--out", type=Path, help="new folder that keeps the export and the signed checkpoints")
    chosen = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="city-year-") as folder:
        home = Path(folder)
        sessions = open_sessions(chosen.database or f"sqlite:///{home / 'city.sqlite3'}")
        import_tables()
        with sessions.engine.begin() as connection:
            metadata.create_all(connection)
        outcome = simulate(sessions, home, Plan(chosen.firms, chosen.months, chosen.seed), _tell)
        sessions.close()
        if chosen.out:
            shutil.copytree(home / "export", chosen.out / "export")
            shutil.copytree(home / "audit", chosen.out / "audit")
    _tell("\n".join(outcome.lines))
    seconds = round(time.monotonic() - started, 1)
    _tell(json.dumps(outcome.totals | {"seconds": seconds}, ensure_ascii=False, sort_keys=True))
    sound = outcome.verified and outcome.totals["ledger_sum_fen"] == outcome.totals["audit_missing"] == 0
    return 0 if sound else 1


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
