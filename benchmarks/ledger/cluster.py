"""A private PostgreSQL with fsync on, and pgbench's TPC-B-like script on it, the yardstick of every other figure.

It leaves the ledger's own work to `posting` and `ingest`.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import create_engine, text

from hub.tables import import_tables, metadata
from tests.hub.money.postgres import find_binaries, run_server

CLIENTS = 4
SCALE = 10
_TPS = re.compile(r"tps = ([0-9.]+) \(without initial connection time\)")


@dataclass(frozen=True)
class Cluster:
    """A running server: `url` of the hub's tables, `socket` for pgbench."""

    url: str
    socket: str

    def measure_tpcb(self, seconds: float) -> float:
        """Return transactions a second of pgbench's TPC-B-like script with prepared statements."""
        printed = self.pgbench("-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", str(max(1, round(seconds))))
        found = _TPS.search(printed)
        if found is None:
            raise RuntimeError(f"pgbench printed no rate: {printed}")
        return float(found[1])

    def pgbench(self, *options: str) -> str:
        """Run pgbench on its own database and return what it printed."""
        command = [str(find_binaries() / "pgbench"), "-h", self.socket, "-U", "guanmo", *options, "tpcb"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout

    def count_deadlocks(self) -> int:
        """Return how many deadlocks the server has broken in the hub's database."""
        engine = create_engine(self.url)
        with engine.connect() as connection:
            query = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            count = int(connection.execute(query).scalar_one())
        engine.dispose()
        return count


@contextmanager
def run_cluster() -> Iterator[Cluster]:
    """Yield a fresh cluster with the hub's tables, and pgbench's at scale 10."""
    with run_server(durable=True) as template:
        admin = create_engine(template.format(database="postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            for name in ("tpcb", "hub"):
                connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        cluster = Cluster(template.format(database="hub"), template.rpartition("host=")[2])
        cluster.pgbench("-i", "-q", "-s", str(SCALE))
        import_tables()
        engine = create_engine(cluster.url)
        with engine.begin() as connection:
            metadata.create_all(connection)
        engine.dispose()
        yield cluster
